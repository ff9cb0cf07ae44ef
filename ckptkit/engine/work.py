"""From a catalog and a placement to the byte movements that make the files agree. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit.engine.blocks import flat_offset, is_contiguous
from ckptkit.engine.flats import Flats
from ckptkit.engine.measure import Group, groups_of
from ckptkit.engine.program import (
    Chains,
    base_of,
    blocks_of,
    derivations,
    read_bytes,
    reads,
    touches,
)
from ckptkit.engine.strided import Strided, regions_of
from ckptkit.model import Extent, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ckptkit.catalog import Catalog
    from ckptkit.engine.flats import Flat
    from ckptkit.model import Piece, Tensor
    from ckptkit.placement import Int64s, Placement
    from ckptkit.region import Box

SMALL: Final = 16 << 20
"""Bytes that any step may take, whatever it has to see."""

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
class Boxed:
    """One item that is computed box by box.

    Attributes:
        box: The part of the tensor that the item is.
        blocks: The blocks that are computed; all of them, or those that an edit touches.
        base: The stored piece whose blocks lie just where ours do, if there is one.
        patched: Untouched blocks are carried over, and the checksum follows the touched ones.
        tiled: Blocks are no runs of the item.
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
    tiled: bool = False

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
    """All byte movements of a plan, in the order of their destinations.

    Attributes:
        statistics: What has to be measured before; those of one step need those before it.
    """

    moves: Moves
    flats: tuple[Flat, ...]
    boxes: tuple[Boxed, ...]
    checks: tuple[Check, ...]
    regions: tuple[Strided, ...] = ()
    statistics: tuple[tuple[Group, ...], ...] = ()

    @property
    def bytes_measured(self) -> int:
        """Tensor bytes that are read to measure statistics, in all passes."""
        return sum(group.bytes_read for step in self.statistics for group in step)

    @property
    def passes(self) -> int:
        """How often values are gone through at most: once, and once for each statistic."""
        measured = sum(max(group.passes for group in step) for step in self.statistics)
        return measured + bool(self.flats or self.boxes or self.regions)

    @property
    def peak(self) -> int:
        """Bytes that one step takes at most, where a function has to see whole rows or tensors."""
        return max(map(_held, self.boxes), default=0)

    def settled(self, settle: Callable[[Tensor], Tensor]) -> Work:
        """Return the same work on other tensors, with nothing to measure."""
        boxes = tuple(replace(boxed, tensor=settle(boxed.tensor)) for boxed in self.boxes)
        regions = tuple(
            replace(
                region,
                layers=tuple(
                    layer._replace(others=tuple(map(settle, layer.others)))
                    for layer in region.layers
                ),
            )
            for region in self.regions
        )
        return replace(self, boxes=boxes, regions=regions, statistics=())

    @property
    def bytes_read(self) -> int:
        """Tensor bytes read into memory."""
        return (
            self.bytes_measured
            + sum(region.bytes_read for region in self.regions)
            + sum(
                flat.count * inputs.spec.itemsize for flat in self.flats for inputs in flat.inputs
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


def _held(boxed: Boxed) -> int:
    """Return the bytes of a block and of what it is made of; 0 where blocks may be small."""
    kinds = (one.source for one in derivations(boxed.tensor))
    if all(
        isinstance(source, Stored) or source.kernel.granularity == "element" for source in kinds
    ):
        return 0
    read = sum(at.count * leaf.spec.itemsize for leaf, at in reads(boxed.tensor, boxed.blocks[0]))
    held = read + 2 * boxed.blocks[0].count * boxed.tensor.spec.itemsize
    return held if held > SMALL else 0


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
    computed.sort(np.flatnonzero(waiting))
    flats, boxes, regions = computed.flats, computed.boxes, computed.regions
    kept = (placement.source_file >= 0) & (placement.size > 0) & ~placement.stays
    moves = Moves(
        placement.source_file[kept],
        placement.source_offset[kept],
        placement.shard[kept],
        placement.offset[kept],
        placement.size[kept],
    )
    others: list[tuple[int, ...]] = [*placement.carried]
    others += [move for boxed in boxes if boxed.patched for move in _untouched(boxed, placement)]
    if others:
        extra = np.array(others, np.int64).T
        moves = Moves(*map(np.concatenate, zip(_columns(moves), extra, strict=True)))
    derived = [boxed.tensor for boxed in boxes]
    derived += [one for region in regions for layer in region.layers for one in layer.others]
    statistics = tuple(map(tuple, groups_of(derived)))
    checks = tuple(_checks(boxes, regions, statistics, placement))
    return Work(_coalesce(moves), flats, tuple(boxes), checks, tuple(regions), statistics)


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


def _checks(
    boxes: Sequence[Boxed],
    regions: Sequence[Strided],
    statistics: Sequence[Sequence[Group]],
    placement: Placement,
) -> Iterator[Check]:
    """Yield the pieces that are read, and that are not checked on the way."""
    later = {
        boxed.base.extent
        for boxed in boxes
        if boxed.base is not None
        and not boxed.patched
        and not _is_at(boxed.base.extent, boxed.item, placement)
    }
    seen: set[Extent] = set(later)
    read = [
        (boxed.name, boxed.base, leaf, at)
        for boxed in boxes
        for block in boxed.blocks
        for leaf, at in reads(boxed.tensor, block)
    ]
    read += [(region.name, None, leaf, at) for region in regions for leaf, at in region.reads()]
    read += [
        (name, None, leaf, at)
        for step in statistics
        for group in step
        for name, leaf, at in group.reads()
    ]
    for name, base, leaf, at in read:
        for piece in leaf.source.pieces if isinstance(leaf.source, Stored) else ():
            known = piece is base or piece.extent in seen or piece.checksum is None
            if not known and piece.box.intersect(at) is not None:
                seen.add(piece.extent)
                yield Check(name, piece)


class _Computed:
    """Sorts the computed items of a placement into flats, boxes and regions."""

    def __init__(self, catalog: Catalog, placement: Placement) -> None:
        self._catalog = catalog
        self._placement = placement
        self._sources = frozenset(placement.source_files)
        self._chains = Chains()
        self.flats: tuple[Flat, ...] = ()
        self.boxes: list[Boxed] = []
        self.regions: list[Strided] = []

    def sort(self, items: Int64s) -> None:
        """Sort items, in the order of their bytes."""
        flats = Flats(self._catalog, self._placement, self._chains)
        if self._catalog.bulk is not None:
            derived = self._catalog.bulk.number[self._placement.tensor[items]] >= 0
            flats.add_derived(items[derived])
            items = items[~derived]
        tensors = self._placement.tensor[items].tolist()
        parts = self._placement.part[items].tolist()
        for item, at, part in zip(items.tolist(), tensors, parts, strict=True):
            name = self._catalog.names[at]
            tensor = self._catalog.single[name]
            regions = self._regions(item, name, tensor, part)
            if regions is not None:
                self.regions += regions
                continue
            found = self._chains.of(tensor, part)
            if found is None:
                self.boxes.append(self._boxed(item, name, tensor, part))
                continue
            flats.add(item, tensor.boxes[part].count, *found)
        self.flats = flats.join()

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
        blocks = tuple(blocks_of(tensor, box))
        tiled = not all(is_contiguous(block, box) for block in blocks)
        base = base_of(tensor) if not tiled else None
        piece = base.source.pieces[part] if base and isinstance(base.source, Stored) else None
        # Bytes of another checkpoint, as edits read them, are not those that are carried over.
        ours = piece is not None and piece.extent.path in self._sources
        # Where only a part changes, the checksum follows from the old one of the whole.
        unsummed = piece is not None and piece.checksum is None and self._placement.spans is None
        touched = touches(tensor) if ours and not unsummed else None
        changed = tuple(filter(touched, blocks)) if touched else blocks
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
            tiled=tiled,
        )
