"""What an edit in place does to files, in a form that can be done, done again, and undone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptkit.errors import CorruptError
from ckptkit.storage.runs import write_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.storage.disk import Disk, File

    Int64s = NDArray[np.int64]


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
    old: bytes
    new: bytes


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


Change = Runs | Whole | Tail | Move | Gone


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
            case Tail():
                # What comes after it was durable before the commit.
                pass

    def back(self, change: Change) -> None:
        """Take a change back.

        Raises:
            CorruptError: It cannot be taken back.
        """
        match change:
            case Runs(file, width, offsets, old, _):
                write_runs(self._open(file), width, offsets, old)
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
