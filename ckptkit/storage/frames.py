"""The frames of a journal, as values and as bytes; ``journal.py`` says how they lie in a file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np

from ckptkit.errors import CorruptError
from ckptkit.storage.changes import Change, Gone, Move, Replaced, Runs, Tail, Whole, pages_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ckptkit.storage.changes import Bytes

VERSION: Final = 2
MAX_HEAD: Final = 64 << 20
"""Bytes of JSON in a frame at most."""

_SIZE: Final = struct.Struct("<I")
_WORD: Final = 8


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="begin"):
    """What the edit is. The first frame.

    Attributes:
        version: Of the journal.
        how: The way of writing.
        index: The file whose bytes say in which state the checkpoint is.
        index_sum: CRC-32C of it before the edit.
        state: Offset and length of the parts of it that this is over; none for all of it.
        sizes: Length of the other files before the edit, in bytes.
        edits: The statements, from which the edit can be done again.
        device: Where its kernels run.
        chunk: Bytes that are computed at a time.
        piece: Bytes of a piece.
        done: Pieces that were done already, whose frames were dropped.
        sums: What these did to checksums: by item or span, to be combined by exclusive or.
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
    state: tuple[tuple[int, int], ...] = ()


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="piece"):
    """Tensor bytes that change; see :class:`Begin` for ``sums``.

    Bytes that are durable where they belong before there is a commit are not in it, only what was
    there before them.
    """

    sums: dict[int, int]


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="commit"):
    """The rest of the changes: from here on the edit is done. ``index_sum`` is that afterwards."""

    index_sum: int


class Back(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="back"):
    """The whole edit is to be undone."""


Event = Begin | Piece | Commit | Back


class _ChangeHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["runs", "replaced", "whole", "tail", "move", "gone"]
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


def encode(event: Event, changes: Sequence[Change] = ()) -> list[Bytes]:
    """Return the payload of a frame, in parts that follow one another."""
    heads: list[_ChangeHead] = []
    blobs: list[Bytes] = []
    for change in changes:
        head, parts = _encode_change(change)
        heads.append(head)
        blobs += parts
    head_bytes = msgspec.json.encode(_Head(_named(event, packed), tuple(heads)))
    return [_SIZE.pack(len(head_bytes)) + head_bytes, *blobs]


def _encode_change(change: Change) -> tuple[_ChangeHead, Sequence[Bytes]]:
    match change:
        case Runs(file, width, offsets, old, new):
            parts = [offsets.astype("<i8").tobytes(), old, new]
            return _ChangeHead("runs", packed(file), width, "", tuple(map(len, parts))), parts
        case Replaced(file, offset, old, sums):
            parts = [old, sums.astype("<u4").tobytes()]
            return _ChangeHead("replaced", packed(file), offset, "", tuple(map(len, parts))), parts
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
    size = _SIZE.unpack_from(view)[0] if len(view) >= _SIZE.size else MAX_HEAD + 1
    if size > MAX_HEAD or _SIZE.size + size > len(view):
        msg = "the head of a frame is longer than the frame"
        raise CorruptError(msg)
    try:
        head = msgspec.json.decode(view[_SIZE.size : _SIZE.size + size], type=_Head)
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"the head of a frame does not decode: {error}"
        raise CorruptError(msg) from None
    rest = view[_SIZE.size + size :]
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
        case "replaced", [old, sums]:
            return _decode_replaced(file, head.number, old, sums)
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


def _decode_replaced(file: str, offset: int, old: bytes, sums: bytes) -> Replaced:
    fits = 0 <= offset <= np.iinfo(np.int64).max - len(old)
    if not fits or len(sums) != 4 * len(pages_of(offset, len(old))):
        msg = (
            f"{len(old)} replaced bytes at byte {offset} contradict their {len(sums)} of checksums"
        )
        raise CorruptError(msg)
    return Replaced(file, offset, old, np.frombuffer(sums, "<u4").astype(np.uint32))
