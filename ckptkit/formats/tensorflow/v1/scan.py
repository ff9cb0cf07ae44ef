"""From the files of a checkpoint of the first format to a catalog, as a bundle would have it."""

from __future__ import annotations

import os
from dataclasses import replace
from os.path import basename
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ckptkit import _native
from ckptkit.catalog import Catalog
from ckptkit.columns import Columns, Place, Rows
from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow.dtypes import CODES, NAMES
from ckptkit.formats.tensorflow.slices import FULL, box_of, tiling_fault
from ckptkit.formats.tensorflow.v1.paths import files_of
from ckptkit.formats.tensorflow.v1.records import BOOL, STORAGE, STRING, Reader, text
from ckptkit.formats.tensorflow.v1.table import TableFile
from ckptkit.model import TensorSpec
from ckptkit.partition import MAX_SLICES
from ckptkit.region import Box
from ckptkit.storage.disk import Disk
from ckptkit.storage.packed import Packed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ckptkit.formats.tensorflow.slices import Extents
    from ckptkit.formats.tensorflow.v1.records import Meta, Values
    from ckptkit.formats.tensorflow.v1.table import Block, Handle
    from ckptkit.model import Source
    from ckptkit.storage.disk import File

_VARINTS = {one.field for one in STORAGE.values() if one.form in {"int", "uint", "bool"}}
_EMPTY_STRINGS = 4
"""Bytes that a bundle stores for no strings."""


class Found(NamedTuple):
    """The values of a slice, as they were found.

    Attributes:
        values: Where they are.
        path: In which file.
        shard: Which of the files that is.
        checksum: CRC-32C of the byte range that has them all.
        varints: How many varints they are, if they were counted.
        plain: They are booleans, of a byte each.
    """

    values: Values
    path: str
    shard: int
    checksum: int
    varints: int | None
    plain: bool


class Contents(NamedTuple):
    """What is in one file.

    Attributes:
        path: The file.
        metas: What it says of tensors.
        found: The values in it, by their keys.
        blocks: Every block with the names of the tensors in it.
    """

    path: str
    metas: list[Meta]
    found: dict[bytes, Found]
    blocks: list[tuple[Handle, list[str]]]


def scan(source: Source) -> Catalog:
    """Read what there is, but no large values.

    Raises:
        CorruptError: It is damaged, contradicts itself, or slices are missing.
        UnsupportedError: It asks for what we do not know.
    """
    paths = files_of(source)
    tensors: dict[bytes, _Tensor] = {}
    disk = Disk()
    for number, path in enumerate(paths):
        with disk.open(path) as file:
            _join(tensors, read_contents(file, path, number))
    rows = _Rows(len(paths))
    for name in sorted(tensors):
        tensors[name].add_to(rows)
    total = sum(map(os.path.getsize, paths))
    columns = rows.columns(dict(enumerate(paths)))
    # Whatever is around the values is needed.
    columns = replace(columns, overhead=columns.dead_bytes(total))
    return Catalog(rows.names, rows.of_names, columns)


def read_contents(file: File, path: str, number: int) -> Contents:
    """Read one file.

    Raises:
        CorruptError: It is damaged.
        UnsupportedError: It asks for what we do not know.
    """
    table, reader = TableFile(file, path), Reader(file, path)
    contents = Contents(path, [], {}, [])
    for block in table.read():
        rest = block.records
        if not contents.blocks:
            if rest[0].key:
                table.refuse("its first record has a key, so that nothing describes it", 0)
            first, rest = rest[0], rest[1:]
            contents.metas.extend(reader.read_meta(block.content, first.start, first.end))
        values = [reader.read_values(block.content, one.start, one.end) for one in rest]
        sums = table.range_sums(block, [(one.start, one.length) for one in values])
        for record, one, checksum in zip(rest, values, sums, strict=True):
            count, plain = _look(reader, block, one) if block.whole else (None, False)
            contents.found[record.key] = Found(one, path, number, checksum, count, plain)
        names = [*dict.fromkeys(text(one.name) or "" for one in values)]
        contents.blocks.append((block.handle, names))
    if not contents.blocks:
        table.refuse("it has no records, so that nothing describes it", 0)
    return contents


def _look(reader: Reader, block: Block, values: Values) -> tuple[int | None, bool]:
    """Count the varints of a block that was read; tell whether they are booleans of a byte each."""
    if values.field not in _VARINTS:
        return None, False
    total, plain = 0, values.field == BOOL and len(values.runs) == 1
    for start, length in values.runs:
        content = block.content[start : start + length]
        try:
            used, count = _native.varints_skip(content, length)
        except _native.DecodeError as error:
            reader.refuse(error.message, start + error.offset, values.name)
        if used != length:
            reader.refuse("its last value is cut off", start + used, values.name)
        total += count
        plain = plain and not content.translate(None, b"\0\1")
    return total, plain


def _join(tensors: dict[bytes, _Tensor], contents: Contents) -> None:
    """Add the slices in one file to the tensors that they are of."""
    left = dict(contents.found)
    for meta in contents.metas:
        known = tensors.setdefault(meta.name, _Tensor(meta, contents.path))
        known.check_same(meta, contents.path)
        for extents in meta.slices:
            box = known.box(extents)
            found = left.pop(_native.slice_key(meta.name, extents), None)
            if found is None:
                known.refuse(f"the record of its slice {box} is missing")
            if (found.values.name, found.values.extents) != (meta.name, extents):
                known.refuse(f"the record of its slice {box} says that it is another one")
            known.add(extents, box, found)
    for found in left.values():
        msg = "there are values of a slice that is described nowhere"
        name = text(found.values.name)
        raise CorruptError(msg, path=found.path, tensor=name, offset=found.values.start)


class _Tensor:
    """A tensor, and its slices in all files."""

    def __init__(self, meta: Meta, path: str) -> None:
        self._meta = meta
        self._path = path
        self._slices: list[tuple[Extents, Box, Found]] = []
        self._boxes: dict[Box, Found] = {}

    def refuse(self, message: str, found: Found | None = None) -> NoReturn:
        """Raise the error that it deserves."""
        path = self._path if found is None else found.path
        offset = None if found is None else found.values.start
        raise CorruptError(message, path=path, tensor=text(self._meta.name), offset=offset)

    def check_same(self, meta: Meta, path: str) -> None:
        """Refuse another dtype or shape in another file."""
        one, other = ((each.dtype, each.shape) for each in (self._meta, meta))
        if one != other:
            specs = f"{TensorSpec(*one)} in one file and {TensorSpec(*other)} in another"
            msg = f"it is {specs}: shards of two checkpoints are mixed"
            raise CorruptError(msg, path=path, tensor=text(meta.name))

    def box(self, extents: Extents) -> Box:
        """Return which part of the tensor a slice is."""
        shape = self._meta.shape
        if extents == (FULL,) * len(shape):
            return Box.whole(shape)
        try:
            return box_of(extents, shape)
        except CorruptError as error:
            self.refuse(error.message)

    def add(self, extents: Extents, box: Box, found: Found) -> None:
        """Add a slice."""
        other = self._boxes.setdefault(box, found)
        if other is not found:
            what = f"slice {box}" if self._meta.shape else "its value"
            where = "twice" if other.path == found.path else f"in {basename(other.path)} as well"
            self.refuse(f"{what} is there {where}: files of two checkpoints are mixed", found)
        self._slices.append((extents, box, found))
        if len(self._slices) > MAX_SLICES:
            self.refuse(f"it is in more than {MAX_SLICES} slices")

    def add_to(self, rows: _Rows) -> None:
        """Add the rows of the tensor, whose slices have to tile it."""
        meta = self._meta
        boxes = [box for _, box, _ in self._slices]
        if not boxes:
            self.refuse("there are no values of it")
        whole = boxes == [Box.whole(meta.shape)]
        fault = None if whole else tiling_fault(meta.shape, boxes)
        if fault is not None:
            self.refuse(fault)
        code = CODES[meta.dtype]
        at = [self._add_slice(rows, box, found) for _, box, found in self._slices]
        if not whole:
            extents = [list(one) for one, _, _ in self._slices]
            entry = _native.entry_slices_encode(code, meta.shape, extents)
            row = rows.held.add(code, meta.shape, Place(flags=Columns.SLICED), entry)
            rows.parts[row] = tuple(zip(boxes, at, strict=True))
            at = [row]
        rows.names.append(text(meta.name) or "")
        rows.of_names.append(at[0])

    def _add_slice(self, rows: _Rows, box: Box, found: Found) -> int:
        code = CODES[self._meta.dtype]
        entry = _native.entry_encode(code, box.shape)
        return rows.held.add(code, box.shape, self._place(rows, box, found), entry)

    def _place(self, rows: _Rows, box: Box, found: Found) -> Place:
        """Return where a slice is, whose values have to be as many as its elements."""
        values, storage = found.values, STORAGE[self._meta.dtype]
        where = "" if len(self._slices) == 1 else f"slice {box}: "
        if values.field not in {None, storage.field}:
            what = f"it is {self._meta.dtype}, and its values are in field {values.field}"
            self.refuse(f"{where}{what}, not {storage.field}", found)
        size, nbytes = box.count, sum(length for _, length in values.runs)
        if storage.form == "string":
            if values.strings != box.count:
                self.refuse(f"{where}it has {values.strings} strings, not {box.count}", found)
            return rows.virtual(self._packed(found, box.count), self._string_bytes(values))
        size *= TensorSpec(self._meta.dtype, ()).itemsize
        if storage.form == "raw" and nbytes != size:
            self.refuse(f"{where}it has {nbytes} bytes of values, not {size}", found)
        if storage.form != "raw":
            if found.varints not in {None, box.count}:
                self.refuse(f"{where}it has {found.varints} values, not {box.count}", found)
            if not box.count <= nbytes <= 10 * box.count:
                self.refuse(f"{where}{nbytes} bytes cannot be {box.count} values", found)
        is_run = (storage.form == "raw" and len(values.runs) <= 1) or found.plain
        if is_run or not size:
            return Place(found.shard, values.start, size, found.checksum)
        count = size if storage.form == "raw" else box.count
        return rows.virtual(self._packed(found, count), size)

    def _packed(self, found: Found, count: int) -> str:
        values, storage = found.values, STORAGE[self._meta.dtype]
        packed = Packed(
            storage.form,
            storage.width,
            count,
            values.start,
            values.length,
            found.checksum,
            values.runs,
        )
        return packed.path(found.path, text(self._meta.name) or "")

    def _string_bytes(self, values: Values) -> int:
        return values.size if values.field == STRING else _EMPTY_STRINGS


class _Rows:
    """Rows in the making, and the tensors that they are."""

    def __init__(self, shards: int) -> None:
        self.names: list[str] = []
        self.of_names: list[int] = []
        self.parts: dict[int, tuple[tuple[Box, int], ...]] = {}
        self.held = Rows()
        self._shards = shards
        self._virtual: list[str] = []

    def virtual(self, path: str, size: int) -> Place:
        """Return a place at a virtual path of its own."""
        self._virtual.append(path)
        number = self._shards + len(self._virtual) - 1
        return Place(number, 0, size, 0, Columns.UNSUMMED)

    def columns(self, files: Mapping[int, str]) -> Columns:
        """Return the columns."""
        virtual = enumerate(self._virtual, start=self._shards)
        found = self.held.columns(NAMES, {**files, **dict(virtual)})
        return replace(found, parts=self.parts, shards=self._shards)
