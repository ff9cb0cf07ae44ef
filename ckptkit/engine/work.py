"""From a catalog and a placement to the byte movements that make the files agree. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit.engine.blocks import cut, flat_offset
from ckptkit.engine.program import (
    Chain,
    Chains,
    Leaf,
    base_of,
    read_bytes,
    reads,
    touches,
)
from ckptkit.engine.strided import Strided, regions_of
from ckptkit.model import Extent, Stored, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.model import Piece, Tensor
    from ckptkit.placement import Int64s, Placement
    from ckptkit.region import Box

BLOCK: Final = 4 << 20
"""Bytes of a block that is computed box by box."""

COPY: Final = 64 << 20
"""Bytes that one step carries over."""


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """Runs of bytes that are carried over as they are, as int64 columns."""

    source_file: Int64s
    source_offset: Int64s
    shard: Int64s
    offset: Int64s
    size: Int64s

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.size)


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """Neighbouring items that one chain computes from neighbouring inputs.

    Attributes:
        first: The first item; the others follow it.
        ends: int64, the element at which each item ends, counted from the first one's start.
        names: Name of every item's tensor.
        inputs: For every input of the chain its pieces, which lie side by side in one file.
    """

    first: int
    shard: int
    offset: int
    chain: Chain
    spec: TensorSpec
    ends: Int64s
    names: tuple[str, ...]
    inputs: tuple[tuple[Leaf, ...], ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(self.ends[-1])


@dataclass(frozen=True, slots=True, eq=False)
class Boxed:
    """One item that is computed box by box.

    Attributes:
        box: The part of the tensor that the item is.
        blocks: The blocks that are computed; all of them, or those that an edit touches.
        base: The stored piece whose blocks lie just where ours do, if there is one.
        patched: Untouched blocks are carried over, and the checksum follows the touched ones.
    """

    item: int
    shard: int
    offset: int
    name: str
    tensor: Tensor
    box: Box
    blocks: tuple[Box, ...]
    base: Piece | None
    patched: bool

    def position(self, block: Box) -> int:
        """Return the byte at which a block begins, counted from the start of the item."""
        return flat_offset(block, self.box) * self.tensor.spec.itemsize


@dataclass(frozen=True, slots=True)
class Check:
    """A stored piece that is read once to see that its checksum holds, before it is used."""

    name: str
    piece: Piece


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """All byte movements of a plan, in the order of their destinations."""

    moves: Moves
    flats: tuple[Flat, ...]
    boxes: tuple[Boxed, ...]
    checks: tuple[Check, ...]
    regions: tuple[Strided, ...] = ()

    @property
    def bytes_read(self) -> int:
        """Tensor bytes read into memory."""
        return (
            sum(region.bytes_read for region in self.regions)
            + sum(
                leaf.piece.extent.length
                for flat in self.flats
                for run in flat.inputs
                for leaf in run
            )
            + sum(check.piece.extent.length for check in self.checks)
            + sum(
                read_bytes(leaf, at)
                for boxed in self.boxes
                for block in boxed.blocks
                for leaf, at in reads(boxed.tensor, block)
            )
        )

    @property
    def bytes_computed(self) -> int:
        """Tensor bytes that kernels give."""
        return (
            sum(flat.count * flat.spec.itemsize for flat in self.flats)
            + sum(
                block.count * boxed.tensor.spec.itemsize
                for boxed in self.boxes
                for block in boxed.blocks
            )
            + sum(region.nbytes for region in self.regions)
        )


def compile_work(catalog: Catalog, placement: Placement) -> Work:
    """Return the byte movements that fill the data files of a placement.

    Args:
        catalog: The tensors as they shall be.
        placement: Where each of them goes.
    """
    waiting = placement.source_file < 0
    waiting[list(placement.payloads)] = False
    waiting &= placement.size > 0
    computed = _Computed(catalog, placement)
    computed.sort(np.flatnonzero(waiting).tolist())
    flats, boxes, regions = computed.flats, computed.boxes, computed.regions
    kept = (placement.source_file >= 0) & (placement.size > 0) & ~placement.stays
    moves = Moves(
        placement.source_file[kept],
        placement.source_offset[kept],
        placement.shard[kept],
        placement.offset[kept],
        placement.size[kept],
    )
    untouched = [move for boxed in boxes if boxed.patched for move in _untouched(boxed, placement)]
    if untouched:
        extra = np.array(untouched, np.int64).T
        moves = Moves(*map(np.concatenate, zip(_columns(moves), extra, strict=True)))
    checks = tuple(_checks(boxes, regions))
    return Work(_coalesce(moves), flats, tuple(boxes), checks, tuple(regions))


def _columns(moves: Moves) -> tuple[Int64s, ...]:
    return moves.source_file, moves.source_offset, moves.shard, moves.offset, moves.size


def _coalesce(moves: Moves) -> Moves:
    """Join moves that are neighbours at both ends."""
    if len(moves) < 2:
        return moves
    order = np.lexsort((moves.offset, moves.shard))
    source_file, source_offset, shard, offset, size = (column[order] for column in _columns(moves))
    breaks = (
        (source_file[1:] != source_file[:-1])
        | (shard[1:] != shard[:-1])
        | (source_offset[1:] != source_offset[:-1] + size[:-1])
        | (offset[1:] != offset[:-1] + size[:-1])
    )
    first = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    return Moves(
        source_file[first],
        source_offset[first],
        shard[first],
        offset[first],
        np.add.reduceat(size, first),
    )


def _untouched(boxed: Boxed, placement: Placement) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield the parts of a patched item that no block covers, as moves."""
    extent = _extent(boxed)
    if _is_at(extent, boxed.item, placement):
        return
    file = placement.source_files.index(extent.path)
    item = boxed.tensor.spec.itemsize
    starts = [boxed.position(block) for block in boxed.blocks]
    ends = [start + block.count * item for start, block in zip(starts, boxed.blocks, strict=True)]
    for low, high in zip([0, *ends], [*starts, extent.length], strict=True):
        if low < high:
            yield file, extent.offset + low, boxed.shard, boxed.offset + low, high - low


def _is_at(extent: Extent, item: int, placement: Placement) -> bool:
    """Tell whether bytes are already where an item is to be."""
    shard = placement.shard[item]
    same = extent.offset == placement.offset[item] and placement.bases[shard] is not None
    return bool(same and os.path.abspath(extent.path) == placement.files[shard])


def _extent(boxed: Boxed) -> Extent:
    if boxed.base is None:
        msg = "only an item with a base is patched"
        raise AssertionError(msg)
    return boxed.base.extent


def _checks(boxes: Sequence[Boxed], regions: Sequence[Strided]) -> Iterator[Check]:
    """Yield the pieces that boxes and regions read and that are not checked on the way."""
    seen: set[Extent] = set()
    read = [
        (boxed.name, boxed.base, leaf, at)
        for boxed in boxes
        for block in boxed.blocks
        for leaf, at in reads(boxed.tensor, block)
    ]
    read += [(region.name, None, leaf, at) for region in regions for leaf, at in region.reads()]
    for name, base, leaf, at in read:
        for piece in leaf.source.pieces if isinstance(leaf.source, Stored) else ():
            known = piece is base or piece.extent in seen
            if not known and piece.box.intersect(at) is not None:
                seen.add(piece.extent)
                yield Check(name, piece)


class _Computed:
    """Sorts the computed items of a placement into flats, boxes and regions."""

    def __init__(self, catalog: Catalog, placement: Placement) -> None:
        self._catalog = catalog
        self._placement = placement
        self._chains = Chains()
        self.flats: tuple[Flat, ...] = ()
        self.boxes: list[Boxed] = []
        self.regions: list[Strided] = []

    def sort(self, items: Sequence[int]) -> None:
        """Sort items, in the order of their bytes."""
        runs: list[_Run] = []
        tensors = self._placement.tensor[items].tolist()
        parts = self._placement.part[items].tolist()
        for item, at, part in zip(items, tensors, parts, strict=True):
            name = self._catalog.names[at]
            tensor = self._catalog.changed[name]
            regions = self._regions(item, name, tensor, part)
            if regions is not None:
                self.regions += regions
                continue
            found = self._chains.of(tensor, part)
            if found is None:
                self.boxes.append(self._boxed(item, name, tensor, part))
                continue
            run = _Run(item, name, tensor.spec, tensor.boxes[part].count, *found)
            if not (runs and runs[-1].takes(run, self._placement)):
                runs.append(run)
        self.flats = tuple(run.flat(self._placement) for run in runs)

    def _regions(self, item: int, name: str, tensor: Tensor, part: int) -> list[Strided] | None:
        """Return the regions that change of an item whose bytes are where they are to be."""
        base = base_of(tensor)
        if base is None or not isinstance(base.source, Stored):
            return None
        piece = base.source.pieces[part]
        if not _is_at(piece.extent, item, self._placement):
            return None
        found = regions_of(tensor, piece)
        if found is None:
            return None
        return [
            Strided(
                item,
                name,
                tensor.spec,
                base.source.byteorder,
                piece.extent.path,
                piece.extent.offset,
                piece.box.shape,
                *region,
            )
            for region in found
        ]

    def _boxed(self, item: int, name: str, tensor: Tensor, part: int) -> Boxed:
        box = tensor.boxes[part]
        blocks = tuple(cut(box, tensor.spec.itemsize, BLOCK))
        base = base_of(tensor)
        touched = touches(tensor)
        changed = tuple(filter(touched, blocks)) if touched else blocks
        piece = base.source.pieces[part] if base and isinstance(base.source, Stored) else None
        return Boxed(
            item,
            int(self._placement.shard[item]),
            int(self._placement.offset[item]),
            name,
            tensor,
            box,
            changed,
            piece,
            patched=len(changed) < len(blocks),
        )


class _Run:
    """A flat in the making: it takes neighbours as long as they fit."""

    def __init__(
        self,
        item: int,
        name: str,
        spec: TensorSpec,
        count: int,
        chain: Chain,
        inputs: tuple[Leaf, ...],
    ) -> None:
        self.first = self.last = item
        self.names = [name]
        self.spec = TensorSpec(spec.dtype, ())
        self.ends = [count]
        self.chain = chain
        self.inputs = [[leaf] for leaf in inputs]

    def takes(self, other: _Run, placement: Placement) -> bool:
        """Take the next item in, if it goes on where this run ends, in and out."""
        joins = (
            other.chain is self.chain
            and other.first == self.last + 1
            and placement.shard[other.first] == placement.shard[self.last]
            and placement.offset[other.first]
            == placement.offset[self.last] + placement.size[self.last]
            and all(
                _adjacent(run[-1].piece.extent, leaf.piece.extent)
                for run, (leaf,) in zip(self.inputs, other.inputs, strict=True)
            )
        )
        if joins:
            self.last = other.last
            self.names += other.names
            self.ends.append(self.ends[-1] + other.ends[0])
            for run, more in zip(self.inputs, other.inputs, strict=True):
                run.extend(more)
        return joins

    def flat(self, placement: Placement) -> Flat:
        """Return the finished run."""
        return Flat(
            self.first,
            int(placement.shard[self.first]),
            int(placement.offset[self.first]),
            self.chain,
            self.spec,
            np.array(self.ends, np.int64),
            tuple(self.names),
            tuple(map(tuple, self.inputs)),
        )


def _adjacent(one: Extent, other: Extent) -> bool:
    return one.path == other.path and one.offset + one.length == other.offset
