"""What is looked at before the first byte is written: room, rights, links, other editors."""

from __future__ import annotations

import errno
import os
import resource
from typing import TYPE_CHECKING, Final

from ckptkit.errors import ConflictError, NeedsRecoveryError
from ckptkit.storage.sidecar import JOURNAL, is_locked, sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckptkit.storage.disk import Disk

ROOM_FOR_NAMES: Final = 64 << 10
"""Bytes that new names and the first blocks of small files may take besides their contents."""


def check_settled(path: str, shown: str) -> None:
    """Refuse a checkpoint that an interrupted edit in place left between two states.

    Args:
        path: What its files have in common.
        shown: How its user calls it.

    Raises:
        NeedsRecoveryError: There is a journal.
        ConflictError: There is one, and its edit is still going on.
    """
    journal = sidecar(path, JOURNAL)
    if not os.path.lexists(journal):
        return
    if is_locked(path):
        msg = "another process edits this checkpoint in place just now; try again later"
        raise ConflictError(msg, path=shown)
    msg = f"an edit in place was cut short; finish it or take it back: ckptkit recover {shown}"
    raise NeedsRecoveryError(msg, path=shown)


def check_readable(path: str, shown: str) -> None:
    """Refuse a checkpoint that is between two states; one that is appended to is not.

    While something is appended the old index holds, and then, at once, the new one.

    Raises:
        NeedsRecoveryError: An edit in place was cut short.
        ConflictError: An edit changes bytes just now.
    """
    journal = sidecar(path, JOURNAL)
    if os.path.lexists(journal) and not (is_locked(path) and _appends(journal)):
        check_settled(path, shown)


def _appends(journal: str) -> bool:
    from ckptkit.storage.disk import Disk
    from ckptkit.storage.frames import Begin
    from ckptkit.storage.journal import read_frames

    try:
        with Disk().open(journal) as file:
            first = next(read_frames(file), None)
    except FileNotFoundError:
        return True
    return first is not None and isinstance(first.event, Begin) and first.event.how == "append"


def check_writable(folder: str) -> None:
    """Refuse a folder in which no file can be made.

    Raises:
        PermissionError: It is not ours to write in.
        OSError: Its file system is read-only.
    """
    there = folder
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    if os.access(there, os.W_OK | os.X_OK):
        return
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, "the file system is read-only", there)
    raise PermissionError(errno.EACCES, "no permission to write in this folder", there)


def check_space(folder: str, needed: int, largest: int) -> None:
    """Refuse at once what would fail in the end.

    Args:
        folder: Where files will be written.
        needed: Bytes that the file system has to have free.
        largest: Length of the longest file.

    Raises:
        OSError: There is no space, or files may not become so large.
    """
    there = folder
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        msg = f"{needed:,} bytes are needed here, {free:,} are free"
        raise OSError(errno.ENOSPC, msg, there)
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and largest > limit:
        msg = f"a file becomes {largest:,} bytes long; this process may write {limit:,}"
        raise OSError(errno.EFBIG, msg, there)


def check_links(paths: Iterable[str], disk: Disk, *, break_links: bool) -> None:
    """Refuse to change files that belong to another checkpoint as well.

    Args:
        paths: The files whose bytes change.
        disk: The file system.
        break_links: Give the checkpoint files of its own first.

    Raises:
        ConflictError: A file has more than one name, or is elsewhere and linked to.
        PermissionError: A file is not ours to write to.
    """
    for path in paths:
        if is_shared(path):
            if not break_links:
                msg = (
                    "this file has another name as well, and a change would show there too; give"
                    " the checkpoint one of its own with --break-links, or write a copy (an"
                    " interrupted link leaves such names until: ckptkit recover DST)"
                )
                raise ConflictError(msg, path=path)
            disk.unshare(path)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission to write to this file", path)


def is_shared(path: str) -> bool:
    """Tell whether a file has another name as well, or is only linked to."""
    return os.path.islink(path) or os.stat(path).st_nlink > 1


def same_device(paths: Iterable[str], folder: str) -> bool:
    """Tell whether files can have a second name in a folder, which may not be there yet."""
    there = os.path.abspath(folder)
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    device = os.stat(there).st_dev
    return all(os.stat(path).st_dev == device for path in paths)
