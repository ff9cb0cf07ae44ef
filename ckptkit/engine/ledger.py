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

    from ckptkit.engine.flats import Flat
    from ckptkit.engine.steps import Done
    from ckptkit.engine.work import Boxed
    from ckptkit.model import Piece
    from ckptkit.placement import Int64s, Placement

Part = tuple[int, int, int]
"""Where a summed range begins in its piece, its checksum, and its length in bytes."""


def _joined(parts: list[Part]) -> int:
    """Return the checksum of ranges that tile a piece."""
    total = 0
    for _, crc, length in sorted(parts):
        total = _native.crc32c_combine(total, crc, length)
    return total


def zeros(length: int) -> int:
    """Return the checksum of that many bytes of zeros, on which tiles work like changes."""
    total, power, size = 0, _native.crc32c(b"\0"), 1
    while size <= length:
        if length & size:
            total = _native.crc32c_combine(total, power, size)
        power, size = _native.crc32c_combine(power, power, size), 2 * size
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
            if not boxed.patched and not boxed.tiled:
                self.checksums[boxed.item] = _joined(parts)
                continue
            stored = boxed.base.checksum if boxed.base is not None else None
            total = stored.value if stored is not None else 0
            if boxed.tiled:
                total = zeros(boxed.box.count * boxed.tensor.spec.itemsize)
            for _, delta, _ in parts:
                total ^= delta
            self.checksums[boxed.item] = total


class FlatSums:
    """Takes the sums of a flat's steps: most tensors lie in one step, a few in more."""

    def __init__(self, flat: Flat, ledger: Ledger) -> None:
        """Take sums of a flat into a ledger."""
        self._flat = flat
        self._ledger = ledger
        self._starts = flat.starts
        self._inputs: dict[tuple[int, int], list[Part]] = {}

    def taker(self, low: int, start: int, cuts: Int64s) -> Callable[[Done], None]:
        """Return what takes the result of a step that begins in a tensor at an element."""

        def take(done: Done) -> None:
            flat, high = self._flat, low + len(cuts)
            # Only the first and the last tensor of a step can be in others as well.
            first = low + int(self._starts[low] < start)
            stop = start + int(cuts[-1])
            last = high - int(flat.ends[high - 1] > stop)
            if first < last:
                self._whole(first, last, done, first - low)
            for at in sorted({low, high - 1} - {*range(first, last)}):
                begin, end = max(start, int(self._starts[at])), min(stop, int(flat.ends[at]))
                self._part(at, begin, end - begin, done, at - low)

        return take

    def _whole(self, first: int, last: int, done: Done, number: int) -> None:
        """Take the sums of tensors that lie in a step as a whole."""
        flat, these = self._flat, slice(number, number + last - first)
        self._ledger.checksums[flat.first + first : flat.first + last] = done.sums[these]
        for inputs, found in zip(flat.inputs, done.input_sums, strict=True):
            if inputs.sums is None:
                continue
            differs = np.asarray(found[these], np.uint32) != inputs.sums[first:last]
            for at in np.flatnonzero(differs)[:1].tolist():
                piece = flat.piece(inputs, first + at)
                check_sum(flat.name(first + at), piece, int(found[number + at]))

    def _part(self, at: int, begin: int, count: int, done: Done, number: int) -> None:
        """Take the sums of a part of a tensor."""
        flat, first = self._flat, int(self._starts[at])
        item = flat.spec.itemsize
        part = ((begin - first) * item, int(done.sums[number]), count * item)
        self._ledger.item(flat.first + at).append(part)
        for which, (inputs, sums) in enumerate(zip(flat.inputs, done.input_sums, strict=True)):
            parts = self._inputs.get((which, at))
            if parts is None:
                parts = self._ledger.expect(flat.name(at), flat.piece(inputs, at))
                self._inputs[which, at] = parts
            width = inputs.spec.itemsize
            parts.append(((begin - first) * width, int(sums[number]), count * width))
