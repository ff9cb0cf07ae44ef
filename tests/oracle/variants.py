"""Payload of a variant tensor."""

import struct

from tests.oracle import MalformedError
from tests.oracle.crc import crc32c, mask
from tests.oracle.varint import put_varint, take_minimal


def encode(messages: list[bytes]) -> tuple[bytes, int]:
    """Return the payload and the checksum of the tensor."""
    out, crc = b"", 0
    for message in messages:
        crc = crc32c(struct.pack("<Q", len(message)) + message, crc)
        stored = struct.pack("<I", mask(crc))
        crc = crc32c(stored, crc)
        out += put_varint(len(message)) + message + stored
    return out, crc


def decode(data: bytes, count: int) -> tuple[list[tuple[int, int]], int]:
    """Return the range of each message in the payload, and the checksum of the tensor."""
    ranges, messages, at = [], [], 0
    for _ in range(count):
        length, start = take_minimal(data, at)
        at = start + length + 4
        if at > len(data):
            msg = "too few bytes"
            raise MalformedError(msg)
        ranges.append((start, start + length))
        messages.append(data[start : start + length])
    expected, crc = encode(messages)
    if data != expected:
        msg = "bad checksum or bytes left"
        raise MalformedError(msg)
    return ranges, crc
