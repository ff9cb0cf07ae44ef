"""Laying out the data files of a new bundle: densely, in the order in which tensors stood."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ckptkit.errors import EditError, UnsupportedError
from ckptkit.formats.tensorflow.dtypes import CODES
from ckptkit.formats.tensorflow.paths import INDEX, VARIABLES, shard_path
from ckptkit.formats.tensorflow.payload import encode
from ckptkit.globs import glob_pattern
from ckptkit.kernels import Constant
from ckptkit.model import Derived, Source, Tensor
from ckptkit.placement import Layout, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.catalog import Catalog
    from ckptkit.placement import Int64s
    from ckptkit.region import Box

_NEW: Final = np.iinfo(np.int64).max
"""Where a tensor that was not there before is sorted: after all others."""

_MEMBER: Final = re.compile(r"(\.index|\.data-\d{5,}-of-\d{5,})\Z")


def reserve(
    before: Catalog, after: Catalog, source: Source | None, destination: str, layout: Layout
) -> Placement:
    """Give every tensor of ``after`` its place in files at ``destination``.

    Args:
        before: The catalog as it was scanned, which the files around it still describe.
        after: The catalog to be stored.
        source: Where ``before`` is, None for a checkpoint made from scratch.
        destination: The new prefix, or the new folder of a SavedModel.
        layout: How to cut shards.

    Raises:
        EditError: The SavedModel around the bundle would contradict the edit.
        UnsupportedError: A dtype that a bundle cannot hold.
    """
    folder = None
    if source is not None and source.folder is not None:
        _check_saved_model(before, after, source.folder)
        folder = destination
    prefix = os.path.join(destination, VARIABLES) if folder else destination
    items = _Items(after)
    # An empty tensor stood before the one at the same offset; new ones keep the order given.
    tie = np.where(items.old_shard == _NEW, 0, items.size)
    order = np.lexsort((tie, items.old_offset, items.old_shard))
    shard, count = _cut(after, items, order, layout)
    by_shard = np.argsort(shard, kind="stable")
    order, shard = order[by_shard], shard[by_shard]
    size = items.size[order]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
    bases = ends[np.searchsorted(shard, np.arange(count + 1))]
    place = {int(at): new for new, at in enumerate(order)} if items.payloads else {}
    return Placement(
        files=tuple(shard_path(prefix, number, count) for number in range(count)),
        file_sizes=tuple(int(n) for n in np.diff(bases)),
        index=prefix + INDEX,
        tensor=items.tensor[order],
        part=items.part[order],
        row=items.row[order],
        shard=shard,
        offset=ends[:-1] - bases[shard],
        size=size,
        source_files=items.files,
        source_file=items.source[order],
        source_offset=np.where(items.source[order] < 0, 0, items.old_offset[order]),
        checksum=items.checksum[order],
        payloads={place[at]: payload for at, payload in items.payloads.items()},
        folder=folder,
        companions=tuple(_companions(source, folder)) if source and folder else (),
        template=source.path + INDEX if source is not None and after is before else None,
    )


class _Item(NamedTuple):
    """One stored run of the new bundle that is more than a row of the old one."""

    tensor: int
    part: int
    row: int
    size: int
    derived: bool
    payload: bytes | memoryview | None = None


class _Items:
    """All stored runs of a catalog, as columns, with the place where each stood before."""

    def __init__(self, catalog: Catalog) -> None:
        """Collect plain rows at array speed, and the others one by one."""
        columns = catalog.columns
        rows = _as_array(catalog.rows)
        special = sorted({*_positions(catalog, rows)})
        plain = np.ones(len(rows), bool)
        plain[special] = False
        several = [item for at in special for item in _items_of(catalog, at)]
        self.payloads: dict[int, bytes | memoryview] = {}
        base = int(plain.sum())
        for number, item in enumerate(several, start=base):
            if item.payload is not None:
                self.payloads[number] = item.payload

        def column(of_plain: Int64s, of_special: list[int]) -> Int64s:
            return np.concatenate([of_plain, np.array(of_special, np.int64)])

        self.tensor = column(np.flatnonzero(plain), [item.tensor for item in several])
        self.part = column(np.zeros(base, np.int64), [item.part for item in several])
        self.row = column(rows[plain], [item.row for item in several])
        derived = column(np.zeros(base, np.int64), [item.derived for item in several]) > 0
        known = self.row >= 0
        at = np.where(known, self.row, 0)
        self.size = column(
            np.asarray(columns.size, np.int64)[rows[plain]], [item.size for item in several]
        )
        self.old_shard = _take(columns.shard, at, known, _NEW)
        self.old_offset = _take(columns.offset, at, known, _NEW)
        self.checksum = _take(columns.checksum, at, known, 0).astype(np.uint32)
        self.files = tuple(columns.files.values())
        numbers = np.fromiter(columns.files, np.int64, len(columns.files))
        file = np.searchsorted(numbers, self.old_shard)
        self.source = np.where(derived, -1, file)


def _as_array(numbers: object) -> Int64s:
    if isinstance(numbers, range):
        return np.arange(numbers.start, numbers.stop, numbers.step, dtype=np.int64)
    return np.asarray(numbers, dtype=np.int64)


def _take(column: memoryview, at: Int64s, known: np.ndarray, default: int) -> Int64s:
    if not len(column):
        return np.full(len(at), default, np.int64)
    return np.where(known, np.asarray(column).astype(np.int64)[at], default)


def _positions(catalog: Catalog, rows: Int64s) -> Iterator[int]:
    """Return the positions of the tensors that are changed, or in slices."""
    yield from map(catalog.position, catalog.changed)
    if catalog.columns.parts:
        yield from np.flatnonzero(np.isin(rows, list(catalog.columns.parts))).tolist()


def _items_of(catalog: Catalog, at: int) -> Iterator[_Item]:
    """Yield the stored runs of one tensor that is changed, or in slices."""
    name, row = catalog.names[at], catalog.rows[at]
    tensor = catalog.changed.get(name)
    slices = catalog.columns.parts.get(row, ())
    if tensor is None:
        for part, (_, slice_row) in enumerate(slices):
            yield _Item(at, part, slice_row, catalog.columns.size[slice_row], derived=False)
        return
    if tensor.spec.dtype not in CODES:
        msg = f"a TensorFlow checkpoint cannot hold {tensor.spec.dtype}"
        raise UnsupportedError(msg, tensor=name)
    old = [slice_row for _, slice_row in slices]
    if tensor.boxes != tuple(box for box, _ in slices):
        old = [row] * len(tensor.boxes)
    for part, box in enumerate(tensor.boxes):
        payload = _payload(tensor, box, catalog.columns.byteorder)
        size = box.count * tensor.spec.itemsize if payload is None else len(payload)
        yield _Item(at, part, old[part], size, derived=True, payload=payload)


def _payload(tensor: Tensor, box: Box, byteorder: str) -> bytes | memoryview | None:
    """Return the stored bytes of a piece whose values are given, None where they are computed."""
    kernel = tensor.source.kernel if isinstance(tensor.source, Derived) else None
    if not isinstance(kernel, Constant):
        return None
    if tensor.spec.kind in {"string", "variant"}:
        elements = kernel.elements
        if box.shape != tensor.spec.shape:
            elements = tuple(kernel.array()[box.slices()].ravel())
        return encode(elements, tensor.spec, byteorder)
    # The engine makes blocks of numbers in slices, and of those for the other byte order.
    whole = box.shape == tensor.spec.shape and byteorder == "little"
    return kernel.payload if whole else None


def _cut(catalog: Catalog, items: _Items, order: Int64s, layout: Layout) -> tuple[Int64s, int]:
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


def _check_saved_model(before: Catalog, after: Catalog, folder: str) -> None:
    """Refuse what the program beside the variables would contradict."""
    renamed = list(before.names) != list(after.names)
    respecified = [
        name for name in after.changed if name in before and before.spec(name) != after.spec(name)
    ]
    if renamed or respecified:
        what = "names of tensors" if renamed else f"the dtype or shape of {respecified[0]!r}"
        msg = (
            f"this edit changes {what}, which saved_model.pb names as well, so that the SavedModel"
            f" would not load; to edit the variables alone, copy {VARIABLES}.* out of it first"
        )
        raise EditError(msg, path=folder)


def _companions(source: Source, folder: str) -> Iterator[tuple[str, str]]:
    """Yield from and to of every file of a SavedModel that holds no variables."""
    root = source.folder or ""
    bundle = os.path.join(root, VARIABLES)
    for place, _, names in sorted(os.walk(root)):
        for name in sorted(names):
            path = os.path.join(place, name)
            if not (path.startswith(bundle) and _MEMBER.match(path[len(bundle) :])):
                yield path, os.path.join(folder, os.path.relpath(path, root))
