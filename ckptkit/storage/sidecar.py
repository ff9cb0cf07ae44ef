"""Hidden files beside a checkpoint, and the lock that lets one editor in at a time.

A checkpoint ``folder/NAME`` has them as ``folder/.NAME.ckptkit-ROLE``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from typing import TYPE_CHECKING, Final, Self

from ckptkit._native import crc32c
from ckptkit.errors import ConflictError

if TYPE_CHECKING:
    from types import TracebackType

MARK: Final = ".ckptkit-"
"""What the name of every hidden file has between the checkpoint's name and its role."""

JOURNAL: Final = "journal"
LOCK: Final = "lock"
UNDO: Final = "undo"

STAGING_NAME: Final = 64
"""Bytes of a checkpoint's name that its staging folders repeat."""

LONGEST: Final = 240
"""Bytes of a file's name that the name of its successor repeats: 255 is the most there is."""

_UNDO: Final = re.compile(UNDO + r"-(\d{4,9})")
_STAGING: Final = re.compile(r"[0-9a-f]{12}")
_HELD: Final = {errno.EAGAIN, errno.EACCES}
_FLOCK: Final = "hhqqi4x"


def sidecar(path: str, role: str) -> str:
    """Return the path of a hidden file beside a checkpoint."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}{MARK}{role}")


def unfinished(path: str) -> str:
    """Return where a file is made that is to take the place of the one at ``path``."""
    folder, name = os.path.split(path)
    known = os.fsencode(name)
    if len(known) > LONGEST:
        name = f"{_beginning(name, LONGEST - 9)}-{crc32c(known):08x}"
    return os.path.join(folder, f"{'' if name.startswith('.') else '.'}{name}{MARK}new")


def successor_of(name: str) -> str | None:
    """Return which file one of this name was to take the place of; None if it is no such file."""
    tail = f"{MARK}new"
    return name[1 : -len(tail)] if name.startswith(".") and name.endswith(tail) else None


def staging_name(path: str) -> str:
    """Return what the names of all staging folders of a result begin with."""
    return f".{_beginning(os.path.basename(path), STAGING_NAME)}{MARK}"


def _beginning(name: str, nbytes: int) -> str:
    """Return as much of a name as takes so many bytes."""
    return os.fsdecode(os.fsencode(name)[:nbytes])


def is_sidecar(name: str) -> bool:
    """Tell whether a file name is that of a hidden file of ours, whatever the checkpoint."""
    return name.startswith(".") and MARK in name


def undo_path(path: str, number: int) -> str:
    """Return the path of the ``number``-th undo of a checkpoint, from 1."""
    return sidecar(path, f"{UNDO}-{number:04d}")


def undo_numbers(path: str) -> list[int]:
    """Return the numbers of the undos that are kept beside a checkpoint, oldest first."""
    found = (_UNDO.fullmatch(role) for role in _roles(path, os.path.basename(sidecar(path, ""))))
    return sorted(int(match[1]) for match in found if match)


def staging_folders(path: str) -> list[str]:
    """Return the staging folders, of whoever, of results that would appear at a path."""
    head = staging_name(path)
    roles = (role for role in _roles(path, head) if _STAGING.fullmatch(role))
    return [os.path.join(os.path.dirname(path), head + role) for role in sorted(roles)]


def _roles(path: str, head: str) -> list[str]:
    try:
        names = os.listdir(os.path.dirname(path) or ".")
    except FileNotFoundError:
        return []
    return [found[len(head) :] for found in names if found.startswith(head)]


class Lock:
    """The right to change a checkpoint in place, held by one process at a time.

    It is advisory, and the system takes it back when the process ends, however it does. Its file
    means nothing by itself, so that it need not go through the disk, nor outlive a crash.
    """

    def __init__(self, path: str, *, wait: bool = False) -> None:
        """Name the lock of the checkpoint at ``path``; nothing is taken yet.

        Args:
            path: The checkpoint, or another file that one process at a time may change.
            wait: Until whoever has it gives it back, rather than give up; for what takes no time.
        """
        self._checkpoint = path
        self._command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        self._path = sidecar(path, LOCK)
        self._fd = -1

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            ConflictError: Another process, or another thread, has it.
        """
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.fcntl(fd, self._command, _request(fcntl.F_WRLCK))
            except OSError as error:
                os.close(fd)
                if error.errno not in _HELD:
                    raise
                msg = "another process edits this checkpoint in place just now; try again later"
                raise ConflictError(msg, path=self._checkpoint) from None
            if _is_at(fd, self._path):
                self._fd = fd
                return self
            # Whoever had the lock removed its file just now; the file there is another one.
            os.close(fd)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back, and leave no file."""
        os.unlink(self._path)
        os.close(self._fd)


def is_locked(path: str) -> bool:
    """Tell whether somebody edits the checkpoint at ``path`` in place just now."""
    try:
        fd = os.open(sidecar(path, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK))
    finally:
        os.close(fd)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _request(kind: int) -> bytes:
    """Return ``struct flock`` for all of a file."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def _is_at(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)
