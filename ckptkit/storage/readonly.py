"""What a virtual path opens: values that are no byte range of their file, and are only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ckptkit.errors import ConflictError, CorruptError, UnsupportedError
from ckptkit.storage.disk import File

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence

    from ckptkit.storage.disk import Disk


class VirtualFile(File):
    """The values of a tensor, dense, as a file without a descriptor; subclasses fill buffers."""

    __slots__ = ("_tensor",)

    def __init__(self, disk: Disk, path: str, tensor: str) -> None:
        """Hold what errors name.

        Args:
            disk: Counts what is read.
            path: The real file.
            tensor: What the values are called in it.
        """
        super().__init__(disk, path, -1)
        self._tensor = tensor

    def read_runs(self, width: int, offsets: Sequence[int]) -> bytearray:
        """Return runs of ``width`` bytes each, joined, from these byte offsets."""
        found = bytearray(width * len(offsets))
        view = memoryview(found)
        for at, offset in enumerate(offsets):
            self.read_into(view[at * width : (at + 1) * width], offset)
        return found

    def write(self, buffer: Buffer, offset: int) -> None:  # noqa: ARG002  the signature of a file
        """Refuse: this is only read."""
        self._read_only()

    def write_runs(self, width: int, offsets: Sequence[int], joined: Buffer) -> None:  # noqa: ARG002
        """Refuse: this is only read."""
        self._read_only()

    def copy_from(self, source: File, source_offset: int, offset: int, length: int) -> None:  # noqa: ARG002
        """Refuse: this is only read."""
        self._read_only()

    def resize(self, length: int) -> None:  # noqa: ARG002
        """Refuse: this is only read."""
        self._read_only()

    def _check_range(self, offset: int, end: int) -> None:
        """Refuse to read past the last value.

        Raises:
            ConflictError: There are fewer bytes.
        """
        if offset < 0 or end > self.size:
            msg = f"the tensor ends at byte {self.size}; bytes {offset} to {end} were asked for"
            raise ConflictError(msg, path=self.path, tensor=self._tensor)

    def _corrupt(self, message: str, offset: int | None = None) -> NoReturn:
        raise CorruptError(message, path=self.path, tensor=self._tensor, offset=offset)

    def _read_only(self) -> NoReturn:
        msg = "these values are no byte range of their file, and cannot be written in place"
        raise UnsupportedError(msg, path=self.path, tensor=self._tensor)
