"""The catalog: names to tensors, for a million of them as well as for ten.

Columnar inside: the columns of a scanned checkpoint are buffers that NumPy can wrap without a copy.
NumPy itself is not imported here, so that listing a checkpoint stays cheap.
"""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, Sequence, ValuesView
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, TypeVar, cast

from ckptkit.bulk import Bulk, Recipe, as_int64s
from ckptkit.columns import Columns, spec_of
from ckptkit.errors import TensorNotFoundError
from ckptkit.model import (
    Tensor,
    TensorSpec,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ckptkit.bulk import Int64s
    from ckptkit.structure import Structure

_T = TypeVar("_T")


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
        held: What has to live as long as the catalog does, such as a file that was unpacked.
        structure: What the checkpoint says of objects that hold the tensors, if it does.
    """

    __slots__ = (
        "__dict__",
        "attachments",
        "bulk",
        "columns",
        "held",
        "names",
        "others",
        "rows",
        "single",
        "structure",
    )

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
        self.held: object = None
        self.structure: Structure | None = None

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
    def labels(self) -> Sequence[str]:
        """What people call each tensor besides its name; empty text where nobody knows."""
        labels = self.columns.labels
        if not labels:
            return ("",) * len(self.names)
        return [labels[row] if row >= 0 else "" for row in self.rows]

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

    def stored_bytes_at(self, position: int) -> int:
        """Return how many bytes the tensor at a place in ``names`` takes or will take."""
        if self.bulk is not None or self.names[position] in self.single:
            return self.tensor_at(position).stored_bytes
        return self.columns.stored_bytes(self.rows[position])

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
        return stored if recipe is None else spec_of(recipe.gives, stored.shape)

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
        result.others, result.held = self.others, self.held
        result.structure = self.structure
        if names is None and "_position" in self.__dict__:
            result.__dict__["_position"] = self._position
        return result

    def with_attachments(self, attachments: Mapping[str, bytes]) -> Catalog:
        """Return a catalog in which some attachments are others."""
        result = self.replace()
        result.attachments = {**self.attachments, **attachments}
        return result

    def with_structure(self, structure: Structure | None) -> Catalog:
        """Return the catalog with what is said of objects."""
        result = self.replace()
        result.structure = structure
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
