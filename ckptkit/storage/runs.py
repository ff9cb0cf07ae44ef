"""Scattered bytes of a file: runs of one width, read and written in as few calls as pay.

A column of a matrix is such runs. Where they lie closer together than a page, one call moves all
of a stretch: no page is touched that a run does not touch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator

    from numpy.typing import NDArray

    from ckptkit.storage.disk import File

    Int64s = NDArray[np.int64]
    Bytes = NDArray[np.uint8]

PAGE: Final = 4096
"""Bytes that a device reads and writes at least."""

STRETCH: Final = 1 << 20
"""Bytes that one call moves at most, where it moves what lies between runs as well."""


def read_runs(file: File, width: int, offsets: Int64s) -> Bytes:
    """Return runs of ``width`` bytes each, joined.

    Args:
        file: Where they are.
        width: Bytes of each run.
        offsets: int64, where each run starts; they rise by at least ``width``.

    Raises:
        ConflictError: The file ends before a run does.
    """
    out = np.empty((len(offsets), width), np.uint8)
    for low, high, near in _groups(width, offsets):
        if near:
            index = _index(width, offsets[low:high])
            stretch = file.read(int(offsets[low]), int(index[-1, -1]) + 1)
            out[low:high] = np.frombuffer(stretch, np.uint8)[index]
        else:
            joined = file.read_runs(width, offsets[low:high].tolist())
            out[low:high] = np.frombuffer(joined, np.uint8).reshape(-1, width)
    return out.reshape(-1)


def write_runs(file: File, width: int, offsets: Int64s, joined: Buffer) -> None:
    """Write runs of ``width`` bytes each, given joined; see :func:`read_runs`."""
    runs = np.frombuffer(joined, np.uint8).reshape(len(offsets), width)
    for low, high, near in _groups(width, offsets):
        if near:
            first, index = int(offsets[low]), _index(width, offsets[low:high])
            stretch = np.frombuffer(file.read(first, int(index[-1, -1]) + 1), np.uint8)
            stretch[index] = runs[low:high]
            file.write(stretch, first)
        elif width >= STRETCH:
            for run, offset in zip(runs[low:high], offsets[low:high].tolist(), strict=True):
                file.write(run, offset)
        else:
            file.write_runs(width, offsets[low:high].tolist(), runs[low:high].reshape(-1))


def bytes_touched(width: int, offsets: Int64s) -> int:
    """Return how many bytes reading the runs takes from a file."""
    return sum(
        int(offsets[high - 1]) + width - int(offsets[low]) if near else (high - low) * width
        for low, high, near in _groups(width, offsets)
    )


def _groups(width: int, offsets: Int64s) -> Iterator[tuple[int, int, bool]]:
    """Yield runs of runs: first, one past the last, and whether they are moved in one go."""
    if not len(offsets):
        return
    gap = np.diff(offsets) - width
    apart = (gap >= PAGE) | (offsets[1:] // STRETCH != offsets[:-1] // STRETCH)
    if width >= STRETCH or apart.all():
        yield 0, len(offsets), False
        return
    edges = np.concatenate([[0], np.flatnonzero(apart) + 1, [len(offsets)]])
    alone = np.diff(edges) == 1
    at = 0
    while at < len(alone):
        # Neighbours that are alone go together, in one call of the file that moves them singly.
        end = at + 1
        while alone[at] and end < len(alone) and alone[end]:
            end += 1
        yield int(edges[at]), int(edges[end]), not alone[at]
        at = end


def _index(width: int, offsets: Int64s) -> Int64s:
    """Return where each byte of the runs is, counted from the first of them."""
    index: Int64s = (offsets - offsets[0])[:, None] + np.arange(width)
    return index
