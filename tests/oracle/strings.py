"""Payload of a string tensor."""

import struct

from tests.oracle import MalformedError
from tests.oracle.crc import crc32c, mask
from tests.oracle.varint import put_varint, take_minimal


def _length_bytes(length: int, order: str) -> bytes:
    return struct.pack(f"{order}I" if length <= 0xFFFFFFFF else f"{order}Q", length)


def header(lengths: list[int], *, big_endian: bool = False) -> tuple[bytes, int]:
    """Return the header and the checksum after it."""
    order = ">" if big_endian else "<"
    crc = crc32c(b"".join(_length_bytes(length, order) for length in lengths))
    stored = struct.pack(f"{order}I", mask(crc))
    return b"".join(map(put_varint, lengths)) + stored, crc32c(stored, crc)


def encode(strings: list[bytes], *, big_endian: bool = False) -> tuple[bytes, int]:
    """Return the payload and the checksum of the tensor."""
    head, crc = header([len(string) for string in strings], big_endian=big_endian)
    joined = b"".join(strings)
    return head + joined, crc32c(joined, crc)


def decode(data: bytes, count: int, *, big_endian: bool = False) -> tuple[int, list[int], int]:
    """Return the header size, the end of each string, and the checksum of the tensor."""
    if count > len(data):
        msg = "too few bytes"
        raise MalformedError(msg)
    lengths, at = [], 0
    for _ in range(count):
        length, at = take_minimal(data, at)
        lengths.append(length)
    head, crc = header(lengths, big_endian=big_endian)
    if data[: len(head)] != head or len(data) != len(head) + sum(lengths):
        msg = "bad checksum or size"
        raise MalformedError(msg)
    ends = [sum(lengths[: row + 1]) for row in range(count)]
    return len(head), ends, crc32c(data[len(head) :], crc)
