r"""The journal of an edit in place: what has to be done, or undone, if it is cut short.

```
journal = slot zeros slot zeros frame*      slots at byte 0 and 512, frames from byte 1024 on
slot    = "ckptkit\x01" sequence:u64 start:u64 end:u64 crc:u32      all numbers little-endian
frame   = number:u32 length:u64 crc:u32 head-crc:u32 payload
payload = head-length:u32 head:JSON blob*
```

The frames that count lie from ``start`` to ``end``, as the slot with the higher sequence number has
it, while the other one is being written. A slot is written when what it counts is on the device.
``crc`` is CRC-32C of the payload, ``head-crc`` of the 16 bytes before it, that of a slot of all
before it; the frames that count are numbered from 0. The head of a payload says what the frame is
about and how long its blobs are.

A frame counts before the bytes that it speaks of change, so what does not count has done nothing,
and what counts but does not decode is damage. Whoever finds a journal goes

* forward, to the state after the edit, if there is a :class:`Commit`;
* back, to the state before it, if there is none, or if there is a :class:`Back`;
* back by the frames that are there, then on with the edit itself, if frames of what was done
  before were dropped (``Begin.done``).

Most bytes of a large edit are in it once: as they were. They are replaced, durably, before the
commit is written, so that nobody ever has to replace them again.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from ckptkit import _native
from ckptkit.errors import CorruptError
from ckptkit.storage.frames import VERSION, Back, Begin, decode, encode
from ckptkit.storage.sidecar import unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.storage.changes import Bytes, Change
    from ckptkit.storage.disk import Disk, File
    from ckptkit.storage.frames import Event, Frame

MAGIC: Final = b"ckptkit\x01"
MAX_FRAME: Final = 8 << 30
"""Bytes of a frame at most."""

SUMMED: Final = 4 << 20
"""Bytes of a frame that are summed at a time."""

SLOTS: Final = (0, 512)
"""Where the slots are: in sectors of their own, of which a device writes one or none."""

FIRST: Final = 1024
"""Where the first frame is."""

_SLOT: Final = struct.Struct("<8sQQQ")
_FRAME: Final = struct.Struct("<IQI")
_CRC: Final = struct.Struct("<I")


# --- reading -----------------------------------------------------------------------------------


def read_frames(file: File) -> Iterator[Frame]:
    """Yield the frames of a journal that count, in order.

    Raises:
        CorruptError: It is no journal, one of another version, or damaged.
    """
    for start, length in _places(file):
        yield _read(file, start, length)


def read_backwards(file: File) -> Iterator[Frame]:
    """Yield the frames that count, the last one first.

    Raises:
        CorruptError: See :func:`read_frames`.
    """
    for start, length in reversed(list(_places(file))):
        yield _read(file, start, length)


def _read(file: File, start: int, length: int) -> Frame:
    try:
        frame = decode(file.read(start, length))
    except CorruptError as error:
        raise CorruptError(error.message, path=file.path, offset=start) from None
    if isinstance(frame.event, Begin) and frame.event.version != VERSION:
        msg = f"a journal of version {frame.event.version}; this program knows {VERSION}"
        raise CorruptError(msg, path=file.path, offset=start)
    return frame


def _places(file: File) -> Iterator[tuple[int, int]]:
    """Yield start and length of the payload of every frame that counts."""
    _, at, end = _newest_slot(file)
    number = 0
    while at < end:
        start = bytes(file.read(at, min(_FRAME.size + _CRC.size, end - at)))
        if len(start) == _FRAME.size + _CRC.size and start == _summed(start[: _FRAME.size]):
            found, length, crc = _FRAME.unpack_from(start)
            begin = at + len(start)
            whole = found == number and length <= min(end - begin, MAX_FRAME)
            if whole and _holds(file, begin, length, crc):
                yield begin, length
                at, number = begin + length, number + 1
                continue
        msg = "a frame of the journal is damaged; the checkpoint cannot be recovered by it"
        raise CorruptError(msg, path=file.path, offset=at)


def _newest_slot(file: File) -> tuple[int, int, int]:
    """Return the sequence number of the slot that counts, and the frames' start and end."""
    size = file.size
    found = []
    for offset in SLOTS:
        stored = bytes(file.read(offset, min(_SLOT.size + _CRC.size, max(size - offset, 0))))
        if len(stored) == _SLOT.size + _CRC.size and stored == _summed(stored[: _SLOT.size]):
            magic, sequence, start, end = _SLOT.unpack_from(stored)
            if magic == MAGIC and FIRST <= start <= end <= size:
                found.append((sequence, start, end))
    if not found:
        msg = "this is no journal, or one that is damaged or of another version"
        raise CorruptError(msg, path=file.path, offset=0)
    return max(found)


def _holds(file: File, start: int, length: int, crc: int) -> bool:
    found = 0
    for at in range(start, start + length, SUMMED):
        found = _native.crc32c(file.read(at, min(SUMMED, start + length - at)), found)
    return found == crc


# --- writing -----------------------------------------------------------------------------------


class Journal:
    """A journal that is being written.

    It has its name from the moment on when its first frames are durable, so that under that name
    there is never a part of one.

    Attributes:
        path: Where it is.
        begun: The first of the frames that count.
        written: Bytes that were written to it.
    """

    def __init__(self, disk: Disk, path: str, begin: Begin, changes: Sequence[Change] = ()) -> None:
        """Make the file; nothing of it counts yet."""
        self._disk = disk
        self.path = path
        self.begun = begin
        self.written = 0
        self._named = False
        self._sequence = self._number = 0
        self._start = self._end = FIRST
        remove_unfinished(path, disk)
        self._file = disk.create(unfinished(path))
        try:
            self.add(begin, changes)
        except BaseException:
            self.abandon()
            raise

    @property
    def nbytes(self) -> int:
        """Bytes of the frames that count, or are about to."""
        return self._end - self._start

    def add(self, event: Event, changes: Sequence[Change] = ()) -> None:
        """Add a frame, which counts only after :meth:`sync`."""
        parts = _frame(self._number, encode(event, changes))
        for part in parts:
            self._file.write(part, self._end)
            self._end += len(part)
        self.written += sum(map(len, parts))
        self._number += 1

    def sync(self) -> None:
        """Return when all frames count."""
        if self._named:
            self._file.sync()
            self._count()
            self._file.sync()
            return
        # The name says that all of it is there, so that one sync is enough.
        self._count()
        self._file.sync()
        self._disk.rename(unfinished(self.path), self.path)
        self._named = True
        self._disk.sync_folder(os.path.dirname(self.path))

    def _count(self) -> None:
        self._sequence += 1
        _write_slot(self._file, self._sequence, self._start, self._end)

    def restart(self, begin: Begin) -> None:
        """Drop all frames for a new first one, at once: what they were about is done.

        It goes before them where there is room by now, else behind them: a new file would take new
        blocks of the device, and give back old ones. Until it counts they stay as they are.
        """
        size = sum(map(len, _frame(0, encode(begin))))
        self._start = self._end = FIRST if FIRST + size <= self._start else self._end
        self._number = 0
        self.add(begin)
        self.sync()
        self.begun = begin

    def abandon(self) -> None:
        """Close the file, and remove what never got its name."""
        self._file.close()
        if not self._named:
            remove_unfinished(self.path, self._disk)

    def remove(self) -> None:
        """Remove the file: nothing is to be done any more."""
        self._file.close()
        remove_journal(self.path, self._disk)

    def keep(self, path: str) -> None:
        """Give the file another name, under which it serves to undo the edit."""
        self._file.close()
        self._disk.rename(self.path, path)
        self._disk.sync_folder(os.path.dirname(path))


def settle_journal(file: File, disk: Disk) -> None:
    """Have the device keep a journal as it is read: a process that was killed synced nothing."""
    file.sync()
    disk.sync_folder(os.path.dirname(file.path))


def remove_journal(path: str, disk: Disk) -> None:
    """Remove a journal by which nothing is to be done any more."""
    disk.remove(path)
    disk.sync_folder(os.path.dirname(path))


def remove_unfinished(path: str, disk: Disk) -> None:
    """Remove what became no journal, where there is such a file."""
    if os.path.lexists(unfinished(path)):
        disk.remove(unfinished(path))


def _frame(number: int, payload: Sequence[Bytes]) -> list[Bytes]:
    length, crc = 0, 0
    for part in payload:
        length, crc = length + len(part), _native.crc32c(part, crc)
    return [_summed(_FRAME.pack(number, length, crc)), *payload]


def _summed(head: bytes) -> bytes:
    return head + _CRC.pack(_native.crc32c(head))


def _write_slot(file: File, sequence: int, start: int, end: int) -> None:
    slot = _summed(_SLOT.pack(MAGIC, sequence, start, end))
    file.write(slot, SLOTS[sequence % len(SLOTS)])


def turn_back(file: File) -> None:
    """Add to a journal that the whole edit is to be undone, durably."""
    sequence, start, end = _newest_slot(file)
    places = list(_places(file))
    if places and isinstance(_read(file, *places[-1]).event, Back):
        return
    frame = b"".join(_frame(len(places), encode(Back())))
    file.write(frame, end)
    file.sync()
    _write_slot(file, sequence + 1, start, end + len(frame))
    file.sync()
