"""What an edit in place does to files, in a form that can be done, done again, and undone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from ckptkit._native import crc32c, crc32c_segments
from ckptkit.errors import CorruptError
from ckptkit.storage.runs import PAGE, read_runs, write_runs

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Sequence

    from numpy.typing import NDArray

    from ckptkit.storage.disk import Disk, File

    Int64s = NDArray[np.int64]
    Bytes = bytes | NDArray[np.uint8]

SUMMED: Final = 4 << 20
"""Bytes that are read and summed at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Bytes that are replaced where they are.

    Attributes:
        file: Which file, as a path relative to the folder of the journal; so in all changes.
        width: Bytes of each run.
        offsets: int64, where in the file each run starts.
        old, new: The bytes of all runs, joined.
    """

    file: str
    width: int
    offsets: Int64s
    old: Bytes
    new: Bytes


@dataclass(frozen=True, slots=True, eq=False)
class Replaced:
    """Bytes that are replaced, durably, before there is a commit: nobody has to do it again.

    Attributes:
        file: Which file.
        offset: Where they start in it.
        old: The bytes as they were.
        sums: uint32, CRC-32C of what is there afterwards, of each page of the file by itself.
    """

    file: str
    offset: int
    old: Bytes
    sums: NDArray[np.uint32]

    @classmethod
    def by(cls, file: str, offset: int, old: Bytes, new: Bytes) -> Self:
        """Return what has to be known to take back that old bytes became new ones."""
        return cls(file, offset, old, _page_sums(offset, new))


def pages_of(offset: int, length: int) -> Int64s:
    """Return where the pages of a byte range of a file end, counted from its start."""
    first = offset // PAGE * PAGE + PAGE
    ends = [*range(first - offset, length, PAGE), length] if length else []
    return np.array(ends, np.int64)


def _page_sums(offset: int, content: Buffer) -> NDArray[np.uint32]:
    ends = pages_of(offset, memoryview(content).nbytes)
    return np.frombuffer(crc32c_segments(content, ends), np.uint32)


@dataclass(frozen=True, slots=True)
class Whole:
    """A file that another one takes the place of, at once."""

    file: str
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """A file that grows; it had ``length`` bytes."""

    file: str
    length: int


@dataclass(frozen=True, slots=True)
class Move:
    """A file that is ready under another name, and takes the place of ``file``."""

    file: str
    staged: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A file that is not needed any more."""

    file: str


Change = Runs | Replaced | Whole | Tail | Move | Gone


def sum_of(file: File, ranges: Sequence[tuple[int, int]]) -> int:
    """Return what a file says of the state that a checkpoint is in: a sum of a few bytes, or all.

    Args:
        file: The file.
        ranges: Offset and length of each part that counts, as far as it is there; none for all.

    Returns:
        CRC-32C of the parts, joined.
    """
    total = 0
    for start, length in _parts(file, ranges):
        for at in range(start, start + length, SUMMED):
            total = crc32c(file.read(at, min(SUMMED, start + length - at)), total)
    return total


def _parts(file: File, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    size = file.size
    wanted = ranges or ((0, size),)
    return [(start, min(length, size - start)) for start, length in wanted if start < size]


class Picture:
    """What :func:`sum_of` is over, held in memory, to tell what changes make of it."""

    def __init__(self, file: File, ranges: Sequence[tuple[int, int]]) -> None:
        """Read it."""
        self._parts = [(start, file.read(start, size)) for start, size in _parts(file, ranges)]

    @property
    def sum(self) -> int:
        """The sum of it."""
        total = 0
        for _, content in self._parts:
            total = crc32c(content, total)
        return total

    def put(self, change: Runs, *, back: bool = False) -> None:
        """Have the bytes as they are after a change, or before it."""
        joined = change.old if back else change.new
        for number, offset in enumerate(change.offsets.tolist()):
            run = joined[number * change.width : (number + 1) * change.width]
            for start, content in self._parts:
                low, high = max(offset, start), min(offset + len(run), start + len(content))
                if low < high:
                    content[low - start : high - start] = run[low - offset : high - offset]


def holds(file: File, change: Runs | Replaced, *, done: bool) -> bool:
    """Tell whether the bytes of a file are those that a change speaks of.

    Args:
        file: The file.
        change: What is done to it.
        done: It is done as a whole; else each byte, or most pages, may be as before or as after.
            What is behind the end of a file that is still to grow is as before.
    """
    if isinstance(change, Replaced):
        return _holds_pages(file, change, done=done)
    there = int(np.searchsorted(change.offsets, file.size - change.width, "right"))
    if done and there < len(change.offsets):
        return False
    found = read_runs(file, change.width, change.offsets[:there])
    old, new = (
        np.frombuffer(joined, np.uint8)[: len(found)] for joined in (change.old, change.new)
    )
    after = found == new
    return bool((after if done else after | (found == old)).all())


def _holds_pages(file: File, change: Replaced, *, done: bool) -> bool:
    length = len(change.old)
    if file.size < change.offset + length:
        return False
    found = file.read(change.offset, length)
    other = _page_sums(change.offset, found) != change.sums
    if done:
        return not other.any()
    same = np.frombuffer(found, np.uint8) == np.frombuffer(change.old, np.uint8)
    starts = np.concatenate([np.zeros(1, np.int64), pages_of(change.offset, length)[:-1]])
    strange = np.count_nonzero(other & ~np.logical_and.reduceat(same, starts))
    # A page may be torn where a write was; of a file that was written anew, hardly any fits.
    return bool(strange <= max(len(other) // 2, 1))


class Applier:
    """Makes changes, or takes them back, and has the device keep them.

    Every change may be made again after a part of it was made: what it writes is given.
    """

    def __init__(self, disk: Disk, folder: str, allowed: Callable[[str], bool]) -> None:
        """Prepare.

        Args:
            disk: The file system.
            folder: What the names in changes are relative to.
            allowed: Tells whether a path is that of a file which the edit may change.
        """
        self._disk = disk
        self._folder = folder
        self._allowed = allowed
        self._touched: dict[str, File] = {}
        self._folders: set[str] = set()

    def path(self, file: str) -> str:
        """Return the path of a file of a change.

        Raises:
            CorruptError: It is none that a change may be about.
        """
        path = os.path.normpath(os.path.join(self._folder, file))
        if os.path.isabs(file) or "\0" in file or not self._allowed(path):
            msg = f"it names {file!r}, which is no file of the checkpoint"
            raise CorruptError(msg, path=self._folder)
        return path

    def forward(self, change: Change) -> None:
        """Make a change."""
        match change:
            case Runs(file, width, offsets, _, new):
                write_runs(self._open(file), width, offsets, new)
            case Whole(file, _, new):
                self._replace(file, new)
            case Move(file, staged):
                self._move(self.path(staged), self.path(file))
            case Gone(file):
                path = self.path(file)
                self._folders.add(os.path.dirname(path))
                if os.path.lexists(path):
                    self._disk.remove(path)
            case Tail() | Replaced():
                # What comes after it, and what was replaced, was durable before the commit.
                pass

    def back(self, changes: Sequence[Change]) -> None:
        """Take changes back that were made one after the other.

        Raises:
            CorruptError: One cannot be taken back.
        """
        # What lies behind them is cut off: it need not be written, and there may be no room to.
        ends = {change.file: change.length for change in changes if isinstance(change, Tail)}
        for change in reversed(changes):
            if isinstance(change, Runs) and change.file in ends:
                self._back_before(change, ends[change.file])
            else:
                self._back(change)

    def _back_before(self, change: Runs, end: int) -> None:
        file = self._open(change.file)
        for at, offset in enumerate(change.offsets.tolist()):
            old = change.old[at * change.width : (at + 1) * change.width][: max(end - offset, 0)]
            if old:
                file.write(old, offset)

    def _back(self, change: Change) -> None:
        match change:
            case Runs(file, width, offsets, old, _):
                write_runs(self._open(file), width, offsets, old)
            case Replaced(file, offset, old, _):
                self._open(file).write(old, offset)
            case Whole(file, old, _):
                path = self.path(file)
                with self._disk.open(path) as there:
                    same = there.size == len(old) and there.read(0, len(old)) == old
                if same:
                    # It never was replaced, and may not be replaceable now: the device is full.
                    self._folders.add(os.path.dirname(path))
                else:
                    self._replace(file, old)
            case Tail(file, length):
                # Not before the index is back that knows nothing of the tail.
                self.sync()
                opened = self._open(file)
                if opened.size > length:
                    opened.resize(length)
            case Move() | Gone():
                msg = f"what happened to {change.file!r} cannot be undone"
                raise CorruptError(msg, path=self._folder)

    def _move(self, staged: str, path: str) -> None:
        # A process that was killed may have done it, and had the device keep nothing of it.
        self._folders.add(os.path.dirname(path))
        if not os.path.lexists(staged):
            return
        if os.path.lexists(path) and os.path.samefile(staged, path):
            # Two names of one file, of which a rename would leave both.
            self._disk.remove(staged)
        else:
            self._disk.rename(staged, path)
        self._folders.add(os.path.dirname(staged))

    def _open(self, file: str) -> File:
        path = self.path(file)
        found = self._touched.get(path)
        if found is None:
            found = self._touched[path] = self._disk.open_to_change(path)
        return found

    def _replace(self, file: str, content: bytes) -> None:
        path = self.path(file)
        with self._disk.replacement(path) as target:
            target.write(content, 0)
        self._folders.add(os.path.dirname(path))

    def sync(self) -> None:
        """Return when the device has all changes so far."""
        while self._touched:
            file = self._touched.pop(next(iter(self._touched)))
            with file:
                file.sync()
        while self._folders:
            self._disk.sync_folder(self._folders.pop())

    def close(self) -> None:
        """Let go of the files."""
        while self._touched:
            self._touched.popitem()[1].close()
