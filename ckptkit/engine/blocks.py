"""Geometry: how a box is cut into contiguous blocks, and which bytes a selection lies in."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.region import Selection

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
