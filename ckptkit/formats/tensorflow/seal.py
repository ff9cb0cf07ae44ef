"""Writing the index of a bundle from records that are carried over, with new places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import numpy as np

from ckptkit import _native
from ckptkit.formats.tensorflow.audit import table_findings
from ckptkit.formats.tensorflow.dtypes import CODES
from ckptkit.formats.tensorflow.slices import extents_of, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.model import Tensor
    from ckptkit.placement import Int64s, Placement

_VERBATIM: Final = -1


def seal(catalog: Catalog, placement: Placement, checksums: NDArray[np.uint32]) -> bytes:
    """Return the index of a bundle.

    A record keeps every byte that it had but for place and checksum, dtype and shape where
    these changed; unknown fields stay.

    Args:
        catalog: The tensors.
        placement: Where their bytes are.
        checksums: uint32, CRC-32C of every item of the placement.
    """
    known = _KNOWN.get(placement)
    if known is None or known.catalog is not catalog:
        known = _KNOWN[placement] = _sorted(catalog, placement)
    records, order, (keys, key_ends) = known.records, known.order, known.keys
    checksum = np.concatenate([np.zeros(records.others, np.uint32), checksums])
    values, value_ends = _native.entries_encode(
        records.templates,
        records.template_ends,
        records.template[order],
        records.shard[order],
        records.offset[order],
        records.size[order],
        _masked(checksum[order]),
    )
    index = _native.table_encode(keys, key_ends, values, value_ends)
    if placement.template is None:
        return index
    with open(placement.template, "rb") as file:
        old = file.read()
    # A compressed index says the same in other bytes; what holds more says something else.
    table = (keys, key_ends, values, value_ends)
    same = old != index and _says(old, table)
    return old if same and not table_findings(old) else index


@dataclass(frozen=True, slots=True, eq=False)
class _Sorted:
    """All of an index but its checksums.

    Attributes:
        keys: The keys, in order, and where each of them ends.
        order: int64, which of the records each key is for.
    """

    catalog: Catalog
    records: _Records
    keys: tuple[bytes, bytes]
    order: Int64s


_KNOWN: Final[WeakKeyDictionary[Placement, _Sorted]] = WeakKeyDictionary()
"""A plan makes its index twice: to know how long it is, and with the checksums."""


def _sorted(catalog: Catalog, placement: Placement) -> _Sorted:
    records = _Records(catalog, placement)
    keys = _native.names_encode(records.names)
    order = np.frombuffer(_native.keys_order(*keys), np.int64)
    if np.any(order[1:] < order[:-1]):
        names = records.names
        keys = _native.names_encode([names[at] for at in order.tolist()])
    records.names = []
    return _Sorted(catalog, records, keys, order)


def _says(index: bytes, table: tuple[bytes, bytes, bytes, bytes]) -> bool:
    """Tell whether an index holds just these keys and values."""
    try:
        return _native.table_decode(index, len(table[0]) + len(table[2])) == table
    except _native.DecodeError:
        return False


class _Records:
    """The records of a new index, unsorted: a name, a template, and the new place.

    Names of slices are their keys, which like all names here stand for any bytes.
    """

    def __init__(self, catalog: Catalog, placement: Placement) -> None:
        """Start with one record per item, then correct what is not just an old row."""
        self._catalog = catalog
        self._extra: list[bytes] = []
        self._base = len(catalog.columns) + 1
        names, tensors = catalog.names, placement.tensor
        as_they_are = np.array_equal(tensors, np.arange(len(names)))
        self.names = [*names] if as_they_are else [names[at] for at in tensors.tolist()]
        self.template = placement.row + 1
        self._correct_derived(placement)
        whole = self._correct(placement)
        header = self._add(self._header(len(placement.files)))
        # Where the names are in order, the header in front keeps them so.
        self.names = ["", *(name for name, _ in whole), *self.names]
        verbatim = np.array([header, *(template for _, template in whole)], np.int64)
        zeros = np.zeros(len(verbatim), np.int64)
        self.template = np.concatenate([verbatim, self.template])
        self.shard = np.concatenate([zeros, placement.shard]).astype(np.int32)
        self.offset = np.concatenate([zeros, placement.offset])
        self.size = np.concatenate([zeros + _VERBATIM, placement.size])
        self.others = len(verbatim)
        columns = catalog.columns
        self.templates = columns.entries + b"".join(self._extra)
        lengths = np.fromiter(map(len, self._extra), np.int64, len(self._extra))
        bounds = np.asarray(columns.entry_bounds)
        self.template_ends = np.concatenate([bounds, bounds[-1] + np.cumsum(lengths)])

    def _add(self, template: bytes) -> int:
        self._extra.append(template)
        return self._base + len(self._extra) - 1

    def _header(self, shards: int) -> bytes:
        header = self._catalog.attachments.get("header")
        if header is None:
            return _native.header_encode(shards)
        return _native.header_splice(header, shards)

    def _correct(self, placement: Placement) -> list[tuple[str, int]]:
        """Give changed and sliced tensors their names and templates.

        Returns:
            Name and template of the records that stand for sliced tensors as a whole.
        """
        catalog = self._catalog
        special = set(map(catalog.position, catalog.single))
        if catalog.columns.parts:
            rows = catalog.rows
            special.update(at for at in range(len(rows)) if rows[at] in catalog.columns.parts)
        if not special:
            return []
        items: dict[int, list[int]] = {}
        for item in np.flatnonzero(np.isin(placement.tensor, list(special))).tolist():
            items.setdefault(int(placement.tensor[item]), []).append(item)
        whole: list[tuple[str, int]] = []
        for at, numbers in items.items():
            numbers.sort(key=placement.part.__getitem__)
            name = catalog.names[at]
            tensor = catalog.single.get(name) or catalog.columns.tensor(catalog.rows[at])
            slices = catalog.columns.parts.get(catalog.rows[at], ())
            # A tensor may be in a single slice, and then stays so.
            if len(numbers) == 1 and tensor.boxes != tuple(box for box, _ in slices):
                self._correct_plain(tensor, catalog.rows[at], numbers[0])
            else:
                whole.append((name, self._correct_sliced(name, tensor, catalog.rows[at], numbers)))
        return whole

    def _correct_derived(self, placement: Placement) -> None:
        """Give tensors their templates to which recipes give another dtype."""
        bulk, columns = self._catalog.bulk, self._catalog.columns
        if bulk is None:
            return
        gives = [recipe.gives for recipe in bulk.recipes]
        number = bulk.number[placement.tensor]
        other = np.array([*(recipe.gives != recipe.takes for recipe in bulk.recipes), False])
        items = np.flatnonzero(other[number])
        rows, numbers = placement.row[items].tolist(), number[items].tolist()
        for item, row, at in zip(items.tolist(), rows, numbers, strict=True):
            self.template[item] = self._respec(row, gives[at], columns.shape(row))

    def _correct_plain(self, tensor: Tensor, row: int, item: int) -> None:
        if row < 0:
            self.template[item] = self._add(
                _native.entry_encode(CODES[tensor.spec.dtype], tensor.spec.shape)
            )
        elif row in self._catalog.columns.parts:
            # Another shape on the way: with it goes the list of slices.
            dtype, shape = CODES[tensor.spec.dtype], tensor.spec.shape
            entry = _native.entry_respec(self._catalog.columns.entry(row), dtype, (*shape, 1))
            self.template[item] = self._add(_native.entry_respec(entry, dtype, shape))
        elif self._catalog.columns.spec(row) != tensor.spec:
            self.template[item] = self._respec(row, tensor.spec.dtype, tensor.spec.shape)

    def _correct_sliced(self, name: str, tensor: Tensor, row: int, items: Sequence[int]) -> int:
        """Name the slices of a tensor; return the template of the record for the whole."""
        columns = self._catalog.columns
        dtype, shape = tensor.spec.dtype, tensor.spec.shape
        boxes = tensor.boxes
        # New slices are described anew; those that were there keep what their records say.
        new = boxes != tuple(box for box, _ in columns.parts.get(row, ()))
        slices = [extents_of(box, shape) for box in boxes] if new else listed(columns.entry(row))
        key = name.encode("utf-8", "surrogateescape")
        for item, extents, box in zip(items, slices, boxes, strict=True):
            self.names[item] = _native.slice_key(key, extents).decode("utf-8", "surrogateescape")
            slice_row = int(self.template[item]) - 1
            if new:
                self.template[item] = self._add(_native.entry_encode(CODES[dtype], box.shape))
            elif columns.spec(slice_row).dtype != dtype:
                self.template[item] = self._respec(slice_row, dtype, box.shape)
        if new:
            return self._add(_native.entry_slices_encode(CODES[dtype], shape, slices))
        return row + 1 if columns.spec(row) == tensor.spec else self._respec(row, dtype, shape)

    def _respec(self, row: int, dtype: str, shape: tuple[int, ...]) -> int:
        entry = self._catalog.columns.entry(row)
        return self._add(_native.entry_respec(entry, CODES[dtype], shape))


def _masked(checksums: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return checksums as an index stores them: rotated by 15 bits, plus a constant."""
    rotated = (checksums >> np.uint32(15)) | (checksums << np.uint32(17))
    return rotated + np.uint32(0xA282EAD8)
