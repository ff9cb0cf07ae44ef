"""``ckptkit ls --graph``: the objects of a checkpoint, as a tree, or those that a path leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from ckptkit.cli.ls import PLACE, Row, place_of
from ckptkit.cli.text import Column, printable, write_table
from ckptkit.errors import EditError
from ckptkit.globs import OBJECT
from ckptkit.sizes import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.checkpoint import Checkpoint
    from ckptkit.cli.session import Session
    from ckptkit.structure import Objects, StoredObject

COLUMNS: Final = (
    Column("object"),
    Column("dtype"),
    Column("shape"),
    Column("full name"),
    Column("key"),
)
_BETWEEN: Final = "/.ATTRIBUTES/"


class Kept(NamedTuple):
    """A value that an object keeps.

    Attributes:
        attribute: What the object calls it.
        full_name: What the variable is called in the program.
        key: The name of the tensor.
        row: The tensor; None where the checkpoint lacks it.
    """

    attribute: str
    full_name: str
    key: str
    row: Row | None

    def cells(self, *, long: bool) -> tuple[str, ...]:
        """Return it as text."""
        if self.row is None:
            place = ("",) * len(PLACE) if long else ()
            return ("missing", "", self.full_name, self.key, *place)
        _, *_, dtype, shape, _ = self.row.cells(long=False)
        place = self.row.cells(long=True)[-len(PLACE) :] if long else ()
        return (dtype, shape, self.full_name, self.key, *place)


def kept(catalog: Catalog, item: StoredObject) -> list[Kept]:
    """Return the values that an object keeps."""
    found = []
    for attribute in item.attributes:
        name, full_name, key, tensors = attribute
        if not tensors:
            found.append(Kept(name, full_name, key, None))
        for tensor in tensors:
            number, columns = catalog.row(tensor), catalog.columns
            row = Row(tensor, columns.spec(number), columns, number)
            found.append(Kept(name, full_name, tensor, row))
    return found


def list_objects(
    session: Session, checkpoint: Checkpoint, patterns: Sequence[str], *, long: bool
) -> None:
    """Print the tree of objects, or the objects to which patterns lead.

    Raises:
        EditError: The checkpoint says nothing of objects, or a pattern leads to none.
        CorruptError: What it says does not read.
    """
    objects = checkpoint.graph
    if objects is None:
        msg = "this checkpoint says nothing of objects; ls without --graph lists its tensors"
        raise EditError(msg, path=checkpoint.path)
    chosen = list(_matching(objects, patterns)) if patterns else objects
    if session.json:
        from ckptkit.cli.jsontext import write_listing

        head = {"format": checkpoint.format, "path": checkpoint.path}
        rows = (row for item in chosen for row in _to_dicts(checkpoint.catalog, item))
        write_listing(head, "objects", rows)
        return
    lines = _tree(checkpoint, objects, long=long)
    if patterns:
        lines = _flat(checkpoint, chosen, long=long)
    write_table((*COLUMNS, *PLACE) if long else COLUMNS, lines)
    told = f"{counted(len(chosen), 'object')}; {place_of(checkpoint)}"
    click.echo(printable(told))


def _matching(objects: Objects, patterns: Sequence[str]) -> Iterator[StoredObject]:
    found: dict[int, StoredObject] = {}
    for pattern in patterns:
        chosen = objects.matching(pattern.removeprefix(OBJECT))
        if not chosen:
            msg = f"no path like {pattern!r} leads to an object; ls --graph shows the tree"
            raise EditError(msg)
        found.update((item.node, item) for item in chosen)
    return iter(sorted(found.values(), key=lambda item: item.node))


def _tree(checkpoint: Checkpoint, objects: Objects, *, long: bool) -> Iterator[tuple[str, ...]]:
    for line in objects.lines():
        name = line.name if line.depth or line.name else "(root)"
        if line.variable is not None:
            name = f"{name} of {line.variable or '(root)'}"
        label = "  " * line.depth + name
        if line.item is None:
            yield _alias(label, line.target, long=long)
        else:
            yield from _rows(checkpoint, label, "  " * line.depth, line.item, long=long)


def _flat(
    checkpoint: Checkpoint, chosen: Iterable[StoredObject], *, long: bool
) -> Iterator[tuple[str, ...]]:
    for item in chosen:
        label = item.path
        if label is None:
            label = f"node {item.node}"
            for slot in item.slots[:1]:
                label = f"{slot.optimizer}: {slot.name} of {slot.variable}"
        label = label or "(root)"
        yield from _rows(checkpoint, label, "", item, long=long)
        for alias in item.aliases:
            yield _alias(alias, label, long=long)
        if item.more_aliases:
            yield _alias(f"{item.more_aliases:,} more paths", label, long=long)


def _alias(label: str, target: str | None, *, long: bool) -> tuple[str, ...]:
    blank = ("",) * (len(COLUMNS) - 1 + (len(PLACE) if long else 0))
    return (f"{label} -> {target or '(root)'}", *blank)


def _rows(
    checkpoint: Checkpoint, label: str, indent: str, item: StoredObject, *, long: bool
) -> Iterator[tuple[str, ...]]:
    found = kept(checkpoint.catalog, item)
    if len(found) == 1:
        yield (label, *found[0].cells(long=long))
        return
    yield (label, *("",) * (len(COLUMNS) - 1 + (len(PLACE) if long else 0)))
    for one in found:
        name = one.key.rpartition(_BETWEEN)[2] or one.attribute
        yield (f"{indent}  .{name}", *one.cells(long=long))


def _to_dicts(catalog: Catalog, item: StoredObject) -> Iterator[dict[str, Any]]:
    """Yield an object once for every value that it keeps, or once if it keeps none."""
    head: dict[str, Any] = {
        "node": item.node,
        "path": item.path,
        "aliases": list(item.aliases),
        "slots": [slot._asdict() for slot in item.slots],
    }
    if item.more_aliases:
        head["more_aliases"] = item.more_aliases
    nothing = Kept("", "", "", None)
    for one in kept(catalog, item) or [nothing]:
        spec = None if one.row is None else one.row.spec
        yield {
            **head,
            "attribute": one.attribute or None,
            "full_name": one.full_name or None,
            "key": None if one is nothing else one.key,
            "dtype": None if spec is None else spec.dtype,
            "shape": None if spec is None else list(spec.shape),
        }
