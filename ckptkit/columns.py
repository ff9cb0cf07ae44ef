"""The stored entries of a checkpoint as columns: arrays without objects, for a million as for ten.

NumPy is not imported here, so that listing a checkpoint stays cheap; it can wrap every column
without a copy.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ckptkit import _native
from ckptkit.model import Checksum, Extent, Piece, Stored, Tensor, TensorSpec
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ckptkit.model import Algorithm

Item = Literal["i", "q", "I", "B"]
"""Items of a column: int32, int64, uint32, uint8."""


@lru_cache(maxsize=4096)
def spec_of(dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    """Return a spec; the tensors of a checkpoint have few shapes, and share the values."""
    return TensorSpec(dtype, shape)


@lru_cache(maxsize=64)
def _algorithm(dtype: str | None) -> Algorithm:
    return TensorSpec(dtype or "", ()).algorithm


def _empty(kind: Item) -> memoryview:
    return memoryview(b"").cast(kind)


def _column(kind: Item, values: Iterable[int]) -> memoryview:
    return memoryview(array(kind, values))


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The stored entries of a checkpoint, one row each, as arrays without objects.

    Attributes:
        dtype_names: What the numbers in ``dtype`` mean.
        files: File of each shard number, for the shards that rows use.
        dtype: int32 codes.
        dims, dim_ends: int64, all dimensions in one run, and where each row's dimensions end.
        shard, offset, size: int32, int64, int64: where the bytes are.
        checksum: uint32 CRC-32C of the bytes of a row.
        flags: uint8: bit ``SLICED`` for tensors that are stored in slices, ``UNSUMMED`` for rows
            that have no checksum where others have.
        entries, entry_bounds: the index bytes of all rows in one run; int64, one more than there
            are rows: where each row's bytes begin, and where the last row's end.
        parts: For the rows that are tensors in slices: the box and the row of every slice.
        byteorder: Of the machine that wrote the data.
        shards: Number of data files, used or not.
        summed: There are checksums.
        labels: What people call each row, besides its name; none where the format knows nothing.
        overhead: Bytes of the data files that are no tensor's, and needed.
    """

    SLICED: ClassVar = 1
    UNSUMMED: ClassVar = 8

    dtype_names: Mapping[int, str] = field(default_factory=dict)
    files: Mapping[int, str] = field(default_factory=dict)
    dtype: memoryview = field(default_factory=lambda: _empty("i"))
    dims: memoryview = field(default_factory=lambda: _empty("q"))
    dim_ends: memoryview = field(default_factory=lambda: _empty("q"))
    shard: memoryview = field(default_factory=lambda: _empty("i"))
    offset: memoryview = field(default_factory=lambda: _empty("q"))
    size: memoryview = field(default_factory=lambda: _empty("q"))
    checksum: memoryview = field(default_factory=lambda: _empty("I"))
    flags: memoryview = field(default_factory=lambda: _empty("B"))
    entries: bytes = b""
    entry_bounds: memoryview = field(default_factory=lambda: memoryview(bytes(8)).cast("q"))
    parts: Mapping[int, tuple[tuple[Box, int], ...]] = field(default_factory=dict)
    byteorder: Literal["little", "big"] = "little"
    shards: int = 1
    summed: bool = True
    labels: tuple[str, ...] = ()
    overhead: int = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dtype)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the buffers as bytes."""
        values = (getattr(self, name) for name in self.__slots__)
        return _restore_columns, tuple(
            _Packed(value.format, bytes(value)) if isinstance(value, memoryview) else value
            for value in values
        )

    def shape(self, row: int) -> tuple[int, ...]:
        """Return the shape of a row."""
        return tuple(self.dims[self.dim_ends[row - 1] if row else 0 : self.dim_ends[row]])

    def specs(self) -> tuple[list[str], list[tuple[int, ...]]]:
        """Return the dtypes and the shapes of all rows."""
        names = {code: self.dtype_names.get(code, f"dtype {code}") for code in set(self.dtype)}
        dtypes = list(map(names.__getitem__, self.dtype))
        return dtypes, _native.shapes_decode(self.dims, self.dim_ends)

    def dtype_name(self, code: int) -> str:
        """Return what a number in ``dtype`` means."""
        return self.dtype_names.get(code) or f"dtype {code}"

    def only(self, row: int) -> Columns:
        """Return the columns of one row; its slices are not among them."""
        rows = Rows()
        place = Place(
            self.shard[row],
            self.offset[row],
            self.size[row],
            self.checksum[row],
            self.flags[row],
        )
        rows.add(self.dtype[row], self.shape(row), place, self.entry(row))
        return rows.columns(self.dtype_names, self.files)

    def spec(self, row: int) -> TensorSpec:
        """Return dtype and shape of a row."""
        return spec_of(self.dtype_name(self.dtype[row]), self.shape(row))

    def entry(self, row: int) -> bytes:
        """Return the index bytes of a row."""
        return self.entries[self.entry_bounds[row] : self.entry_bounds[row + 1]]

    def piece(self, row: int, box: Box) -> Piece:
        """Return the stored bytes of a row as a piece of a tensor."""
        extent = Extent(self.files[self.shard[row]], self.offset[row], self.size[row])
        if not self.has_checksum(row):
            return Piece(box, extent, None, self.entry(row))
        checksum = Checksum(_algorithm(self.dtype_names.get(self.dtype[row])), self.checksum[row])
        return Piece(box, extent, checksum, self.entry(row))

    def has_checksum(self, row: int) -> bool:
        """Tell whether there is a checksum of the bytes of a row."""
        return self.summed and not self.flags[row] & self.UNSUMMED

    def dead_bytes(self, stored: int) -> int:
        """Return how many bytes of the data files, which have ``stored``, belong to no tensor."""
        stored -= self.overhead
        sliced = self.SLICED
        joined = any(flag & sliced for flag in set(bytes(self.flags)))
        if not joined and sum(self.size) == stored:
            # Compact files hold just their tensors, and need no closer look.
            return 0
        live, end, last = 0, 0, -1
        places = zip(self.shard, self.offset, self.size, self.flags, strict=True)
        for shard, offset, size, flags in sorted(places):
            if flags & sliced or not size:
                continue
            end = end if shard == last else 0
            live += max(offset + size - max(offset, end), 0)
            end, last = max(end, offset + size), shard
        return stored - live

    def stored_bytes(self, row: int) -> int:
        """Return how many bytes a row takes, with its slices joined."""
        slices = self.parts.get(row)
        return self.size[row] if slices is None else sum(self.size[at] for _, at in slices)

    def with_parts(self, parts: Mapping[int, tuple[tuple[Box, int], ...]]) -> Columns:
        """Return the columns with what is known about slices."""
        return replace(self, parts=parts)

    def tensor(self, row: int) -> Tensor:
        """Return a row, with its slices joined, as a tensor."""
        spec = self.spec(row)
        slices = self.parts.get(row)
        if slices is None:
            stored = Stored((self.piece(row, Box.whole(spec.shape)),), self.byteorder)
            return Tensor(spec, stored, entry=stored.pieces[0].entry)
        pieces = tuple(self.piece(at, box) for box, at in slices)
        return Tensor(spec, Stored(pieces, self.byteorder), entry=self.entry(row))


class Place(NamedTuple):
    """Where the bytes of a row are, and what else is told of them; see :class:`Columns`."""

    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    flags: int = 0


class Rows:
    """Rows of columns in the making."""

    def __init__(self) -> None:
        """Start without a row."""
        self._codes: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        self._places: list[Place] = []
        self._entries: list[bytes] = []

    def add(self, code: int, shape: tuple[int, ...], place: Place, entry: bytes) -> int:
        """Add a row: the number of its dtype, its shape, its place and its index bytes.

        Returns:
            The number of the row.
        """
        self._codes.append(code)
        self._shapes.append(shape)
        self._places.append(place)
        self._entries.append(entry)
        return len(self._codes) - 1

    def columns(self, dtype_names: Mapping[int, str], files: Mapping[int, str]) -> Columns:
        """Return the columns, by numbers of dtypes and of files."""
        shard, offset, size, checksum, flags = zip(*self._places, strict=True) if self else [()] * 5
        return Columns(
            dtype_names,
            files,
            _column("i", self._codes),
            _column("q", chain.from_iterable(self._shapes)),
            _column("q", accumulate(map(len, self._shapes))),
            _column("i", shard),
            _column("q", offset),
            _column("q", size),
            _column("I", checksum),
            _column("B", flags),
            b"".join(self._entries),
            _column("q", accumulate(map(len, self._entries), initial=0)),
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._codes)


class _Packed(NamedTuple):
    """A buffer on its way to another process: its item format, and its bytes."""

    form: Any
    content: bytes


def _restore_columns(*values: Any) -> Columns:
    restored: list[Any] = [
        memoryview(value.content).cast(value.form) if isinstance(value, _Packed) else value
        for value in values
    ]
    return Columns(*restored)
