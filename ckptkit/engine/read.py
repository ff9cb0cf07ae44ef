"""Reading stored tensors: whole and checked, or just the bytes of a region."""

from __future__ import annotations

import math
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ckptkit import _native
from ckptkit.engine.blocks import cut, spans
from ckptkit.errors import CkptError, CorruptError, FormatError, UnsupportedError
from ckptkit.lowering import numpy_dtype
from ckptkit.model import DTYPES, MAX_BYTES, Stored, Tensor, TensorSpec
from ckptkit.region import Box, Region, Selection
from ckptkit.storage.digest import digest

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.model import Piece
    from ckptkit.storage.disk import Sources

    Array = NDArray[Any]
    Bytes = NDArray[np.uint8]
    Decode = Callable[[Buffer, TensorSpec, str], Sequence[bytes]]
    Allocate = Callable[[int], Bytes]

CHUNK: Final = 2 << 20
"""Bytes read and summed at a time: they are still in the cache when they are summed."""

SPARE_LEAST: Final = 1 << 20
SPARE_MOST: Final = 128 << 20
"""Bytes of an array whose memory is kept for the next one; not less, and not more."""

ALIGNMENT: Final = 64
"""Bytes at a multiple of which TensorFlow wants its memory to start."""

PAGE: Final = 4096
"""Bytes of a page of memory: whole ones can be locked for a GPU."""

MAX_AXES: Final = 63
"""NumPy has 64, of which one is for the bytes of an element."""

MAX_ITEM: Final = 16
"""No element takes more bytes."""

THREADS: Final = min(len(os.sched_getaffinity(0)), 8)
"""Threads that read one tensor; more do not help a disk or a memory bus."""


@cache
def pool() -> ThreadPoolExecutor:
    """Return the threads that read."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="ckptkit-read")


def allocate(nbytes: int) -> Bytes:
    """Return fresh memory."""
    return np.empty(nbytes, np.uint8)


class _Spare:
    """The memory of one large array that nobody holds any more, kept for the next one.

    A loop over tensors would else have the system find and clear the same memory again and again,
    which takes longer than reading into it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memory: Bytes | None = None

    def take(self, nbytes: int) -> Bytes:
        """Return memory, which comes back when the last array over it is gone."""
        if not SPARE_LEAST <= nbytes <= SPARE_MOST:
            return allocate(nbytes)
        with self._lock:
            memory, self._memory = self._memory, None
        if memory is None or not nbytes <= memory.nbytes <= 2 * nbytes:
            memory = allocate(nbytes)
        # Over a memoryview, not over the array: NumPy would let views refer to that one directly.
        handed = np.frombuffer(memoryview(memory), np.uint8, nbytes)
        weakref.finalize(handed, self._keep, memory)
        return handed

    def _keep(self, memory: Bytes) -> None:
        # Called by the collector, possibly in a thread that is in take() just now.
        if self._lock.acquire(blocking=False):
            self._memory = memory
            self._lock.release()


_SPARE: Final = _Spare()


def aligned(nbytes: int, to: int = ALIGNMENT) -> Bytes:
    """Return fresh memory at an address, a multiple of ``to``, that devices take as it is."""
    raw = np.empty(nbytes + to, np.uint8)
    skip = -raw.ctypes.data % to
    return raw[skip : skip + nbytes]


def read_tensor(
    sources: Sources, name: str, tensor: Tensor, decode: Decode, *, verify: bool = True
) -> Array:
    """Return all values of a stored tensor, its pieces joined.

    Strings and variants come as an object array of ``bytes``.

    Raises:
        CorruptError: The checksum differs, or strings do not decode.
        UnsupportedError: The dtype cannot be read.
    """
    spec, stored = tensor.spec, _stored(tensor)
    _check_shape(spec, name)
    out: Array
    if spec.kind in {"string", "variant"}:
        out = np.empty(spec.shape, object)
        for piece in stored.pieces:
            elements = _elements(
                sources, name, piece, spec, decode, stored.byteorder, verify=verify
            )
            part = np.empty(len(elements), object)
            part[:] = elements
            _place(out, piece.box, part)
        return out
    _readable(name, spec)
    if len(stored.pieces) == 1:
        raw = _payload(sources, name, stored.pieces[0], verify=verify)
        return from_stored(raw, spec, stored.byteorder).reshape(spec.shape)
    out = np.empty(spec.shape, numpy_dtype(spec.dtype))
    for piece in stored.pieces:
        raw = _payload(sources, name, piece, verify=verify)
        _place(out, piece.box, from_stored(raw, spec, stored.byteorder))
    return out


def _place(out: Array, box: Box, values: Array) -> None:
    # The ellipsis makes a view, also of an array of rank 0, which would else give its element.
    index: Any = (*box.slices(), ...)
    out[index] = values.reshape(box.shape)


def read_region(
    sources: Sources,
    name: str,
    tensor: Tensor,
    region: Region,
    decode: Decode,
) -> Array:
    """Return a region of a stored tensor. Only its bytes are read, so nothing is verified.

    Raises:
        EditError: The region does not fit the shape.
        UnsupportedError: The dtype cannot be read.
    """
    _check_shape(tensor.spec, name)
    selection = region.resolve(tensor.spec.shape)
    if tensor.spec.kind in {"string", "variant"}:
        # The ellipsis keeps a single element an array: as bytes it would lose zeros at its end.
        return read_tensor(sources, name, tensor, decode)[(*selection.index(), ...)]
    _readable(name, tensor.spec)
    return read_selection(sources, tensor, selection).reshape(selection.shape)


def read_blocks(
    sources: Sources, name: str, tensor: Tensor, nbytes: int
) -> Iterator[tuple[Box, Array]]:
    """Yield a stored tensor in contiguous blocks of at most ``nbytes`` bytes, in C order.

    Raises:
        UnsupportedError: The dtype has no blocks.
    """
    _readable(name, tensor.spec)
    _check_shape(tensor.spec, name)
    for box in cut(Box.whole(tensor.spec.shape), tensor.spec.itemsize, nbytes):
        yield box, read_box(sources, tensor, box)


def read_box(sources: Sources, tensor: Tensor, box: Box, allocate: Allocate = allocate) -> Array:
    """Return a box of a stored tensor."""
    ones = (1,) * len(box.shape)
    everywhere = (True,) * len(box.shape)
    selection = Selection(box.start, ones, box.shape, everywhere)
    return read_selection(sources, tensor, selection, allocate)


def read_selection(
    sources: Sources, tensor: Tensor, selection: Selection, allocate: Allocate = allocate
) -> Array:
    """Return the selected elements, all axes kept, in native byte order."""
    spec, stored = tensor.spec, _stored(tensor)
    _check_shape(spec)
    item = spec.itemsize
    raw = allocate(selection.size * item)
    target = raw.reshape(*selection.count, item)
    for piece in stored.pieces:
        inside = selection.within(piece.box)
        if inside is None:
            continue
        base = tuple(
            (low + a - first) // step
            for low, a, first, step in zip(
                piece.box.start, inside.start, selection.start, selection.step, strict=True
            )
        )
        file = sources.file(piece.extent.path)
        for span in spans(piece.box.shape, inside, item, CHUNK):
            where = tuple(
                slice(b + part.start, b + part.stop)
                for b, part in zip(base, span.target, strict=True)
            )
            place = target[where]
            if place.nbytes == span.length and place.flags.c_contiguous:
                file.read_into(place.reshape(-1), piece.extent.offset + span.offset)
                continue
            buffer = allocate(span.length)
            file.read_into(buffer, piece.extent.offset + span.offset)
            place[...] = buffer.reshape(*span.shape, item)[span.wanted]
    return from_stored(raw, spec, stored.byteorder).reshape(selection.count)


def from_stored(raw: Bytes, spec: TensorSpec, byteorder: str) -> Array:
    """Interpret stored bytes, which this may change, as values in native byte order."""
    _swap(raw, spec, byteorder)
    bits = DTYPES[spec.dtype].bits
    if spec.kind == "bool":
        # Readers take any byte but 0 for true; NumPy takes such bytes for neither.
        np.minimum(raw, 1, out=raw)
    elif bits < 8:
        np.bitwise_and(raw, (1 << bits) - 1, out=raw)
    return raw.view(numpy_dtype(spec.dtype))


def to_stored(values: Array, spec: TensorSpec, byteorder: str) -> Bytes:
    """Return the bytes that stand for values of the spec's dtype; a view where that is enough."""
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    if byteorder == "big" and spec.itemsize > 1:
        raw = raw.copy()
        _swap(raw, spec, byteorder)
    return raw


def _swap(raw: Bytes, spec: TensorSpec, byteorder: str) -> None:
    """Swap the bytes of every number in place; both parts of a complex one by itself."""
    width = spec.itemsize // (2 if spec.kind == "complex" else 1)
    if byteorder == "big" and width > 1:
        raw.view(f"u{width}").byteswap(inplace=True)


def _stored(tensor: Tensor) -> Stored:
    if not isinstance(tensor.source, Stored):
        msg = "this tensor is not stored anywhere yet; run the plan first"
        raise CkptError(msg)
    return tensor.source


def _readable(name: str, spec: TensorSpec) -> None:
    if spec.dtype not in DTYPES or DTYPES[spec.dtype].itemsize is None:
        msg = f"values of dtype {spec.dtype} cannot be read, only carried along as they are"
        raise UnsupportedError(msg, tensor=name)


def _check_shape(spec: TensorSpec, name: str | None = None) -> None:
    """Refuse shapes that a file can hold but an array in memory cannot, empty ones included."""
    if len(spec.shape) > MAX_AXES:
        msg = f"arrays have at most {MAX_AXES} axes, this tensor has {len(spec.shape)}"
        raise UnsupportedError(msg, tensor=name)
    if math.prod(size or 1 for size in spec.shape) > MAX_BYTES // MAX_ITEM:
        msg = f"the shape {list(spec.shape)} is too large for an array, even an empty one"
        raise UnsupportedError(msg, tensor=name)


def _payload(sources: Sources, name: str, piece: Piece, *, verify: bool) -> Bytes:
    """Read the bytes of a piece, many threads at a time, and check them."""
    extent = piece.extent
    raw = _SPARE.take(extent.length)
    file = sources.file(extent.path)

    def one(start: int) -> int:
        part = raw[start : start + CHUNK]
        file.read_into(part, extent.offset + start)
        return _native.crc32c(part) if verify else 0

    starts = range(0, extent.length, CHUNK)
    found = 0
    sums = pool().map(one, starts) if len(starts) > 1 else map(one, starts)
    for start, crc in zip(starts, sums, strict=True):
        found = _native.crc32c_combine(found, crc, min(CHUNK, extent.length - start))
    if verify and piece.checksum is not None:
        check(name, piece, found)
    return raw


def _elements(
    sources: Sources,
    name: str,
    piece: Piece,
    spec: TensorSpec,
    decode: Decode,
    byteorder: str,
    *,
    verify: bool,
) -> Sequence[bytes]:
    """Read and decode the strings or variants of a piece."""
    extent = piece.extent
    raw = sources.file(extent.path).read(extent.offset, extent.length)
    part = TensorSpec(spec.dtype, piece.box.shape)
    try:
        if verify and piece.checksum is not None:
            stream = digest(piece.checksum.algorithm, part.count, byteorder)
            stream.update(raw)
            check(name, piece, stream.value())
        return decode(raw, part, byteorder)
    except FormatError as error:
        raise locate(error, name, piece) from None


def locate(error: FormatError, name: str, piece: Piece) -> FormatError:
    """Return an error inside a payload as one that names tensor, file, and byte offset."""
    if error.path is not None:
        return error
    offset = piece.extent.offset + (error.offset or 0)
    return type(error)(error.message, path=piece.extent.path, tensor=name, offset=offset)


def check(name: str, piece: Piece, found: int) -> None:
    """Compare a checksum with the one that a piece carries.

    Raises:
        CorruptError: They differ.
    """
    stored, extent = piece.checksum, piece.extent
    if stored is not None and found != stored.value:
        msg = (
            f"checksum of bytes {extent.offset} to {extent.offset + extent.length}:"
            f" expected {stored.value:08x}, found {found:08x}"
        )
        raise CorruptError(msg, path=extent.path, tensor=name, offset=extent.offset)
