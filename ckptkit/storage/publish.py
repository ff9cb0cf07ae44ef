"""How a result becomes visible: staged out of sight, made durable, then renamed.

Nothing under a final name exists before all of it is on the device, and the name that makes a
checkpoint of it (the index, or the folder) comes last.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from ckptkit._native import crc32c
from ckptkit.errors import ConflictError
from ckptkit.storage.disk import Disk
from ckptkit.storage.sidecar import MARK, staging_name

if TYPE_CHECKING:
    from collections.abc import Buffer
    from types import TracebackType

    from ckptkit.storage.disk import File

NAMES: Final = "names"
"""The file of a staging folder that says under which names what is in it appears, a line each."""

MAX_NAMES: Final = 256 << 20
"""Bytes of such a file at most."""

RECEIPTS: Final = "receipts"
"""The file of a staging folder that says what in it is done; never published."""


class Staging:
    """A hidden folder beside the destination that holds the result until it is published.

    As a context manager it removes the folder, and whatever half-published names there are,
    unless :meth:`publish` went through, or the folder is kept for a later run.
    """

    def __init__(
        self,
        destination: str,
        *,
        whole_folder: bool,
        disk: Disk | None = None,
        adopt: str | None = None,
    ) -> None:
        """Choose where to stage.

        Args:
            destination: The path that the result will appear at: a folder when
                ``whole_folder``, else the common beginning of its files' paths.
            whole_folder: Publish by renaming the folder itself.
            disk: The file system.
            adopt: The folder that an earlier run left, to go on in.

        Attributes:
            root: The folder.
            keep: Leave it where it is if the result is not published; so from the start if it was
                there before.
        """
        self._disk = disk or Disk()
        self._destination = os.path.abspath(destination)
        self._whole_folder = whole_folder
        self.keep = adopt is not None
        self._parent = os.path.dirname(self._destination)
        fresh = staging_name(self._destination) + secrets.token_hex(6)
        self._adopted = adopt is not None
        self.root = adopt or os.path.join(self._parent, fresh)
        self._lock = -1
        self._files: dict[str, tuple[str, File]] = {}
        self._folders: list[str] = []
        self._visible: list[tuple[str, str]] = []
        self._made_parents: list[str] = []

    def __enter__(self) -> Self:
        """Make the folder, and the destination's parents where they are missing.

        Raises:
            ConflictError: The folder to go on in is that of a run which goes on by itself.
        """
        missing = self._parent
        while missing and not os.path.isdir(missing):
            self._made_parents.append(missing)
            missing = os.path.dirname(missing)
        for folder in reversed(self._made_parents):
            self._disk.make_folder(folder)
        if not self._adopted:
            self._disk.make_folder(self.root)
        self._lock = take_staging(self.root)
        return self

    def create(self, path: str, length: int = 0) -> File:
        """Make a file that will appear at ``path``, of a given length in bytes."""
        staged = self._stage_path(path)
        if self._adopted and self._whole_folder:
            named = staged.removesuffix(".part")
            if not os.path.lexists(staged) and os.path.lexists(named):
                # The earlier run came as far as giving names.
                self._disk.rename(named, staged)
        if self._adopted and os.path.lexists(staged):
            if length and os.path.getsize(staged) == length:
                file = self._disk.open_to_change(staged)
                self._files[path] = (staged, file)
                return file
            self._disk.remove(staged)
        file = self._disk.create(staged)
        self._files[path] = (staged, file)
        if length:
            file.resize(length)
        return file

    def link(self, path: str, source: str) -> None:
        """Have a file appear at ``path`` that is another name of ``source``."""
        staged = self._stage_path(path)
        if self._adopted and os.path.lexists(staged):
            self._disk.remove(staged)
        self._disk.link(source, staged)
        self._files[path] = (staged, self._disk.open(staged))

    def write(self, path: str, content: Buffer) -> None:
        """Make a file that will appear at ``path`` with these contents."""
        self.create(path).write(content, 0)

    @property
    def parent(self) -> str:
        """The folder in which the result will appear."""
        return self._parent

    def file(self, path: str) -> File:
        """Return the open file that will appear at ``path``."""
        return self._files[path][1]

    def staged(self, path: str) -> str:
        """Return where the file is now that will appear at ``path``."""
        return self._files[path][0]

    def settle(self) -> None:
        """Make all files durable, under the names that they have here."""
        for staged, file in self._files.values():
            file.sync()
            file.close()
            if self._whole_folder:
                self._disk.rename(staged, staged.removesuffix(".part"))
        if self._whole_folder:
            self._remove_receipts()
        for folder in [*self._folders, self.root]:
            self._disk.sync_folder(folder)

    def publish(self) -> None:
        """Make the result durable, then visible. The last file created is the commit point.

        Raises:
            ConflictError: Something appeared at the destination in the meantime.
        """
        self.settle()
        if self._whole_folder:
            self._appear(self.root, self._destination)
        else:
            self._note_names()
            for path, (staged, _) in self._files.items():
                if path == next(reversed(self._files)):
                    # The names of all shards must outlive a crash before the index has one.
                    self._disk.sync_folder(self._parent)
                self._appear(staged, path)
            self._remove_receipts()
            self._disk.remove(os.path.join(self.root, NAMES))
            self._disk.remove_folder(self.root)
        self._disk.sync_folder(self._parent)
        for folder in self._made_parents:
            self._disk.sync_folder(os.path.dirname(folder))
        self.hand_over()

    def _note_names(self) -> None:
        """Write down which names appear, for who has to take them back after a kill.

        It is not synced: what is without it is still no checkpoint, and is told to be in the way.
        """
        names = b"\n".join(os.fsencode(os.path.basename(path)) for path in self._files)
        path = os.path.join(self.root, NAMES)
        if os.path.lexists(path):
            self._disk.remove(path)
        with self._disk.create(path) as file:
            file.write(b"%08x\n" % crc32c(names) + names, 0)

    def _remove_receipts(self) -> None:
        receipts = os.path.join(self.root, RECEIPTS)
        if os.path.lexists(receipts):
            self._disk.remove(receipts)

    def hand_over(self) -> None:
        """Leave it to others what becomes of the files: from here on nothing is removed."""
        self._visible.clear()
        self.root = ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove everything that was not published, or keep it out of sight."""
        for _, file in self._files.values():
            file.close()
        try:
            if self.root:
                self._withdraw()
        finally:
            if self._lock >= 0:
                os.close(self._lock)

    def _withdraw(self) -> None:
        for staged, path in reversed(self._visible):
            if self.keep and os.path.isdir(os.path.dirname(staged)):
                self._disk.rename(path, staged)
            elif self._whole_folder:
                _remove_tree(path, self._disk)
            else:
                self._disk.remove(path)
        if self.keep and os.path.lexists(os.path.join(self.root, RECEIPTS)):
            return
        with suppress(OSError):
            _remove_tree(self.root, self._disk)
        for folder in self._made_parents:
            try:
                self._disk.remove_folder(folder)
            except OSError:
                break

    def _stage_path(self, path: str) -> str:
        # Never the final name: a staged index beside its shards would open as a checkpoint.
        if not self._whole_folder:
            return os.path.join(self.root, _part(len(self._files)))
        inner = os.path.relpath(os.path.abspath(path), self._destination)
        folder = self.root
        for part in os.path.dirname(inner).split(os.sep):
            folder = os.path.join(folder, part) if part else folder
            if folder != self.root and folder not in self._folders:
                if not os.path.isdir(folder):
                    self._disk.make_folder(folder)
                self._folders.insert(0, folder)
        return os.path.join(self.root, f"{inner}.part")

    def _appear(self, staged: str, path: str) -> None:
        if os.path.lexists(path):
            msg = "appeared while the edit ran; nothing was overwritten"
            raise ConflictError(msg, path=path)
        self._disk.rename(staged, path)
        self._visible.append((staged, path))


def take_staging(root: str) -> int:
    """Take a staging folder for this process; return the descriptor that holds it.

    Raises:
        ConflictError: Another process has it.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        msg = "another process is writing here just now"
        raise ConflictError(msg, path=root) from None
    except OSError:
        # A file system without locks: whoever shares it has to keep apart by other means.
        pass
    return fd


def remove_staging(root: str, disk: Disk) -> bool:
    """Remove a staging folder that no process writes in any more; tell whether it is gone."""
    try:
        fd = take_staging(root)
    except (ConflictError, FileNotFoundError):
        return False
    try:
        for path in _half_published(root):
            disk.remove(path)
        disk.sync_folder(os.path.dirname(root))
        _remove_tree(root, disk)
        disk.sync_folder(os.path.dirname(root))
    finally:
        os.close(fd)
    return True


def _half_published(root: str) -> list[str]:
    """Return the files that got their names although the one that counts has none yet."""
    parent, hidden = os.path.split(root)
    beginning = hidden[1 : hidden.rindex(MARK)]
    try:
        with open(os.path.join(root, NAMES), "rb") as file:
            head, _, text = file.read(MAX_NAMES).partition(b"\n")
    except FileNotFoundError:
        return []
    names = list(map(os.fsdecode, text.split(b"\n")))
    # A device may have kept both names of a file that was renamed: the one that counts decides.
    if head != b"%08x" % crc32c(text) or os.path.lexists(os.path.join(parent, names[-1])):
        return []
    waiting = [os.path.lexists(os.path.join(root, _part(at))) for at in range(len(names))]
    if not waiting[-1]:
        return []
    ours = (
        os.path.join(parent, name)
        for name, waits in zip(names, waiting, strict=True)
        if not waits and name.startswith(beginning) and os.path.basename(name) == name
    )
    return [path for path in ours if os.path.lexists(path)]


def _part(number: int) -> str:
    return f"{number:05d}.part"


def _remove_tree(root: str, disk: Disk) -> None:
    for place, folders, names in list(os.walk(root, topdown=False)):
        for name in names:
            disk.remove(os.path.join(place, name))
        for name in folders:
            disk.remove_folder(os.path.join(place, name))
    disk.remove_folder(root)
