"""The stored runs of a catalog, as columns, with the place where each of them stood before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ckptkit.errors import UnsupportedError
from ckptkit.formats.tensorflow.dtypes import CODES
from ckptkit.formats.tensorflow.payload import encode
from ckptkit.kernels import Constant
from ckptkit.model import Derived, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.catalog import Catalog
    from ckptkit.placement import Int64s
    from ckptkit.region import Box

NEW: Final = np.iinfo(np.int64).max
"""Where a tensor that was not there before is sorted: after all others."""


class _Item(NamedTuple):
    """One stored run of the new bundle that is more than a row of the old one."""

    tensor: int
    part: int
    row: int
    size: int
    derived: bool
    payload: bytes | memoryview | None = None


class Items:
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
        self.old_shard = _take(columns.shard, at, known, NEW)
        self.old_offset = _take(columns.offset, at, known, NEW)
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
