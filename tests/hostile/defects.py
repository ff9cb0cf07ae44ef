"""What can be wrong with a bundle: the facts page on bad input, row by row."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tests.hostile import forge
from tests.hostile.forge import (
    PAYLOAD,
    RESOURCE,
    STRING,
    VARIANT,
    assemble,
    body,
    handle,
    header,
    item,
    one_block,
    record,
)
from tests.oracle import strings, table
from tests.oracle.crc import crc32c, mask
from tests.oracle.ordered import slice_key
from tests.oracle.snappy import compress_literal
from tests.oracle.varint import put_bytes, put_number, put_varint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

REFUSED, CLEAN = True, False
BOOL, INT4 = 10, 29

FOUND: Final = body([item(0, *header()), item(0, b"w", record())])
"""A sound data block of one tensor."""

ROWS: Final = [[(0, 1), (0, -1)], [(1, 1), (0, -1)]]
"""A tensor of shape [2, 3], cut into its rows."""


@dataclass(frozen=True)
class Defect:
    """A row of the table.

    Attributes:
        says: What the findings of verify have in them.
        refused: The copy is refused; else it is clean.
        forge: Writes the checkpoint, and returns its prefix.
    """

    says: tuple[str, ...]
    refused: bool
    forge: Callable[[Path], str]


def _index(content: bytes) -> Callable[[Path], str]:
    return lambda folder: forge.write(folder, content, PAYLOAD)


def _records(*records: forge.Record, data: Sequence[bytes] = (PAYLOAD,)) -> Callable[[Path], str]:
    return lambda folder: forge.write(folder, sorted(records), *data)


def _one(value: bytes, data: bytes = PAYLOAD) -> Callable[[Path], str]:
    return lambda folder: forge.simple(folder, value, data)


def _flipped(index: bytes, at: int) -> bytes:
    damaged = bytearray(index)
    damaged[at] ^= 1
    return bytes(damaged)


def _whole(slices: Sequence[Sequence[tuple[int, int]]], *, dtype: int = 1) -> forge.Record:
    return b"w", record(b"", dtype=dtype, crc=0, slices=slices)


def _part(extents: Sequence[tuple[int, int]], value: bytes) -> forge.Record:
    return slice_key(b"w", [*extents]), value


def _row(number: int, dims: Sequence[int] = (1, 3), dtype: int = 1, **fields: object) -> bytes:
    size = 4 * int(np.prod(dims))
    payload = PAYLOAD[12 * number : 12 * number + size]
    return record(payload, dims, dtype, offset=12 * number, **fields)


def _sliced(*records: forge.Record) -> Callable[[Path], str]:
    return _records(header(), *records)


def _text(
    payload: bytes, crc: int, dims: Sequence[int] = (3,), size: int | None = None
) -> Callable[[Path], str]:
    value = record(payload, dims, STRING, crc=crc, size=size)
    return _one(value, payload)


def _variant(payload: bytes, crc: int = 0) -> Callable[[Path], str]:
    return _one(record(payload, [1], VARIANT, crc=crc), payload)


SOUND = table.encode([header(), (b"w", record())])
TEXT, TEXT_CRC = strings.encode([b"one", b"", b"three"])
META = table.seal(body([]))
UNKNOWN_RANK = (
    put_number(1, 1)
    + put_bytes(2, put_bytes(2, put_number(1, 6)) + put_number(3, 1))
    + put_number(5, 24)
    + b"\x35"
    + struct.pack("<I", mask(crc32c(PAYLOAD)))
)
LONG_WAY = item(0, b"w", record()).replace(b"\0\x01", b"\x80\0\x01", 1)
LONG_HANDLE = b"\x80\0" + put_varint(len(FOUND))
DATA = PAYLOAD + b"\0" * 4
ENTRY = item(0, b"w", record())
MOST = (1 << 32) - 1
W = (b"w", record())
NEGATIVE = put_bytes(1, put_number(1, -1) + put_number(2, 1))


def _lacking(shards: int) -> Callable[[Path], str]:
    """Write a bundle of which only the first shard is there."""

    def write(folder: Path) -> str:
        path = forge.write(folder, [header(shards), W], PAYLOAD)
        old = folder / "model.data-00000-of-00001"
        old.rename(folder / f"model.data-00000-of-{shards:05d}")
        return path

    return write


DEFECTS: Final = {
    "magic wrong": Defect(("57fb808b247547db",), REFUSED, _index(SOUND[:-1] + b"\0")),
    "shorter than a footer": Defect(("at least 48 bytes",), REFUSED, _index(SOUND[-47:])),
    "data block crc": Defect(("block checksum mismatch",), REFUSED, _index(_flipped(SOUND, 10))),
    "index block crc": Defect(
        ("block checksum mismatch",), REFUSED, _index(_flipped(SOUND, len(SOUND) - 50))
    ),
    "metaindex crc": Defect(
        ("metaindex",), CLEAN, _index(assemble([FOUND], metaindex=_flipped(META, 0)))
    ),
    "metaindex with entries": Defect(
        ("metaindex: 1 entries",),
        CLEAN,
        _index(assemble([FOUND], metaindex=table.seal(body([item(0, b"a", b"b")])))),
    ),
    "footer padding": Defect(("padding",), CLEAN, _index(assemble([FOUND], padding=b"x"))),
    "gap bytes": Defect(("bytes in no block",), CLEAN, _index(assemble([FOUND], gap=b"gap"))),
    "numbers longer than needed": Defect(
        ("more bytes than it needs",), CLEAN, _index(one_block(LONG_WAY))
    ),
    "a handle longer than needed": Defect(
        ("more bytes than it needs",), CLEAN, _index(assemble([FOUND], listed=[LONG_HANDLE]))
    ),
    "numbers longer than needed, compressed": Defect(
        ("more bytes than it needs",),
        CLEAN,
        _index(assemble([compress_literal(body([item(0, *header()), LONG_WAY]))], kind=1)),
    ),
    "handle beyond the end": Defect(
        ("passes the footer", "TensorFlow takes memory for all of it, or crashes"),
        REFUSED,
        _index(SOUND[:-48] + forge.footer(handle(0, 8), handle(10, 1 << 20))),
    ),
    "handle of 2^62 bytes": Defect(
        ("passes", "TensorFlow takes memory for all of it, or crashes"),
        REFUSED,
        _index(assemble([FOUND], listed=[handle(0, 1 << 62)])),
    ),
    "handle of 2^34 bytes": Defect(
        ("passes", "TensorFlow takes memory for all of it, or crashes"),
        REFUSED,
        _index(assemble([FOUND], listed=[handle(0, 1 << 34)])),
    ),
    "no restarts": Defect(("claims 0 restarts",), REFUSED, _index(one_block(ENTRY, count=0))),
    "too many restarts": Defect(
        ("claims 1048576 restarts",), REFUSED, _index(one_block(ENTRY, count=1 << 20))
    ),
    "restart out of range": Defect(
        ("beyond the entries",), REFUSED, _index(one_block(ENTRY, restarts=(0, 1 << 30)))
    ),
    "restart inside an entry": Defect(
        ("where no entry starts",), REFUSED, _index(one_block(ENTRY, restarts=(0, 3)))
    ),
    "lengths overflow 32 bits": Defect(
        ("key needs 4294967295 bytes", "TensorFlow hides what follows, or crashes"),
        REFUSED,
        _index(one_block(put_varint(0) + put_varint(MOST) + put_varint(MOST) + b"w")),
    ),
    "key shares more than there is": Defect(
        ("shares 3 bytes", "TensorFlow hides what follows"),
        REFUSED,
        _index(one_block(item(3, b"w", record()))),
    ),
    "value passes its block": Defect(
        ("value needs 1000 bytes", "TensorFlow hides what follows"),
        REFUSED,
        _index(one_block(put_varint(0) + put_varint(1) + put_varint(1000) + b"w")),
    ),
    "duplicate keys": Defect(
        ("key is not greater", "TensorFlow hides what follows"),
        REFUSED,
        _index(one_block(ENTRY, ENTRY)),
    ),
    "unsorted keys": Defect(
        ("key is not greater", "TensorFlow hides what follows"),
        REFUSED,
        _index(one_block(ENTRY, item(0, b"a", record()))),
    ),
    "data block listed twice": Defect(
        ("starts before the block before ends",),
        REFUSED,
        _index(assemble([FOUND, body([])], listed=[handle(0, len(FOUND))] * 2)),
    ),
    "separator below its block": Defect(
        ("separator",), REFUSED, _index(assemble([FOUND], separators=[b"a"]))
    ),
    "snappy garbage": Defect(
        ("snappy",), REFUSED, _index(assemble([b"\x40" + b"\xff" * 30], kind=1))
    ),
    "snappy of a huge claim": Defect(
        ("claims to hold 4294967295",),
        REFUSED,
        _index(assemble([put_varint(MOST) + b"\0" * 20], kind=1)),
    ),
    "no header": Defect(
        ("no header", "TensorFlow takes the first tensor for it, and hides that"),
        REFUSED,
        _records((b"w", record())),
    ),
    "no shards": Defect(("says 0 shards",), REFUSED, _records(header(0), W)),
    "fewer shards than none": Defect(("says -1 shards",), REFUSED, _records(header(-1), W)),
    "too many shards": Defect(("shard 0 of 99 is missing",), REFUSED, _records(header(99), W)),
    "a shard of no tensor missing": Defect(
        ("shard 1 of 3 is missing", "shard 2 of 3 is missing"), CLEAN, _lacking(3)
    ),
    "very many shards of no tensor missing": Defect(("is missing",), CLEAN, _lacking(MOST >> 1)),
    "shard number too large": Defect(
        ("in shard 1, the header says 1 shards",),
        REFUSED,
        _records(header(), (b"w", record(shard=1))),
    ),
    "record does not parse": Defect(
        ("does not decode", "TensorFlow aborts on this"), REFUSED, _one(b"\xff")
    ),
    "dimension negative": Defect(
        ("dimension is -3", "TensorFlow aborts on this"), REFUSED, _one(record(dims=[2, -3]))
    ),
    "dimensions overflow": Defect(
        ("2^63 elements or more", "TensorFlow aborts on this"),
        REFUSED,
        _one(record(dims=[1 << 32, 1 << 31])),
    ),
    "dimensions overflow, with none": Defect(
        ("2^63 elements or more", "TensorFlow aborts on this"),
        REFUSED,
        _one(record(dims=[1 << 40, 1 << 40, 0])),
    ),
    "rank above 254": Defect(
        ("more than 254 dimensions", "TensorFlow aborts on this"),
        REFUSED,
        _one(record(dims=[1] * 255)),
    ),
    "rank unknown, with dimensions": Defect(
        ("unknown rank", "TensorFlow goes by the dimensions"), REFUSED, _one(UNKNOWN_RANK)
    ),
    "dtype 0": Defect(
        ("dtype 0 is no dtype that is known", "TensorFlow aborts on this"),
        REFUSED,
        _one(record(dtype=0)),
    ),
    "dtype of a reference": Defect(
        ("dtype 101 is a reference", "TensorFlow aborts on this"),
        REFUSED,
        _one(record(dtype=101)),
    ),
    "dtype unknown": Defect(
        ("dtype 99 is no dtype that is known", "TensorFlow aborts on this"),
        REFUSED,
        _one(record(dtype=99)),
    ),
    "dtype negative": Defect(
        ("is no dtype that is known", "TensorFlow aborts on this"),
        REFUSED,
        _one(put_number(1, -5) + record()[2:]),
    ),
    "dtype of a resource": Defect(
        ("a resource is no value", "TensorFlow restores none"),
        REFUSED,
        _one(record(dtype=RESOURCE)),
    ),
    "size is not that of the shape": Defect(
        ("takes 24 bytes, the index says 23",), REFUSED, _one(record(size=23))
    ),
    "huge shape, small size": Defect(
        (f"takes {1 << 52} bytes",), REFUSED, _one(record(dims=[1 << 50]))
    ),
    "huge shape, huge size": Defect(
        ("beyond the end",), REFUSED, _one(record(dims=[1 << 50], size=1 << 52))
    ),
    "offset negative": Defect(("offset is -4",), REFUSED, _one(record(offset=-4))),
    "offset beyond the end": Defect(("beyond the end",), REFUSED, _one(record(offset=1 << 40))),
    "shard cut short": Defect(("beyond the end",), REFUSED, _one(record(), PAYLOAD[:-1])),
    "shard missing": Defect(("shard 0 of 1 is missing",), REFUSED, _records(header(), W, data=())),
    "tensors overlap": Defect(
        ("bytes 4 to 24 belong to more than one tensor",),
        CLEAN,
        _records(header(), W, (b"x", record(DATA[4:], offset=4)), data=[DATA]),
    ),
    "bytes of no tensor": Defect(
        ("4 bytes belong to no tensor",), CLEAN, _one(record(), PAYLOAD + b"tail")
    ),
    "bytes of no tensor between": Defect(
        ("4 bytes belong to no tensor",),
        CLEAN,
        _one(record(offset=4), b"gap!" + PAYLOAD),
    ),
    "crc differs": Defect(("checksum of bytes 0 to 24",), REFUSED, _one(record(crc=1))),
    "crc absent": Defect(("checksum of bytes 0 to 24",), REFUSED, _one(record()[:-5])),
    "crc of nothing differs": Defect(
        ("checksum of bytes 0 to 0",), REFUSED, _one(record(b"", [0, 3], crc=1))
    ),
    "string of 2^62 bytes": Defect(
        ("TensorFlow reads on, or crashes",),
        REFUSED,
        _text(strings.header([1 << 62, 0, 1])[0] + b"abc", TEXT_CRC),
    ),
    "strings of 2^63 bytes together": Defect(
        ("2^63 or more", "TensorFlow crashes on this"),
        REFUSED,
        _text(strings.header([1 << 62] * 3)[0], TEXT_CRC),
    ),
    "string of 8 GiB": Defect(
        ("TensorFlow reads on, or crashes",),
        REFUSED,
        _text(strings.header([8 << 30])[0], TEXT_CRC, [1]),
    ),
    "string size too small": Defect(
        ("the tensor ends before its strings do", "TensorFlow reads on"),
        REFUSED,
        _text(TEXT, TEXT_CRC, size=len(TEXT) - 1),
    ),
    "string size too large": Defect(
        ("the strings end 1 bytes before the tensor does",),
        REFUSED,
        _text(TEXT + b"x", crc32c(b"x", TEXT_CRC)),
    ),
    "string length longer than needed": Defect(
        ("varint 3 takes 2 bytes instead of 1",), REFUSED, _text(b"\x83\0" + TEXT[1:], TEXT_CRC)
    ),
    "variant of 2^62 bytes": Defect(
        ("the tensor ends before its variants do", "TensorFlow reads on, or crashes"),
        REFUSED,
        _variant(put_varint(1 << 62) + b"first" + b"\0" * 14),
    ),
    "variant of 2^63 bytes": Defect(
        ("a variant of 9223372036854775808 bytes", "TensorFlow crashes on this"),
        REFUSED,
        _variant(put_varint(1 << 63) + b"first" + b"\0" * 14),
    ),
    "slice missing": Defect(
        ("the record of its slice [1:2, 0:3] is missing",),
        REFUSED,
        _sliced(_whole(ROWS), _part(ROWS[0], _row(0))),
    ),
    "slices do not cover": Defect(
        ("its slices hold 3 of 6 elements",),
        REFUSED,
        _sliced(_whole(ROWS[:1]), _part(ROWS[0], _row(0))),
    ),
    "slice of another rank": Defect(
        ("a slice has 1 axes",),
        REFUSED,
        _sliced(_whole([[(0, 1)]]), _part([(0, 1)], _row(0, [1]))),
    ),
    "slice out of bounds": Defect(
        ("outside the shape",),
        REFUSED,
        _sliced(_whole([[(1, 2), (0, -1)]]), _part([(1, 2), (0, -1)], record())),
    ),
    "slice negative": Defect(
        ("extent starts at -1",),
        REFUSED,
        _sliced((b"w", record(b"", crc=0) + put_bytes(7, NEGATIVE + put_bytes(1, b"")))),
    ),
    "slices overlap": Defect(
        ("its slices overlap",),
        REFUSED,
        _sliced(
            _whole([ROWS[0], [(0, 2), (0, 1)], [(1, 1), (1, 2)]]),
            _part(ROWS[0], _row(0)),
            _part([(0, 2), (0, 1)], _row(0, [2, 1])),
            _part([(1, 1), (1, 2)], _row(0, [1, 2])),
        ),
    ),
    "slice listed twice": Defect(
        ("slice", "is listed twice", "TensorFlow aborts on this"),
        REFUSED,
        _sliced(_whole([ROWS[0], ROWS[0]]), _part(ROWS[0], _row(0))),
    ),
    "slice of another dtype": Defect(
        ("is int32, the tensor is float32", "TensorFlow aborts on this"),
        REFUSED,
        _sliced(_whole(ROWS), _part(ROWS[0], _row(0)), _part(ROWS[1], _row(1, dtype=3))),
    ),
    "slice smaller than its extent": Defect(
        ("is stored with shape [1, 2]", "TensorFlow reads foreign memory, or crashes"),
        REFUSED,
        _sliced(_whole(ROWS), _part(ROWS[0], _row(0)), _part(ROWS[1], _row(1, [1, 2]))),
    ),
    "slice in slices itself": Defect(
        ("in slices itself",),
        REFUSED,
        _sliced(
            _whole(ROWS),
            _part(ROWS[0], _row(0)),
            _part(ROWS[1], record(b"", [1, 3], crc=0, slices=[[(0, -1), (0, -1)]])),
        ),
    ),
    "whole and in slices": Defect(
        ("stored both whole and in slices",),
        REFUSED,
        _sliced((b"w", record(slices=ROWS)), _part(ROWS[0], _row(0)), _part(ROWS[1], _row(1))),
    ),
    "a bool that is neither": Defect(
        ("a byte that no bool is stored as", "TensorFlow takes it for true"),
        CLEAN,
        _one(record(b"\0\x01\x07", [3], BOOL), b"\0\x01\x07"),
    ),
    "a bool in slices that is neither": Defect(
        ("a byte that no bool is stored as",),
        CLEAN,
        _records(
            header(),
            (b"w", record(b"", [2, 2], BOOL, crc=0, slices=ROWS)),
            _part(ROWS[0], record(b"\0\x01", [1, 2], BOOL)),
            _part(ROWS[1], record(b"\x01\xff", [1, 2], BOOL, offset=2)),
            data=[b"\0\x01\x01\xff"],
        ),
    ),
    "bits above those of an int4": Defect(
        ("a byte that no int4 is stored as", "without the bits that are too many"),
        CLEAN,
        _one(record(b"\x0f\xf1", [2], INT4), b"\x0f\xf1"),
    ),
}
"""What can be wrong, in the order of the facts page."""
