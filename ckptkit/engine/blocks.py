"""Geometry: how a box is cut into contiguous blocks, and which bytes a selection lies in."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ckptkit.region import Selection

    Int64s = NDArray[np.int64]

NEAR: Final = 64 << 10
"""Bytes that are read in one go even if few of them are wanted."""

SPARSE: Final = 4
"""Reading stays in one go while at least one byte in this many is wanted."""


def cut(box: Box, itemsize: int, limit: int) -> Iterator[Box]:
    """Cut a box into blocks of at most ``limit`` bytes, each contiguous in the box.

    Blocks come in C order and tile the box; those along one axis differ by at most one row, so
    that they have at most two shapes.
    """
    if not box.count:
        return
    if not box.shape or box.count * itemsize <= limit:
        yield box
        return
    axis, inner = 0, box.count // box.shape[0]
    while inner * itemsize > limit and axis + 1 < len(box.shape):
        axis += 1
        inner //= box.shape[axis]
    rows = max(limit // (inner * itemsize), 1)
    size = box.shape[axis]
    pieces = -(-size // rows)
    edges = [size * n // pieces for n in range(pieces + 1)]
    for outer in _indices(box.shape[:axis]):
        first = tuple(a + n for a, n in zip(box.start[:axis], outer, strict=True))
        for low, high in itertools.pairwise(edges):
            yield Box(
                (*first, box.start[axis] + low, *box.start[axis + 1 :]),
                (*(1 for _ in outer), high - low, *box.shape[axis + 1 :]),
            )


def cut_rows(box: Box, itemsize: int, limit: int) -> Iterator[Box]:
    """Cut a box along its first axis alone, into blocks of ``limit`` bytes or of one row."""
    if not box.shape or not box.count:
        yield from cut(box, itemsize, limit)
        return
    row = box.count // box.shape[0] * itemsize
    yield from cut(box, itemsize, max(limit, row))


def tiles(box: Box, axis: int, itemsize: int, limit: int) -> Iterator[Box]:
    """Cut a box into tiles that are long along its last axis, and along another one.

    What is turned around is contiguous before along one axis and afterwards along the other; a
    tile goes some way along both, so that neither is read or written in crumbs.
    """
    if not box.count or axis == len(box.shape) - 1:
        yield from cut(box, itemsize, limit)
        return
    room = max(limit // itemsize, 1)
    edge = max(math.isqrt(room), 1)
    sizes = [1] * len(box.shape)
    for at in (-1, axis, -1, *reversed(range(len(sizes)))):
        held = math.prod(sizes) // sizes[at]
        most = edge if at == -1 and held == 1 else max(room // held, 1)
        sizes[at] = max(sizes[at], min(box.shape[at], most))
    for corner in itertools.product(
        *(range(0, size, step) for size, step in zip(box.shape, sizes, strict=True))
    ):
        yield Box(
            tuple(a + low for a, low in zip(box.start, corner, strict=True)),
            tuple(
                min(step, size - low)
                for step, size, low in zip(sizes, box.shape, corner, strict=True)
            ),
        )


def is_contiguous(box: Box, outer: Box) -> bool:
    """Tell whether a box is one run of what it is a part of, in C order."""
    whole = True
    for size, held in zip(reversed(outer.shape), reversed(box.shape), strict=True):
        if not whole and held > 1:
            return False
        whole = whole and held == size
    return True


def _indices(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield every index of a shape in C order, without holding them all."""
    if not shape:
        yield ()
        return
    for first in range(shape[0]):
        for rest in _indices(shape[1:]):
            yield (first, *rest)


def flat_offset(box: Box, outer: Box) -> int:
    """Return how many elements of ``outer`` come before the first one of ``box``."""
    offset = 0
    for a, b, n in zip(box.start, outer.start, outer.shape, strict=True):
        offset = offset * n + a - b
    return offset


class Span(NamedTuple):
    """Bytes that are read in one go, and what of them is wanted where.

    Attributes:
        offset, length: The range in bytes, from the start of the array.
        shape: How the bytes are laid out.
        wanted: Index into that.
        target: Index into the selected array, all axes kept.
    """

    offset: int
    length: int
    shape: tuple[int, ...]
    wanted: tuple[slice, ...]
    target: tuple[slice, ...]


def spans(
    shape: tuple[int, ...], selection: Selection, itemsize: int, limit: int
) -> Iterator[Span]:
    """Yield the reads that together give a selection of an array.

    Gaps are read over where that is cheaper than another call; no read is larger than
    ``limit`` bytes, unless a single element is.
    """
    if selection.size:
        yield from _spans(shape, selection, itemsize, limit, 0, 0, ())


def _spans(
    shape: tuple[int, ...],
    selection: Selection,
    itemsize: int,
    limit: int,
    axis: int,
    offset: int,
    target: tuple[slice, ...],
) -> Iterator[Span]:
    ones = (1,) * axis
    if axis == len(shape):
        yield Span(offset * itemsize, itemsize, ones, (slice(None),) * axis, target)
        return
    start, step, count = selection.start[axis], selection.step[axis], selection.count[axis]
    row = math.prod(shape[axis + 1 :])
    wanted = count * math.prod(selection.count[axis + 1 :]) * itemsize
    across = ((count - 1) * step + 1) * row * itemsize
    stride = step * row * itemsize
    if (across <= NEAR or wanted * SPARSE >= across) and (
        row * itemsize <= limit or axis + 1 == len(shape)
    ):
        inner = selection.slices()[axis + 1 :]
        rest = tuple(slice(0, n) for n in selection.count[axis + 1 :])
        per_read = max(limit // stride, 1)
        for low in range(0, count, per_read):
            held = min(per_read, count - low)
            rows = (held - 1) * step + 1
            yield Span(
                (offset + (start + low * step) * row) * itemsize,
                rows * row * itemsize,
                (*ones, rows, *shape[axis + 1 :]),
                (*(slice(None),) * axis, slice(0, rows, step), *inner),
                (*target, slice(low, low + held), *rest),
            )
        return
    for at in range(count):
        yield from _spans(
            shape,
            selection,
            itemsize,
            limit,
            axis + 1,
            offset + (start + at * step) * row,
            (*target, slice(at, at + 1)),
        )


def runs_of(shape: tuple[int, ...], inside: Selection) -> tuple[int, Int64s]:
    """Return a selection of an array in C order as runs: elements of each, and their starts.

    Runs are as long as they can be; their starts rise.
    """
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    first = sum(a * stride for a, stride in zip(inside.start, strides, strict=True))
    starts = np.full(1, first, np.int64)
    width, _, axis = runs_in(shape, inside)
    for outer in range(axis):
        along = np.arange(inside.count[outer], dtype=np.int64) * inside.step[outer]
        starts = (starts[:, None] + along * strides[outer]).reshape(-1)
    return width, starts


def runs_in(shape: tuple[int, ...], inside: Selection) -> tuple[int, int, int]:
    """Return elements of each run, their number, and the axes that the runs do not go along."""
    width, axis = 1, len(shape)
    while axis:
        count = inside.count[axis - 1]
        if count > 1 and inside.step[axis - 1] > 1:
            break
        axis -= 1
        width *= count
        if count < shape[axis]:
            break
    return width, math.prod(inside.count[:axis]), axis
