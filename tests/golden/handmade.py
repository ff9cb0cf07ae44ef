"""Bundles made byte by byte with the plain-Python twins: what TensorFlow can read but not write."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from tests.oracle import entry, ordered, strings, table, variants
from tests.oracle.crc import crc32c, mask
from tests.oracle.varint import put_bytes, put_number, put_varint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[Any]

STRING, VARIANT = 7, 21

CODES = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "string": STRING,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "qint8": 11,
    "quint8": 12,
    "qint32": 13,
    "bfloat16": 14,
    "qint16": 15,
    "quint16": 16,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "variant": VARIANT,
    "uint32": 22,
    "uint64": 23,
    "float8_e5m2": 24,
    "float8_e4m3fn": 25,
    "float8_e4m3fnuz": 26,
    "float8_e4m3b11fnuz": 27,
    "float8_e5m2fnuz": 28,
    "int4": 29,
    "uint4": 30,
    "int2": 31,
    "uint2": 32,
    "float4_e2m1fn": 33,
}
"""TensorFlow's number of each dtype, as types.proto has them."""

NUMBERS = tuple(name for name in CODES if name not in {"string", "variant"})
BITS = {"bool": 1, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
"""Significant bits of the dtypes that do not fill their bytes."""

Extents = list[tuple[int, int]]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the dtype of the values in memory; quantised ones are plain integers."""
    plain = name.removeprefix("q")
    return np.dtype(getattr(ml_dtypes, plain, plain))


def random_array(dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Return an array of any bits that its dtype can hold."""
    kind = numpy_dtype(dtype)
    raw = np.random.default_rng(seed).bytes(int(np.prod(shape)) * kind.itemsize)
    values = np.frombuffer(raw, np.uint8)
    if dtype in BITS:
        values = values & np.uint8((1 << BITS[dtype]) - 1)
    return values.view(kind).reshape(shape)


def as_bytes(values: Array) -> bytes | list[bytes]:
    """Return what makes arrays equal: their bits, or their elements."""
    if values.dtype == object:
        return list(values.ravel())
    raw = np.ascontiguousarray(values).tobytes()
    if values.dtype.name in BITS:
        mask = np.uint8((1 << BITS[values.dtype.name]) - 1)
        raw = (np.frombuffer(raw, np.uint8) & mask).tobytes()
    return raw


def same(found: Any, expected: Any) -> bool:
    """Tell whether arrays are equal in shape and in every bit."""
    found, expected = np.asarray(found), np.asarray(expected)
    return bool(found.shape == expected.shape and as_bytes(found) == as_bytes(expected))


def texts(*elements: bytes) -> Array:
    """Return an object array of bytes."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def stored(values: Array, *, big_endian: bool = False) -> bytes:
    """Return the payload of numbers."""
    raw = np.frombuffer(as_bytes(values), np.uint8)
    width = values.dtype.itemsize // (2 if values.dtype.kind == "c" else 1)
    return (raw.view(f"u{width}").byteswap() if big_endian else raw).tobytes()


def slice_array(values: Array, extents: Extents) -> Array:
    """Return the part of an array that a slice names."""
    return values[
        tuple(slice(None) if n == -1 else slice(start, start + n) for start, n in extents)
    ]


class Bundle:
    """A bundle in the making: its records by key, and the bytes of its shards."""

    def __init__(self, shards: int = 1, *, big_endian: bool = False) -> None:
        """Start with nothing in any shard."""
        self.big_endian = big_endian
        self.data = [bytearray() for _ in range(shards)]
        self.records: dict[bytes, bytes] = {}
        header = put_number(1, shards) if shards else b""
        self.header = header + (put_number(2, 1) if big_endian else b"")
        self.header += put_bytes(3, put_number(1, 1))

    def place(
        self,
        key: bytes,
        dtype: str,
        shape: Sequence[int],
        payload: bytes,
        crc: int,
        *,
        shard: int = 0,
        unknown: bytes = b"",
    ) -> None:
        """Append a payload to a shard, and add the record of it."""
        data = self.data[shard]
        record = entry.Entry(CODES[dtype], list(shape), shard, len(data), len(payload), mask(crc))
        self.records[key] = entry.encode(record) + unknown
        data += payload

    def add(
        self,
        key: bytes,
        values: Array,
        dtype: str | None = None,
        *,
        shard: int = 0,
        unknown: bytes = b"",
    ) -> None:
        """Add a tensor: numbers, or an object array of bytes for strings and variants."""
        dtype = dtype or ("string" if values.dtype == object else values.dtype.name)
        if dtype == "string":
            payload, crc = strings.encode(list(values.ravel()), big_endian=self.big_endian)
        elif dtype == "variant":
            payload, crc = variants.encode(list(values.ravel()))
        else:
            payload = stored(values, big_endian=self.big_endian)
            crc = crc32c(payload)
        self.place(key, dtype, values.shape, payload, crc, shard=shard, unknown=unknown)

    def add_slices(
        self,
        key: bytes,
        values: Array,
        slices: Sequence[Extents],
        dtype: str | None = None,
        *,
        shards: Sequence[int] = (0,),
        unknown: bytes = b"",
    ) -> None:
        """Add a tensor in slices, whose shards are taken in turn."""
        dtype = dtype or ("string" if values.dtype == object else values.dtype.name)
        whole = entry.Entry(CODES[dtype], list(values.shape), slices=[list(s) for s in slices])
        self.records[key] = entry.encode(whole) + unknown
        for number, extents in enumerate(slices):
            self.add(
                ordered.slice_key(key, extents),
                slice_array(values, extents),
                dtype,
                shard=shards[number % len(shards)],
            )

    def index(self, *, compress: object = None) -> bytes:
        """Return the index; ``compress`` is a snappy encoder for its blocks."""
        records = [(b"", self.header), *sorted(self.records.items())]
        if compress is None:
            return table.encode(records)
        return _compressed(table.cut(records), compress)

    def write(self, prefix: Path, *, compress: object = None) -> str:
        """Write all files, and return the prefix."""
        for number, data in enumerate(self.data):
            path = f"{prefix}.data-{number:05d}-of-{len(self.data):05d}"
            with open(path, "wb") as file:
                file.write(data)
        with open(f"{prefix}.index", "wb") as file:
            file.write(self.index(compress=compress))
        return str(prefix)


def _compressed(blocks: list[list[table.Entry]], compress: Any) -> bytes:
    out, listed = b"", []
    for block in blocks:
        body = compress(table.encode_block(block, 16))
        listed.append((block[-1][0], put_varint(len(out)) + put_varint(len(body))))
        out += table.seal(body, 1)
    handles = b""
    for body in (table.encode_block([], 16), table.encode_block(listed, 1)):
        handles += put_varint(len(out)) + put_varint(len(body))
        out += table.seal(body)
    return out + handles.ljust(40, b"\0") + table.MAGIC.to_bytes(8, "little")


def records_of(index: bytes) -> dict[bytes, bytes]:
    """Return the records of an index by key."""
    return dict(table.decode(index))


def grid(shape: tuple[int, ...], cuts: Sequence[Sequence[int]]) -> list[Extents]:
    """Return the slices of a grid: ``cuts`` are the inner edges along each axis."""
    slices: list[Extents] = [[]]
    for size, inner in zip(shape, cuts, strict=True):
        edges = [0, *sorted({at for at in inner if 0 < at < size}), size]
        spans = [(a, b - a) for a, b in itertools.pairwise(edges)]
        axis = [(0, -1)] if len(spans) == 1 else spans
        slices = [[*extents, extent] for extents in slices for extent in axis]
    return slices
