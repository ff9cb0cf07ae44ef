"""Partitioned tensors: one record for the whole, one per slice under an ordered key."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final, Protocol

from ckptkit import _native
from ckptkit.columns import Columns
from ckptkit.formats.tensorflow import hazards
from ckptkit.partition import MAX_SLICES
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

MAX_CORNERS: Final = 1 << 20
"""Corners of all slices of one tensor, along the axes that they cut."""

_FULL: Final = -1


class Records(Protocol):
    """What is needed of the table: keys and values by number, and how to refuse a row."""

    def __len__(self) -> int:
        """Return the number of records."""

    def key(self, number: int) -> bytes:
        """Return a key."""

    def value(self, number: int) -> bytes:
        """Return a value."""

    def refuse(self, row: int, message: str) -> NoReturn:
        """Raise the error that a row deserves."""


def join_slices(
    table: Records, columns: Columns
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


def slices_of(table: Records, columns: Columns, row: int) -> tuple[tuple[Box, int], ...]:
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


def _slices_of(table: Records, columns: Columns, row: int) -> Iterator[tuple[Box, int]]:
    shape = columns.shape(row)
    try:
        slices = _native.entry_slices(table.value(row + 1))
    except _native.DecodeError as error:
        table.refuse(row, f"its slices do not decode: {error.message}")
    if len(slices) > MAX_SLICES:
        table.refuse(row, f"it is in {len(slices)} slices, at most {MAX_SLICES} are allowed")
    if columns.size[row]:
        table.refuse(row, "it is stored both whole and in slices")
    for extents in slices:
        if len(extents) != len(shape):
            table.refuse(row, f"a slice has {len(extents)} axes, the tensor has {len(shape)}")
        box = box_of(extents, shape)
        if any(stop > size for stop, size in zip(box.stop, shape, strict=True)):
            table.refuse(row, f"slice {_text(box)} is outside the shape {list(shape)}")
        yield box, _slice_row(table, columns, row, extents, box)


def box_of(extents: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> Box:
    """Return the box that a slice is of a tensor, which has as many axes."""
    return Box(
        tuple(start for start, _ in extents),
        tuple(
            size if length == _FULL else length
            for (_, length), size in zip(extents, shape, strict=True)
        ),
    )


def _slice_row(
    table: Records, columns: Columns, row: int, extents: Sequence[tuple[int, int]], box: Box
) -> int:
    """Return the row that holds a slice, which must be of the same dtype and just its shape."""
    at = find_record(table, _native.slice_key(table.key(row + 1), extents)) - 1
    if at < 0:
        table.refuse(row, f"the record of its slice {_text(box)} is missing")
    if columns.dtype[at] != columns.dtype[row]:
        found, wanted = columns.spec(at).dtype, columns.spec(row).dtype
        message = f"slice {_text(box)} is {found}, the tensor is {wanted}"
        table.refuse(row, hazards.told(message, hazards.ABORTS))
    if columns.shape(at) != box.shape:
        message = f"slice {_text(box)} is stored with shape {list(columns.shape(at))}"
        if math.prod(columns.shape(at)) < box.count:
            message = hazards.told(message, hazards.OVERREADS)
        table.refuse(row, message)
    if columns.flags[at] & Columns.SLICED:
        table.refuse(row, f"slice {_text(box)} is in slices itself")
    return at


def find_record(table: Records, key: bytes) -> int:
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
            message = f"its slices overlap: {_text(box)} is listed twice"
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


def _text(box: Box) -> str:
    return "[" + ", ".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True)) + "]"
