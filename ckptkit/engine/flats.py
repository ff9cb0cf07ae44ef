"""Flats: neighbouring items that one chain computes from neighbouring inputs, as columns.

A checkpoint of very many small tensors is few flats, and none of its tensors is an object here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ckptkit.model import Checksum, Extent, Piece, TensorSpec
from ckptkit.region import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.engine.program import Chain, Chains, Leaf
    from ckptkit.placement import Int64s, Placement


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What one input of a chain reads for the items of a flat: pieces side by side in one file.

    Attributes:
        path, offset: Where the first one begins.
        dtype, byteorder: Of the elements.
        sums: uint32, CRC-32C of every piece; None where the format has no checksums.
    """

    path: str
    offset: int
    dtype: str
    byteorder: str
    sums: NDArray[np.uint32] | None

    @property
    def spec(self) -> TensorSpec:
        """The spec of an element."""
        return TensorSpec(self.dtype, ())


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """Neighbouring items that one chain computes from neighbouring inputs.

    Attributes:
        first: The first item; the others follow it.
        ends: int64, the element at which each item ends, counted from the first one's start.
        names: The names of the catalog.
        tensors: int64, the position of every item's tensor in ``names``.
        inputs: For every input of the chain what it reads.
    """

    first: int
    shard: int
    offset: int
    chain: Chain
    spec: TensorSpec
    ends: Int64s
    names: Sequence[str]
    tensors: Int64s
    inputs: tuple[Inputs, ...]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.ends)

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(self.ends[-1])

    @property
    def starts(self) -> Int64s:
        """The element at which each item starts."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])

    def name(self, at: int) -> str:
        """Return the name of an item's tensor."""
        return self.names[int(self.tensors[at])]

    def piece(self, inputs: Inputs, at: int) -> Piece:
        """Return what an input reads for an item, as a run of elements."""
        start = int(self.ends[at - 1]) if at else 0
        count, width = int(self.ends[at]) - start, inputs.spec.itemsize
        extent = Extent(inputs.path, inputs.offset + start * width, count * width)
        checksum = None if inputs.sums is None else Checksum("crc32c", int(inputs.sums[at]))
        return Piece(Box.whole((count,)), extent, checksum)


class _Columns(NamedTuple):
    """Items that chains compute, and what each input of theirs reads: one line for each input.

    Attributes:
        item, chain, elements: int64, the number of an item, of its chain, and how many it has.
        file, offset, length: int64, where its bytes are; -1, 0, 0 for an input that it has not.
        checksum, summed: uint32 and bool, the CRC-32C of these bytes, where there is one.
    """

    item: Int64s
    chain: Int64s
    elements: Int64s
    file: Int64s
    offset: Int64s
    length: Int64s
    checksum: NDArray[np.uint32]
    summed: NDArray[np.bool_]

    @classmethod
    def of(cls, item: Int64s, chain: Int64s, count: Int64s, width: int) -> _Columns:
        """Return items of which it is not said yet what ``width`` inputs read."""
        shape = width, len(item)
        offset, length = np.zeros((2, *shape), np.int64)
        checksum, summed = np.zeros(shape, np.uint32), np.zeros(shape, bool)
        return cls(
            item, chain, count, np.full(shape, -1, np.int64), offset, length, checksum, summed
        )

    def joined(self, other: _Columns) -> _Columns:
        """Return the items of both, in their order."""
        order = np.argsort(np.concatenate([self.item, other.item]), kind="stable")
        pairs: Iterator[tuple[Any, Any]] = zip(self, other, strict=True)
        return _Columns(*(np.concatenate(pair, axis=-1)[..., order] for pair in pairs))


class Flats:
    """Joins items into flats."""

    def __init__(self, catalog: Catalog, placement: Placement, chains: Chains) -> None:
        """Start with no item."""
        self._catalog = catalog
        self._placement = placement
        self._chains = chains
        self._number: dict[int, int] = {}
        self._known: list[Chain] = []
        self._files: dict[tuple[str, str], int] = {}
        self._single: list[tuple[int, int, int, tuple[Leaf, ...]]] = []
        self._derived = np.empty(0, np.int64)

    def add(self, item: int, count: int, chain: Chain, leaves: tuple[Leaf, ...]) -> None:
        """Take an item of ``count`` elements."""
        self._single.append((item, count, self._chain(chain), leaves))

    def add_derived(self, items: Int64s) -> None:
        """Take items whose tensors are derived by recipes."""
        self._derived = items

    def _chain(self, chain: Chain) -> int:
        number = self._number.setdefault(id(chain), len(self._known))
        if number == len(self._known):
            self._known.append(chain)
        return number

    def _file(self, path: str, byteorder: str) -> int:
        return self._files.setdefault((path, byteorder), len(self._files))

    def join(self) -> tuple[Flat, ...]:
        """Return the flats, each as long as its items fit."""
        derived = self._of_recipes()
        widest = max((len(chain.dtypes) for chain in self._known), default=0)
        columns = self._one_by_one(widest)
        if len(self._derived):
            rows = self._from_rows(derived, widest)
            columns = columns.joined(rows) if self._single else rows
        if not len(columns.item):
            return ()
        starts = [0, *(np.flatnonzero(~self._fits(columns)) + 1).tolist()]
        ends = [*starts[1:], len(columns.item)]
        runs = zip(starts, ends, strict=True)
        return tuple(self._flat(columns, slice(low, high)) for low, high in runs)

    def _of_recipes(self) -> Int64s:
        """Return for every recipe the number of its chain."""
        bulk, chains = self._catalog.bulk, self._chains
        recipes = bulk.recipes if bulk is not None else ()
        used = np.zeros(len(recipes), bool)
        if bulk is not None:
            used[bulk.number[self._placement.tensor[self._derived]]] = True
        found = [
            self._chain(chains.of_recipe(recipe)) if use else -1
            for recipe, use in zip(recipes, used.tolist(), strict=True)
        ]
        return np.array(found, np.int64)

    def _one_by_one(self, widest: int) -> _Columns:
        numbers = [(item, chain, count) for item, count, chain, _ in self._single]
        item, chain, count = np.array(numbers, np.int64).reshape(-1, 3).T
        columns = _Columns.of(item, chain, count, widest)
        for at, (_, _, _, leaves) in enumerate(self._single):
            for which, leaf in enumerate(leaves):
                extent, checksum = leaf.piece.extent, leaf.piece.checksum
                columns.file[which, at] = self._file(extent.path, leaf.byteorder)
                columns.offset[which, at] = extent.offset
                columns.length[which, at] = extent.length
                if checksum is not None:
                    columns.checksum[which, at] = checksum.value
                    columns.summed[which, at] = True
        return columns

    def _from_rows(self, chain_of: Int64s, widest: int) -> _Columns:
        items, stored = self._derived, self._catalog.columns
        rows = self._placement.row[items]
        bulk = self._catalog.bulk
        if bulk is None:
            msg = "no catalog without recipes has items that they derive"
            raise AssertionError(msg)
        chain = chain_of[bulk.number[self._placement.tensor[items]]]
        gives = np.array([TensorSpec(known.dtype, ()).itemsize for known in self._known])
        columns = _Columns.of(items, chain, self._placement.size[items] // gives[chain], widest)
        reading = np.array([bool(known.dtypes) for known in self._known])[chain]
        files = np.zeros(max(stored.files, default=0) + 1, np.int64)
        for shard, path in stored.files.items():
            files[shard] = self._file(path, stored.byteorder)
        if reading.any():
            which = slice(None) if reading.all() else reading
            read = rows[which]
            columns.file[0, which] = files[np.asarray(stored.shard)[read]]
            columns.offset[0, which] = np.asarray(stored.offset)[read]
            columns.length[0, which] = np.asarray(stored.size)[read]
            columns.checksum[0, which] = np.asarray(stored.checksum)[read]
            without = (np.asarray(stored.flags)[read] & stored.UNSUMMED) != 0
            columns.summed[0, which] = stored.summed & ~without
        return columns

    def _fits(self, columns: _Columns) -> NDArray[np.bool_]:
        """Tell of every item but the first whether it goes on where the last one ends."""
        item, placement = columns.item, self._placement
        shard, offset, size = (c[item] for c in (placement.shard, placement.offset, placement.size))
        fits: NDArray[np.bool_] = (
            (columns.chain[1:] == columns.chain[:-1])
            & (item[1:] == item[:-1] + 1)
            & (shard[1:] == shard[:-1])
            & (offset[1:] == offset[:-1] + size[:-1])
        )
        reads = (
            (columns.file[:, 1:] == columns.file[:, :-1])
            & (columns.offset[:, 1:] == columns.offset[:, :-1] + columns.length[:, :-1])
            & (columns.summed[:, 1:] == columns.summed[:, :-1])
        )
        fits &= reads.all(axis=0)
        return fits

    def _flat(self, columns: _Columns, run: slice) -> Flat:
        first, placement = int(columns.item[run.start]), self._placement
        chain = self._known[int(columns.chain[run.start])]
        return Flat(
            first,
            int(placement.shard[first]),
            int(placement.offset[first]),
            chain,
            TensorSpec(chain.dtype, ()),
            np.cumsum(columns.elements[run]),
            self._catalog.names,
            placement.tensor[columns.item[run]],
            tuple(self._inputs(columns, run, chain)),
        )

    def _inputs(self, columns: _Columns, run: slice, chain: Chain) -> Iterator[Inputs]:
        files = list(self._files)
        for which, dtype in enumerate(chain.dtypes):
            sums = columns.checksum[which, run] if columns.summed[which, run.start] else None
            path, byteorder = files[int(columns.file[which, run.start])]
            yield Inputs(path, int(columns.offset[which, run.start]), dtype, byteorder, sums)
