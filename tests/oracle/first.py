"""TensorFlow's first format, written with the plain-Python twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.golden.handmade import CODES, as_bytes, slice_array
from tests.oracle import ordered, packed, table
from tests.oracle.varint import put_bytes, put_number, put_varint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

Extents = list[tuple[int, int]]

FIELDS = {
    "float32": 5,
    "float64": 6,
    **dict.fromkeys(("int32", "int16", "int8", "uint8", "uint16", "qint8", "quint8", "qint32"), 7),
    "string": 8,
    "complex64": 9,
    "int64": 10,
    "bool": 11,
    "complex128": 12,
    "float16": 13,
}
"""The field of a TensorProto that holds values of each dtype."""

DTYPES = tuple(FIELDS)


def values(dtype: str, array: Array) -> bytes:
    """Return the message that holds values, and nothing else."""
    field = FIELDS[dtype]
    if dtype == "string":
        return b"".join(put_bytes(field, text) for text in array.ravel())
    if not array.size:
        return b""
    return put_bytes(field, payload(dtype, array))


def payload(dtype: str, array: Array) -> bytes:
    """Return the packed values of numbers."""
    if FIELDS[dtype] in {5, 6, 9, 12}:
        return bytes(as_bytes(array))
    whole = array.view(np.uint16) if dtype == "float16" else array
    return packed.encode(whole.ravel().astype(object).tolist())


def extents_of(array: Array) -> Extents:
    """Return the slice that is all of an array."""
    return [(0, -1)] * array.ndim


def slice_message(extents: Extents) -> bytes:
    """Return a TensorSliceProto."""
    return b"".join(
        put_bytes(
            1,
            (put_number(1, start) if start else b"")
            + (put_number(2, length) if length >= 0 else b""),
        )
        for start, length in extents
    )


def shape_message(shape: Sequence[int]) -> bytes:
    """Return a TensorShapeProto."""
    return b"".join(put_bytes(2, put_number(1, size) if size else b"") for size in shape)


def description(name: bytes, code: int, shape: Sequence[int], slices: Sequence[Extents]) -> bytes:
    """Return what the first record says of a tensor."""
    message = put_bytes(1, name) + put_bytes(2, shape_message(shape))
    message += put_number(3, code) if code else b""
    return message + b"".join(put_bytes(4, slice_message(one)) for one in slices)


def meta(descriptions: Sequence[bytes], version: bytes = b"\x08\x01") -> bytes:
    """Return the first record."""
    inner = b"".join(put_bytes(1, one) for one in descriptions) + put_bytes(2, version)
    return put_bytes(1, inner)


def record(name: bytes, extents: Extents, message: bytes) -> bytes:
    """Return the record of a slice."""
    inner = put_bytes(1, name) + put_bytes(2, slice_message(extents)) + put_bytes(3, message)
    return put_bytes(2, inner)


def key(name: bytes, extents: Extents) -> bytes:
    """Return the key of a slice."""
    return ordered.slice_key(name, extents)


Tensor = tuple[str, "Array", "Sequence[Extents]"]
"""Dtype, values, and the slices that are stored."""


def part(array: Array, extents: Extents) -> Array:
    """Return what a slice holds; as an array, whatever it is."""
    return np.asarray(slice_array(array, extents), array.dtype)


def entries(tensors: Mapping[bytes, Tensor]) -> list[tuple[bytes, bytes]]:
    """Return the records of a file."""
    described = [
        description(name, CODES[dtype], array.shape, slices)
        for name, (dtype, array, slices) in sorted(tensors.items())
    ]
    found = [
        (key(name, extents), record(name, extents, values(dtype, part(array, extents))))
        for name, (dtype, array, slices) in tensors.items()
        for extents in slices
    ]
    return [(b"", meta(described)), *sorted(found)]


def encode(tensors: Mapping[bytes, Tensor]) -> bytes:
    """Return a file."""
    found = entries(tensors)
    few = sum(len(one) + len(other) for one, other in found) < table.BLOCK_SIZE // 2
    return table.assemble([found]) if few else table.encode(found)


def whole(dtype: str, array: Array) -> Tensor:
    """Return a tensor in one piece."""
    return dtype, array, [extents_of(array)]


def unpacked(field: int, kind: int, elements: Sequence[bytes]) -> bytes:
    """Return values one by one, each behind a tag, as packed fields may be written as well."""
    return b"".join(put_varint(field << 3 | kind) + one for one in elements)
