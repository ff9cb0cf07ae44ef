"""The catalog: names to tensors, for a million of them as well as for ten.

Columnar inside: the columns of a scanned checkpoint are buffers that NumPy can wrap without a copy.
NumPy itself is not imported here, so that listing a checkpoint stays cheap.
"""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from ckptkit import _native
from ckptkit.bulk import Bulk, Recipe, as_int64s
from ckptkit.errors import TensorNotFoundError
from ckptkit.model import (
    Checksum,
    Extent,
    Piece,
    Stored,
    Tensor,
    TensorSpec,
)
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.bulk import Int64s
    from ckptkit.model import Algorithm

_T = TypeVar("_T")


@lru_cache(maxsize=4096)
def _spec(dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    # The tensors of a checkpoint have few shapes; rows of one shape share the value.
    return TensorSpec(dtype, shape)


@lru_cache(maxsize=64)
def _algorithm(dtype: str | None) -> Algorithm:
    return TensorSpec(dtype or "", ()).algorithm


def _empty(kind: Literal["i", "q", "I", "B"]) -> memoryview:
    return memoryview(b"").cast(kind)


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
        flags: uint8: bit ``SLICED`` for tensors that are stored in slices.
        entries, entry_bounds: the index bytes of all rows in one run; int64, one more than there
            are rows: where each row's bytes begin, and where the last row's end.
        parts: For the rows that are tensors in slices: the box and the row of every slice.
        byteorder: Of the machine that wrote the data.
        shards: Number of data files, used or not.
    """

    SLICED: ClassVar = 1

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

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dtype)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the buffers as bytes."""
        values = (getattr(self, name) for name in self.__slots__)
        return _restore_columns, tuple(
            (value.format, bytes(value)) if isinstance(value, memoryview) else value
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

    def spec(self, row: int) -> TensorSpec:
        """Return dtype and shape of a row."""
        return _spec(self.dtype_name(self.dtype[row]), self.shape(row))

    def entry(self, row: int) -> bytes:
        """Return the index bytes of a row."""
        return self.entries[self.entry_bounds[row] : self.entry_bounds[row + 1]]

    def piece(self, row: int, box: Box) -> Piece:
        """Return the stored bytes of a row as a piece of a tensor."""
        extent = Extent(self.files[self.shard[row]], self.offset[row], self.size[row])
        checksum = Checksum(_algorithm(self.dtype_names.get(self.dtype[row])), self.checksum[row])
        return Piece(box, extent, checksum, self.entry(row))

    def dead_bytes(self, stored: int) -> int:
        """Return how many bytes of the data files, which have ``stored``, belong to no tensor."""
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


def _restore_columns(*values: Any) -> Columns:
    restored: list[Any] = [
        memoryview(value[1]).cast(value[0]) if isinstance(value, tuple) else value
        for value in values
    ]
    return Columns(*restored)


class ByName(Mapping[str, _T]):
    """Something about every tensor of a catalog, by name.

    A list beside the names: to go through it takes no dictionary, which for a million names takes
    longer to fill than the index takes to read.
    """

    __slots__ = ("_catalog", "_values")

    def __init__(self, catalog: Catalog, values: list[_T]) -> None:
        """Hold values in the order of the names."""
        self._catalog = catalog
        self._values = values

    def __getitem__(self, name: str) -> _T:
        """Return the value of a name.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        return self._values[self._catalog.position(name)]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._catalog.names)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._values)

    def values(self) -> ValuesView[_T]:
        """Return the values, in the order of the names."""
        return _Values(self)

    def items(self) -> ItemsView[str, _T]:
        """Return names and values."""
        return _Items(self)

    def listed(self) -> list[_T]:
        """Return the values as they are held; do not change the list."""
        return self._values


class _Values(ValuesView[_T]):
    """Goes through the list itself, not through the names and back."""

    _mapping: ByName[_T]

    def __iter__(self) -> Iterator[_T]:
        return iter(self._mapping.listed())


class _Items(ItemsView[str, _T]):
    """Goes through names and values side by side."""

    _mapping: ByName[_T]

    def __iter__(self) -> Iterator[tuple[str, _T]]:
        return zip(self._mapping, self._mapping.listed(), strict=True)


class Catalog(Mapping[str, Tensor]):
    """What a checkpoint holds: an immutable ordered mapping from names to tensors.

    Names and the columns behind them are arrays; ``Tensor`` objects are made on access.
    Edits make a new catalog that shares what they leave alone.

    Attributes:
        names: Names of the tensors, in the order of the index.
        rows: For every name its row in ``columns``, -1 for a new tensor.
        columns: The stored entries.
        single: Tensors that are not, or not only, a row; they go before the row.
        bulk: The names whose row is only what a recipe starts from; None if there are none.
        attachments: Bytes of the index that are about no single tensor, by role.
        others: Further checkpoints that edits may read from, by the name that is bound to them.
    """

    __slots__ = ("__dict__", "attachments", "bulk", "columns", "names", "others", "rows", "single")

    def __init__(
        self,
        names: Sequence[str],
        rows: Sequence[int],
        columns: Columns,
        single: Mapping[str, Tensor] | None = None,
        attachments: Mapping[str, bytes] | None = None,
        bulk: Bulk | None = None,
    ) -> None:
        """Hold the parts; nothing is copied."""
        self.names = names
        self.rows = rows
        self.columns = columns
        self.single: Mapping[str, Tensor] = single or {}
        self.bulk = bulk
        self.attachments: Mapping[str, bytes] = attachments or {}
        self.others: Mapping[str, Catalog] = {}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Catalog:
        """Return a catalog of tensors that no checkpoint holds yet."""
        return cls(tuple(tensors), (-1,) * len(tensors), Columns(), tensors)

    @cached_property
    def _position(self) -> dict[str, int]:
        return dict(zip(self.names, range(len(self.names)), strict=True))

    def position(self, name: str) -> int:
        """Return at which place in ``names`` a name is.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        try:
            return self._position[name]
        except KeyError:
            raise TensorNotFoundError.among(name, self.names) from None

    @property
    def changed(self) -> Mapping[str, Tensor]:
        """The tensors that are not, or not only, a row; those of a recipe are made on access."""
        return self.single if self.bulk is None else _Changed(self, self.bulk)

    def changed_at(self) -> Int64s:
        """Return the positions of the tensors that are changed, which rise."""
        import numpy as np

        changed = np.zeros(len(self), bool)
        changed[list(map(self.position, self.single))] = True
        if self.bulk is not None:
            changed |= self.bulk.number >= 0
        return np.flatnonzero(changed)

    def plain(self) -> NDArray[np.bool_]:
        """Tell of every position whether the tensor is a whole row, or derived from one in bulk."""
        import numpy as np

        rows = as_int64s(self.rows)
        plain = rows >= 0
        if self.single:
            plain[list(map(self.position, self.single))] = False
        if self.columns.parts:
            plain &= ~np.isin(rows, list(self.columns.parts))
        return plain

    def recipes(self, at: Int64s) -> tuple[list[Recipe], Int64s]:
        """Return the recipes of plain tensors, and for each position in ``at`` which one it is.

        Those that nothing derives have the recipe without a step, of the dtype that they have.
        """
        import numpy as np

        columns, bulk = self.columns, self.bulk
        code = np.asarray(columns.dtype)[as_int64s(self.rows)[at]]
        codes = np.unique(code)
        stored = [Recipe(columns.dtype_name(number)) for number in codes.tolist()]
        which = np.searchsorted(codes, code).astype(np.int64)
        if bulk is None:
            return stored, which
        number = bulk.number[at]
        return [*bulk.recipes, *stored], np.where(number < 0, which + len(bulk.recipes), number)

    def owner(self, path: str, offset: int) -> str | None:
        """Return the tensor that has stored bytes from a byte of a file on, for messages."""
        columns = self.columns
        starts = {
            row
            for row, begin in enumerate(columns.offset)
            if begin == offset
            and columns.size[row]
            and columns.files.get(columns.shard[row]) == path
        }
        wholes = {row for row, parts in columns.parts.items() for _, at in parts if at in starts}
        pairs = zip(self.names, self.rows, strict=True)
        return next((name for name, row in pairs if row in starts | wholes), None)

    def row(self, name: str) -> int:
        """Return the row of a name in ``columns``, -1 for a new tensor.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        return self.rows[self.position(name)]

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        found = self.single.get(name)
        return found if found is not None else self.tensor_at(self.position(name))

    def tensor_at(self, position: int) -> Tensor:
        """Return the tensor at a place in ``names``."""
        found = self.single.get(self.names[position])
        if found is not None:
            return found
        stored = self.columns.tensor(self.rows[position])
        recipe = self.bulk.recipe(position) if self.bulk is not None else None
        return stored if recipe is None else recipe.tensor(stored)

    def spec(self, name: str) -> TensorSpec:
        """Return dtype and shape of a tensor, without making the tensor.

        Raises:
            TensorNotFoundError: There is no such tensor.
        """
        found = self.single.get(name)
        return found.spec if found is not None else self.spec_at(self.position(name))

    def spec_at(self, position: int) -> TensorSpec:
        """Return dtype and shape of the tensor at a place in ``names``."""
        found = self.single.get(self.names[position])
        if found is not None:
            return found.spec
        stored = self.columns.spec(self.rows[position])
        recipe = self.bulk.recipe(position) if self.bulk is not None else None
        return stored if recipe is None else _spec(recipe.gives, stored.shape)

    def dtypes(self) -> Mapping[str, str]:
        """Return the dtype of every tensor by name."""
        single = ((name, tensor.spec.dtype) for name, tensor in self.single.items())
        by_name = self._by_name(self.columns.specs()[0], single)
        if self.bulk is not None:
            values = by_name.listed()
            for at in self.bulk.at().tolist():
                values[at] = self.bulk.recipes[self.bulk.number[at]].gives
        return by_name

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        single = ((name, tensor.spec.shape) for name, tensor in self.single.items())
        return self._by_name(self.columns.specs()[1], single)

    def specs(self) -> Iterator[tuple[str, TensorSpec]]:
        """Iterate over names with dtypes and shapes."""
        values = zip(self.dtypes().values(), self.shapes().values(), strict=True)
        return ((name, TensorSpec(*spec)) for name, spec in zip(self.names, values, strict=True))

    def _by_name(self, of_row: list[_T], single: Iterable[tuple[str, _T]]) -> ByName[_T]:
        rows = self.rows
        values = of_row
        if rows != range(len(of_row)):
            # A new tensor has no row; its value is among the single ones.
            values = [of_row[row] if row >= 0 else cast("_T", None) for row in rows]
        for name, value in single:
            values[self.position(name)] = value
        return ByName(self, values)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a tensor."""
        return name in self._position

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.names)

    def bound(self, others: Mapping[str, Catalog]) -> Catalog:
        """Return the same catalog, in which further names are bound to checkpoints."""
        result = self.replace()
        result.others = {**self.others, **others}
        return result

    def kept(self, mask: Sequence[bool]) -> Catalog:
        """Return a catalog of the tensors for which ``mask`` is true, in the order of the names."""
        names = list(compress(self.names, mask))
        lost = {name for name, keep in zip(self.names, mask, strict=True) if not keep}
        single = {name: tensor for name, tensor in self.single.items() if name not in lost}
        rows = list(compress(self.rows, mask))
        return self.replace(
            names=names, rows=rows, single=single, bulk=self.bulk and self.bulk.kept(mask)
        )

    def with_more(self, added: Mapping[str, Tensor]) -> Catalog:
        """Return a catalog with further tensors, which no row stands for, at its end."""
        return self.replace(
            names=[*self.names, *added],
            rows=[*self.rows, *[-1] * len(added)],
            single={**self.single, **added},
            bulk=self.bulk and self.bulk.followed_by([None] * len(added)),
        )

    def replace(
        self,
        *,
        names: Sequence[str] | None = None,
        rows: Sequence[int] | None = None,
        single: Mapping[str, Tensor] | None = None,
        bulk: Bulk | None = None,
    ) -> Catalog:
        """Return a catalog with some parts replaced.

        Other rows go with a ``bulk`` that fits them, where there is one.
        """
        result = Catalog(
            self.names if names is None else names,
            self.rows if rows is None else rows,
            self.columns,
            self.single if single is None else single,
            self.attachments,
            self.bulk if bulk is None else bulk,
        )
        result.others = self.others
        if names is None and "_position" in self.__dict__:
            result.__dict__["_position"] = self._position
        return result

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Catalog:
        """Return a catalog in which some tensors, which were there, are others."""
        bulk = self.bulk
        if bulk is not None:
            bulk = bulk.without([*map(self.position, tensors)])
        return self.replace(single={**self.single, **tensors}, bulk=bulk)


class _Changed(Mapping[str, Tensor]):
    """The changed tensors of a catalog, those that are held one by one first."""

    __slots__ = ("_bulk", "_catalog")

    def __init__(self, catalog: Catalog, bulk: Bulk) -> None:
        self._catalog = catalog
        self._bulk = bulk

    def __getitem__(self, name: str) -> Tensor:
        if name not in self:
            raise KeyError(name)
        return self._catalog[name]

    def __contains__(self, name: object) -> bool:
        catalog = self._catalog
        if name in catalog.single:
            return True
        return name in catalog and self._bulk.recipe(catalog.position(str(name))) is not None

    def __iter__(self) -> Iterator[str]:
        yield from self._catalog.single
        names = self._catalog.names
        for position in self._bulk.at().tolist():
            yield names[position]

    def __len__(self) -> int:
        return len(self._catalog.single) + self._bulk.count
