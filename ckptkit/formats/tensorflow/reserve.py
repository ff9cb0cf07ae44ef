"""Giving tensors their places: in new files, beside linked ones, at the end, or where they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ckptkit.errors import EditError
from ckptkit.formats.items import NEW, Holds, Items
from ckptkit.formats.tensorflow.dtypes import CODES
from ckptkit.formats.tensorflow.paths import (
    INDEX,
    VARIABLES,
    prefix_of,
    shard_path,
    unused_shards,
)
from ckptkit.formats.tensorflow.payload import encode
from ckptkit.formats.tensorflow.savedmodel import check_program
from ckptkit.formats.tensorflow.savedmodel import companions as others
from ckptkit.formats.tensorflow.texts import with_texts
from ckptkit.formats.tensorflow.v1.paths import is_first_format
from ckptkit.globs import glob_pattern
from ckptkit.placement import Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.model import Source
    from ckptkit.placement import Int64s, Placement, Target

MISSING: Final = 4096
"""Shards that may be missing where a bundle is changed in place, since no tensor is in them."""


KERAS_ENDINGS: Final = (".keras", ".h5", ".hdf5", ".weights.json")
"""How names end of what is no bundle."""


def reserve(before: Catalog, after: Catalog, source: Source | None, target: Target) -> Placement:
    """Give every tensor of ``after`` its place in the files of the target.

    Args:
        before: The catalog as it was scanned, which the files around it still describe.
        after: The catalog to be stored.
        source: Where ``before`` is, None for a checkpoint made from scratch.
        target: The new prefix, or the new folder of a SavedModel, and the way of writing.

    Raises:
        EditError: The SavedModel around the bundle would contradict the edit, or it cannot be
            written that way.
        UnsupportedError: A dtype that a bundle cannot hold.
    """
    destination = target.path if target.in_place else _destination(target.path)
    prefix, folder = destination, None
    companions: tuple[tuple[str, str], ...] = ()
    if source is not None and source.folder is not None:
        suspects = [after.names[at] for at in _suspects(after)]
        check_program(before, after, suspects, source.folder)
        folder = os.path.abspath(source.folder) if target.in_place else destination
        prefix = os.path.join(folder, VARIABLES)
        companions = tuple(others(source.folder, folder, in_place=target.in_place))
    items = Items(with_texts(after), Holds("a TensorFlow checkpoint", CODES, encode))
    places = {
        "copy": lambda: _anew(after, items, target.layout, prefix, source),
        "link": lambda: _linked(before, items, prefix),
        "append": lambda: _appended(before, items, prefix),
        "patch": lambda: _patched(before, after, items, prefix),
    }[target.how]()
    order = places.order
    template = target.how == "copy" and source is not None and after is before
    return items.placed(
        order,
        places.shard,
        places.offset,
        places.stays,
        files=places.files,
        file_sizes=places.file_sizes,
        bases=places.bases,
        index=prefix + INDEX,
        folder=folder,
        companions=companions,
        template=source.path + INDEX if source is not None and template else None,
    )


def _destination(path: str) -> str:
    """Return the prefix of a new bundle.

    Raises:
        EditError: Its name says that it is something else, or is taken.
    """
    prefix = prefix_of(path)
    if prefix.endswith(KERAS_ENDINGS):
        msg = (
            "a file of this name is one of Keras, and of a TensorFlow checkpoint another one is"
            " made; give a prefix, which has no such ending"
        )
        raise EditError(msg, path=path)
    if is_first_format(prefix):
        msg = (
            "the destination exists: a checkpoint of TensorFlow's first format has this name;"
            " choose another one"
        )
        raise EditError(msg, path=path)
    return prefix


class _Places(NamedTuple):
    """The files, and for every item in ``order`` its place; see :class:`Placement`."""

    files: tuple[str, ...]
    file_sizes: tuple[int, ...]
    bases: tuple[str | None, ...]
    order: Int64s
    shard: Int64s
    offset: Int64s
    stays: NDArray[np.bool_]


# --- in new files ------------------------------------------------------------------------------


def _anew(
    after: Catalog, items: Items, layout: Layout, prefix: str, source: Source | None
) -> _Places:
    """Lay all items out densely, in the order in which they stood."""
    order = _as_they_stood(items)
    shard, count = _cut(after, items, order, layout)
    if source is not None and layout == Layout() and _lacks_shards(after, source):
        # The files that stood for nothing, and are not there, may be very many.
        used, shard = np.unique(shard, return_inverse=True)
        count = max(len(used), 1)
    by_shard = np.argsort(shard, kind="stable")
    order, shard = order[by_shard], shard[by_shard]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(items.size[order])])
    bases = ends[np.searchsorted(shard, np.arange(count + 1))]
    return _Places(
        _shard_paths(prefix, count),
        tuple(int(n) for n in np.diff(bases)),
        (None,) * count,
        order,
        shard,
        ends[:-1] - bases[shard],
        np.zeros(len(order), bool),
    )


def _as_they_stood(items: Items) -> Int64s:
    # An empty tensor stood before the one at the same offset; new ones keep the order given.
    tie = np.where(items.old_shard == NEW, 0, items.size)
    return np.lexsort((tie, items.old_offset, items.old_shard))


def _shard_paths(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(shard_path(prefix, number, count) for number in range(count))


def _cut(catalog: Catalog, items: Items, order: Int64s, layout: Layout) -> tuple[Int64s, int]:
    """Return the shard of every item in ``order``, and the number of shards."""
    size = items.size[order]
    if layout.rules:
        return _by_rule(catalog, items.tensor[order], layout.rules)
    if layout.max_shard_bytes is not None:
        return _by_size(size, layout.max_shard_bytes)
    if layout.shards is not None:
        middle = np.cumsum(size) - size / 2
        total = max(int(size.sum()), 1)
        number = np.minimum(middle * layout.shards // total, layout.shards - 1)
        return number.astype(np.int64), layout.shards
    count = max(catalog.columns.shards, 1)
    return np.minimum(items.old_shard[order], count - 1), count


def _lacks_shards(catalog: Catalog, source: Source) -> bool:
    """Tell whether some of the shards that no tensor is in are missing."""
    columns = catalog.columns
    used = columns.files.values()
    if columns.shards <= len(used):
        return False
    return len(used) + len(unused_shards(source.path, columns.shards, used)) < columns.shards


def _by_size(sizes: Int64s, limit: int) -> tuple[Int64s, int]:
    shard, room = 0, limit
    numbers = np.zeros(len(sizes), np.int64)
    for at, size in enumerate(sizes.tolist()):
        if size > room and room < limit:
            shard, room = shard + 1, limit
        numbers[at] = shard
        room -= size
    return numbers, shard + 1


def _by_rule(catalog: Catalog, tensor: Int64s, rules: tuple[str, ...]) -> tuple[Int64s, int]:
    matchers = [glob_pattern(rule).fullmatch for rule in rules]
    shards = [
        next((n for n, matches in enumerate(matchers) if matches(name)), len(rules))
        for name in catalog.names
    ]
    for number, rule in enumerate(rules):
        if number not in shards:
            msg = f"the shard rule {rule!r} matches no tensor that an earlier rule left"
            raise EditError(msg)
    numbers = np.array(shards, np.int64)[tensor]
    return numbers, max(shards, default=0) + 1


# --- beside what is there ----------------------------------------------------------------------


def _linked(before: Catalog, items: Items, prefix: str) -> _Places:
    """Keep the shards that are still needed, and add one for what is new."""
    stays = _stays(items)
    files = before.columns.files
    used = [number for number in files if np.any(items.old_shard[stays] == number)]
    sizes = [os.path.getsize(files[number]) for number in used]
    bases: list[str | None] = [files[number] for number in used]
    renumbered = np.searchsorted(np.array(used, np.int64), items.old_shard)
    added = int(items.size[~stays].sum())
    if added or not used:
        bases.append(None)
        sizes.append(0)
    last = len(bases) - 1
    order, shard, offset = _after(items, stays, renumbered, last, sizes[last])
    sizes[last] += added
    files_of = _shard_paths(prefix, len(bases))
    return _Places(files_of, tuple(sizes), tuple(bases), order, shard, offset, stays[order])


def _appended(before: Catalog, items: Items, prefix: str) -> _Places:
    """Keep everything where it is, and put what is new at the end of the last shard.

    Raises:
        EditError: There is no shard, or far too many are missing.
    """
    stays = _stays(items)
    paths, sizes = _present(before, prefix)
    last = max(before.columns.files, default=len(paths) - 1)
    if not os.path.exists(paths[last]):
        msg = "no tensor has bytes, so that there is nothing to append to; write a copy"
        raise EditError(msg, path=paths[last])
    order, shard, offset = _after(items, stays, items.old_shard, last, sizes[last])
    sizes[last] += int(items.size[~stays].sum())
    return _Places(paths, tuple(sizes), paths, order, shard, offset, stays[order])


def _present(before: Catalog, prefix: str) -> tuple[tuple[str, ...], list[int]]:
    """Return the paths of all shards, and how long those are that tensors are in.

    Raises:
        EditError: More shards are missing than any save would lack.
    """
    count, used = max(before.columns.shards, 1), before.columns.files
    if count > len(used) + MISSING:
        there = len(used) + len(unused_shards(prefix, count, used.values()))
        if count > there + MISSING:
            msg = (
                f"the header says {count:,} shards, of which {there:,} are there; write a copy,"
                " which has no others"
            )
            raise EditError(msg, path=prefix + INDEX)
    paths = _shard_paths(prefix, count)
    sizes = [0] * len(paths)
    for number in used:
        sizes[number] = os.path.getsize(paths[number])
    return paths, sizes


def _stays(items: Items) -> NDArray[np.bool_]:
    """Tell which items keep their bytes: of several names for the same ones, only the first."""
    kept = items.source >= 0
    stays = np.zeros(len(kept), bool)
    at = np.flatnonzero(kept)
    stays[at[np.unique(items.row[at], return_index=True)[1]]] = True
    return stays


def _after(
    items: Items, stays: NDArray[np.bool_], old_shard: Int64s, last: int, end: int
) -> tuple[Int64s, Int64s, Int64s]:
    """Place new items from the byte ``end`` of the shard ``last`` on; return order and places."""
    order = _as_they_stood(items)
    new = order[~stays[order]]
    shard, offset = np.where(stays, old_shard, last), items.old_offset.copy()
    offset[new] = end + np.cumsum(items.size[new]) - items.size[new]
    # Empty ones at the end of a shard come after what stays there.
    order = np.lexsort((items.size, ~stays, offset, shard))
    return order, shard[order], offset[order]


def _patched(before: Catalog, after: Catalog, items: Items, prefix: str) -> _Places:
    """Keep everything where it is; what is changed takes the place of what was there.

    Raises:
        EditError: A tensor has no place, or another size or shape than its place; or far too many
            shards are missing.
    """
    _check_places(before, after)
    paths, sizes = _present(before, prefix)
    order = np.lexsort((items.size, items.old_offset, items.old_shard))
    shard, offset = items.old_shard[order], items.old_offset[order]
    return _Places(paths, tuple(sizes), paths, order, shard, offset, items.source[order] >= 0)


def _suspects(after: Catalog) -> list[int]:
    """Return where a dtype or a shape may have changed; of recipes that do it, the first tensor."""
    found = set(map(after.position, after.single))
    if after.bulk is not None:
        other = [recipe.gives != recipe.takes for recipe in after.bulk.recipes]
        found.update(np.flatnonzero(np.array([*other, False])[after.bulk.number])[:1].tolist())
    return sorted(found)


def _check_places(before: Catalog, after: Catalog) -> None:
    if len(set(after.rows)) < len(after.rows) or (after.rows and min(after.rows) < 0):
        known: set[int] = set()
        for name, row in zip(after.names, after.rows, strict=True):
            if row < 0 or row in known:
                msg = "a new tensor has no place yet; append it instead"
                raise EditError(msg, tensor=name)
            known.add(row)
    for at in _suspects(after):
        name = after.names[at]
        tensor, old = after.tensor_at(at), before.columns.tensor(after.rows[at])
        if tensor.spec == old.spec and tensor.boxes != old.boxes:
            msg = f"{name!r} is stored in other slices than before; append it instead"
            raise EditError(msg, tensor=name)
        if tensor.spec != old.spec:
            msg = f"{name!r} becomes {tensor.spec} and was {old.spec}; append it instead"
            raise EditError(msg, tensor=name)
        if tensor.spec.kind in {"string", "variant"}:
            msg = f"elements of {name!r} have no fixed size; append it instead"
            raise EditError(msg, tensor=name)
