"""Damaged tables, read block by block: what an index block names, or what is found by trying."""

import struct

from tests.oracle.crc import crc32c, mask
from tests.oracle.table import FOOTER, MAGIC, TRAILER, Entry, block_entries
from tests.oracle.varint import take_varint

LEAST = 13


def sound_end(table: bytes, start: int, high: int) -> int | None:
    """Return where the first raw block ends that starts at a byte and has a checksum that holds."""
    register = 0
    for at in range(start, high - 4):
        register = crc32c(table[at : at + 1], register)
        stored = struct.unpack("<I", table[at + 1 : at + 5])[0]
        if at + 5 >= start + LEAST and table[at] == 0 and mask(register) == stored:
            return at + 5
    return None


def walk(table: bytes, low: int, high: int) -> list[tuple[int, int]]:
    """Return the sound blocks of a range: each is the first that starts at or behind the last."""
    found = []
    at = low
    while at < high:
        end = sound_end(table, at, high)
        if end is None:
            at += 1
            continue
        found.append((at, end))
        at = end
    return found


def trusted(table: bytes) -> list[Entry]:
    """Return the entries of all blocks whose checksum holds, in the order of the file.

    Takes time in proportion to the square of the length.
    """
    end = len(table)
    if len(table) >= FOOTER and table[-8:] == struct.pack("<Q", MAGIC):
        end -= FOOTER
    blocks = walk(table, 0, end)
    entries: list[Entry] = []
    for start, stop in blocks:
        body = block_entries(table[start : stop - TRAILER])
        handles = [_handle(value) for _, value in body]
        if any(handle in blocks for handle in handles) or all(handles):
            # It says where blocks are: the index block.
            continue
        entries += body
    return entries


def _handle(value: bytes) -> tuple[int, int] | None:
    """Return the range of the block that a value of an index block names."""
    try:
        offset, at = take_varint(value, 0)
        size, at = take_varint(value, at)
    except Exception:  # noqa: BLE001  it is none
        return None
    return (offset, offset + size + TRAILER) if at == len(value) else None
