"""The seam under all I/O: every call that reads or changes a file goes through here.

Tests put another disk underneath, one that counts, fails, or forgets what was not synced.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import itertools
import os
import threading
from collections import OrderedDict
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from ckptkit.errors import ConflictError
from ckptkit.storage.sidecar import unfinished
from ckptkit.storage.virtual import is_virtual, open_virtual, stamp_virtual

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Concatenate, ParamSpec, TypeVar

    P = ParamSpec("P")
    Result = TypeVar("Result")
    Writes = Callable[[], Sequence[tuple[int, bytes]]]


MAX_TRANSFER: Final = 1 << 30
"""Bytes asked of one system call; some systems fail or cut short at 2 GiB."""

WRITE: Final = 256 << 10
"""Bytes given to one write: with larger ones Linux looks for large runs of free memory for its
cache, which takes longer than the copying."""

MAX_OPEN_FILES: Final = 128
"""Shared files held open at a time."""

COPY_BLOCK: Final = 1 << 20
"""Bytes per block where the kernel cannot copy between two files by itself."""

_FICLONERANGE: Final = 0x4020940D
_NOT_IN_KERNEL: Final = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
}


@dataclass(slots=True)
class Traffic:
    """Bytes that moved: read into memory, written from memory, copied from file to file."""

    read: int = 0
    written: int = 0
    copied: int = 0


class Stamp(NamedTuple):
    """What tells that a file is still the one that was looked at."""

    path: str
    size: int
    changed: int


def stamp(path: str) -> Stamp:
    """Return path, length in bytes, and time of change in nanoseconds of a file."""
    known = stamp_virtual(path) if is_virtual(path) else None
    if known is not None:
        return known
    found = os.stat(path)
    return Stamp(path, found.st_size, found.st_mtime_ns)


def _named(
    call: Callable[Concatenate[File, P], Result],
) -> Callable[Concatenate[File, P], Result]:
    """Have an error of the system say which file it is about: calls by descriptor do not."""

    @functools.wraps(call)
    def named(file: File, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        try:
            return call(file, *args, **kwargs)
        except OSError as error:
            if error.filename is None:
                error.filename = file.path
            raise

    return named


class File:
    """An open file. Reads and writes are positioned, complete, and safe from many threads."""

    __slots__ = ("_disk", "fd", "path")

    def __init__(self, disk: Disk, path: str, fd: int) -> None:
        """Hold an open descriptor."""
        self._disk = disk
        self.path = path
        self.fd = fd

    @property
    def size(self) -> int:
        """Length in bytes."""
        return os.fstat(self.fd).st_size

    @_named
    def read_into(self, buffer: Buffer, offset: int) -> None:
        """Fill a buffer from a byte offset.

        Raises:
            ConflictError: The file ends before the buffer is full.
        """
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            got = os.preadv(self.fd, [view[done : done + MAX_TRANSFER]], offset + done)
            if got == 0:
                msg = f"the file ends here; {len(view) - done} more bytes were there when scanned"
                raise ConflictError(msg, path=self.path, offset=offset + done)
            done += got
        self._disk.count(read=done)

    @_named
    def fill(self, buffer: bytearray, offset: int) -> bool:
        """Fill a small buffer with a single call, and tell whether that did; it is not counted."""
        return os.preadv(self.fd, [buffer], offset) == len(buffer)

    def read(self, offset: int, length: int) -> bytearray:
        """Return a byte range.

        Raises:
            ConflictError: The file ends before the range does.
        """
        buffer = bytearray(length)
        self.read_into(buffer, offset)
        return buffer

    @_named
    def write(self, buffer: Buffer, offset: int) -> None:
        """Write a whole buffer at a byte offset."""
        view = memoryview(buffer).cast("B")
        self._disk.about_to("write", self.path, writes=lambda: [(offset, bytes(view))])
        done = 0
        while done < len(view):
            done += os.pwrite(self.fd, view[done : done + WRITE], offset + done)
        self._disk.count(written=done)

    @_named
    def read_runs(self, width: int, offsets: Sequence[int]) -> bytearray:
        """Return runs of ``width`` bytes each, joined, from these byte offsets.

        Raises:
            ConflictError: The file ends before one of them does.
        """
        pieces = map(os.pread, itertools.repeat(self.fd), itertools.repeat(width), offsets)
        found = bytearray().join(pieces)
        if len(found) != width * len(offsets):
            # Somewhere a read was short: read one by one, and say where.
            found = bytearray().join([self.read(offset, width) for offset in offsets])
        else:
            self._disk.count(read=len(found))
        return found

    @_named
    def write_runs(self, width: int, offsets: Sequence[int], joined: Buffer) -> None:
        """Write runs of ``width`` bytes each, given joined, at these byte offsets."""
        view = memoryview(joined).cast("B")
        runs = [view[at : at + width] for at in range(0, len(view), width)]
        self._disk.about_to(
            "write", self.path, writes=lambda: [*zip(offsets, map(bytes, runs), strict=True)]
        )
        written = list(map(os.pwrite, itertools.repeat(self.fd), runs, offsets))
        for at, done in enumerate(written):
            moved = done
            while moved < width:
                moved += os.pwrite(self.fd, runs[at][moved:], offsets[at] + moved)
        self._disk.count(written=len(view))

    def copy_from(self, source: File, source_offset: int, offset: int, length: int) -> None:
        """Copy a byte range of another file: by reflink, in the kernel, or block by block.

        What has no descriptor of its own, such as a dataset that is decoded, is read and written.

        Raises:
            ConflictError: The source ends before the range does.
        """
        if source.fd < 0:
            for at in range(0, length, COPY_BLOCK):
                block = source.read(source_offset + at, min(COPY_BLOCK, length - at))
                self.write(block, offset + at)
            return
        self._disk.about_to(
            "copy",
            self.path,
            writes=lambda: [(offset, os.pread(source.fd, length, source_offset))],
        )
        try:
            self._copy_all(source, source_offset, offset, length)
        except OSError as error:
            error.filename, error.filename2 = source.path, self.path
            raise
        self._disk.count(copied=length)

    def _copy_all(self, source: File, source_offset: int, offset: int, length: int) -> None:
        if length and not _clone(source.fd, source_offset, self.fd, offset, length):
            done = 0
            while done < length:
                done += self._copy_some(source, source_offset + done, offset + done, length - done)

    def _copy_some(self, source: File, source_offset: int, offset: int, length: int) -> int:
        """Copy at least one byte, and say how many."""
        try:
            moved = os.copy_file_range(
                source.fd, self.fd, min(length, MAX_TRANSFER), source_offset, offset
            )
        except OSError as error:
            if error.errno not in _NOT_IN_KERNEL:
                raise
            block = os.pread(source.fd, min(length, COPY_BLOCK), source_offset)
            moved = os.pwrite(self.fd, block, offset) if block else 0
        if moved == 0:
            msg = f"the file ends here; {length} more bytes were there when it was scanned"
            raise ConflictError(msg, path=source.path, offset=source_offset)
        return moved

    @_named
    def resize(self, length: int) -> None:
        """Set the length in bytes."""
        self._disk.about_to("resize", self.path, length=length)
        os.ftruncate(self.fd, length)

    def resemble(self, path: str) -> None:
        """Take over permissions, and if that is allowed the owner, of a file that it replaces."""
        found = os.stat(path)
        with suppress(PermissionError):
            os.fchown(self.fd, found.st_uid, found.st_gid)
        os.fchmod(self.fd, found.st_mode & 0o7777)

    @_named
    def sync(self) -> None:
        """Return when contents and length are on the device."""
        self._disk.about_to("sync", self.path)
        os.fsync(self.fd)

    @_named
    def settle(self, *, forget: bool) -> None:
        """Have the device write what it was given so far.

        Args:
            forget: Leave the cache to others: what was written is not about to be read.
        """
        os.fdatasync(self.fd)
        if forget:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


def _clone(source_fd: int, source_offset: int, fd: int, offset: int, length: int) -> bool:
    """Share the extents of a range, where file system and alignment allow it."""
    request = b"".join(
        value.to_bytes(8, "little") for value in (source_fd, source_offset, length, offset)
    )
    try:
        fcntl.ioctl(fd, _FICLONERANGE, request)
    except OSError:
        return False
    return True


class Disk:
    """The file system, and a count of what went through it."""

    def __init__(self) -> None:
        """Start counting at nothing."""
        self.traffic = Traffic()
        self._lock = threading.Lock()

    def count(self, *, read: int = 0, written: int = 0, copied: int = 0) -> None:
        """Add to the traffic."""
        with self._lock:
            self.traffic.read += read
            self.traffic.written += written
            self.traffic.copied += copied

    def about_to(
        self,
        call: str,
        path: str,
        new: str = "",
        *,
        length: int = 0,
        writes: Writes | None = None,
    ) -> None:
        """Let a test see, or prevent, a call that changes something.

        Args:
            call: Which one; named as the methods are.
            path: What it changes.
            new: The other path of a rename or a link.
            length: The new length in bytes, of a resize.
            writes: Gives byte offsets and bytes of what is written.
        """

    def open(self, path: str) -> File:
        """Open a file for reading."""
        return File(self, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def create(self, path: str) -> File:
        """Make a new file; it is an error if the path exists."""
        self.about_to("create", path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return File(self, path, os.open(path, flags, 0o666))

    def open_to_change(self, path: str) -> File:
        """Open a file that exists, for reading and writing."""
        return File(self, path, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def make_folder(self, path: str, mode: int = 0o777) -> None:
        """Make a folder; it is an error if the path exists."""
        self.about_to("make_folder", path)
        os.mkdir(path, mode)

    def rename(self, old: str, new: str) -> None:
        """Give a file or a folder another name, at once."""
        self.about_to("rename", old, new)
        os.rename(old, new)

    def link(self, old: str, new: str) -> None:
        """Give a file a second name; it is an error if the new path exists."""
        self.about_to("link", old, new)
        # Of a symbolic link the system would make another one.
        os.link(os.path.realpath(old), new)

    def unshare(self, path: str) -> None:
        """Give a name a file of its own with the same contents, and its other names the old one.

        At every moment the name has a file with these contents.
        """
        with self.open(path) as shared, self.replacement(path) as own:
            own.copy_from(shared, 0, 0, shared.size)
            found = os.fstat(shared.fd)
            # It is the same file to whoever looks whether it changed.
            os.utime(own.fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        self.sync_folder(os.path.dirname(path))

    @contextmanager
    def replacement(self, path: str) -> Iterator[File]:
        """Make a file that takes the place of the one at ``path``, at once, after the block.

        Its contents are durable then; that it has the name is so after :meth:`sync_folder`.
        """
        fresh = unfinished(path)
        if os.path.lexists(fresh):
            self.remove(fresh)
        file = self.create(fresh)
        try:
            with file:
                yield file
                if os.path.exists(path):
                    file.resemble(path)
                file.sync()
            self.rename(fresh, path)
        except BaseException:
            with suppress(FileNotFoundError):
                self.remove(fresh)
            raise

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.about_to("remove", path)
        os.unlink(path)

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        self.about_to("remove_folder", path)
        os.rmdir(path)

    def sync_folder(self, path: str) -> None:
        """Return when the names in a folder are on the device."""
        self.about_to("sync_folder", path)
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            # Some network file systems cannot sync a folder and say so; a failing disk is EIO.
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
                raise
        finally:
            os.close(fd)


class Sources:
    """Open files by path, a bounded number of them, shared by many threads."""

    def __init__(self, disk: Disk | None = None, *, writable: bool = False) -> None:
        """Start with nothing open."""
        self.disk = disk or Disk()
        self._flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        self._files: OrderedDict[str, File] = OrderedDict()
        self._lock = threading.Lock()

    def file(self, path: str) -> File:
        """Return an open file; it is closed when the last user lets go of it."""
        with self._lock:
            found = self._files.get(path)
            if found is None:
                found = self._open(path)
                self._files[path] = found
                if len(self._files) > MAX_OPEN_FILES:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(path)
            return found

    def _open(self, path: str) -> File:
        if is_virtual(path):
            return open_virtual(self.disk, path)
        return self.shared(path, os.open(path, self._flags))

    def shared(self, path: str, fd: int) -> SharedFile:
        """Return a file for many threads, of an open descriptor."""
        return SharedFile(self.disk, path, fd)

    def close(self) -> None:
        """Let go of every file."""
        with self._lock:
            self._files.clear()


class SharedFile(File):
    """Closes with its last reference: a thread may still read what the cache let go of."""

    __slots__ = ()

    def __del__(self) -> None:
        """Close the descriptor."""
        self.close()
