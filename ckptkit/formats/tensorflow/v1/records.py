"""Messages of the first format: what tensors there are, and where the values of a slice lie."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeVar

from ckptkit import _native
from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.tensorflow.dtypes import MAX_RANK, NAMES
from ckptkit.formats.tensorflow.v1.table import MAX_KEY
from ckptkit.formats.tensorflow.wire import BYTES, FIXED32, FIXED64, VARINT, fields, signed
from ckptkit.model import MAX_BYTES
from ckptkit.storage.packed import string_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ckptkit.formats.tensorflow.slices import Extents
    from ckptkit.formats.tensorflow.wire import Field, Sliced
    from ckptkit.storage.disk import File
    from ckptkit.storage.packed import Form

Read = TypeVar("Read", "tuple[int, ...]", "tuple[tuple[int, int], ...]")

VERSION: Final = 1
"""The version of the format; readers of another one may be asked for."""

MAX_RUNS: Final = 1024
"""Runs of values of one slice; every writer writes one."""

MAX_SLICE: Final = 1 << 16
"""Bytes of the message that says which slice it is."""

STRING: Final = 8


class Storage(NamedTuple):
    """How values of a dtype are in a message.

    Attributes:
        field: The field that holds them.
        form: What elements are there.
        width: Bytes of each once it is decoded; of what is as it is, 1.
    """

    field: int
    form: Form
    width: int = 1


STORAGE: Final = {
    "float32": Storage(5, "raw"),
    "float64": Storage(6, "raw"),
    "int32": Storage(7, "int", 4),
    "int16": Storage(7, "int", 2),
    "int8": Storage(7, "int"),
    "uint16": Storage(7, "uint", 2),
    "uint8": Storage(7, "uint"),
    "qint8": Storage(7, "int"),
    "quint8": Storage(7, "uint"),
    "qint32": Storage(7, "int", 4),
    "string": Storage(STRING, "string"),
    "complex64": Storage(9, "raw"),
    "int64": Storage(10, "int", 8),
    "bool": Storage(11, "bool"),
    "complex128": Storage(12, "raw"),
    "float16": Storage(13, "uint", 2),
}
"""How values are stored, by dtype; the format holds no others."""

BOOL: Final = STORAGE["bool"].field
_KIND: Final = {5: FIXED32, 6: FIXED64, 9: FIXED32, 12: FIXED64}
_VALUES: Final = {one.field for one in STORAGE.values()}
_WITHOUT_VALUES: Final = {1, 2, 3}
"""Fields of a TensorProto beside values: dtype, shape and version, which others say as well."""

SHORT: Final = 128
"""Bytes up to which what a shape or a slice says is remembered."""

MOST_KNOWN: Final = 4096
"""Shapes that are remembered, and slices."""


class Meta(NamedTuple):
    """What a file says of a tensor.

    Attributes:
        name: Its name, any bytes.
        dtype: The name of its dtype.
        shape: Its shape.
        slices: The slices of it that the file holds.
    """

    name: bytes
    dtype: str
    shape: tuple[int, ...]
    slices: tuple[Extents, ...]


class Values(NamedTuple):
    """Where the values of a slice are.

    Attributes:
        name: Of which tensor.
        extents: Which slice of it.
        field: The field that holds them; None where there are none.
        start, length: The byte range of the file that has them all.
        runs: Offset and length of each run of them.
        strings: How many strings.
        size: Bytes that a bundle stores for these strings.
    """

    name: bytes
    extents: Extents
    field: int | None
    start: int
    length: int
    runs: tuple[tuple[int, int], ...] = ()
    strings: int = 0
    size: int = 0


class Reader:
    """Reads messages of one file."""

    def __init__(self, file: File, path: str) -> None:
        """Read a file."""
        self._file = file
        self._path = path
        # Of a hundred thousand tensors, most have one of a few shapes.
        self._shapes: dict[bytes, tuple[int, ...]] = {}
        self._slices: dict[bytes, Extents] = {}

    def refuse(self, message: str, offset: int, name: bytes | None = None) -> NoReturn:
        """Raise the error that a damaged message deserves."""
        raise CorruptError(message, path=self._path, tensor=text(name), offset=offset)

    def _fields(self, data: Sliced, start: int, end: int) -> Iterator[Field]:
        try:
            yield from fields(data, start, end)
        except CorruptError as error:
            self.refuse(error.message, error.offset or start)

    def _only(self, data: Sliced, start: int, end: int, number: int, what: str) -> Field:
        """Return the one field of bytes that a message has to have."""
        found = [one for one in self._fields(data, start, end) if one.number == number]
        if len(found) != 1 or found[0].kind != BYTES:
            self.refuse(f"a record has {len(found)} {what}, it should have one", start)
        return found[0]

    # --- the first record ----------------------------------------------------------------------

    def read_meta(self, data: Sliced, start: int, end: int) -> Iterator[Meta]:
        """Yield what the first record says of tensors.

        Raises:
            CorruptError: It does not parse, or says what cannot be.
            UnsupportedError: A version that does not exist yet, or a dtype that the format lacks.
        """
        head = next(self._fields(data, start, end), None)
        if head is not None and (head.number, head.kind) != (1, BYTES):
            msg = "its first record describes no tensors; if this is the index of a bundle, its"
            self.refuse(f"{msg} name should end in .index", start)
        meta = self._only(data, start, end, 1, "descriptions")
        for one in self._fields(data, meta.body, meta.end):
            if one.kind == BYTES and one.number == 2:
                self._check_version(data, one)
            if one.kind == BYTES and one.number == 1:
                yield self._tensor(data, one)

    def _check_version(self, data: Sliced, versions: Field) -> None:
        producer = oldest = 0
        bad: list[int] = []
        for one in self._fields(data, versions.body, versions.end):
            number = signed(one.value, 32)
            if one.kind == VARINT and one.number == 1:
                producer = number
            elif one.kind == VARINT and one.number == 2:
                oldest = number
            elif one.kind == VARINT and one.number == 3:
                bad.append(number)
            elif one.kind == BYTES and one.number == 3:
                bad += self._packed(data, one)
        if producer < 0:
            self.refuse(f"it is of version {producer}, versions start at 0", versions.start)
        if oldest > VERSION or VERSION in bad:
            msg = (
                f"it asks for a reader of version {oldest} or later, and not of {bad};"
                f" this one is {VERSION}"
            )
            raise UnsupportedError(msg, path=self._path, offset=versions.start)

    def _packed(self, data: Sliced, one: Field) -> list[int]:
        content = data[one.body : min(one.end, one.body + MAX_SLICE)]
        try:
            _, found = _native.varints_decode(content, len(content), "int", 8)
        except _native.DecodeError as error:
            self.refuse(error.message, one.body + error.offset)
        return memoryview(found).cast("q").tolist()

    def _tensor(self, data: Sliced, message: Field) -> Meta:
        name, code, slices = b"", 0, []
        dims: tuple[int, ...] = ()
        for one in self._fields(data, message.body, message.end):
            if one.kind == BYTES and one.number == 1:
                name = self._name(data, one)
            elif one.kind == BYTES and one.number == 2:
                dims = self._shape(data, one)
            elif one.kind == VARINT and one.number == 3:
                code = one.value
            elif one.kind == BYTES and one.number == 4:
                slices.append(self._slice(data, one))
        dtype = NAMES.get(code)
        if dtype is None:
            self.refuse(f"its dtype is number {code}, which there is not", message.start, name)
        if dtype not in STORAGE:
            msg = f"it is {dtype}, which the first format of TensorFlow cannot hold"
            raise UnsupportedError(msg, path=self._path, tensor=text(name), offset=message.start)
        if len(dims) > MAX_RANK or math.prod(size or 1 for size in dims) > MAX_BYTES:
            self.refuse("its shape has too many axes or elements", message.start, name)
        return Meta(name, dtype, dims, tuple(slices))

    def _name(self, data: Sliced, one: Field) -> bytes:
        if one.end - one.body > MAX_KEY:
            self.refuse(f"a name has at most {MAX_KEY} bytes", one.start)
        return data[one.body : one.end]

    def _shape(self, data: Sliced, message: Field) -> tuple[int, ...]:
        return self._known(self._shapes, self._read_shape, data, message)

    def _slice(self, data: Sliced, message: Field) -> Extents:
        return self._known(self._slices, self._read_slice, data, message)

    def _known(
        self,
        known: dict[bytes, Read],
        read: Callable[[Sliced, Field], Read],
        data: Sliced,
        message: Field,
    ) -> Read:
        """Read a message, unless the bytes of it were read before."""
        if message.end - message.body > SHORT:
            return read(data, message)
        content = data[message.body : message.end]
        found = known.get(content)
        if found is None:
            found = read(data, message)
            if len(known) < MOST_KNOWN:
                known[content] = found
        return found

    def _read_shape(self, data: Sliced, message: Field) -> tuple[int, ...]:
        dims: list[int] = []
        for one in self._fields(data, message.body, message.end):
            if one.kind == VARINT and one.number == 3 and one.value:
                self.refuse("a shape is unknown", one.start)
            if one.kind != BYTES or one.number != 2:
                continue
            size = 0
            for part in self._fields(data, one.body, one.end):
                if part.kind == VARINT and part.number == 1:
                    size = signed(part.value)
            if size < 0:
                self.refuse(f"an axis has {size} elements", one.start)
            dims.append(size)
            if len(dims) > MAX_RANK:
                self.refuse(f"a shape has at most {MAX_RANK} axes", one.start)
        return tuple(dims)

    def _read_slice(self, data: Sliced, message: Field) -> Extents:
        if message.end - message.body > MAX_SLICE:
            self.refuse(f"a slice takes at most {MAX_SLICE} bytes", message.start)
        extents = []
        for one in self._fields(data, message.body, message.end):
            if one.kind != BYTES or one.number != 1:
                continue
            start, length = 0, -1
            for part in self._fields(data, one.body, one.end):
                if part.kind == VARINT and part.number == 1:
                    start = signed(part.value)
                elif part.kind == VARINT and part.number == 2:
                    length = signed(part.value)
                    if length < 0:
                        self.refuse(f"a slice has {length} elements along an axis", part.start)
            if start < 0 or (length < 0 and start):
                self.refuse(f"a slice starts at {start} and has no end", one.start)
            extents.append((start, length))
        return tuple(extents)

    # --- the others ----------------------------------------------------------------------------

    def read_values(self, data: Sliced, start: int, end: int) -> Values:
        """Return what a record says of a slice; its values are not read.

        Raises:
            CorruptError: It does not parse, or has values of several kinds.
            UnsupportedError: Values in more runs than anybody writes, or as opaque bytes.
        """
        message = self._only(data, start, end, 2, "slices")
        name, tensor = b"", None
        extents: Extents = ()
        for one in self._fields(data, message.body, message.end):
            if one.kind == BYTES and one.number == 1:
                name = self._name(data, one)
            elif one.kind == BYTES and one.number == 2:
                extents = self._slice(data, one)
            elif one.kind == BYTES and one.number == 3:
                if tensor is not None:
                    self.refuse("a record has values twice", one.start, name)
                tensor = one
        if tensor is None:
            return Values(name, extents, None, end, 0)
        return self._values(data, tensor, name, extents)

    def _values(self, data: Sliced, message: Field, name: bytes, extents: Extents) -> Values:
        runs: list[tuple[int, int]] = []
        field: int | None = None
        for one in self._fields(data, message.body, message.end):
            if one.number in _WITHOUT_VALUES:
                continue
            if one.number not in _VALUES:
                msg = f"its values are in field {one.number}, which this format does not use"
                raise UnsupportedError(msg, path=self._path, tensor=text(name), offset=one.start)
            if field not in {None, one.number}:
                self.refuse("it has values of two kinds", one.start, name)
            if one.number == STRING:
                return self._strings(one.start, message.end, name, extents)
            if one.kind not in {BYTES, _KIND.get(one.number, VARINT)}:
                self.refuse(f"a value is of wire type {one.kind}", one.start, name)
            field = one.number
            if one.end > one.body:
                runs.append((one.body, one.end - one.body))
            if len(runs) > MAX_RUNS:
                msg = f"its values are in more than {MAX_RUNS} runs; no writer does that"
                raise UnsupportedError(msg, path=self._path, tensor=text(name), offset=one.start)
        start = runs[0][0] if runs else message.end
        length = sum(runs[-1]) - start if runs else 0
        return Values(name, extents, field, start, length, tuple(runs))

    def _strings(self, start: int, end: int, name: bytes, extents: Extents) -> Values:
        try:
            spans = string_spans(self._file, start, end)
        except CorruptError as error:
            self.refuse(error.message, error.offset or start, name)
        if spans.end != end:
            self.refuse("something comes behind its strings", spans.end, name)
        header, _ = _native.strings_encode(spans.lengths)
        size = len(header) + sum(spans.lengths)
        return Values(name, extents, STRING, start, end - start, (), len(spans.starts), size)


def text(name: bytes | None) -> str | None:
    """Return a name as text; bytes that are no UTF-8 become lone surrogates."""
    return None if name is None else name.decode("utf-8", "surrogateescape")
