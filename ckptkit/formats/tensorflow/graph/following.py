"""What became of every tensor of a catalog in another one that edits made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckptkit.catalog import Catalog


class Changes(NamedTuple):
    """Names that differ between two catalogs.

    Attributes:
        moved: The name afterwards of what has another one, by the name before.
        gone: Names before of what is there no longer.
        added: Names afterwards of what was not there.
    """

    moved: dict[str, str]
    gone: dict[str, None]
    added: list[str]


def changes(before: Catalog, after: Catalog) -> Changes | None:
    """Follow tensors by the row that holds them; None where every name has the row that it had.

    Of several names for one row, those that were there stay. A new tensor under the name of one
    that is gone takes its place.
    """
    old, new = before.names, after.names
    same = before.rows is after.rows or list(before.rows) == list(after.rows)
    if same and (old is new or list(old) == list(new)):
        return None
    held, holds = _identities(before), _identities(after)
    was, will = dict(zip(old, held, strict=True)), dict(zip(new, holds, strict=True))
    left: dict[int, list[str]] = {}
    for name, key in was.items():
        if will.get(name) != key:
            left.setdefault(key, []).append(name)
    moved: dict[str, str] = {}
    fresh: list[str] = []
    for name, key in will.items():
        if was.get(name) == key:
            continue
        names = left.get(key)
        if names:
            moved[names.pop(0)] = name
        else:
            fresh.append(name)
    gone = dict.fromkeys(name for names in left.values() for name in names)
    added = [name for name in fresh if name not in gone]
    for name in fresh:
        gone.pop(name, None)
    return Changes(moved, gone, added)


def _identities(catalog: Catalog) -> Sequence[int]:
    """Return for every name what it stands for: a row, or below 0 a tensor that has none."""
    rows, single = catalog.rows, catalog.single
    if not any(catalog.rows[at] < 0 for at in map(catalog.position, single)):
        return rows
    return [
        row if row >= 0 else -1 - id(single[name])
        for name, row in zip(catalog.names, rows, strict=True)
    ]
