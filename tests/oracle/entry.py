"""Header and entry records of an index, as plain values."""

import struct
from dataclasses import dataclass, field
from math import prod

from tests.oracle import MalformedError
from tests.oracle.varint import (
    bytes_of,
    fields,
    number_of,
    put_bytes,
    put_number,
    put_varint,
    signed,
    take_varint,
)

HAS_SLICES, HAS_CRC, HAS_UNKNOWN = 1, 2, 4
MAX_RANK = 254

Extent = tuple[int, int]


@dataclass
class Entry:
    """What one BundleEntryProto says."""

    dtype: int = 0
    dims: list[int] = field(default_factory=list)
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    flags: int = 0
    slices: list[list[Extent]] = field(default_factory=list)


def _reject(condition: object, message: str) -> None:
    if condition:
        raise MalformedError(message)


def decode(value: bytes) -> Entry:
    """Decode one entry."""
    entry = Entry()
    for number, wire, found, _ in fields(value):
        match number:
            case 1:
                entry.dtype = number_of(wire, found, 32)
            case 2:
                _shape(bytes_of(wire, found), entry)
            case 3:
                entry.shard = number_of(wire, found, 32)
            case 4:
                entry.offset = number_of(wire, found)
            case 5:
                entry.size = number_of(wire, found)
            case 6:
                _reject(wire != 5, "not four bytes")
                (entry.crc,) = struct.unpack("<I", found)  # type: ignore[arg-type]
                entry.flags |= HAS_CRC
            case 7:
                entry.slices.append(_slice(bytes_of(wire, found), entry))
                entry.flags |= HAS_SLICES
            case _:
                entry.flags |= HAS_UNKNOWN
    _reject(min(entry.shard, entry.offset, entry.size) < 0, "negative place")
    _reject(len(entry.dims) > MAX_RANK, "rank")
    _reject(prod(dim for dim in entry.dims if dim) >= 1 << 63, "too many elements")
    return entry


def _shape(message: bytes, entry: Entry) -> None:
    for number, wire, found, _ in fields(message):
        if number == 2:
            entry.dims.append(_dim(bytes_of(wire, found), entry))
        elif number == 3:
            _reject(number_of(wire, found), "unknown rank")
        else:
            entry.flags |= HAS_UNKNOWN


def _dim(message: bytes, entry: Entry) -> int:
    size = 0
    for number, wire, found, _ in fields(message):
        if number == 1:
            size = number_of(wire, found)
            _reject(size < 0, "negative dimension")
        elif number == 2:
            bytes_of(wire, found)
        else:
            entry.flags |= HAS_UNKNOWN
    return size


def _slice(message: bytes, entry: Entry) -> list[Extent]:
    extents = []
    for number, wire, found, _ in fields(message):
        if number == 1:
            extents.append(_extent(bytes_of(wire, found), entry))
        else:
            entry.flags |= HAS_UNKNOWN
    _reject(len(extents) > MAX_RANK, "rank")
    return extents


def _extent(message: bytes, entry: Entry) -> Extent:
    start, length = 0, None
    for number, wire, found, _ in fields(message):
        if number == 1:
            start = number_of(wire, found)
        elif number == 2:
            length = number_of(wire, found)
        else:
            entry.flags |= HAS_UNKNOWN
    if length is None:
        _reject(start, "start without length")
        return 0, -1
    _reject(start < 0 or length < 1 or start + length >= 1 << 63, "bad extent")
    return start, length


def encode(entry: Entry) -> bytes:
    """Encode as TensorFlow does: by field number, zeros omitted, the shape always there."""
    out = put_number(1, entry.dtype) if entry.dtype else b""
    dims = b"".join(put_bytes(2, put_number(1, dim) if dim else b"") for dim in entry.dims)
    out += put_bytes(2, dims)
    out += _place(3, entry.shard) + _place(4, entry.offset) + _place(5, entry.size)
    out += _place(6, entry.crc)
    for extents in entry.slices:
        message = b""
        for start, length in extents:
            extent = put_number(1, start) if start else b""
            message += put_bytes(1, extent + (put_number(2, length) if length != -1 else b""))
        out += put_bytes(7, message)
    return out


def _place(number: int, value: int) -> bytes:
    if not value:
        return b""
    if number == 6:
        return put_varint(6 << 3 | 5) + struct.pack("<I", value)
    return put_number(number, value)


def splice(value: bytes, shard: int, offset: int, size: int, crc: int) -> bytes:
    """Return the record with another place, every other byte kept; a size of -1 keeps all."""
    old = decode(value)
    new = {3: shard, 4: offset, 5: size, 6: crc}
    now = {3: old.shard, 4: old.offset, 5: old.size, 6: old.crc}
    changed = {number for number in new if new[number] != now[number]} if size != -1 else set()
    stored = [(number, verbatim) for number, _, _, verbatim in fields(value)]
    out, done = b"", set[int]()
    for number, verbatim in stored:
        for other in sorted(changed - done - {number for number, _ in stored}):
            if other < number:
                out += _place(other, new[other])
                done.add(other)
        if number not in changed:
            out += verbatim
        elif number not in done:
            out += _place(number, new[number])
            done.add(number)
    return out + b"".join(_place(number, new[number]) for number in sorted(changed - done))


def respec(value: bytes, dtype: int, dims: list[int]) -> bytes:
    """Return the record with another dtype and shape, every other byte kept."""
    old = decode(value)
    fresh = encode(Entry(dtype=dtype, dims=dims))
    new = {number: verbatim for number, _, _, verbatim in fields(fresh)}
    numbers = {number for number, _, _, _ in fields(value)}
    changed = set[int]()
    if old.dtype != dtype:
        changed.add(1)
    if old.dims != dims or 2 not in numbers:
        changed.add(2)
    dropped = changed | ({7} if old.dims != dims else set())
    out, done = b"", set[int]()
    for number, _, _, verbatim in fields(value):
        for other in (1, 2):
            if other in changed - done and (other == 1 or number > 1):
                out += new.get(other, b"")
                done.add(other)
        if number not in dropped:
            out += verbatim
    return out + b"".join(new.get(other, b"") for other in sorted(changed - done))


def header_decode(value: bytes) -> tuple[int, int, int, int, list[int]]:
    """Return num_shards, endianness, producer, min_consumer, bad_consumers."""
    numbers, version, bad = {1: 0, 2: 0}, {1: 0, 2: 0}, list[int]()
    for number, wire, found, _ in fields(value):
        if number in numbers:
            numbers[number] = number_of(wire, found, 32)
        elif number == 3:
            for inner, inner_wire, inner_found, _ in fields(bytes_of(wire, found)):
                if inner in version:
                    version[inner] = number_of(inner_wire, inner_found, 32)
                elif inner == 3:
                    bad += _repeated(inner_wire, inner_found)
    return numbers[1], numbers[2], version[1], version[2], bad


def _repeated(wire: int, found: int | bytes) -> list[int]:
    if wire == 0:
        return [number_of(wire, found, 32)]
    packed, at, numbers = bytes_of(wire, found), 0, []
    while at < len(packed):
        number, at = take_varint(packed, at)
        numbers.append(signed(number))
        _reject(not -(1 << 31) <= numbers[-1] < 1 << 31, "number is too large")
    return numbers
