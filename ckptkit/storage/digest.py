"""Checksums over streams: what a reader feeds piece by piece and compares at the end.

The numbers come from the native functions; this module knows what a format's checksum is *over*.
For strings and variants of a TensorFlow bundle that is not the stored bytes (see
``formats/tensorflow/FORMAT.md``), so those streams are parsed as they pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ckptkit import _native
from ckptkit.errors import CorruptError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Buffer

    from ckptkit.model import Algorithm

_VARINT_BYTES: Final = 10
_STORED: Final = 4


class Digest(Protocol):
    """A checksum in the making."""

    def update(self, data: Buffer) -> None:
        """Take the next bytes of the stream."""

    def value(self) -> int:
        """Return the checksum of all that was taken.

        Raises:
            CorruptError: The stream ended in the middle of an element.
        """


def digest(algorithm: Algorithm, count: int, byteorder: str = "little") -> Digest:
    """Start a checksum.

    Args:
        algorithm: Which one.
        count: Number of elements of the tensor, for streams that are parsed.
        byteorder: Of the machine that wrote the stream.

    Raises:
        UnsupportedError: Variants of a big-endian machine, which no reader takes.
    """
    if algorithm == "crc32c-strings":
        return _Strings(count, big_endian=byteorder == "big")
    if algorithm == "crc32c-variants":
        if byteorder == "big":
            msg = "variants in a big-endian checkpoint cannot be read"
            raise UnsupportedError(msg)
        return _Variants(count)
    return _Plain(algorithm)


class _Plain:
    """A CRC of the bytes as they are."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._function = _native.crc32 if algorithm == "crc32" else _native.crc32c
        self._crc = 0

    def update(self, data: Buffer) -> None:
        self._crc = self._function(data, self._crc)

    def value(self) -> int:
        return self._crc


class _Strings:
    """Lengths as fixed-width integers, their stored checksum, then the bytes of all strings."""

    def __init__(self, count: int, *, big_endian: bool) -> None:
        self._lengths_left = count
        self._big_endian = big_endian
        self._held = b""
        self._crc = 0
        self._bytes_left = 0
        self._position = 0
        self._in_header = True

    def update(self, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        if self._in_header:
            view = self._header(memoryview(self._held + bytes(view)) if self._held else view)
        self._bytes_left -= len(view)
        if self._bytes_left < 0 and not self._in_header:
            msg = f"the strings end {-self._bytes_left} bytes before the tensor does"
            raise CorruptError(msg)
        self._crc = _native.crc32c(view, self._crc)

    def value(self) -> int:
        if self._in_header or self._bytes_left:
            msg = "the tensor ends before its strings do; TensorFlow reads on, or crashes"
            raise CorruptError(msg)
        return self._crc

    def _header(self, view: memoryview) -> memoryview:
        """Take lengths and their checksum; return what follows them."""
        used = 0
        if self._lengths_left:
            try:
                used, parsed, payload, self._crc = _native.strings_scan(
                    view, self._lengths_left, self._crc, self._big_endian
                )
            except _native.DecodeError as error:
                message = error.message
                if "2^63" in message:
                    message = f"{message}; TensorFlow crashes on this"
                raise CorruptError(message, offset=self._position + error.offset) from None
            self._lengths_left -= parsed
            self._bytes_left += payload
        rest = view[used:]
        if self._lengths_left or len(rest) < _STORED:
            if len(rest) >= _VARINT_BYTES:
                msg = "a string length takes more than 10 bytes"
                raise CorruptError(msg, offset=self._position + used)
            self._held = bytes(rest)
            self._position += used
            return view[:0]
        self._check_lengths(bytes(rest[:_STORED]), self._position + used)
        self._held = b""
        self._in_header = False
        return rest[_STORED:]

    def _check_lengths(self, stored: bytes, position: int) -> None:
        found = int.from_bytes(stored, "big" if self._big_endian else "little")
        wanted = _native.crc32c_mask(self._crc)
        if found != wanted:
            msg = f"checksum of the string lengths: stored {found:08x}, computed {wanted:08x}"
            raise CorruptError(msg, offset=position)
        self._crc = _native.crc32c(stored, self._crc)


class _Variants:
    """Per element: its length as uint64, its bytes, and the running checksum up to there."""

    def __init__(self, count: int) -> None:
        self._elements_left = count
        self._held = b""
        self._bytes_left = 0
        self._in_element = False
        self._crc = 0
        self._position = 0

    def update(self, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        while len(view):
            if self._in_element and self._bytes_left:
                view = self._payload(view)
                continue
            joined = self._held + bytes(view[:_VARINT_BYTES])
            taken = self._trailer(joined) if self._in_element else self._length(joined)
            if not taken:
                self._held = joined
                return
            fresh = taken - len(self._held)
            self._held = b""
            self._position += taken
            view = view[fresh:]

    def value(self) -> int:
        if self._elements_left or self._in_element or self._held:
            msg = "the tensor ends before its variants do; TensorFlow reads on, or crashes"
            raise CorruptError(msg)
        return self._crc

    def _payload(self, view: memoryview) -> memoryview:
        part = view[: self._bytes_left]
        self._crc = _native.crc32c(part, self._crc)
        self._bytes_left -= len(part)
        self._position += len(part)
        return view[len(part) :]

    def _length(self, data: bytes) -> int:
        """Take the length of the next element; return the bytes it took, 0 if incomplete."""
        if not self._elements_left:
            msg = "the tensor goes on after its last variant"
            raise CorruptError(msg, offset=self._position)
        end = next((i for i, byte in enumerate(data[:_VARINT_BYTES]) if byte < 0x80), None)
        if end is None:
            if len(data) >= _VARINT_BYTES:
                msg = "the length of a variant takes more than 10 bytes"
                raise CorruptError(msg, offset=self._position)
            return 0
        if end and not data[end]:
            msg = "the length of a variant is not a minimal varint"
            raise CorruptError(msg, offset=self._position)
        length = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(data[: end + 1]))
        if length >> 63:
            msg = f"a variant of {length} bytes; TensorFlow crashes on this"
            raise CorruptError(msg, offset=self._position)
        self._crc = _native.crc32c(length.to_bytes(8, "little"), self._crc)
        self._bytes_left = length
        self._in_element = True
        self._elements_left -= 1
        return end + 1

    def _trailer(self, data: bytes) -> int:
        """Compare the stored running checksum; return the bytes it took, 0 if incomplete."""
        if len(data) < _STORED:
            return 0
        found = int.from_bytes(data[:_STORED], "little")
        wanted = _native.crc32c_mask(self._crc)
        if found != wanted:
            msg = f"checksum of a variant: stored {found:08x}, computed {wanted:08x}"
            raise CorruptError(msg, offset=self._position)
        self._crc = _native.crc32c(data[:_STORED], self._crc)
        self._in_element = False
        return _STORED
