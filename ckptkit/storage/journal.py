r"""The journal of an edit in place: what has to be done, or undone, if it is cut short.

```
journal = slot zeros slot zeros frame*             slots at byte 0 and 512, frames from byte 1024 on
slot    = "ckptkit\x01" durable:u64 crc:u32        little-endian, as all numbers here
frame   = number:u32 length:u64 crc:u32 head-crc:u32 payload
payload = head-length:u32 head:JSON blob*
```

``durable`` is how many bytes of the file count: of the two slots the one that says more, while the
other one is being written. A slot is written when what it counts is on the device. ``crc`` is
CRC-32C of the payload, ``head-crc`` of the 16 bytes before it, that of a slot of its first 16;
frames are numbered from 0. The head of a payload says what the frame is about and how long its
blobs are.

A frame counts before the bytes that it speaks of change, so what does not count has done nothing,
and what counts but does not decode is damage. Whoever finds a journal goes

* forward, to the state after the edit, if there is a :class:`Commit`;
* back, to the state before it, if there is none, or if there is a :class:`Back`;
* on with the edit itself, if frames of what was done already were dropped (``Begin.done``).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np

from ckptkit import _native
from ckptkit.errors import CorruptError
from ckptkit.storage.runs import write_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.storage.disk import Disk, File

    Int64s = NDArray[np.int64]

MAGIC: Final = b"ckptkit\x01"
VERSION: Final = 1
MAX_HEAD: Final = 64 << 20
"""Bytes of JSON in a frame at most."""

MAX_FRAME: Final = 8 << 30
"""Bytes of a frame at most."""

SUMMED: Final = 4 << 20
"""Bytes of a frame that are summed at a time."""

SLOTS: Final = (0, 512)
"""Where the slots are: in sectors of their own, of which a device writes one or none."""

FIRST: Final = 1024
"""Where the first frame is."""

_SLOT: Final = struct.Struct("<8sQ")
_FRAME: Final = struct.Struct("<IQI")
_CRC: Final = struct.Struct("<I")
_WORD: Final = 8


# --- changes -----------------------------------------------------------------------------------


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


# --- frames ------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="begin"):
    """What the edit is. The first frame.

    Attributes:
        version: Of the journal.
        how: The way of writing.
        index: The file whose bytes say in which state the checkpoint is.
        index_sum: CRC-32C of it before the edit.
        sizes: Length of the other files before the edit, in bytes.
        edits: The statements, from which the edit can be done again.
        device: Where its kernels run.
        chunk: Bytes that are computed at a time.
        piece: Bytes of a piece.
        done: Pieces that were done already, whose frames were dropped.
        sums: What these did to checksums: by item, to be combined by exclusive or.
    """

    version: int
    how: Literal["append", "patch", "copy"]
    index: str
    index_sum: int
    sizes: dict[str, int]
    edits: tuple[str, ...] = ()
    device: str = "numpy"
    chunk: int = 0
    piece: int = 0
    done: int = 0
    sums: dict[int, int] = {}


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="piece"):
    """Tensor bytes that change; see :class:`Begin` for ``sums``."""

    sums: dict[int, int]


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="commit"):
    """The rest of the changes: from here on the edit is done. ``index_sum`` is that afterwards."""

    index_sum: int


class Back(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="back"):
    """The whole edit is to be undone."""


Event = Begin | Piece | Commit | Back


class _ChangeHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["runs", "whole", "tail", "move", "gone"]
    file: str
    number: int = 0
    staged: str = ""
    blobs: tuple[int, ...] = ()


class _Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    event: Event
    changes: tuple[_ChangeHead, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame."""

    event: Event
    changes: tuple[Change, ...]


def packed(text: str) -> str:
    """Return text that JSON takes, whatever bytes a name has: one character for each."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def unpacked(text: str) -> str:
    """Invert :func:`packed`.

    Raises:
        CorruptError: It never was packed.
    """
    try:
        return text.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        msg = "a name has a character that stands for no byte"
        raise CorruptError(msg) from None


def _named(event: Event, change: Callable[[str], str]) -> Event:
    """Return an event with all names in it changed."""
    if not isinstance(event, Begin):
        return event
    return msgspec.structs.replace(
        event,
        index=change(event.index),
        sizes={change(name): size for name, size in event.sizes.items()},
        edits=tuple(map(change, event.edits)),
    )


def encode(number: int, event: Event, changes: Sequence[Change] = ()) -> bytes:
    """Return a frame."""
    heads, blobs = [], []
    for change in changes:
        head, parts = _encode_change(change)
        heads.append(head)
        blobs += parts
    head_bytes = msgspec.json.encode(_Head(_named(event, packed), tuple(heads)))
    payload = b"".join([_CRC.pack(len(head_bytes)), head_bytes, *blobs])
    return _summed(_FRAME.pack(number, len(payload), _native.crc32c(payload))) + payload


def _summed(head: bytes) -> bytes:
    return head + _CRC.pack(_native.crc32c(head))


def _encode_change(change: Change) -> tuple[_ChangeHead, list[bytes]]:
    match change:
        case Runs(file, width, offsets, old, new):
            parts = [offsets.astype("<i8").tobytes(), old, new]
            return _ChangeHead("runs", packed(file), width, "", tuple(map(len, parts))), parts
        case Whole(file, old, new):
            return _ChangeHead("whole", packed(file), 0, "", (len(old), len(new))), [old, new]
        case Tail(file, length):
            return _ChangeHead("tail", packed(file), length), []
        case Move(file, staged):
            return _ChangeHead("move", packed(file), 0, packed(staged)), []
        case Gone(file):
            return _ChangeHead("gone", packed(file)), []


def decode(payload: bytes | bytearray | memoryview) -> Frame:
    """Decode the payload of a frame, whose checksum was compared already.

    Raises:
        CorruptError: It contradicts itself.
    """
    view = memoryview(payload)
    size = _CRC.unpack_from(view)[0] if len(view) >= _CRC.size else MAX_HEAD + 1
    if size > MAX_HEAD or _CRC.size + size > len(view):
        msg = "the head of a frame is longer than the frame"
        raise CorruptError(msg)
    try:
        head = msgspec.json.decode(view[_CRC.size : _CRC.size + size], type=_Head)
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"the head of a frame does not decode: {error}"
        raise CorruptError(msg) from None
    rest = view[_CRC.size + size :]
    lengths = [length for change in head.changes for length in change.blobs]
    if any(length < 0 for length in lengths) or sum(lengths) != len(rest):
        msg = "the blobs of a frame do not fill it"
        raise CorruptError(msg)
    changes: list[Change] = []
    for change in head.changes:
        blobs = []
        for length in change.blobs:
            blobs.append(bytes(rest[:length]))
            rest = rest[length:]
        changes.append(_decode_change(change, blobs))
    return Frame(_named(head.event, unpacked), tuple(changes))


def _decode_change(head: _ChangeHead, blobs: list[bytes]) -> Change:
    file = unpacked(head.file)
    match head.kind, blobs:
        case "runs", [offsets, old, new]:
            return _decode_runs(file, head.number, offsets, old, new)
        case "whole", [old, new]:
            return Whole(file, old, new)
        case "tail", [] if head.number >= 0:
            return Tail(file, head.number)
        case "move", []:
            return Move(file, unpacked(head.staged))
        case "gone", []:
            return Gone(file)
    msg = f"a change of kind {head.kind} does not decode"
    raise CorruptError(msg)


def _decode_runs(file: str, width: int, offsets: bytes, old: bytes, new: bytes) -> Runs:
    if len(offsets) % _WORD:
        msg = f"offsets of {len(offsets)} bytes are no multiple of {_WORD}"
        raise CorruptError(msg)
    at = np.frombuffer(offsets, "<i8").astype(np.int64)
    last = np.iinfo(np.int64).max
    fits = width > 0 and len(old) == len(new) == width * len(at)
    rises = len(at) == 0 or (at[0] >= 0 and at[-1] <= last - width)
    if not fits or not rises or np.any(at[1:] - at[:-1] < width):
        msg = f"runs of {width} bytes, {len(at)} of them, contradict their bytes or one another"
        raise CorruptError(msg)
    return Runs(file, width, at, old, new)


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
    _, durable = _newest_slot(file)
    at, number = FIRST, 0
    while at < durable:
        start = bytes(file.read(at, min(_FRAME.size + _CRC.size, durable - at)))
        if len(start) == _FRAME.size + _CRC.size and start == _summed(start[: _FRAME.size]):
            found, length, crc = _FRAME.unpack_from(start)
            begin = at + len(start)
            whole = found == number and length <= min(durable - begin, MAX_FRAME)
            if whole and _holds(file, begin, length, crc):
                yield begin, length
                at, number = begin + length, number + 1
                continue
        msg = "a frame of the journal is damaged; the checkpoint cannot be recovered by it"
        raise CorruptError(msg, path=file.path, offset=at)


def _newest_slot(file: File) -> tuple[int, int]:
    """Return the number of the slot that counts, and how many bytes of the file do."""
    size = file.size
    found = []
    for number, offset in enumerate(SLOTS):
        stored = bytes(file.read(offset, min(_SLOT.size + _CRC.size, max(size - offset, 0))))
        if len(stored) == _SLOT.size + _CRC.size and stored == _summed(stored[: _SLOT.size]):
            magic, durable = _SLOT.unpack_from(stored)
            if magic == MAGIC and FIRST <= durable <= size:
                found.append((durable, number))
    if not found:
        msg = "this is no journal, or one that is damaged or of another version"
        raise CorruptError(msg, path=file.path, offset=0)
    durable, number = max(found)
    return number, durable


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
        begun: Its first frame.
        nbytes: Bytes so far.
    """

    def __init__(self, disk: Disk, path: str, begin: Begin, changes: Sequence[Change] = ()) -> None:
        """Make the file; nothing of it is durable yet."""
        self._disk = disk
        self.path = path
        self.begun = begin
        self._start(begin, changes)

    def _start(self, begin: Begin, changes: Sequence[Change]) -> None:
        remove_unfinished(self.path, self._disk)
        self._file = self._disk.create(_unfinished(self.path))
        self._first: Begin | None = begin
        self._number = self._slot = 0
        self.nbytes = FIRST
        try:
            self.add(begin, changes)
        except BaseException:
            self.abandon()
            raise

    def add(self, event: Event, changes: Sequence[Change] = ()) -> None:
        """Add a frame, which is durable only after :meth:`sync`."""
        frame = encode(self._number, event, changes)
        self._file.write(frame, self.nbytes)
        self._number += 1
        self.nbytes += len(frame)

    def sync(self) -> None:
        """Return when all frames count."""
        if self._first is None:
            self._slot = _count(self._file, self._slot, self.nbytes)
        else:
            # The name says that all of it is there, so that one sync is enough.
            _write_slot(self._file, 0, self.nbytes)
            self._file.sync()
            self._disk.rename(_unfinished(self.path), self.path)
            self.begun, self._first = self._first, None
            self._disk.sync_folder(os.path.dirname(self.path))

    def restart(self, begin: Begin) -> None:
        """Drop all frames for a new first one, at once: what they were about is done."""
        self._file.close()
        self._start(begin, ())
        try:
            self.sync()
        except BaseException:
            self.abandon()
            raise

    @property
    def is_durable(self) -> bool:
        """Whether there is a journal under its name, of this edit."""
        return self._first is None or os.path.lexists(self.path)

    def abandon(self) -> None:
        """Close the file, and remove what never got its name."""
        self._file.close()
        if self._first is not None:
            remove_unfinished(self.path, self._disk)

    def remove(self) -> None:
        """Remove the file: nothing is to be done any more."""
        self._file.close()
        self._disk.remove(self.path)
        self._disk.sync_folder(os.path.dirname(self.path))

    def keep(self, path: str) -> None:
        """Give the file another name, under which it serves to undo the edit."""
        self._file.close()
        self._disk.rename(self.path, path)
        self._disk.sync_folder(os.path.dirname(path))


def _unfinished(path: str) -> str:
    return f"{path}-next"


def remove_unfinished(path: str, disk: Disk) -> None:
    """Remove what became no journal, where there is such a file."""
    if os.path.lexists(_unfinished(path)):
        disk.remove(_unfinished(path))


def _count(file: File, slot: int, durable: int) -> int:
    """Have so many bytes count, once they are on the device; return the slot that says so."""
    file.sync()
    other = 1 - slot
    _write_slot(file, other, durable)
    file.sync()
    return other


def _write_slot(file: File, number: int, durable: int) -> None:
    file.write(_summed(_SLOT.pack(MAGIC, durable)), SLOTS[number])


def turn_back(file: File) -> None:
    """Add to a journal that the whole edit is to be undone, durably."""
    slot, durable = _newest_slot(file)
    places = list(_places(file))
    if places and isinstance(_read(file, *places[-1]).event, Back):
        return
    frame = encode(len(places), Back())
    file.write(frame, durable)
    _count(file, slot, durable + len(frame))


# --- doing -------------------------------------------------------------------------------------


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
                if os.path.lexists(path):
                    self._disk.remove(path)
                    self._folders.add(os.path.dirname(path))
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
        if not os.path.lexists(staged):
            return
        if os.path.lexists(path) and os.path.samefile(staged, path):
            # Two names of one file, of which a rename would leave both.
            self._disk.remove(staged)
        else:
            self._disk.rename(staged, path)
        self._folders.update(map(os.path.dirname, (staged, path)))

    def _open(self, file: str) -> File:
        path = self.path(file)
        found = self._touched.get(path)
        if found is None:
            found = self._touched[path] = self._disk.open_to_change(path)
        return found

    def _replace(self, file: str, content: bytes) -> None:
        path = self.path(file)
        folder, name = os.path.split(path)
        staged = os.path.join(folder, f".{name}.ckptkit-new")
        if os.path.lexists(staged):
            self._disk.remove(staged)
        with self._disk.create(staged) as target:
            if os.path.lexists(path):
                os.fchmod(target.fd, os.stat(path).st_mode & 0o7777)
            target.write(content, 0)
            target.sync()
        self._disk.rename(staged, path)
        self._folders.add(folder)

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
