"""HDF5 content: a byte range of a file, and what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptkit.formats.keras.hdf5.tree import Tree
    from ckptkit.storage.disk import File


@dataclass(frozen=True, slots=True)
class Content:
    """HDF5 content: a byte range of a file, and what is in it.

    Attributes:
        file: The file, open for reading.
        start: Its first byte.
        length: Bytes of it.
        tree: What was found in it; nothing else makes sure that it leads nowhere else.
    """

    file: File
    start: int
    length: int
    tree: Tree

    @property
    def path(self) -> str:
        """Path of the file."""
        return self.file.path
