"""Raw Snappy blocks: a decoder, and two encoders that make valid if poor blocks."""

from tests.oracle import MalformedError
from tests.oracle.varint import put_varint, take_varint

_SHORT_LITERAL = 60


def decompress(data: bytes) -> bytes:
    """Decompress one block."""
    claimed, at = take_varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        kind, high = tag & 3, tag >> 2
        at += 1
        if kind == 0:
            extra = max(0, high - _SHORT_LITERAL + 1)
            length = 1 + (int.from_bytes(data[at : at + extra], "little") if extra else high)
            at += extra
            if at + length > len(data):
                msg = "literal passes the end"
                raise MalformedError(msg)
            out += data[at : at + length]
            at += length
            continue
        extra = (0, 1, 2, 4)[kind]
        if at + extra > len(data):
            msg = "copy passes the end"
            raise MalformedError(msg)
        offset = int.from_bytes(data[at : at + extra], "little")
        at += extra
        length = high + 1
        if kind == 1:
            length = (high & 7) + 4
            offset |= high >> 3 << 8
        if not 0 < offset <= len(out):
            msg = "copy from before the start"
            raise MalformedError(msg)
        for _ in range(length):
            out.append(out[-offset])
    if len(out) != claimed:
        msg = f"{claimed} bytes claimed, {len(out)} found"
        raise MalformedError(msg)
    return bytes(out)


def compress_literal(data: bytes) -> bytes:
    """Encode with literals of up to 60 bytes only."""
    out = bytearray(put_varint(len(data)))
    for at in range(0, len(data), _SHORT_LITERAL):
        part = data[at : at + _SHORT_LITERAL]
        out.append(len(part) - 1 << 2)
        out += part
    return bytes(out)


def compress_runs(data: bytes) -> bytes:
    """Encode with single-byte literals, and two-byte-offset copies for runs of one byte."""
    out = bytearray(put_varint(len(data)))
    at = 0
    while at < len(data):
        out += bytes((0, data[at]))
        run = 0
        while run < 64 and at + 1 + run < len(data) and data[at + 1 + run] == data[at]:
            run += 1
        if run:
            out += bytes((run - 1 << 2 | 2, 1, 0))
        at += 1 + run
    return bytes(out)
