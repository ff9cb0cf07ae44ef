"""Tables: the index file of a checkpoint, decoded and encoded entry by entry."""

import struct
from itertools import pairwise

from tests.oracle import MalformedError
from tests.oracle.crc import crc32c, mask
from tests.oracle.snappy import decompress
from tests.oracle.varint import put_varint, take_varint

BLOCK_SIZE = 262144
MAGIC = 0xDB4775248B80FB57
FOOTER = 48
TRAILER = 5

Entry = tuple[bytes, bytes]
Handle = tuple[int, int]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise MalformedError(message)


# --- decode ------------------------------------------------------------------------------------


def open_block(table: bytes, handle: Handle) -> bytes:
    """Return the checked and decompressed body of a block."""
    offset, size = handle
    _require(offset + size + TRAILER <= len(table) - FOOTER, "block passes the footer")
    body, trailer = table[offset : offset + size], table[offset + size : offset + size + TRAILER]
    kind, checksum = struct.unpack("<BI", trailer)
    _require(mask(crc32c(body + trailer[:1])) == checksum, "block checksum mismatch")
    _require(kind in {0, 1}, "bad block type")
    return decompress(body) if kind == 1 else body


def block_entries(body: bytes) -> list[Entry]:
    """Return the entries of a block body."""
    _require(len(body) >= 4, "block too short")
    (count,) = struct.unpack("<I", body[-4:])
    end = len(body) - 4 - 4 * count
    _require(count >= 1 and end >= 0, "bad restart count")
    restarts = list(struct.unpack(f"<{count}I", body[end:-4]))
    starts: list[int] = []
    entries: list[Entry] = []
    key, at = b"", 0
    while at < end:
        start = at
        shared, at = _length(body, at, end)
        unshared, at = _length(body, at, end)
        size, at = _length(body, at, end)
        _require(at + unshared + size <= end, "entry passes the block")
        _require(shared <= len(key), "shares too much")
        _require(shared == 0 or start not in restarts, "shares at a restart")
        following = key[:shared] + body[at : at + unshared]
        _require(not entries or key < following, "keys not increasing")
        key, at = following, at + unshared
        entries.append((key, body[at : at + size]))
        starts.append(start)
        at += size
    _require(restarts[0] == 0, "first restart is not 0")
    _require(all(a < b for a, b in pairwise(restarts)), "restarts not increasing")
    _require(all(restart in starts for restart in restarts) or restarts == [0], "bad restart")
    return entries


def _length(body: bytes, at: int, end: int) -> tuple[int, int]:
    value, after = take_varint(body[:end], at)
    _require(value < 1 << 32 and after - at <= 5, "length does not fit 32 bits")
    return value, after


def decode(table: bytes) -> list[Entry]:
    """Return all entries of a table."""
    _require(len(table) >= FOOTER, "too short")
    footer = table[-FOOTER:]
    _require(struct.unpack("<Q", footer[40:])[0] == MAGIC, "bad magic")
    at, numbers = 0, []
    for _ in range(4):
        number, at = take_varint(footer[:40], at)
        numbers.append(number)
    index = (numbers[2], numbers[3])
    listed = [(key, _handle(value)) for key, value in block_entries(open_block(table, index))]
    handles = sorted([handle for _, handle in listed] + [index])
    for handle in handles:
        _require(sum(handle) + TRAILER <= len(table) - FOOTER, "block passes the footer")
    for (offset, size), (following, _) in pairwise(handles):
        _require(offset + size + TRAILER <= following, "blocks overlap")
    entries: list[Entry] = []
    floor = None
    for separator, handle in listed:
        block = block_entries(open_block(table, handle))
        _require(bool(block), "empty data block")
        _require(floor is None or floor < block[0][0], "block starts before the separator")
        _require(block[-1][0] <= separator, "separator too small")
        floor = separator
        entries += block
    return entries


def _handle(value: bytes) -> Handle:
    offset, at = take_varint(value, 0)
    size, _ = take_varint(value, at)
    return offset, size


# --- encode ------------------------------------------------------------------------------------


def encode_block(entries: list[Entry], interval: int) -> bytes:
    """Return the body of a block."""
    body, restarts, previous = b"", [0], b""
    for row, (key, value) in enumerate(entries):
        shared = 0
        if row % interval == 0:
            if row:
                restarts.append(len(body))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        lengths = put_varint(shared) + put_varint(len(key) - shared) + put_varint(len(value))
        body += lengths + key[shared:] + value
        previous = key
    return body + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def seal(body: bytes, kind: int = 0) -> bytes:
    """Return a stored body with its trailer."""
    covered = body + bytes((kind,))
    return covered + struct.pack("<I", mask(crc32c(covered)))


def separator(last: bytes, following: bytes) -> bytes:
    """Return a short key that is at least `last` and less than `following`."""
    for at in range(min(len(last), len(following))):
        if last[at] != following[at]:
            if last[at] < 0xFF and last[at] + 1 < following[at]:
                return last[:at] + bytes((last[at] + 1,))
            break
    return last


def successor(last: bytes) -> bytes:
    """Return a short key that is at least `last`."""
    for at, byte in enumerate(last):
        if byte != 0xFF:
            return last[:at] + bytes((byte + 1,))
    return last


def cut(entries: list[Entry]) -> list[list[Entry]]:
    """Group entries into data blocks as TensorFlow's writer does."""
    blocks: list[list[Entry]] = []
    current: list[Entry] = []
    for row, entry in enumerate(entries):
        if row and current and len(entry[0]) + len(entry[1]) >= 2 * BLOCK_SIZE:
            blocks.append(current)
            current = []
        current.append(entry)
        if len(encode_block(current, 16)) >= BLOCK_SIZE:
            blocks.append(current)
            current = []
    return [*blocks, current] if current else blocks


def encode(entries: list[Entry]) -> bytes:
    """Return the table of strictly increasing entries."""
    return assemble(cut(entries))


def assemble(blocks: list[list[Entry]]) -> bytes:
    """Return the table of these data blocks."""
    out, index = b"", []
    for number, block in enumerate(blocks):
        body = encode_block(block, 16)
        last = block[-1][0]
        following = blocks[number + 1][0][0] if number + 1 < len(blocks) else None
        key = successor(last) if following is None else separator(last, following)
        index.append((key, put_varint(len(out)) + put_varint(len(body))))
        out += seal(body)
    handles = b""
    for body in (encode_block([], 16), encode_block(index, 1)):
        handles += put_varint(len(out)) + put_varint(len(body))
        out += seal(body)
    return out + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)
