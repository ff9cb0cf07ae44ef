"""Protobuf on the wire: fields as they are stored.

For messages that are small or rare; records of an index are decoded natively.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ckptkit.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

_LONGEST: Final = 10
_CHUNK: Final = 4096
"""Bytes that are looked at together; the numbers before the value of a field take no more."""


class Sliced(Protocol):
    """Bytes of which parts can be had: those in memory, or in a file."""

    def __len__(self) -> int:
        """Return where they end."""

    def __getitem__(self, part: slice, /) -> bytes:
        """Return a part."""


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: Which field.
        kind: How it is stored.
        value: The number of a varint; of bytes their length.
        start: Where the field starts, its tag included.
        body: Where its value starts, behind tag and length.
        end: Where it ends.
    """

    number: int
    kind: int
    value: int
    start: int
    body: int
    end: int


def fields(data: Sliced, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Yield the fields of a message that fills a range of bytes.

    Raises:
        CorruptError: The range does not parse; ``offset`` says where.
    """
    at, end = start, len(data) if end is None else end
    chunk, base = b"", at
    while at < end:
        if at + 2 * _LONGEST > base + len(chunk) < end:
            chunk, base = data[at : min(at + _CHUNK, end)], at
        tag, body = chunk[at - base], at + 1
        if tag & 0x80:
            tag, body = _number(chunk, at, base, end)
        kind, value = tag & 7, 0
        if kind in {VARINT, BYTES}:
            value, after = _number(chunk, body, base, end)
            body = after if kind == BYTES else body
            stop = after + value if kind == BYTES else after
        elif kind in {FIXED32, FIXED64}:
            stop = body + (4 if kind == FIXED32 else 8)
        else:
            stop = end + 1
        if stop > end or not tag >> 3:
            msg = "a protobuf message does not parse"
            raise CorruptError(msg, offset=at)
        yield Field(tag >> 3, kind, value, at, body, stop)
        at = stop


def _number(chunk: bytes, at: int, base: int, end: int) -> tuple[int, int]:
    """Return a varint, and where it ends, of a part of a message that starts at ``base``."""
    place = at - base
    if place < len(chunk) and chunk[place] < 0x80:
        return chunk[place], at + 1
    try:
        value, after = varint(chunk, place, end - base)
    except CorruptError as error:
        raise CorruptError(error.message, offset=at) from None
    return value, base + after


def varint(data: Sliced, at: int, end: int) -> tuple[int, int]:
    """Return a varint and where it ends.

    Raises:
        CorruptError: It is cut off, or longer than 64 bits.
    """
    value = 0
    for shift, byte in enumerate(data[at : min(at + _LONGEST, end)]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80 and value < 1 << 64:
            return value, at + shift + 1
    msg = "a varint is cut off or too long"
    raise CorruptError(msg, offset=at)


def signed(value: int, bits: int = 64) -> int:
    """Return the number that a varint of an int32 or int64 field stands for."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
