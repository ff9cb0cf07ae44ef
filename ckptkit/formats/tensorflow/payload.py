"""The stored form of strings and variants. Layout: see FORMAT.md in this folder."""

from __future__ import annotations

import itertools
from array import array
from typing import TYPE_CHECKING

from ckptkit import _native
from ckptkit.errors import CorruptError, FormatError, UnsupportedError
from ckptkit.model import TensorSpec
from ckptkit.storage.digest import digest

if TYPE_CHECKING:
    from collections.abc import Buffer, Sequence

    from ckptkit.model import Piece
    from ckptkit.storage.disk import Sources


def decode(payload: Buffer, spec: TensorSpec, byteorder: str) -> list[bytes]:
    """Split the stored bytes of a string or variant tensor into its elements, in C order.

    Raises:
        CorruptError: Lengths, their checksums, and the size do not agree.
        UnsupportedError: A variant of a big-endian machine, which TensorFlow refuses too.
    """
    view = memoryview(payload).cast("B")
    try:
        if spec.kind == "string":
            start, ends, _ = _native.strings_decode(view, spec.count, byteorder == "big")
            bounds = itertools.chain([0], memoryview(ends).cast("q"))
            return [bytes(view[start + a : start + b]) for a, b in itertools.pairwise(bounds)]
        if byteorder == "big":
            msg = "variants in a big-endian checkpoint"
            raise UnsupportedError(msg)
        spans, _ = _native.variants_decode(view, spec.count)
        limits = iter(memoryview(spans).cast("q"))
        return [bytes(view[a:b]) for a, b in zip(limits, limits, strict=True)]
    except _native.DecodeError as error:
        raise CorruptError(error.message, offset=error.offset) from None


def read_elements(
    sources: Sources, name: str, piece: Piece, dtype: str, byteorder: str
) -> list[bytes]:
    """Read strings or variants, compare them with their checksum, and split them.

    Args:
        sources: Opens files.
        name: The tensor, for errors.
        piece: Where they are, and which part of it.
        dtype: Tells strings from variants.
        byteorder: Of the machine that wrote them.

    Raises:
        CorruptError: They differ from their checksum, or do not decode.
        UnsupportedError: As of :func:`decode`.
    """
    extent, spec = piece.extent, TensorSpec(dtype, piece.box.shape)
    raw = sources.file(extent.path).read(extent.offset, extent.length)
    try:
        if piece.checksum is not None:
            stream = digest(piece.checksum.algorithm, spec.count, byteorder)
            stream.update(raw)
            if stream.value() != piece.checksum.value:
                msg = (
                    f"checksum of bytes {extent.offset} to {extent.offset + extent.length}:"
                    f" expected {piece.checksum.value:08x}, found {stream.value():08x}"
                )
                raise CorruptError(msg)
        return decode(raw, spec, byteorder)
    except FormatError as error:
        offset = extent.offset + (error.offset or 0)
        raise type(error)(error.message, path=extent.path, tensor=name, offset=offset) from None


def encode(elements: Sequence[bytes], spec: TensorSpec, byteorder: str) -> bytes:
    """Return the stored bytes of a string or variant tensor.

    Args:
        elements: The elements in C order, as many as ``spec.count``.
        spec: Tells strings from variants.
        byteorder: Of the machine that the bundle is for.
    """
    if spec.kind == "string":
        header, _ = _native.strings_encode(array("q", map(len, elements)), byteorder == "big")
        return b"".join([header, *elements])
    ends = array("q")
    total = 0
    for element in elements:
        total += len(element)
        ends.append(total)
    return _native.variants_encode(b"".join(elements), ends)[0]
