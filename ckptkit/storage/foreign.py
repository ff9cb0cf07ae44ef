"""Tensors that TensorFlow's own reader gives, read as if they were files.

That reader knows more file systems than the operating system does. It gives tensors whole, so that
the latest ones are kept, up to a bounded number of bytes together; a larger one alone.
"""

from __future__ import annotations

import itertools
import os
import threading
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from ckptkit import _native
from ckptkit.errors import CkptError, CorruptError, UnsupportedError
from ckptkit.model import DTYPES
from ckptkit.storage.disk import Stamp
from ckptkit.storage.readonly import VirtualFile
from ckptkit.storage.virtual import virtual_path

if TYPE_CHECKING:
    from collections.abc import Buffer

    from numpy.typing import NDArray

    from ckptkit.storage.disk import Disk

    Bytes = NDArray[np.uint8]

KIND: Final = "tensorflow"
"""The kind of virtual paths that this module opens."""

NEEDED: Final = "TensorFlow's reader needs TensorFlow: pip install ckptkit[tensorflow]"
"""What is said where there is none."""

KEPT: Final = 64 << 20
"""Bytes of tensors that are kept, of all checkpoints together; a larger one alone."""

READERS: Final = 8
"""Readers that are kept open."""


def foreign_path(prefix: str, name: str = "") -> str:
    """Return the virtual path of a tensor; without a name that of the index."""
    return virtual_path(prefix, KIND, name)


def open_foreign(disk: Disk, prefix: str, name: str) -> ForeignFile:
    """Open a tensor by the parts of its virtual path, for reading."""
    return ForeignFile(disk, prefix, name)


def stamp_foreign(path: str, prefix: str) -> Stamp:
    """Return length and time of change of an index, as TensorFlow's file systems tell them."""
    found = _answer(prefix, lambda: [gfile().stat(file) for file in index_of(prefix)])
    lengths = (int(one.length) for one in found)
    return Stamp(path, sum(lengths), max(int(one.mtime_nsec) for one in found))


def index_of(prefix: str) -> list[str]:
    """Return the paths of what makes a checkpoint: its index, its only file, or its shards."""
    index = f"{prefix}.index"
    for file in (index, prefix):
        if gfile().exists(file):
            return [file]
    return matching(prefix) or [prefix]


def matching(pattern: str) -> list[str]:
    """Return the paths that match a pattern, sorted."""
    try:
        return sorted(gfile().glob(pattern))
    except Exception as error:  # noqa: BLE001  which ones there are TensorFlow alone knows
        if type(error).__name__ == "NotFoundError":
            return []
        _refuse(pattern, None, error)


def reader_of(prefix: str, *, anew: bool = False) -> Reader:
    """Return TensorFlow's reader of a checkpoint.

    Args:
        prefix: What TensorFlow takes for one.
        anew: Read the index again, and forget what was read of the tensors.

    Raises:
        FileNotFoundError: There is none.
        CorruptError: It is damaged.
        UnsupportedError: TensorFlow is not installed.
    """
    with _LOCK:
        if anew:
            _READERS.pop(prefix, None)
        found = _READERS.get(prefix)
        if found is None:
            found = _READERS[prefix] = Reader(prefix)
        _READERS.move_to_end(prefix)
        while len(_READERS) > READERS:
            _READERS.popitem(last=False)
        return found


class Reader:
    """TensorFlow's reader of one checkpoint; for many threads, one at a time."""

    def __init__(self, prefix: str) -> None:
        """Open the checkpoint."""
        self.prefix = prefix
        self._number = next(_NUMBERS)
        self._lock = threading.Lock()
        self._reader = _answer(prefix, lambda: _reader_class()(os.fsencode(prefix)))

    def specs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return dtype and shape of every tensor by name, sorted."""
        with self._lock:
            shapes = _answer(self.prefix, self._reader.get_variable_to_shape_map)
            dtypes = _answer(self.prefix, self._reader.get_variable_to_dtype_map)
        return {name: (dtypes[name].name, tuple(shapes[name])) for name in sorted(shapes)}

    def values(self, name: str) -> Any:
        """Return the values of a tensor as TensorFlow gives them.

        Raises:
            CorruptError: It is damaged.
            UnsupportedError: TensorFlow does not read it.
        """
        with self._lock:
            key = name.encode("utf-8", "surrogateescape")
            return _answer(self.prefix, lambda: self._reader.get_tensor(key), name)

    def stored(self, name: str) -> Bytes:
        """Return the values of a tensor as a bundle stores them: little-endian, in C order."""
        found = _TENSORS.get((self._number, name))
        if found is None:
            found = stored_bytes(self.values(name))
            with _LOCK:
                _TENSORS[self._number, name] = found
                while len(_TENSORS) > 1 and sum(one.nbytes for one in _TENSORS.values()) > KEPT:
                    _TENSORS.popitem(last=False)
        return found


_READERS: Final[OrderedDict[str, Reader]] = OrderedDict()
_TENSORS: Final[OrderedDict[tuple[int, str], Bytes]] = OrderedDict()
"""What is kept, by the number of the reader and the name."""

_NUMBERS: Final = itertools.count()
_LOCK: Final = threading.Lock()


def stored_bytes(values: Any) -> Bytes:
    """Return the stored form of values that TensorFlow gave."""
    found = np.asarray(values, object if isinstance(values, bytes) else None)
    if found.dtype == object:
        elements = [*found.ravel()]
        header, _ = _native.strings_encode(array("q", map(len, elements)), False)
        return np.frombuffer(b"".join([header, *elements]), np.uint8)
    raw = np.ascontiguousarray(found).reshape(-1).view(np.uint8)
    known = DTYPES.get(found.dtype.name)
    if known is not None and known.kind in {"int", "uint"} and known.bits < 8:
        raw = raw & np.uint8((1 << known.bits) - 1)
    return raw


def strings_checksum(stored: Bytes, count: int) -> int:
    """Return the checksum of strings, given as they are stored."""
    return _native.strings_decode(stored, count, False)[2]


class ForeignFile(VirtualFile):
    """One tensor as a file that is only read; use :func:`open_foreign`."""

    __slots__ = ()

    @property
    def size(self) -> int:
        """Bytes of all elements as they are stored."""
        return self._stored().nbytes

    def _stored(self) -> Bytes:
        return reader_of(self.path).stored(self._tensor)

    def read_into(self, buffer: Buffer, offset: int) -> None:
        """Fill a buffer from a byte offset.

        Raises:
            ConflictError: The tensor ends before the buffer is full.
            CorruptError: It is damaged.
            UnsupportedError: TensorFlow does not read it.
        """
        out = np.frombuffer(memoryview(buffer).cast("B"), np.uint8)
        stored = self._stored()
        end = offset + len(out)
        self._check_range(offset, end)
        out[:] = stored[offset:end]
        self._disk.count(read=len(out))

    def close(self) -> None:
        """Do nothing: readers are kept, a few of them."""


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise UnsupportedError(NEEDED) from None
    return tf


def gfile() -> Any:
    """Return TensorFlow's functions for files."""
    return _tensorflow().io.gfile


def _reader_class() -> Any:
    """Return the class itself: other names of it may stand for our reader just now."""
    _tensorflow()
    from tensorflow.python.training.py_checkpoint_reader import CheckpointReader

    return CheckpointReader


def _answer(prefix: str, ask: Any, tensor: str | None = None) -> Any:
    """Ask TensorFlow, and have its errors be ours."""
    try:
        return ask()
    except (CkptError, OSError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  which ones there are TensorFlow alone knows
        _refuse(prefix, tensor, error)


def said(error: Exception) -> str:
    """Return what an error of TensorFlow says, without where in its code it was raised."""
    text = str(error).strip().partition("\n")[0]
    return text or type(error).__name__


def _refuse(prefix: str, tensor: str | None, error: Exception) -> NoReturn:
    text = said(error)
    message = f"TensorFlow's reader says: {text}"
    if "Failed to find any matching files" in text or type(error).__name__ == "NotFoundError":
        raise FileNotFoundError(2, "TensorFlow finds no checkpoint of this name", prefix) from None
    unsupported = isinstance(error, NotImplementedError | TypeError) or "not supported" in text
    if unsupported or "not convertible" in text or isinstance(error, UnicodeDecodeError):
        raise UnsupportedError(message, path=prefix, tensor=tensor) from None
    raise CorruptError(message, path=prefix, tensor=tensor) from None
