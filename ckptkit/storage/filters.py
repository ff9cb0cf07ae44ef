"""What chunks of an HDF5 dataset go through before they are stored, taken back within bounds.

The library that wrote them would let a small chunk unfold into any amount of memory, and would load
a plug-in for a filter that it does not know. Here nothing gets larger than the chunk.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

DEFLATE: Final = 1
SHUFFLE: Final = 2
FLETCHER32: Final = 3
LZF: Final = 32000

KNOWN: Final = frozenset({DEFLATE, SHUFFLE, FLETCHER32, LZF})
"""Numbers of the filters that can be taken back."""

FED: Final = 64 << 10
"""Compressed bytes that are looked at at a time."""

UNFOLDED: Final = 1 << 20
"""Bytes that come out of them at a time."""

_SUM: Final = 4
_WORDS: Final = 1 << 16
_MODULUS: Final = 65535


def unfilter(stored: bytes, filters: Sequence[int], skipped: int, nbytes: int, item: int) -> Bytes:
    """Take back what filters did to a chunk.

    Args:
        stored: The chunk as it is in the file.
        filters: Numbers of the filters, in the order in which they were applied.
        skipped: Bit i is set where the i-th of them left the chunk as it was.
        nbytes: Bytes of the chunk.
        item: Bytes of an element.

    Raises:
        CorruptError: The stored bytes are no such chunk.
    """
    left = [number for at, number in enumerate(filters) if not skipped >> at & 1]
    data: bytes | memoryview | Bytes = stored
    while left:
        number = left.pop()
        size = nbytes + _SUM * left.count(FLETCHER32)
        if number == FLETCHER32:
            data = _checked(memoryview(data))
        elif number == LZF:
            data = _unlzf(bytes(data), size)
        else:
            pieces = iter([data]) if number == SHUFFLE else _inflate(memoryview(data))
            # Shuffled bytes are put back as they come out, so that there is one copy of the chunk.
            planes = number == SHUFFLE or (bool(left) and left[-1] == SHUFFLE)
            if planes and number != SHUFFLE:
                left.pop()
            data = _gathered(pieces, size, item if planes else 1)
    if len(data) != nbytes:
        msg = f"a chunk has {len(data)} bytes, its shape takes {nbytes}"
        raise CorruptError(msg)
    return np.frombuffer(data, np.uint8)


def _gathered(pieces: Iterator[bytes | memoryview | Bytes], size: int, item: int) -> Bytes:
    """Join pieces; of an ``item`` above 1 all first bytes come first, then all second ones."""
    out = np.empty(size, np.uint8)
    count = size // item
    planes = out[: count * item].reshape(count, item)
    at = 0
    for piece in pieces:
        rest = np.frombuffer(piece, np.uint8)
        if at + len(rest) > size:
            msg = f"a chunk unfolds to more than the {size} bytes that its shape takes"
            raise CorruptError(msg)
        while len(rest) and at < count * item:
            plane, row = divmod(at, count)
            part = rest[: count - row]
            planes[row : row + len(part), plane] = part
            rest, at = rest[len(part) :], at + len(part)
        out[at : at + len(rest)] = rest
        at += len(rest)
    if at < size:
        msg = f"a chunk ends after {at} of the {size} bytes that its shape takes"
        raise CorruptError(msg)
    return out


def _inflate(data: memoryview) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    try:
        for at in range(0, len(data), FED):
            fed: bytes | memoryview = data[at : at + FED]
            while fed and not stream.eof:
                yield stream.decompress(fed, UNFOLDED)
                fed = stream.unconsumed_tail
            if stream.eof:
                return
        # What the last bytes stand for may exceed what was asked for.
        while not stream.eof and (held := stream.decompress(b"", UNFOLDED)):
            yield held
    except zlib.error as error:
        msg = f"a compressed chunk is damaged: {error}"
        raise CorruptError(msg) from None
    if not stream.eof:
        msg = "a compressed chunk ends too early"
        raise CorruptError(msg)


def _unlzf(data: bytes, size: int) -> bytes:
    """Decompress what h5py's own filter made: runs as they are, and references to what was."""
    out = bytearray()
    at, end = 0, len(data)
    try:
        while at < end:
            head = data[at]
            at += 1
            if head < 32:
                run = data[at : at + head + 1]
                at += head + 1
                out += run
            else:
                length = head >> 5
                if length == 7:
                    length += data[at]
                    at += 1
                back = ((head & 31) << 8 | data[at]) + 1
                at += 1
                source = out[len(out) - back :][: length + 2] if back <= len(out) else b""
                # A reference may reach into what it makes: that repeats.
                out += (source * (-(-(length + 2) // len(source))))[: length + 2]
            if at > end or len(out) > size:
                break
    except (IndexError, ZeroDivisionError):
        at = end + 1
    if at > end or len(out) != size:
        msg = f"a compressed chunk is damaged: it does not unfold to {size} bytes"
        raise CorruptError(msg)
    return bytes(out)


def _checked(data: memoryview) -> memoryview:
    """Compare the Fletcher-32 checksum at the end of a chunk; return what is before it."""
    if len(data) < _SUM:
        msg = "a chunk is shorter than its checksum"
        raise CorruptError(msg)
    body = data[:-_SUM]
    wanted, found = int.from_bytes(data[-_SUM:], "little"), fletcher32(body)
    if found != wanted:
        msg = f"checksum of a chunk: expected {wanted:08x}, found {found:08x}"
        raise CorruptError(msg)
    return body


def fletcher32(data: memoryview) -> int:
    """Return the checksum that HDF5 calls Fletcher-32: over big-endian words of 16 bits."""
    low = high = 0
    weights = np.arange(_WORDS, 0, -1, dtype=np.uint64)
    for at in range(0, len(data), 2 * _WORDS):
        part = bytes(data[at : at + 2 * _WORDS])
        words = np.frombuffer(part + b"\0" * (len(part) % 2), ">u2").astype(np.uint64)
        count = len(words)
        high += count * low + int((words * weights[_WORDS - count :]).sum())
        low += int(words.sum())
    return _folded(high) << 16 | _folded(low)


def _folded(value: int) -> int:
    """Return a sum as adding its upper half to its lower one, again and again, leaves it."""
    return value % _MODULUS or (_MODULUS if value else 0)
