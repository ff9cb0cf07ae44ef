"""``CheckpointReader``, as TensorFlow has it: the same names, the same values, the same order."""

from __future__ import annotations

import glob
import os
import re
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ckptkit import _native
from ckptkit.engine.preflight import check_readable
from ckptkit.errors import CkptError, CorruptError
from ckptkit.formats.tensorflow.listing import Listing
from ckptkit.formats.tensorflow.paths import INDEX
from ckptkit.storage.disk import MAX_OPEN_FILES, Sources
from ckptkit.tf.cache import CACHE
from ckptkit.tf.dtypes import dtype_of
from ckptkit.tf.errors import (
    DataLossError,
    InternalError,
    NotFoundError,
    UnimplementedError,
    error,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.formats.tensorflow.listing import Listed
    from ckptkit.storage.disk import SharedFile

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

SMALL: Final = 1 << 20
"""Bytes up to which one read takes a tensor; larger ones are read by several threads."""

ELSEWHERE: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
"""How a path begins that is in a file system which only TensorFlow knows."""


def text_of(value: object) -> str:
    """Return a name or a path as text; bytes that are no UTF-8 become lone surrogates.

    Raises:
        TypeError: It is neither text nor bytes.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "surrogateescape")
    msg = f"Expected binary or unicode string, got {value!r}"
    raise TypeError(msg)


class CheckpointReader:
    """Reads a checkpoint by its prefix, as ``tf.train.load_checkpoint`` gives one.

    It can be used by several threads. Values are checked; arrays are fresh, and may be changed.

    Other than TensorFlow's it joins slices of every dtype, lists names that are no UTF-8 (their
    bytes become lone surrogates, as in file names), and refuses a damaged index where TensorFlow
    would list a part of it, or crash: with ``DataLossError``. So it does with the path of an index
    itself, in which TensorFlow finds a checkpoint of no tensors. Of the first format it takes the
    prefix of shards, and the path of one for all of them, as :func:`ckptkit.open` does.

    Attributes:
        listing: What the index says.
    """

    def __init__(self, filename: Path) -> None:
        """Open a checkpoint: its index is read, and nothing else.

        Args:
            filename: The prefix; of the first format the file, or a pattern of files.

        Raises:
            NotFoundError: There is no such checkpoint.
            DataLossError: It is damaged, or none.
            UnimplementedError: A version of the format that does not exist yet.
        """
        filename = os.fspath(filename) if isinstance(filename, os.PathLike) else filename
        self._prefix = text_of(filename)
        self._lock = threading.Lock()
        self._open: dict[int, SharedFile] = {}
        self._plain: dict[int, tuple[Any, int, Any]] = {}
        try:
            self.listing: Listed = _listing(self._prefix)
        except (CkptError, OSError) as found:
            raise translated(found) from found
        self._keys: dict[Any, int] = self.listing.keys
        self._shapes = self.listing.shapes

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Tell whether there is a record of that name, as also slices have one."""
        return text_of(tensor_str) in self._keys

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Return the shape of every tensor by name, as lists."""
        listing = self.listing
        names, rows, shapes = listing.names, listing.rows, listing.shapes
        return {names[at]: [*shapes[rows[at]]] for at in listing.order}

    def get_variable_to_dtype_map(self) -> dict[str, Any]:
        """Return the dtype of every tensor by name.

        They are TensorFlow's own where that is loaded, else :class:`ckptkit.tf.DType`.
        """
        listing = self.listing
        names, rows, codes = listing.names, listing.rows, listing.columns.dtype
        known = {code: dtype_of(code) for code in set(codes)}
        return {names[at]: known[codes[rows[at]]] for at in listing.order}

    def debug_string(self) -> bytes:
        """Return a line for each record: key, dtype and shape; slices are listed, not joined."""
        listing = self.listing
        columns = listing.columns
        lines = []
        for key, row, more in listing.lines():
            shape = ",".join(map(str, listing.shapes[row]))
            dtype = _enum_name(columns.dtype_name(columns.dtype[row]))
            lines.append(f"{key} ({dtype}) [{shape}]{more}\n".encode("utf-8", "surrogateescape"))
        return b"".join(lines)

    def get_tensor(self, tensor_str: str | bytes) -> Any:
        """Return the values of a tensor.

        Returns:
            An array; of a scalar what NumPy has for one; of a string ``bytes``, and of several an
            array of those.

        Raises:
            NotFoundError: There is no such tensor.
            DataLossError: It is damaged.
            OutOfRangeError: The file of its values is too short.
            InternalError: Its values have no form in NumPy.
        """
        row = self._keys.get(tensor_str)
        if row is None:
            row = self._keys.get(text_of(tensor_str))
        if row is None or row < 0:
            self._missing(text_of(tensor_str), row)
        try:
            values = self._read_plain(row) if self.listing.direct else None
            if values is None:
                values = self._read_any(text_of(tensor_str), row)
        except (CkptError, OSError) as found:
            raise translated(found) from found
        return values if values.ndim else values[()]

    def _missing(self, name: str, row: int | None) -> NoReturn:
        if row is None:
            raise error(NotFoundError, self.listing.missing.format(name))
        msg = "the empty key is that of the header, and has no values"
        raise error(DataLossError, msg)

    def _read_plain(self, row: int) -> Any:
        """Read a small tensor whose stored bytes are those of an array, or return None."""
        columns = self.listing.columns
        size, code = columns.size[row], columns.dtype[row]
        dtype, itemsize, array = self._plain.get(code) or self._note(code)
        if size > SMALL or dtype is None or columns.flags[row] & columns.SLICED:
            return None
        shape = self._shapes[row]
        count = itemsize
        for length in shape:
            count *= length
        if count != size:
            return None
        buffer = bytearray(size)
        if size:
            file = self._open.get(columns.shard[row]) or self._file(row)
            if not file.fill(buffer, columns.offset[row]):
                return None
        if _native.crc32c(buffer) != columns.checksum[row]:
            return None
        try:
            return array(shape, dtype, buffer)
        except ValueError:
            # Too many axes, or too long ones.
            return None

    def _note(self, code: int) -> tuple[Any, int, Any]:
        """Note the dtype of arrays that are just the stored bytes; None where those are not."""
        import numpy as np

        from ckptkit.lowering import numpy_dtype
        from ckptkit.model import DTYPES

        name = self.listing.columns.dtype_name(code)
        itemsize = DTYPES[name].itemsize
        swapped = self.listing.columns.byteorder == "big"
        narrow = name == "bool" or DTYPES[name].bits < 8
        direct = not (swapped or narrow or itemsize is None)
        found = (numpy_dtype(name) if direct else None, itemsize or 0, np.ndarray)
        self._plain[code] = found
        return found

    def _read_any(self, name: str, row: int) -> Any:
        """Read a tensor of any dtype, size, byte order, in slices or not."""
        from ckptkit.engine.read import read_tensor
        from ckptkit.formats.tensorflow.payload import decode

        tensor = self.listing.tensor(row)
        if tensor.spec.dtype in {"variant", "resource"}:
            code = self.listing.columns.dtype[row]
            msg = f"Tensorflow type {code} not convertible to numpy dtype."
            raise error(InternalError, msg)
        return read_tensor(self._sources, name, tensor, decode)

    @cached_property
    def _sources(self) -> Sources:
        return Sources()

    def _file(self, row: int) -> SharedFile:
        number = self.listing.columns.shard[row]
        found = self._open.get(number)
        if found is None:
            path = self.listing.shard(row)
            found = self._sources.shared(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            with self._lock:
                if len(self._open) >= MAX_OPEN_FILES:
                    self._open.clear()
                self._open[number] = found
        return found


def NewCheckpointReader(filepattern: Path) -> CheckpointReader:  # noqa: N802  as TensorFlow has it
    """Return a reader, as TensorFlow's function of this name does.

    Raises:
        OpError: As :class:`CheckpointReader`.
    """
    return CheckpointReader(filepattern)


def _listing(prefix: str) -> Listed:
    """Read the index of a prefix, or say what there is instead.

    Raises:
        OpError: It is no checkpoint that is read here.
    """
    if ELSEWHERE.match(prefix):
        msg = (
            f"{prefix}: only TensorFlow knows this file system; to read through it:"
            ' ckptkit.open(path, reader="tensorflow")'
        )
        raise error(UnimplementedError, msg)
    if "\0" in prefix:
        raise error(DataLossError, f"Unable to open table file {prefix!r}: a path has no NUL")
    if os.path.lexists(prefix + INDEX):
        check_readable(os.path.abspath(prefix), prefix)
        return CACHE.listing(prefix, [prefix + INDEX], lambda: Listing(prefix))
    return _first(prefix)


def _first(prefix: str) -> Listed:
    """Read a checkpoint of the first format, or say what there is instead.

    Raises:
        OpError: It is none.
    """
    from ckptkit.formats.tensorflow.v1.listing import FirstListing
    from ckptkit.formats.tensorflow.v1.paths import files_of, resolve

    source = resolve(prefix)
    if source is not None:
        try:
            return CACHE.listing(prefix, files_of(source), lambda: FirstListing(source))
        except CorruptError:
            # An index is a table as well.
            if not prefix.endswith(INDEX):
                raise
    if not os.path.lexists(prefix):
        if glob.glob(prefix) and not glob.glob(prefix + INDEX):
            msg = f"{prefix}: of patterns only that of all shards is read: ...-?????-of-00008"
            raise error(UnimplementedError, msg)
        what = "Unsuccessful TensorSliceReader constructor"
        msg = f"{what}: Failed to find any matching files for {prefix}"
        raise error(NotFoundError, msg)
    why = "it is a folder" if os.path.isdir(prefix) else "it is none"
    if prefix.endswith(INDEX):
        why = f"it is an index; give the prefix, {prefix.removesuffix(INDEX)}"
    raise error(DataLossError, f"Unable to open table file {prefix}: {why}")


def _enum_name(dtype: str) -> str:
    """Return what TensorFlow's DataType calls a dtype."""
    return "DT_" + _ENUM.get(dtype, dtype.upper())


_ENUM: Final[Mapping[str, str]] = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}
