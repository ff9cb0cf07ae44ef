"""A file in memory for the HDF5 library: it reads from a byte range, and keeps what is written."""

from __future__ import annotations

import io
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ckptkit.errors import CkptError, UnsupportedError
from ckptkit.storage.hdf5 import undisturbed

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator

    from ckptkit.storage.disk import File

    Run = tuple[int, bytes]

NEAR: Final = 16
"""Equal bytes between two changes that are written again, rather than make two runs of one."""

AHEAD: Final = 4096
"""Bytes that are read at once: metadata is in many small pieces close together."""

HDF5_ERRORS: Final = (OSError, KeyError, ValueError, TypeError, RuntimeError)
"""What h5py raises when the HDF5 library refuses something."""


class Overlay:
    """What h5py takes for a file: a byte range of a real one, or nothing, under what is written.

    Nothing reaches a disk. Space that is allocated but never written takes no memory.

    Attributes:
        size: Length in bytes.
        muted: Zeros that are written over all of a buffer are not kept, and unkeep what was
            there: a new file is made of zeros. So space of any size can be had of calls that
            write it.
        failure: The first error of reading the range underneath, which is not raised then.
    """

    def __init__(self, base: File | None = None, start: int = 0, length: int = 0) -> None:
        """Lie over a byte range of a file, or over nothing."""
        self.size = length
        self.muted = False
        self.failure: BaseException | None = None
        self._base = base
        self._start = start
        self._length = length
        self._at = 0
        self._ahead: tuple[int, bytes | bytearray] = (0, b"")
        self._starts: list[int] = []
        self._runs: list[bytearray] = []

    def runs(self) -> tuple[Run, ...]:
        """Return all that was written: where and what, apart, in order."""
        return tuple(zip(self._starts, map(bytes, self._runs), strict=True))

    def changes(self) -> tuple[Run, ...]:
        """Return what was written as far as it differs from the range underneath.

        Changes that are less than ``NEAR`` bytes apart and were written together are one.

        Raises:
            OSError: The range underneath could not be read.
        """
        found: list[Run] = []
        for start, run in zip(self._starts, self._runs, strict=True):
            under = min(max(self._length - start, 0), len(run))
            old = np.frombuffer(self._under(start, under), np.uint8)
            new = np.frombuffer(run, np.uint8)
            other = np.ones(len(run), np.bool_)
            other[:under] = old != new[:under]
            places = np.flatnonzero(other)
            if not len(places):
                continue
            cuts = np.flatnonzero(np.diff(places) >= NEAR)
            for low, high in zip(
                [0, *(cuts + 1).tolist()], [*cuts.tolist(), len(places) - 1], strict=True
            ):
                first, last = int(places[low]), int(places[high])
                found.append((start + first, bytes(run[first : last + 1])))
        if self.failure is not None:
            raise self.failure
        return tuple(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, and return which."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        """Return the byte that is read or written next."""
        return self._at

    def read(self, length: int = -1) -> bytes:
        """Return up to so many bytes from here."""
        rest = max(self.size - self._at, 0)
        found = bytearray(rest if length < 0 else min(length, rest))
        self.readinto(found)
        return bytes(found)

    def readinto(self, buffer: Buffer) -> int:
        """Fill a buffer from here as far as the file goes, and return how many bytes that is."""
        view = memoryview(buffer).cast("B")
        start = self._at
        count = min(len(view), max(self.size - start, 0))
        under = min(max(self._length - start, 0), count)
        if under:
            view[:under] = self._under(start, under)
        if under < count:
            view[under:count] = bytes(count - under)
        for at in range(*self._touched(start, start + count)):
            run, run_start = self._runs[at], self._starts[at]
            low, high = max(start, run_start), min(start + count, run_start + len(run))
            view[low - start : high - start] = memoryview(run)[low - run_start : high - run_start]
        self._at += count
        return count

    def write(self, buffer: Buffer) -> int:
        """Keep bytes for here."""
        view = memoryview(buffer).cast("B")
        start, stop = self._at, self._at + len(view)
        self._at = stop
        self.size = max(self.size, stop)
        if self.muted and not np.frombuffer(view, np.uint8).any():
            self._cut(start, stop)
            return len(view)
        first, last = self._touched(start, stop)
        if first == last and first and self._end(first - 1) == start:
            self._runs[first - 1] += view
        elif last - first == 1 and self._starts[first] <= start and stop <= self._end(first):
            at = start - self._starts[first]
            self._runs[first][at : at + len(view)] = view
        else:
            self._cut(start, stop)
            at = bisect_left(self._starts, start)
            self._starts.insert(at, start)
            self._runs.insert(at, bytearray(view))
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        size = self._at if size is None else size
        if size < self.size:
            self._cut(size, self.size)
        self._length = min(self._length, size)
        self.size = size
        return size

    def flush(self) -> None:
        """Do nothing: there is nowhere to put it."""

    def _under(self, offset: int, length: int) -> bytes | bytearray:
        """Return bytes of the range underneath; zeros after a failure.

        The library goes on after an error of a read, and then h5py is in no state to raise it.
        """
        ahead_start, ahead = self._ahead
        at = offset - ahead_start
        if not 0 <= at <= len(ahead) - length:
            at, ahead = 0, self._fetch(offset, max(length, min(AHEAD, self._length - offset)))
            self._ahead = offset, ahead
        return ahead[at : at + length]

    def _fetch(self, offset: int, length: int) -> bytes | bytearray:
        if self._base is not None and length and self.failure is None:
            try:
                return self._base.read(self._start + offset, length)
            except BaseException as error:  # noqa: BLE001 - raised by who opened the file
                self.failure = error
        return bytes(length)

    def _end(self, at: int) -> int:
        return self._starts[at] + len(self._runs[at])

    def _touched(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first run that has bytes in a range, and one past the last."""
        first = bisect_right(self._starts, start)
        if first and self._end(first - 1) > start:
            first -= 1
        return first, max(bisect_left(self._starts, stop), first)

    def _cut(self, start: int, stop: int) -> None:
        """Forget what was written in a range."""
        first, last = self._touched(start, stop)
        if first == last:
            return
        low, high = self._starts[first], self._end(last - 1)
        left = [(low, self._runs[first][: start - low])] if low < start else []
        tail = self._runs[last - 1][stop - self._starts[last - 1] :] if high > stop else None
        right = [(stop, tail)] if tail is not None else []
        parts = [*left, *right]
        self._starts[first:last] = [at for at, _ in parts]
        self._runs[first:last] = [run for _, run in parts]


@contextmanager
def opened(
    overlay: Overlay, mode: str, path: str | None, *, tracked: bool = False
) -> Iterator[Any]:
    """Open an overlay with the HDF5 library, and give its root group (``h5py.h5g.GroupID``).

    A new file is as those that Keras writes: of the oldest version that holds what is in it, with
    no times in it.

    Args:
        overlay: What to open.
        mode: ``r``, ``r+``, or ``w``, as of ``h5py.File``.
        path: The file that it is about, for messages.
        tracked: The root of a new file keeps links and attributes in the order they are made.

    Raises:
        UnsupportedError: The library refuses to open, to do what the block does, or to close.
        OSError: The range underneath could not be read; nothing that was found holds then.
    """
    import h5py

    try:
        with (
            undisturbed(),
            explained("", UnsupportedError, path),
            h5py.File(
                overlay, mode, driver="fileobj", libver="earliest", track_order=tracked
            ) as file,
        ):
            yield h5py.h5g.open(file.id, b"/")
    finally:
        if overlay.failure is not None:
            raise overlay.failure from None


@contextmanager
def explained(what: str, kind: type[CkptError], path: str | None) -> Iterator[None]:
    """Turn what the HDF5 library raises into an error of ckptkit.

    Args:
        what: Was asked for, for the message; empty where all of the file is meant.
        kind: The error to raise.
        path: The file that it is about.
    """
    before = f"{what}: " if what else ""
    try:
        yield
    except HDF5_ERRORS as error:
        if not isinstance(error, CkptError):
            said = " ".join(str(error.args[0] if error.args else error).split())
            msg = f"{before}the HDF5 library does not do this, it says: {said}"
            raise kind(msg, path=path) from error
        if not before or error.path is not None:
            raise
        msg = f"{before}{error.message}"
        raise type(error)(msg, path=path) from error
