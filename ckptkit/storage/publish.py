"""How a result becomes visible: staged out of sight, made durable, then renamed.

Nothing under a final name exists before all of it is on the device, and the name that makes a
checkpoint of it (the index, or the folder) comes last.
"""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING, Self

from ckptkit.errors import ConflictError
from ckptkit.storage.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Buffer
    from types import TracebackType

    from ckptkit.storage.disk import File


class Staging:
    """A hidden folder beside the destination that holds the result until it is published.

    As a context manager it removes the folder, and whatever half-published names there are,
    unless :meth:`publish` went through.
    """

    def __init__(self, destination: str, *, whole_folder: bool, disk: Disk | None = None) -> None:
        """Choose where to stage.

        Args:
            destination: The path that the result will appear at: a folder when
                ``whole_folder``, else the common beginning of its files' paths.
            whole_folder: Publish by renaming the folder itself.
            disk: The file system.
        """
        self._disk = disk or Disk()
        self._destination = os.path.abspath(destination)
        self._whole_folder = whole_folder
        parent, name = os.path.split(self._destination)
        self._parent = parent
        self._root = os.path.join(parent, f".{name[:64]}.ckptkit-{secrets.token_hex(6)}")
        self._files: dict[str, tuple[str, File]] = {}
        self._folders: list[str] = []
        self._visible: list[str] = []
        self._made_parents: list[str] = []

    def __enter__(self) -> Self:
        """Make the folder, and the destination's parents where they are missing."""
        missing = self._parent
        while missing and not os.path.isdir(missing):
            self._made_parents.append(missing)
            missing = os.path.dirname(missing)
        for folder in reversed(self._made_parents):
            self._disk.make_folder(folder)
        self._disk.make_folder(self._root)
        return self

    def create(self, path: str, length: int = 0) -> File:
        """Make a file that will appear at ``path``, of a given length in bytes."""
        staged = self._stage_path(path)
        file = self._disk.create(staged)
        self._files[path] = (staged, file)
        if length:
            file.resize(length)
        return file

    def write(self, path: str, content: Buffer) -> None:
        """Make a file that will appear at ``path`` with these contents."""
        self.create(path).write(content, 0)

    @property
    def parent(self) -> str:
        """The folder in which the result will appear."""
        return self._parent

    def staged(self, path: str) -> str:
        """Return where the file is now that will appear at ``path``."""
        return self._files[path][0]

    def publish(self) -> None:
        """Make the result durable, then visible. The last file created is the commit point.

        Raises:
            ConflictError: Something appeared at the destination in the meantime.
        """
        for staged, file in self._files.values():
            file.sync()
            file.close()
            if self._whole_folder:
                self._disk.rename(staged, staged.removesuffix(".part"))
        for folder in [*self._folders, self._root]:
            self._disk.sync_folder(folder)
        if self._whole_folder:
            self._appear(self._root, self._destination)
        else:
            for path, (staged, _) in self._files.items():
                if path == next(reversed(self._files)):
                    # The names of all shards must outlive a crash before the index has one.
                    self._disk.sync_folder(self._parent)
                self._appear(staged, path)
            self._disk.remove_folder(self._root)
        self._disk.sync_folder(self._parent)
        for folder in self._made_parents:
            self._disk.sync_folder(os.path.dirname(folder))
        self._visible.clear()
        self._root = ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove everything that was not published."""
        for _, file in self._files.values():
            file.close()
        if not self._root:
            return
        for path in reversed(self._visible):
            if self._whole_folder:
                shutil.rmtree(path)
            else:
                self._disk.remove(path)
        shutil.rmtree(self._root, ignore_errors=True)
        for folder in self._made_parents:
            try:
                self._disk.remove_folder(folder)
            except OSError:
                break

    def _stage_path(self, path: str) -> str:
        # Never the final name: a staged index beside its shards would open as a checkpoint.
        if not self._whole_folder:
            return os.path.join(self._root, f"{len(self._files):05d}.part")
        inner = os.path.relpath(os.path.abspath(path), self._destination)
        folder = self._root
        for part in os.path.dirname(inner).split(os.sep):
            folder = os.path.join(folder, part) if part else folder
            if not os.path.isdir(folder):
                self._disk.make_folder(folder)
                self._folders.insert(0, folder)
        return os.path.join(self._root, f"{inner}.part")

    def _appear(self, staged: str, path: str) -> None:
        if os.path.lexists(path):
            msg = "appeared while the edit ran; nothing was overwritten"
            raise ConflictError(msg, path=path)
        self._disk.rename(staged, path)
        self._visible.append(path)
