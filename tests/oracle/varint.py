"""Variable-length integers and protobuf fields."""

from collections.abc import Iterator

from tests.oracle import MalformedError

MAX_BYTES = 10


def put_varint(value: int) -> bytes:
    """Encode an unsigned or a negative 64-bit number minimally."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def take_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at`, and where it ends."""
    value = 0
    for index in range(MAX_BYTES):
        if at + index >= len(data):
            msg = "bytes end within a varint"
            raise MalformedError(msg)
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + index + 1
    msg = "varint does not fit 64 bits"
    raise MalformedError(msg)


def take_minimal(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at`, which must be as short as possible, and where it ends."""
    value, end = take_varint(data, at)
    if end - at != len(put_varint(value)):
        msg = "varint is not minimal"
        raise MalformedError(msg)
    return value, end


def signed(value: int) -> int:
    """Read 64 bits as two's complement."""
    return value - (1 << 64) if value >> 63 else value


def fields(message: bytes) -> Iterator[tuple[int, int, int | bytes, bytes]]:
    """Yield number, wire type, value and the verbatim bytes of each field."""
    at = 0
    while at < len(message):
        start = at
        tag, at = take_varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if not 0 < number < 1 << 32 or at - start > 5:
            msg = "bad tag"
            raise MalformedError(msg)
        if wire == 0:
            value, at = take_varint(message, at)
        elif wire in {1, 2, 5}:
            length = {1: 8, 5: 4}.get(wire, 0)
            if wire == 2:
                length, at = take_varint(message, at)
            if at + length > len(message):
                msg = "field passes the end"
                raise MalformedError(msg)
            value = message[at : at + length]
            at += length
        else:
            msg = "bad wire type"
            raise MalformedError(msg)
        yield number, wire, value, message[start:at]


def number_of(wire: int, value: int | bytes, bits: int = 64) -> int:
    """Return a varint field as a signed number of so many bits."""
    if wire != 0 or not isinstance(value, int):
        msg = "not a varint"
        raise MalformedError(msg)
    found = signed(value)
    if not -(1 << bits - 1) <= found < 1 << bits - 1:
        msg = "number is too large"
        raise MalformedError(msg)
    return found


def bytes_of(wire: int, value: int | bytes) -> bytes:
    """Return a field of bytes."""
    if wire != 2 or not isinstance(value, bytes):
        msg = "not bytes"
        raise MalformedError(msg)
    return value


def put_number(number: int, value: int) -> bytes:
    """Encode a varint field."""
    return put_varint(number << 3) + put_varint(value)


def put_bytes(number: int, value: bytes) -> bytes:
    """Encode a field of bytes."""
    return put_varint(number << 3 | 2) + put_varint(len(value)) + value
