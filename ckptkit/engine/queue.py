"""The steps of some work, made one by one, and what takes the result of each."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from ckptkit.engine.ledger import FlatSums, Ledger, Part
from ckptkit.engine.steps import BoxStep, CopyStep, Done, FlatInput, FlatStep, Step, SumStep
from ckptkit.engine.work import COPY, Boxed, Check
from ckptkit.model import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ckptkit.engine.flats import Flat, Inputs
    from ckptkit.engine.work import Work
    from ckptkit.placement import Placement

    Entry = tuple[Step, Callable[[Done], None]]


class Queue:
    """The steps of some work, in the order of what they are about, made one by one."""

    def __init__(
        self,
        work: Work,
        placement: Placement,
        targets: tuple[str, ...],
        byteorder: str,
        chunk: int,
        ledger: Ledger,
    ) -> None:
        """Cut work into steps of at most ``chunk`` bytes, and their results into a ledger."""
        self._work = work
        self._placement = placement
        self._targets = targets
        self._byteorder = byteorder
        self._chunk = chunk
        self._ledger = ledger

    @property
    def weight(self) -> int:
        """Bytes of all steps."""
        work = self._work
        return int(
            work.moves.size.sum()
            + work.bytes_computed
            + sum(check.piece.extent.length for check in work.checks)
        )

    def computed(self) -> Iterator[Entry]:
        """Yield the steps that compute, and what takes the result of each."""
        for _, _, entries in self._computed():
            yield from entries

    def __iter__(self) -> Iterator[Entry]:
        """Yield every step, and what takes its result."""
        for check in self._work.checks:
            yield from self._check(check)
        later = deque(self._computed())
        for shard, offset, step in self._copies():
            while later and later[0][:2] < (shard, offset):
                yield from later.popleft()[2]
            yield step, _nothing
        while later:
            yield from later.popleft()[2]

    def _computed(self) -> list[tuple[int, int, Iterator[Entry]]]:
        work = self._work
        found = [(flat.shard, flat.offset, self._flat(flat)) for flat in work.flats]
        found += [(boxed.shard, boxed.offset, self._boxed(boxed)) for boxed in work.boxes]
        return sorted(found, key=lambda entry: entry[:2])

    def _copies(self) -> Iterator[tuple[int, int, CopyStep]]:
        moves = self._work.moves
        for at in range(len(moves)):
            source = self._placement.source_files[moves.source_file[at]]
            shard, offset, size = int(moves.shard[at]), int(moves.offset[at]), int(moves.size[at])
            begin = int(moves.source_offset[at])
            for done in range(0, size, COPY):
                length = min(COPY, size - done)
                step = CopyStep(source, begin + done, self._targets[shard], offset + done, length)
                yield shard, offset + done, step

    def _check(self, check: Check) -> Iterator[Entry]:
        extent = check.piece.extent
        parts = self._ledger.expect(check.name, check.piece)
        for start in range(0, extent.length, self._chunk):
            length = min(self._chunk, extent.length - start)
            step = SumStep(extent.path, extent.offset + start, length)
            yield step, _adder(parts, start, length)

    def _flat(self, flat: Flat) -> Iterator[Entry]:
        widest = max([flat.spec.itemsize, *(TensorSpec(d, ()).itemsize for d in flat.chain.dtypes)])
        per_step = max(self._chunk // widest, 1)
        sums = FlatSums(flat, self._ledger)
        for start in range(0, flat.count, per_step):
            stop = min(start + per_step, flat.count)
            low = int(np.searchsorted(flat.ends, start, "right"))
            high = int(np.searchsorted(flat.ends, stop, "left"))
            cuts = np.minimum(flat.ends[low : high + 1], stop) - start
            inputs = tuple(_input(run, start) for run in flat.inputs)
            step = FlatStep(
                flat.chain,
                inputs,
                cuts,
                flat.spec,
                self._byteorder,
                self._targets[flat.shard],
                flat.offset + start * flat.spec.itemsize,
            )
            yield step, sums.taker(low, start, cuts)

    def _boxed(self, boxed: Boxed) -> Iterator[Entry]:
        spec = boxed.tensor.spec
        length = boxed.box.count * spec.itemsize
        inputs = None
        if boxed.base is not None and not boxed.patched:
            inputs = self._ledger.expect(boxed.name, boxed.base)
        width = boxed.base.extent.length // boxed.box.count if boxed.base is not None else 0
        outputs = self._ledger.collect(boxed)
        for block in boxed.blocks:
            position = boxed.position(block)
            size = block.count * spec.itemsize
            before = position // spec.itemsize * width
            step = BoxStep(
                boxed.tensor,
                block,
                boxed.base,
                before,
                length - position - size if boxed.patched else None,
                self._byteorder,
                self._targets[boxed.shard],
                boxed.offset if boxed.tiled else boxed.offset + position,
                boxed.box if boxed.tiled else None,
            )
            yield step, _box_taker(outputs, inputs, position, size, before, block.count * width)


def _input(inputs: Inputs, start: int) -> FlatInput:
    spec = inputs.spec
    return FlatInput(inputs.path, inputs.offset + start * spec.itemsize, spec, inputs.byteorder)


def _nothing(done: Done) -> None:
    """Take a result that has no sums."""


def _adder(parts: list[Part], start: int, length: int) -> Callable[[Done], None]:
    def take(done: Done) -> None:
        parts.append((start, done.input_sums[0][0], length))

    return take


def _box_taker(
    outputs: list[Part],
    inputs: list[Part] | None,
    position: int,
    size: int,
    before: int,
    length: int,
) -> Callable[[Done], None]:
    def take(done: Done) -> None:
        outputs.append((position, done.sums[0], size))
        if inputs is not None and done.input_sums:
            inputs.append((before, done.input_sums[0][0], length))

    return take
