"""Checksums while a plan runs: what inputs must come to, and what outputs came to.

Steps finish in any order, and most of them cover only a part of a tensor, or many tensors at once.
CRCs of parts are joined at the end, in order, without reading anything again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ckptkit import _native
from ckptkit.engine.read import check as check_sum

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ckptkit.engine.steps import Done
    from ckptkit.engine.work import Boxed, Flat
    from ckptkit.model import Piece
    from ckptkit.placement import Placement

Part = tuple[int, int, int]
"""Where a summed range begins in its piece, its checksum, and its length in bytes."""


def _joined(parts: list[Part]) -> int:
    """Return the checksum of ranges that tile a piece."""
    total = 0
    for _, crc, length in sorted(parts):
        total = _native.crc32c_combine(total, crc, length)
    return total


@dataclass
class Ledger:
    """The checksums that are known, and the parts of those that are not yet."""

    placement: Placement
    checksums: NDArray[np.uint32] = field(init=False)
    _expected: list[tuple[str, Piece, list[Part]]] = field(default_factory=list)
    _collected: list[tuple[Boxed, list[Part]]] = field(default_factory=list)
    _items: dict[int, list[Part]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checksums = self.placement.checksum.copy()
        self.checksums[(self.placement.source_file < 0) & (self.placement.size == 0)] = 0

    def expect(self, name: str, piece: Piece) -> list[Part]:
        """Return where to put the sums of a piece that has to match its checksum."""
        parts: list[Part] = []
        self._expected.append((name, piece, parts))
        return parts

    def collect(self, boxed: Boxed) -> list[Part]:
        """Return where to put the sums of the blocks of an item."""
        parts: list[Part] = []
        self._collected.append((boxed, parts))
        return parts

    def item(self, item: int) -> list[Part]:
        """Return where to put the sums of the runs of an item."""
        return self._items.setdefault(item, [])

    def finish(self) -> None:
        """Compare what is expected, and join what was collected.

        Raises:
            CorruptError: An input does not match its checksum.
        """
        for name, piece, parts in self._expected:
            check_sum(name, piece, _joined(parts))
        for item, parts in self._items.items():
            self.checksums[item] = _joined(parts)
        for boxed, parts in self._collected:
            if not boxed.patched:
                self.checksums[boxed.item] = _joined(parts)
                continue
            stored = boxed.base.checksum if boxed.base is not None else None
            total = stored.value if stored is not None else 0
            for _, delta, _ in parts:
                total ^= delta
            self.checksums[boxed.item] = total


class FlatSums:
    """Takes the sums of a flat's steps: most tensors lie in one step, a few in more."""

    def __init__(self, flat: Flat, ledger: Ledger) -> None:
        """Take sums of a flat into a ledger."""
        self._flat = flat
        self._ledger = ledger
        self._starts = np.concatenate([[0], flat.ends[:-1]])
        self._inputs: dict[tuple[int, int], list[Part]] = {}

    def taker(self, low: int, start: int, cuts: tuple[int, ...]) -> Callable[[Done], None]:
        """Return what takes the result of a step that begins in a tensor at an element."""

        def take(done: Done) -> None:
            begin = start
            for at, cut in enumerate(cuts):
                count = start + cut - begin
                self._one(low + at, begin, count, done, at)
                begin = start + cut

        return take

    def _one(self, at: int, begin: int, count: int, done: Done, number: int) -> None:
        flat, first = self._flat, int(self._starts[at])
        whole = begin == first and begin + count == flat.ends[at]
        if whole:
            self._ledger.checksums[flat.first + at] = done.sums[number]
        else:
            item = flat.spec.itemsize
            part = ((begin - first) * item, done.sums[number], count * item)
            self._ledger.item(flat.first + at).append(part)
        for which, (run, sums) in enumerate(zip(flat.inputs, done.input_sums, strict=True)):
            leaf = run[at]
            if whole:
                check_sum(flat.names[at], leaf.piece, sums[number])
                continue
            parts = self._inputs.get((which, at))
            if parts is None:
                parts = self._ledger.expect(flat.names[at], leaf.piece)
                self._inputs[which, at] = parts
            item = leaf.piece.extent.length // (int(flat.ends[at]) - first)
            parts.append(((begin - first) * item, sums[number], count * item))
