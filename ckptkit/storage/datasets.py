"""Datasets of HDF5 content that are no byte range of a file, read as if they were one.

Chunked, compressed, compact, big-endian and unallocated datasets have a *virtual path*: the path of
the file, the byte range of the HDF5 content in it, and the name of the dataset. What is opened by
it holds the elements, dense, little-endian, in C order. The HDF5 library says where chunks are; it
reads through the disk like everything else, and decodes none of them.
"""

from __future__ import annotations

import atexit
import itertools
import math
import threading
from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn
from weakref import WeakSet

import numpy as np

from ckptkit.errors import CkptError, CorruptError, UnsupportedError
from ckptkit.storage.filters import KNOWN, SHUFFLE, unfilter
from ckptkit.storage.hdf5 import undisturbed
from ckptkit.storage.readonly import VirtualFile
from ckptkit.storage.virtual import SEPARATOR, virtual_path

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterator

    import h5py
    from numpy.typing import NDArray

    from ckptkit.storage.disk import Disk, File

    Bytes = NDArray[np.uint8]
    Index = tuple[int, ...]

MAX_CHUNK: Final = 1 << 30
"""Bytes of a decoded chunk; larger ones are refused."""

CACHE: Final = 32 << 20
"""Bytes of decoded chunks that are kept, of all datasets together; a larger one alone."""

ALONE: Final = 4 << 20
"""Bytes of a chunk above which chunks are decoded one by one, not several at a time."""

_NUMBER: Final = 16
"""No number has more bytes."""


def dataset_path(file: str, start: int, length: int, dataset: str) -> str:
    """Return the virtual path of a dataset.

    Args:
        file: The path of the file.
        start: Byte of the file where the HDF5 content starts.
        length: Bytes of the HDF5 content.
        dataset: The path of the dataset in it; bytes that are no UTF-8 are kept as surrogates.
    """
    return virtual_path(file, "hdf5", str(start), str(length), dataset)


def open_dataset(disk: Disk, file: str, rest: str) -> DatasetFile:
    """Open a dataset by the parts of its virtual path, for reading.

    Raises:
        CorruptError: The HDF5 content is damaged, or has no such dataset.
        UnsupportedError: It leads elsewhere, has a filter or a type that is not read, or chunks
            that are too large.
    """
    start, length, dataset = rest.split(SEPARATOR, 2)
    return DatasetFile(disk, file, int(start), int(length), dataset)


class _Window:
    """A byte range of a file as the file that the HDF5 library reads.

    What it raises would pass through C, which cannot bear it, so errors are kept for later.
    """

    def __init__(self, file: File, start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._at = 0
        self.error: BaseException | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset from the start, from here, or from the end."""
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        """Fill a buffer; beyond the end there are zeros."""
        view = memoryview(buffer).cast("B")
        held = min(max(self._length - self._at, 0), len(view)) if self._at >= 0 else 0
        try:
            self._file.read_into(view[:held], self._start + self._at)
        except BaseException as error:  # noqa: BLE001  raised again by whoever called the library
            self.error, held = error, 0
        view[held:] = bytes(len(view) - held)
        self._at += len(view)
        return len(view)


class _Cache:
    """Decoded chunks, the latest ones, of a bounded size together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: OrderedDict[tuple[int, Index], Bytes] = OrderedDict()
        self._nbytes = 0

    def get(self, key: tuple[int, Index]) -> Bytes | None:
        with self._lock:
            found = self._chunks.get(key)
            if found is not None:
                self._chunks.move_to_end(key)
            return found

    def make_room(self, nbytes: int) -> None:
        with self._lock:
            while self._chunks and self._nbytes + nbytes > CACHE:
                self._nbytes -= self._chunks.popitem(last=False)[1].nbytes

    def put(self, key: tuple[int, Index], chunk: Bytes) -> None:
        self.make_room(chunk.nbytes)
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self._nbytes += chunk.nbytes

    def forget(self, owner: int) -> None:
        # A collector may call this in the middle of another call: what stays then is pushed out.
        if self._lock.acquire(blocking=False):
            try:
                for key in [key for key in self._chunks if key[0] == owner]:
                    self._nbytes -= self._chunks.pop(key).nbytes
            finally:
                self._lock.release()


_CACHE: Final = _Cache()
_BIG: Final = threading.Lock()
_NUMBERS: Final = itertools.count()


class DatasetFile(VirtualFile):
    """One dataset as a file that is only read: dense, little-endian, in C order.

    Safe from many threads; the HDF5 library has a lock of its own.
    """

    __slots__ = (
        "__weakref__",
        "_chunk",
        "_dataset",
        "_fill",
        "_filters",
        "_held",
        "_item",
        "_nbytes",
        "_number",
        "_shape",
        "_swap",
        "_type",
        "_window",
    )

    def __init__(self, disk: Disk, path: str, start: int, length: int, name: str) -> None:
        """Open it; use :func:`open_dataset`."""
        super().__init__(disk, path, name)
        self._number = next(_NUMBERS)
        self._fill: Bytes | None = None
        self._dataset: Any = None
        self._held = disk.open(path)
        self._window = _Window(self._held, start, length)
        _OPEN.add(self)
        try:
            with self._library():
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        from h5py import h5d

        dataset = _find(self._window, self._tensor)
        if not isinstance(dataset, h5d.DatasetID):
            self._corrupt("this is no dataset")
        recipe = dataset.get_create_plist()
        self._type = dataset.get_type()
        self._item = self._type.get_size()
        self._swap = self._swapped()
        self._shape: Index = dataset.shape
        self._nbytes: int = math.prod(self._shape) * self._item
        filters = [recipe.get_filter(at) for at in range(recipe.get_nfilters())]
        self._filters = [number for number, *_ in filters]
        if not set(self._filters) <= KNOWN:
            unknown = sorted(set(self._filters) - KNOWN)
            self._refuse(f"chunks that went through the HDF5 filters {unknown}")
        if any(number == SHUFFLE and values != (self._item,) for number, _, values, _ in filters):
            self._refuse("bytes that were shuffled by another size than that of an element")
        layout = recipe.get_layout()
        if layout not in {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}:
            self._refuse("a virtual dataset, whose values are elsewhere,")
        if recipe.get_external_count():
            self._refuse("a dataset whose bytes are in other files")
        self._chunk: Index | None = recipe.get_chunk() if layout == h5d.CHUNKED else None
        if self._chunk is not None and math.prod(self._chunk) * self._item > MAX_CHUNK:
            nbytes = math.prod(self._chunk) * self._item
            self._refuse(f"a chunk of {nbytes} bytes; {MAX_CHUNK} is the most, and it")
        self._dataset = dataset

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return self._nbytes

    def read_into(self, buffer: Buffer, offset: int) -> None:
        """Fill a buffer from a byte offset.

        Raises:
            ConflictError: The dataset ends before the buffer is full, or its file does.
            CorruptError: A chunk does not decode.
        """
        out = np.frombuffer(memoryview(buffer).cast("B"), np.uint8)
        if not len(out):
            return
        item, end = self._item, offset + len(out)
        self._check_range(offset, end)
        low, high = -(-offset // item) * item, end // item * item
        if low > high:
            out[:] = self._element(high // item)[offset - high : end - high]
            return
        if offset < low:
            out[: low - offset] = self._element(offset // item)[offset - low :]
        self._read_elements(out[low - offset : high - offset], low // item)
        if high < end:
            out[high - offset :] = self._element(high // item)[: end - high]

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        _CACHE.forget(self._number)
        with undisturbed():
            self._dataset = self._type = None
        self._held.close()

    def __del__(self) -> None:
        """Close the file with its last user."""
        with suppress(AttributeError):  # it never was opened
            self.close()

    def _element(self, position: int) -> Bytes:
        found = np.empty(self._item, np.uint8)
        self._read_elements(found, position)
        return found

    def _read_elements(self, out: Bytes, first: int) -> None:
        """Fill a buffer of whole elements, the first of which is at a position in C order."""
        at, last = 0, first + len(out) // self._item
        for start, shape in boxes(self._shape, first, last):
            nbytes = math.prod(shape) * self._item
            part = out[at : at + nbytes]
            at += nbytes
            if self._chunk is None:
                self._read_box(part, start, shape)
            else:
                self._read_chunks(part.reshape(*shape, self._item), start, shape, self._chunk)

    def _read_box(self, out: Bytes, start: Index, shape: Index) -> None:
        """Have the library fill a buffer with a box."""
        from h5py import h5s

        with self._library():
            space = self._dataset.get_space()
            if shape:
                space.select_hyperslab(start, shape)
            # Of the type in the file, which makes these its bytes as they are.
            self._dataset.read(
                h5s.create_simple((max(math.prod(shape), 1),)), space, out, self._type
            )
        self._swap_bytes(out)

    def _read_chunks(self, out: Bytes, start: Index, shape: Index, chunk: Index) -> None:
        """Fill an array with a box, chunk by chunk."""
        stop = tuple(a + n for a, n in zip(start, shape, strict=True))
        grid = (
            range(low // size * size, high, size)
            for low, high, size in zip(start, stop, chunk, strict=True)
        )
        for origin in itertools.product(*grid):
            low = tuple(map(max, start, origin))
            high = tuple(min(edge, a + n) for edge, a, n in zip(stop, origin, chunk, strict=True))
            place = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, start, strict=True))
            values = self._decoded(origin, chunk)
            if values is None:
                out[place] = self._filling(low)
            else:
                inside = tuple(
                    slice(a - o, b - o) for a, b, o in zip(low, high, origin, strict=True)
                )
                out[place] = values.reshape(*chunk, self._item)[inside]

    def _decoded(self, origin: Index, chunk: Index) -> Bytes | None:
        """Return the bytes of the elements of a chunk; None where it was never written."""
        key, nbytes = (self._number, origin), math.prod(chunk) * self._item
        found = _CACHE.get(key)
        if found is not None:
            return found
        if nbytes <= ALONE:
            return self._decode(key, origin, nbytes)
        with _BIG:
            # Who had the lock may have decoded it.
            found = _CACHE.get(key)
            return self._decode(key, origin, nbytes) if found is None else found

    def _decode(self, key: tuple[int, Index], origin: Index, nbytes: int) -> Bytes | None:
        with self._library():
            info = self._dataset.get_chunk_info_by_coord(origin)
        if info.byte_offset is None:
            return None
        where = f"chunk at {list(origin)}"
        # Whatever a filter cannot make smaller is stored as it is, but for what frames it.
        if info.size > nbytes + nbytes // 64 + 4096:
            self._corrupt(f"{where}: it takes {info.size} bytes, and {nbytes} without compression")
        _CACHE.make_room(nbytes)
        with self._library():
            skipped, stored = self._dataset.read_direct_chunk(origin)
        try:
            values = unfilter(stored, self._filters, skipped, nbytes, self._item)
        except CorruptError as error:
            self._corrupt(f"{where}: {error.message}")
        if self._swap > 1:
            values = values if values.flags.writeable else values.copy()
            self._swap_bytes(values)
        _CACHE.put(key, values)
        return values

    def _filling(self, index: Index) -> Bytes:
        """Return the bytes of the value that chunks have which were never written."""
        if self._fill is None:
            fill = np.empty(self._item, np.uint8)
            self._read_box(fill, index, (1,) * len(index))
            self._fill = fill
        return self._fill

    def _swapped(self) -> int:
        """Return how many bytes are to be turned around at a time; 1 where none are."""
        from h5py import h5t

        kind, parts = self._type.get_class(), [self._type]
        if kind == h5t.COMPOUND:
            parts = [self._type.get_member_type(at) for at in range(self._type.get_nmembers())]
            ends = [self._type.get_member_offset(at) for at in range(len(parts))]
            if ends != [0, self._item // 2] or any(
                part.get_class() != h5t.FLOAT or 2 * part.get_size() != self._item for part in parts
            ):
                self._refuse("elements of several parts that are no complex numbers")
        elif kind == h5t.ENUM:
            parts = [self._type.get_super()]
        elif kind == h5t.OPAQUE:
            return 1
        elif kind not in {h5t.INTEGER, h5t.FLOAT}:
            self._refuse("elements that are no numbers")
        orders = {part.get_order() for part in parts}
        if not orders <= {h5t.ORDER_LE, h5t.ORDER_BE} or len(orders) > 1 or self._item > _NUMBER:
            self._refuse("numbers in a byte order that is neither little-endian nor big-endian")
        return parts[0].get_size() if orders == {h5t.ORDER_BE} else 1

    def _swap_bytes(self, values: Bytes) -> None:
        if self._swap > 1:
            values.view(f"u{self._swap}").byteswap(inplace=True)

    @contextmanager
    def _library(self) -> Iterator[None]:
        """Tell what goes wrong in the HDF5 library from what goes wrong in reading the file."""
        try:
            with undisturbed():
                yield
        except CkptError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            if self._window.error is None:
                self._corrupt(f"the HDF5 content is damaged here: {error}")
        failed, self._window.error = self._window.error, None
        if failed is not None:
            raise failed

    def _refuse(self, what: str) -> NoReturn:
        msg = f"{what} cannot be read"
        raise UnsupportedError(msg, path=self.path, tensor=self._tensor)


_OPEN: Final[WeakSet[DatasetFile]] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what a thread may still hold: the library must not read by Python when that is over."""
    for file in list(_OPEN):
        file.close()


def _find(window: _Window, name: str) -> h5py.h5d.DatasetID:
    """Open a dataset, by hard links alone."""
    from h5py import h5g, h5l, h5o

    node = h5o.open(_content(window), b"/")
    for step in name.encode("utf-8", "surrogateescape").split(b"/"):
        if not isinstance(node, h5g.GroupID):
            msg = "a dataset has nothing in it"
            raise CorruptError(msg, tensor=name)
        if node.links.get_info(step).type != h5l.TYPE_HARD:
            msg = "a link that leads elsewhere is not followed"
            raise UnsupportedError(msg, tensor=name)
        node = h5o.open(node, step)
    return node


def _content(window: _Window) -> h5py.h5f.FileID:
    from h5py import h5f, h5fd, h5p

    access = h5p.create(h5p.FILE_ACCESS)
    try:
        access.set_fileobj_driver(h5fd.fileobj_driver, window)
        return h5f.open(b"content", h5f.ACC_RDONLY, access)
    finally:
        # The library brings the process down if this is there when the interpreter ends.
        del access


def boxes(shape: Index, first: int, last: int) -> Iterator[tuple[Index, Index]]:
    """Cut a run of elements into boxes: a part of a row, whole rows, a part of a row.

    Args:
        shape: Of the array, whose elements are counted in C order.
        first: The first element.
        last: One past the last element.

    Yields:
        Start and shape of each box, in order; each is one run.
    """
    if first < last:
        yield from _boxes(shape, first, last, ())


def _boxes(shape: Index, first: int, last: int, row: Index) -> Iterator[tuple[Index, Index]]:
    ones = (1,) * len(row)
    if not shape:
        yield row, ones
        return
    size = math.prod(shape[1:])
    low, high = -(-first // size), last // size
    if low > high:
        yield from _boxes(shape[1:], first - high * size, last - high * size, (*row, high))
        return
    if first < low * size:
        yield from _boxes(shape[1:], first - (low - 1) * size, size, (*row, low - 1))
    if low < high:
        rest = (0,) * (len(shape) - 1)
        yield (*row, low, *rest), (*ones, high - low, *shape[1:])
    if high * size < last:
        yield from _boxes(shape[1:], 0, last - high * size, (*row, high))
