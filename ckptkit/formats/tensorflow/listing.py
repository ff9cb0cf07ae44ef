"""The index of a bundle as TensorFlow's reader goes by it: all keys, and no look at the shards.

A scan refuses a checkpoint in which any tensor cannot be right. Here only what can be said of no
tensor is refused; the rest is a matter for who reads that tensor.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING

from ckptkit import _native
from ckptkit.errors import CorruptError
from ckptkit.formats.tensorflow.dtypes import NAMES
from ckptkit.formats.tensorflow.paths import shard_path
from ckptkit.formats.tensorflow.scan import check_entries, read_entries, read_header, read_table
from ckptkit.formats.tensorflow.slices import find_record, listed, sliced_rows, slices_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptkit.columns import Columns
    from ckptkit.formats.tensorflow.scan import Table
    from ckptkit.model import Tensor


class Listed:
    """What is said of the tensors of a checkpoint, and how TensorFlow's reader lists them.

    Attributes:
        columns: One row for every record, slices included.
        keys: The row of every key that TensorFlow's reader finds; -1 for one without values.
        names: Names of tensors, in the order of the index; slices are none.
        rows: Their rows.
        direct: Stored bytes of numbers are those of an array, and have their checksums.
        missing: What TensorFlow says of a name that is not there.
    """

    direct = False
    missing = "{} not found in checkpoint"

    def __init__(
        self, columns: Columns, keys: dict[str, int], names: list[str], rows: range | list[int]
    ) -> None:
        """Hold the parts."""
        self.columns = columns
        self.keys = keys
        self.names = names
        self.rows = rows

    @property
    def nbytes(self) -> int:
        """About the memory that it takes."""
        names, entries = sum(map(len, self.names)), len(self.columns.entries)
        return 4 * names + 2 * entries + 400 * len(self.keys)

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of all rows."""
        return self.columns.specs()[1]

    @cached_property
    def order(self) -> list[int]:
        """The positions of the names in the order in which TensorFlow lists them in a map."""
        return hashed(self.names)

    def variables(self) -> list[tuple[str, list[int]]]:
        """Return names and shapes, sorted by name."""
        shapes = self.shapes
        if len(self.names) != len(shapes):
            shapes = [shapes[row] for row in self.rows]
        found = [*zip(self.names, map(list, shapes), strict=True)]
        # Sorted they are, but for names that are no UTF-8.
        return sorted(found, key=itemgetter(0))

    def is_sliced(self, row: int) -> bool:
        """Tell whether a row is a tensor in slices."""
        return bool(self.columns.flags[row] & self.columns.SLICED)

    def lines(self) -> Iterator[tuple[str, int, str]]:
        """Yield what TensorFlow's reader prints: keys, their rows, and what comes after these."""
        raise NotImplementedError

    def tensor(self, row: int) -> Tensor:
        """Return a row as a tensor, its slices joined.

        Raises:
            CorruptError: The row or its slices contradict themselves, one another, or the shards.
            OSError: A shard is not there.
        """
        raise NotImplementedError

    def shard(self, row: int) -> str:
        """Return the path of the file that has the bytes of a row.

        Raises:
            CorruptError: There is no such shard.
        """
        raise NotImplementedError


def hashed(names: list[str]) -> list[int]:
    """Return the positions of names in the order of a map into which they were put one by one."""
    return memoryview(_native.keys_hashed(*_native.names_encode(names))).cast("q").tolist()


class Listing(Listed):
    """What an index says, and where its shards would be.

    Attributes:
        prefix: What its files have in common.
    """

    direct = True
    missing = "Key {} not found in checkpoint"

    def __init__(self, prefix: str) -> None:
        """Read the index.

        Raises:
            CorruptError: It is damaged, or has a tensor of no dtype.
            UnsupportedError: A version of the format that does not exist yet.
        """
        self.prefix = prefix
        self._table: Table = read_table(prefix)
        self._shards, big_endian = read_header(self._table)
        columns = read_entries(self._table, self._shards, big_endian=big_endian)
        for code in set(columns.dtype) - NAMES.keys():
            row = columns.dtype.tolist().index(code)
            self._table.refuse(row, f"there is no dtype {code} that a checkpoint could hold")
        found = _native.names_decode(self._table.keys, self._table.key_ends)
        keys = dict(zip(found, range(-1, len(found) - 1), strict=True))
        names = found[1:]
        super().__init__(columns, keys, names, range(len(names)))
        hidden = self._hidden()
        if hidden:
            self.rows = [row for row in self.rows if row not in hidden]
            self.names = [names[row] for row in self.rows]

    def _hidden(self) -> set[int]:
        """Return the rows that are slices of tensors."""
        table, hidden = self._table, {-1}
        for row in sliced_rows(self.columns):
            try:
                slices = listed(table.value(row + 1))
            except CorruptError as error:
                table.refuse(row, error.message)
            key = table.key(row + 1)
            hidden.update(find_record(table, _native.slice_key(key, one)) - 1 for one in slices)
        return hidden - {-1}

    def lines(self) -> Iterator[tuple[str, int, str]]:
        """Yield all records but those of tensors in slices, of which the slices are there."""
        rows = ((key, row, "") for key, row in self.keys.items() if row >= 0)
        return (line for line in rows if not self.is_sliced(line[1]))

    def shard(self, row: int) -> str:
        """Return the path of the file that has the bytes of a row.

        Raises:
            CorruptError: There is no such shard.
        """
        number = self.columns.shard[row]
        if not 0 <= number < self._shards:
            msg = f"its bytes are in shard {number}, the header says {self._shards} shards"
            self._table.refuse(row, msg)
        return shard_path(self.prefix, number, self._shards)

    def check(self, row: int) -> None:
        """Refuse a row whose bytes cannot be what its dtype and shape say.

        Raises:
            CorruptError: They cannot.
        """
        for _, message in check_entries(self.columns.only(row), (), 1):
            self._table.refuse(row, message)

    def tensor(self, row: int) -> Tensor:
        """Return a row as a tensor, its slices joined.

        Raises:
            CorruptError: The row or its slices contradict themselves, one another, or the shards.
            OSError: A shard is not there.
        """
        columns, rows = self.columns, [row]
        if self.is_sliced(row):
            found = slices_of(self._table, columns, row)
            rows = [at for _, at in found]
            columns = columns.with_parts({row: found})
        files: dict[int, str] = {}
        for at in rows:
            self.check(at)
            path = self.shard(at)
            files[columns.shard[at]] = path
            self._check_end(at, path)
        return replace(columns, files=files).tensor(row)

    def _check_end(self, row: int, path: str) -> None:
        end, length = self.columns.offset[row] + self.columns.size[row], os.stat(path).st_size
        if end > length:
            name, start = self._table.name(row), self.columns.offset[row]
            msg = f"bytes {start} to {end} are beyond the end of the shard of {length} bytes"
            raise TooShortError(msg, path=path, tensor=name, offset=start)


class TooShortError(CorruptError):
    """A shard ends before a tensor in it does."""
