"""Repeated fields of a protobuf message: packed varints, and strings one by one."""

from tests.oracle import MalformedError
from tests.oracle.varint import put_varint, signed, take_varint

RANGES = {
    "int": lambda bits: (-(1 << bits - 1), 1 << bits - 1),
    "uint": lambda bits: (0, 1 << bits),
}


def encode(values: list[int]) -> bytes:
    """Return packed varints."""
    return b"".join(map(put_varint, values))


def _is_cut(data: bytes, at: int) -> bool:
    rest = data[at : at + 10]
    return len(rest) < 10 and all(byte >= 0x80 for byte in rest)


def decode(data: bytes, limit: int, kind: str, width: int) -> tuple[int, bytes]:
    """Return the bytes that whole varints take, and the elements."""
    at, out = 0, b""
    for _ in range(limit):
        if at == len(data) or _is_cut(data, at):
            break
        found, end = take_varint(data, at)
        if kind == "bool":
            value = int(found != 0)
        else:
            value = found if kind == "uint" else signed(found)
            low, high = RANGES[kind](8 * width)
            if not low <= value < high:
                msg = "value does not fit"
                raise MalformedError(msg)
        out += (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        at = end
    return at, out


def strings(data: bytes, tag: int, limit: int) -> tuple[int, list[int]]:
    """Return where what follows the fields starts, and start and length of each."""
    at, found = 0, []
    while len(found) < 2 * limit and at < len(data) and data[at] == tag:
        if _is_cut(data, at + 1):
            break
        length, start = take_varint(data, at + 1)
        if start + length >> 63:
            msg = "too long"
            raise MalformedError(msg)
        found += [start, length]
        at = start + length
    return at, found
