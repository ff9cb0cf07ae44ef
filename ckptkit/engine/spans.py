"""Checksums over ranges that hold many tensors and what is around them: members of an archive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit import _native
from ckptkit.engine.read import pool
from ckptkit.storage.disk import SharedFile, Sources

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.placement import Placement, Span
    from ckptkit.storage.changes import Bytes
    from ckptkit.storage.disk import Disk, File

    Int64s = NDArray[np.int64]

PIECE: Final = 4 << 20
"""Bytes that are read and summed at a time."""


def sum_range(file: File, offset: int, length: int) -> int:
    """Return the CRC-32 of a byte range of a file, read in pieces by many threads."""
    starts = range(offset, offset + length, PIECE)

    def one(start: int) -> tuple[int, int]:
        size = min(PIECE, offset + length - start)
        return _native.crc32(file.read(start, size)), size

    total = 0
    for found, size in pool().map(one, starts) if len(starts) > 1 else map(one, starts):
        total = _native.crc32_combine(total, found, size)
    return total


class Noted(Sources):
    """Open files that note the CRC-32 of what is read from some of them, or written to them.

    What was just read or written is in the cache of the processor. By the time when all is done a
    large file may even be out of that of the system.
    """

    def __init__(self, disk: Disk, paths: Iterable[str], *, writable: bool = False) -> None:
        """Note what is written to the files of these paths; or read, if they are not writable."""
        super().__init__(disk, writable=writable)
        self.writable = writable
        self._sums: dict[str, dict[int, tuple[int, int]]] = {path: {} for path in paths}

    def shared(self, path: str, fd: int) -> SharedFile:
        """Return a file that notes sums, if it is one of those."""
        sums = self._sums.get(path)
        if sums is None:
            return super().shared(path, fd)
        kind = _Written if self.writable else _Read
        return kind(self.disk, path, fd, sums)

    def sum_range(self, path: str, offset: int, length: int) -> int:
        """Return the CRC-32 of a byte range: from what was noted, if that covers all of it."""
        sums = self._sums.get(path, {})
        total, at, end = 0, offset, offset + length
        while at < end:
            found, size = sums.get(at, (0, 0))
            if not 0 < size <= end - at:
                return sum_range(self.file(path), offset, length)
            total = _native.crc32_combine(total, found, size)
            at += size
        return total


class _Noting(SharedFile):
    __slots__ = ("_sums",)

    def __init__(self, disk: Disk, path: str, fd: int, sums: dict[int, tuple[int, int]]) -> None:
        super().__init__(disk, path, fd)
        self._sums = sums

    def note(self, buffer: Buffer, offset: int) -> None:
        """Note the sum of what is, from a byte on, the same in the file."""
        self._sums[offset] = _native.crc32(buffer), memoryview(buffer).nbytes


class _Read(_Noting):
    __slots__ = ()

    def read_into(self, buffer: Buffer, offset: int) -> None:
        super().read_into(buffer, offset)
        self.note(buffer, offset)


class _Written(_Noting):
    __slots__ = ()

    def write(self, buffer: Buffer, offset: int) -> None:
        super().write(buffer, offset)
        self.note(buffer, offset)


def sums_of_new(
    placement: Placement, staged: Sequence[str], bases: Noted, new: Noted
) -> NDArray[np.uint32]:
    """Return the checksum of every span of data files that were written anew.

    Where all but some items of a span is as it was, only those items count, as they were and
    as they are: whatever else the old checksum says of the rest stays said.

    Args:
        placement: Where everything is.
        staged: Path of every data file, by shard.
        bases: The files that spans are as, but for items that changed.
        new: The data files.
    """
    spans = placement.spans or ()
    found = [_sum_of_new(placement, span, staged[span.shard], bases, new) for span in spans]
    return np.array(found, np.uint32)


def _sum_of_new(placement: Placement, span: Span, path: str, bases: Noted, new: Noted) -> int:
    if span.checksum is None or span.base is None:
        return sum_range(new.file(path), span.offset, span.size)
    end, total = span.offset + span.size, span.checksum
    for offset, size in _changed(placement, span):
        change = bases.sum_range(span.base, offset, size) ^ new.sum_range(path, offset, size)
        total ^= _native.crc32_combine(change, 0, end - offset - size)
    return total


def _changed(placement: Placement, span: Span) -> Iterator[tuple[int, int]]:
    """Yield offset and length of what changes in a span, neighbours as one."""
    changed = (placement.source_file < 0) & (placement.shard == span.shard) & (placement.size > 0)
    changed &= (placement.offset >= span.offset) & (placement.offset < span.offset + span.size)
    order = np.flatnonzero(changed)
    order = order[np.argsort(placement.offset[order], kind="stable")]
    if not len(order):
        return
    starts, ends = placement.offset[order], placement.offset[order] + placement.size[order]
    cuts = np.flatnonzero(starts[1:] != ends[:-1]) + 1
    for low, high in zip([0, *cuts.tolist()], [*cuts.tolist(), len(order)], strict=True):
        yield int(starts[low]), int(ends[high - 1]) - int(starts[low])


def changes(
    placement: Placement,
    path: str,
    width: int,
    offsets: Int64s,
    old: Bytes,
    new: Bytes,
) -> Iterator[tuple[int, int]]:
    """Yield what runs that change in place do to the checksum of each span that they are in.

    Args:
        placement: Where everything is.
        path: The data file.
        width: Bytes of each run.
        offsets: Where each run starts; they rise.
        old: The bytes of all runs before, joined.
        new: Those after.
    """
    # A checkpoint that was opened by a relative path has such paths for its files.
    whole = os.path.abspath(path)
    for number, span in enumerate(placement.spans or ()):
        if placement.files[span.shard] != whole:
            continue
        end = span.offset + span.size
        low, high = np.searchsorted(offsets, [span.offset, end]).tolist()
        if low < high:
            mine = slice(low * width, high * width)
            tails = end - offsets[low:high] - width
            change = _native.crc32_patch_runs(0, old[mine], new[mine], width, tails)
            yield number, change
