"""Reading the index of a bundle into a catalog. Layout: see FORMAT.md in this folder."""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

from ckptkit import _native
from ckptkit.catalog import Catalog
from ckptkit.columns import Columns
from ckptkit.errors import CorruptError, UnsupportedError
from ckptkit.formats.tensorflow import hazards
from ckptkit.formats.tensorflow.dtypes import ITEMSIZES, NAMES
from ckptkit.formats.tensorflow.graph.structure import GRAPH_KEY, GraphStructure
from ckptkit.formats.tensorflow.paths import (
    FOOTER_BYTES,
    INDEX,
    MAGIC,
    data_files,
    shard_path,
)
from ckptkit.formats.tensorflow.slices import find_record, join_slices
from ckptkit.storage.disk import MAX_TRANSFER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


DECODED_SLACK: Final = 64 << 20
"""Bytes that decoded keys and values may take beyond what the checkpoint takes on disk.

Long names that differ in their last digits take several times their stored bytes, but so do the
tensors behind them; a few KiB that claim to be GiB do not get far.
"""

BUNDLE_VERSION: Final = 1
BIG_ENDIAN: Final = 1


def scan_index(prefix: str) -> Catalog:
    """Read ``<prefix>.index``; look at the lengths of the shards, not at their contents.

    Raises:
        CorruptError: The index is damaged or contradicts itself or the shards.
        UnsupportedError: A version of the format that does not exist yet.
    """
    table = read_table(prefix)
    shards, big_endian = read_header(table)
    columns = _columns(table, prefix, shards, big_endian=big_endian)
    names = _native.names_decode(table.keys, table.key_ends, 1)
    rows: Sequence[int] = range(len(names))
    parts, hidden = join_slices(table, columns)
    if parts:
        columns = columns.with_parts(parts)
        rows = [row for row in rows if row not in hidden]
        names = [names[row] for row in rows]
    attachments = {"header": table.value(0)}
    return _with_structure(table, Catalog(names, rows, columns, attachments=attachments))


def _with_structure(table: Table, catalog: Catalog) -> Catalog:
    """Give a catalog its object graph; whether it reads, shows when it is asked."""
    row = find_record(table, GRAPH_KEY.encode()) - 1
    columns = catalog.columns
    if row < 0 or row in columns.parts or str(columns.spec(row)) != "string[]":
        return catalog
    return catalog.with_structure(GraphStructure(catalog))


def read_table(prefix: str) -> Table:
    """Read the records of ``<prefix>.index``.

    Raises:
        CorruptError: The table is damaged.
    """
    path = prefix + INDEX
    index = _read_index(path)
    try:
        limit = len(index) + bytes_on_disk(prefix) + DECODED_SLACK
        keys, key_ends, values, value_ends = _native.table_decode(index, limit)
    except _native.DecodeError as error:
        message = hazards.of_table(error.message)
        raise CorruptError(message, path=path, offset=error.offset) from None
    return Table(
        path, keys, memoryview(key_ends).cast("q"), values, memoryview(value_ends).cast("q")
    )


class Table:
    """The records of an index, by number; number 0 is the header."""

    __slots__ = ("key_ends", "keys", "path", "value_ends", "values")

    def __init__(
        self, path: str, keys: bytes, key_ends: memoryview, values: bytes, value_ends: memoryview
    ) -> None:
        """Hold the columns of the table."""
        self.path = path
        self.keys = keys
        self.key_ends = key_ends
        self.values = values
        self.value_ends = value_ends

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.key_ends)

    def key(self, number: int) -> bytes:
        """Return a key."""
        return self.keys[self.key_ends[number - 1] if number else 0 : self.key_ends[number]]

    def value(self, number: int) -> bytes:
        """Return a value."""
        start = self.value_ends[number - 1] if number else 0
        return self.values[start : self.value_ends[number]]

    def name(self, row: int) -> str:
        """Return the name of a row of the columns, which start after the header."""
        return self.key(row + 1).decode("utf-8", "surrogateescape")

    def refuse(self, row: int, message: str) -> NoReturn:
        """Raise the error that a row deserves."""
        raise CorruptError(message, path=self.path, tensor=self.name(row))


def bytes_on_disk(prefix: str) -> int:
    """Return what the data files take; a hole that claims to be a terabyte takes nothing."""
    return sum(512 * os.stat(path).st_blocks for _, path in data_files(prefix))


def _read_index(path: str) -> bytearray:
    """Read a whole index, after a look at its end."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size < FOOTER_BYTES:
            msg = f"an index has at least {FOOTER_BYTES} bytes, this file has {size}"
            raise CorruptError(msg, path=path, offset=size)
        file.seek(size - len(MAGIC))
        found = file.read(len(MAGIC))
        if found != MAGIC:
            msg = (
                f"an index ends in {MAGIC.hex()}, this file in {found.hex()}:"
                " not a TensorFlow index, or cut short"
            )
            raise CorruptError(msg, path=path, offset=size - len(MAGIC))
        file.seek(0)
        content = bytearray(size)
        view = memoryview(content)
        done = 0
        while got := file.readinto(view[done : done + MAX_TRANSFER]):
            done += got
        if done != size or file.read(1):
            msg = f"the index has other than the {size} bytes that it had a moment ago"
            raise CorruptError(msg, path=path)
    return content


def read_header(table: Table) -> tuple[int, bool]:
    """Check the header record; return the number of shards and whether data is big-endian."""
    if not len(table) or table.key(0) != b"":
        msg = "the index has no header: its first key is not the empty one"
        if len(table):
            msg = hazards.told(msg, "TensorFlow takes the first tensor for it, and hides that")
        raise CorruptError(msg, path=table.path)
    try:
        shards, endianness, producer, oldest, bad = _native.header_decode(table.value(0))
    except _native.DecodeError as error:
        msg = f"the header does not decode: {error.message}"
        raise CorruptError(msg, path=table.path) from None
    if producer < 0:
        msg = f"the header says version {producer}, versions start at 0"
        raise CorruptError(msg, path=table.path)
    if oldest > BUNDLE_VERSION or BUNDLE_VERSION in bad:
        msg = (
            f"the bundle asks for a reader of version {oldest} or later, and not of {list(bad)};"
            f" this one is {BUNDLE_VERSION}"
        )
        raise UnsupportedError(msg, path=table.path)
    if shards < 1 and len(table) > 1:
        msg = f"the header says {shards} shards, a bundle with tensors has at least 1"
        raise CorruptError(msg, path=table.path)
    return shards, endianness == BIG_ENDIAN


def _columns(table: Table, prefix: str, shards: int, *, big_endian: bool) -> Columns:
    """Decode all records but the header, and check them against one another and the shards."""
    columns = read_entries(table, shards, big_endian=big_endian)
    files, sizes = _shards(table, prefix, shards, columns.shard, columns.flags)
    for row, message in check_entries(columns, sizes, 1):
        where = files.get(columns.shard[row], table.path)
        at = columns.offset[row]
        raise CorruptError(message, path=where, tensor=table.name(row), offset=at)
    return replace(columns, files=files)


def read_entries(table: Table, shards: int, *, big_endian: bool) -> Columns:
    """Decode all records but the header, and look no further: there are no files yet.

    Raises:
        CorruptError: One does not decode.
    """
    value_ends = table.value_ends
    try:
        decoded = _native.entries_decode(table.values, value_ends, 1)
    except _native.DecodeError as error:
        row = _row_at(value_ends, error.offset)
        message = hazards.of_record(error.message)
        table.refuse(row, f"the index record does not decode: {message}")
    return columns_of(decoded, table.values, value_ends, shards, big_endian=big_endian)


def columns_of(
    decoded: tuple[bytes, ...],
    entries: bytes,
    bounds: memoryview,
    shards: int,
    *,
    big_endian: bool,
) -> Columns:
    """Return what the native decoder made of records as columns, of no files yet.

    Args:
        decoded: What ``_native.entries_decode`` returns.
        entries: The records in one run.
        bounds: int64, where each record begins, and where the last one ends.
        shards: Number of data files.
        big_endian: Byte order of the machine that wrote the data.
    """
    dtype, dim_ends, dims, shard, offset, size, masked, flags = (
        memoryview(column) for column in decoded
    )
    return Columns(
        NAMES,
        {},
        dtype.cast("i"),
        dims.cast("q"),
        dim_ends.cast("q"),
        shard.cast("i"),
        offset.cast("q"),
        size.cast("q"),
        # A record without a checksum has that of the masked 0, as protobuf prescribes.
        memoryview(_native.crc32c_unmask_column(masked.cast("I"))).cast("I"),
        flags,
        entries,
        bounds,
        byteorder="big" if big_endian else "little",
        shards=shards,
    )


def check_entries(
    columns: Columns, sizes: Sequence[tuple[int, int]], most: int
) -> list[tuple[int, str]]:
    """Return the first rows that contradict themselves or their shards, and how.

    Args:
        columns: The records.
        sizes: Numbers of shards, rising, and how many bytes each has.
        most: How many rows to return at most.
    """
    return _native.entries_check(
        columns.dtype,
        columns.dim_ends,
        columns.dims,
        columns.shard,
        columns.offset,
        columns.size,
        columns.flags,
        ITEMSIZES,
        sizes,
        most,
    )


def _row_at(ends: memoryview, offset: int) -> int:
    """Return the row whose record holds a byte offset."""
    return min(max(bisect_right(ends, offset) - 1, 0), len(ends) - 2)


def _shards(
    table: Table, prefix: str, count: int, shard: memoryview, flags: memoryview
) -> tuple[Mapping[int, str], list[tuple[int, int]]]:
    """Return path and length of every shard that a record points into."""
    numbers = shard.tolist()
    files: dict[int, str] = {}
    sizes: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        # The record of a sliced tensor has no bytes of its own; its shard number means nothing.
        row = _first_stored(numbers, number, flags)
        if row is None:
            continue
        if not 0 <= number < count:
            table.refuse(row, f"its bytes are in shard {number}, the header says {count} shards")
        path = shard_path(prefix, number, count)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            msg = f"shard {number} of {count} is missing; its first tensor is {table.name(row)!r}"
            raise CorruptError(msg, path=path) from None
        if not stat.S_ISREG(status.st_mode):
            msg = f"shard {number} of {count} is not a file"
            raise CorruptError(msg, path=path)
        sizes.append((number, status.st_size))
        files[number] = path
    return files, sizes


def _first_stored(numbers: list[int], number: int, flags: memoryview) -> int | None:
    """Return the first row in a shard that has bytes of its own."""
    row = -1
    while True:
        try:
            row = numbers.index(number, row + 1)
        except ValueError:
            return None
        if not flags[row] & Columns.SLICED:
            return row
