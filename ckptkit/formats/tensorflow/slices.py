"""Partitioned tensors: one record for the whole, one per slice under an ordered key."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

from ckptkit import _native
from ckptkit.columns import Columns
from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow import hazards
from ckptkit.partition import MAX_SLICES
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.formats.tensorflow.scan import Table

MAX_CORNERS: Final = 1 << 20
"""Corners of all slices of one tensor, along the axes that they cut."""

FULL: Final = (0, -1)
"""Start and length of a slice along an axis of which it is all."""

Extents = tuple[tuple[int, int], ...]
"""Start and length of a slice along every axis."""


def join_slices(
    table: Table, columns: Columns
) -> tuple[dict[int, tuple[tuple[Box, int], ...]], set[int]]:
    """Find the slices of every partitioned tensor.

    Returns:
        For the row of each such tensor the box and the row of its slices, which tile it; and
        the rows of all slices, which are no tensors by themselves.

    Raises:
        CorruptError: Slices are missing, overlap, leave a gap, or contradict the tensor.
    """
    parts: dict[int, tuple[tuple[Box, int], ...]] = {}
    hidden: set[int] = set()
    # Slices sort before their tensor; from the end, a tensor is judged before slices of slices.
    for row in reversed([*sliced_rows(columns)]):
        found = slices_of(table, columns, row)
        parts[row] = found
        hidden.update(at for _, at in found)
    for row in parts:
        if row in hidden:
            table.refuse(row, "it is a slice of another tensor, and in slices itself")
    return parts, hidden


def slices_of(table: Table, columns: Columns, row: int) -> tuple[tuple[Box, int], ...]:
    """Return the box and the row of every slice of a tensor, which they tile.

    Raises:
        CorruptError: Slices are missing, overlap, leave a gap, or contradict the tensor.
    """
    found = tuple(_slices_of(table, columns, row))
    fault = tiling_fault(columns.shape(row), [box for box, _ in found])
    if fault is not None:
        table.refuse(row, fault)
    return found


def sliced_rows(columns: Columns) -> Iterator[int]:
    """Yield the rows of the tensors that are stored in slices."""
    marks = bytes(columns.flags).translate(bytes(flag & Columns.SLICED for flag in range(256)))
    row = marks.find(1)
    while row >= 0:
        yield row
        row = marks.find(1, row + 1)


def _slices_of(table: Table, columns: Columns, row: int) -> Iterator[tuple[Box, int]]:
    try:
        slices = [*described(columns, row)]
    except CorruptError as error:
        table.refuse(row, error.message)
    for extents, box in slices:
        yield box, _slice_row(table, columns, row, extents, box)


def described(columns: Columns, row: int) -> Iterator[tuple[Extents, Box]]:
    """Yield the slices that the record of a tensor lists, each within its shape.

    Raises:
        CorruptError: They do not decode, are too many, or cannot be slices of it.
    """
    slices = listed(columns.entry(row))
    if len(slices) > MAX_SLICES:
        msg = f"it is in {len(slices)} slices, at most {MAX_SLICES} are allowed"
        raise CorruptError(msg)
    if columns.size[row]:
        msg = "it is stored both whole and in slices"
        raise CorruptError(msg)
    shape = columns.shape(row)
    for extents in slices:
        yield extents, box_of(extents, shape)


def listed(record: bytes) -> list[Extents]:
    """Return the slices that a record lists.

    Raises:
        CorruptError: They do not decode.
    """
    try:
        return [tuple(extents) for extents in _native.entry_slices(record)]
    except _native.DecodeError as error:
        msg = f"its slices do not decode: {error.message}"
        raise CorruptError(msg) from None


def box_of(extents: Extents, shape: tuple[int, ...]) -> Box:
    """Return the box that a slice is of a tensor.

    Raises:
        CorruptError: It has other axes, or is outside the shape.
    """
    if len(extents) != len(shape):
        msg = f"a slice has {len(extents)} axes, the tensor has {len(shape)}"
        raise CorruptError(msg)
    for start, length in extents:
        if (start, length) != FULL and (start < 0 or length < 1):
            msg = f"a slice starts at {start} and has length {length}"
            raise CorruptError(msg)
    pairs = [
        (start, size if (start, length) == FULL else length)
        for (start, length), size in zip(extents, shape, strict=True)
    ]
    box = Box(tuple(start for start, _ in pairs), tuple(length for _, length in pairs))
    if any(stop > size for stop, size in zip(box.stop, shape, strict=True)):
        msg = f"slice {box} is outside the shape {list(shape)}"
        raise CorruptError(msg)
    return box


def extents_of(box: Box, shape: tuple[int, ...]) -> Extents:
    """Return a box as TensorFlow writes slices: an axis that it is all of has no length."""
    return tuple(
        FULL if length == size else (start, length)
        for start, length, size in zip(box.start, box.shape, shape, strict=True)
    )


def _slice_row(table: Table, columns: Columns, row: int, extents: Extents, box: Box) -> int:
    """Return the row that holds a slice, which must be of the same dtype and just its shape."""
    at = find_record(table, _native.slice_key(table.key(row + 1), extents)) - 1
    if at < 0:
        table.refuse(row, f"the record of its slice {box} is missing")
    if columns.dtype[at] != columns.dtype[row]:
        found, wanted = columns.spec(at).dtype, columns.spec(row).dtype
        message = f"slice {box} is {found}, the tensor is {wanted}"
        table.refuse(row, hazards.told(message, hazards.ABORTS))
    if columns.shape(at) != box.shape:
        message = f"slice {box} is stored with shape {list(columns.shape(at))}"
        if math.prod(columns.shape(at)) < box.count:
            message = hazards.told(message, hazards.OVERREADS)
        table.refuse(row, message)
    if columns.flags[at] & Columns.SLICED:
        table.refuse(row, f"slice {box} is in slices itself")
    return at


def find_record(table: Table, key: bytes) -> int:
    """Return the number of the record with this key, 0 if there is none."""
    low, high = 1, len(table)
    while low < high:
        middle = (low + high) // 2
        if table.key(middle) < key:
            low = middle + 1
        else:
            high = middle
    return low if low < len(table) and table.key(low) == key else 0


def tiling_fault(shape: tuple[int, ...], boxes: Sequence[Box]) -> str | None:
    """Say what is wrong with slices that overlap or do not cover a tensor.

    Args:
        shape: Of the tensor.
        boxes: The slices, within the shape.
    """
    covered, count = sum(box.count for box in boxes), math.prod(shape)
    whole = Box.whole(shape)
    axes = [
        axis
        for axis in range(len(shape))
        if any((box.start[axis], box.shape[axis]) != (0, shape[axis]) for box in boxes)
    ]
    if len(boxes) << len(axes) > MAX_CORNERS:
        return f"it is in {len(boxes)} slices, cut along {len(axes)} axes: too many"
    known: set[Box] = set()
    for box in boxes:
        if box in known:
            message = f"its slices overlap: {box} is listed twice"
            return hazards.told(message, hazards.ABORTS)
        known.add(box)
    there, wanted = _corners(boxes, axes), _corners([whole], axes)
    if covered < count:
        # Before the first place where the slices begin to differ from the whole, they are it.
        differ = [at for at in there.keys() | wanted if there.get(at) != wanted.get(at)]
        first = dict(zip(axes, min(differ, default=()), strict=False))
        place = [first.get(axis, 0) for axis in range(len(shape))]
        return f"its slices hold {covered} of {count} elements; none holds the one at {place}"
    if count and there != wanted:
        return f"its slices overlap: they hold {covered} elements, not {count}"
    return None


def _corners(boxes: Sequence[Box], axes: Sequence[int]) -> dict[tuple[int, ...], int]:
    """Return the corners of boxes with alternating signs, without those that cancel.

    They are the mixed difference of the function that counts the boxes around each element, and
    determine it: boxes tile a whole just when their corners are those of the whole. That takes
    time in proportion to their number, where comparing them in pairs would take its square.
    """
    signs: dict[tuple[int, ...], int] = {}
    for box in boxes:
        edges = [((box.start[axis], 1), (box.stop[axis], -1)) for axis in axes]
        for corner in itertools.product(*edges):
            point = tuple(at for at, _ in corner)
            signs[point] = signs.get(point, 0) + math.prod(sign for _, sign in corner)
    return {point: sign for point, sign in signs.items() if sign}
