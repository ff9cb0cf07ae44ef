"""Passes before the edit itself: statistics of whole tensors, which edits then use as numbers.

A statistic of a statistic takes its turn after it. Those that look at the same tensors share a
pass over them. Every pass goes through blocks that depend on the shape alone, and takes in what
they give in their order, so that neither memory nor workers nor devices show in the result.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ckptkit.engine.program import blocks_of, evaluate, is_measured, read_bytes, reads
from ckptkit.engine.read import read_box
from ckptkit.engine.steps import Batch, batches
from ckptkit.errors import EditError
from ckptkit.kernels import Constant
from ckptkit.model import Derived, Stored, Tensor
from ckptkit.region import Box
from ckptkit.statistics import Statistic
from ckptkit.storage.disk import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from ckptkit.engine.run import Shift
    from ckptkit.engine.steps import Worker
    from ckptkit.engine.work import Work

    Array = NDArray[Any]
    Entry = tuple["_Passes", "MeasureStep"]

STATE_SHARE: Final = 4
"""Of the memory a statistic along axes may take one part in this many."""


class Interned:
    """Numbers for tensors: equal ones have the same, however they came about.

    Comparing trees as such takes for ever where they share branches, as edit upon edit makes them.
    """

    def __init__(self) -> None:
        """Know no tensor."""
        self._numbers: dict[Hashable, int] = {}
        self._seen: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, tensor: Tensor) -> int:
        """Return the number of a tensor."""
        known = self._seen.get(id(tensor))
        if known is not None:
            return known[0]
        key = self._key(tensor)
        try:
            number = self._numbers.setdefault(key, len(self._numbers))
        except (TypeError, ValueError):
            # A function of the user, or memory, that has no hash is the same as itself alone.
            number = self._numbers.setdefault(id(tensor), len(self._numbers))
        self._seen[id(tensor)] = number, tensor
        return number

    def _key(self, tensor: Tensor) -> Hashable:
        source = tensor.source
        if isinstance(source, Stored):
            return tensor.spec, source
        parents = tuple(map(self, source.parents))
        kernel = source.kernel
        return tensor.spec, type(kernel), kernel, parents, str(source.region)


@dataclass(frozen=True, slots=True)
class Group:
    """Statistics that share their passes.

    Attributes:
        statistics: The tensors that are to be found.
        shapes: Shapes of the tensors that they look at, one after the other.
    """

    statistics: tuple[Tensor, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def passes(self) -> int:
        """How many passes it takes."""
        return max(_kernel(tensor).passes for tensor in self.statistics)

    @property
    def bytes_read(self) -> int:
        """Bytes that all passes read."""
        total = 0
        for number in range(self.passes):
            due = [tensor for tensor in self.statistics if _kernel(tensor).passes > number]
            total += sum(self._bytes(due, at) for at in range(len(self.shapes)))
        return total

    def reads(self) -> Iterator[tuple[str, Tensor, Box]]:
        """Yield what a pass reads: for whom, the stored tensors, and the boxes of them."""
        for tensor in self.statistics:
            label = _kernel(tensor).label
            for parent in _parents(tensor):
                for box in blocks_of(parent, Box.whole(parent.spec.shape)):
                    yield from ((label, leaf, at) for leaf, at in reads(parent, box))

    def _bytes(self, due: list[Tensor], at: int) -> int:
        parents = [_parents(tensor)[at] for tensor in due]
        total = 0
        for box in blocks_of(parents[0], Box.whole(self.shapes[at])):
            found = {(id(leaf), where): leaf for one in parents for leaf, where in reads(one, box)}
            total += sum(read_bytes(leaf, where) for (_, where), leaf in found.items())
        return total


def _kernel(tensor: Tensor) -> Statistic:
    kernel = tensor.source.kernel if isinstance(tensor.source, Derived) else None
    if not isinstance(kernel, Statistic):
        msg = f"only a statistic is measured, not {tensor.spec}"
        raise TypeError(msg)
    return kernel


def _parents(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.source.parents if isinstance(tensor.source, Derived) else ()


def groups_of(tensors: Iterable[Tensor]) -> list[list[Group]]:
    """Return what has to be measured for some tensors: groups, those that need others later."""
    numbers = Interned()
    depth: dict[int, int] = {}
    unique: dict[int, Tensor] = {}

    def visit(tensor: Tensor) -> int:
        """Return how many statistics are measured one after the other for a tensor."""
        number = numbers(tensor)
        if number in depth:
            return depth[number]
        parents = _parents(tensor)
        found = max(map(visit, parents), default=0)
        if is_measured(tensor):
            unique.setdefault(number, tensor)
            found += 1
        depth[number] = found
        return found

    for tensor in tensors:
        visit(tensor)
    levels: list[dict[Hashable, list[Tensor]]] = []
    for number, tensor in unique.items():
        while len(levels) < depth[number]:
            levels.append({})
        alike = tuple((parent.spec.shape, _stored(parent, numbers)) for parent in _parents(tensor))
        levels[depth[number] - 1].setdefault(alike, []).append(tensor)
    return [
        [
            Group(tuple(found), tuple(parent.spec.shape for parent in _parents(found[0])))
            for found in level.values()
        ]
        for level in levels
    ]


def _stored(tensor: Tensor, numbers: Interned) -> frozenset[int]:
    """Return the stored tensors that one is computed from, by number."""
    found: set[int] = set()
    seen: set[int] = set()
    pending = [tensor]
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one.source, Stored):
            found.add(numbers(one))
        elif not is_measured(one):
            pending += one.source.parents
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class MeasureStep:
    """What one block contributes to statistics.

    Attributes:
        tensors: What is evaluated.
        box: Where.
        asked: The statistics: which tensor they look at, and what they need to know.
    """

    tensors: tuple[Tensor, ...]
    box: Box
    asked: tuple[tuple[Statistic, int, Any], ...]

    @property
    def weight(self) -> int:
        """Bytes of what is evaluated."""
        return sum(self.box.count * tensor.spec.itemsize for tensor in self.tensors)

    def run(self, worker: Worker) -> tuple[list[Any], Traffic]:
        """Read, evaluate, reduce."""
        worker.arena.reset()
        moved = Traffic()
        held: dict[tuple[int, Box], Array] = {}

        def read(tensor: Tensor, box: Box) -> Array:
            key = id(tensor.source), box
            if key not in held:
                moved.read += read_bytes(tensor, box)
                held[key] = read_box(worker.sources, tensor, box, worker.arena.take)
                if len(self.tensors) == 1:
                    return held.pop(key)
            return held[key].copy()

        values = [evaluate(tensor, self.box, read, worker.device.run) for tensor in self.tensors]
        return [kernel.partial(values[at], query) for kernel, at, query in self.asked], moved


@dataclass
class Measurement:
    """Statistics that are known, as tensors that hold them."""

    found: dict[int, Tensor] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    _numbers: Interned = field(default_factory=Interned)
    _settled: dict[int, Tensor] = field(default_factory=dict)

    def settled(self, tensor: Tensor) -> Tensor:
        """Return a tensor with numbers in the place of statistics."""
        source = tensor.source
        if isinstance(source, Stored):
            return tensor
        number = self._numbers(tensor)
        known = self.found.get(number) or self._settled.get(number)
        if known is not None:
            return known
        parents = tuple(map(self.settled, source.parents))
        changed = any(a is not b for a, b in zip(parents, source.parents, strict=True))
        result = replace(tensor, source=replace(source, parents=parents)) if changed else tensor
        self._settled[number] = result
        return result

    def know(self, tensor: Tensor, values: Array) -> None:
        """Note what a statistic came to."""
        held = Constant(tensor.spec, np.ascontiguousarray(values).tobytes())
        self.found[self._numbers(tensor)] = Tensor(tensor.spec, Derived(held))
        self._settled.clear()


def measured(
    work: Work, shift: Shift, memory: int, tell: Callable[[int], None], *, whole: bool
) -> tuple[Work, Traffic]:
    """Return some work with numbers in the place of statistics, and what finding them moved.

    Args:
        work: What is to be done.
        shift: Who does it.
        memory: Bytes of staging memory.
        tell: Is told how many more bytes were gone through.
        whole: More memory may be used.

    Raises:
        EditError: A statistic takes more than its share of memory.
    """
    if not work.statistics:
        return work, Traffic()
    known = Measurement()
    for level in work.statistics:
        for group in level:
            _check_memory(group, memory, whole=whole)
        due = [_Passes(group, known) for group in level]
        while due:
            for passes, box, partials, moved in _pass(due, shift):
                known.traffic.read += moved.read
                tell(moved.read)
                passes.absorb(box, partials)
            due = [passes for passes in due if not passes.finish(known)]
    return work.settled(known.settled), known.traffic


def _check_memory(group: Group, memory: int, *, whole: bool) -> None:
    for tensor in group.statistics:
        kernel = _kernel(tensor)
        size = kernel.state_bytes([parent.spec for parent in _parents(tensor)])
        if size > memory // STATE_SHARE and not whole:
            msg = (
                f"{kernel.label} of {_parents(tensor)[0].spec} takes {size} bytes of memory:"
                f" give --memory {size * STATE_SHARE}, or --allow-whole"
            )
            raise EditError(msg)


class _Passes:
    """The passes of a group, one after the other."""

    def __init__(self, group: Group, known: Measurement) -> None:
        self._shapes = group.shapes
        self._due = list(group.statistics)
        self._inputs = [[known.settled(p) for p in _parents(one)] for one in self._due]
        self._states = [
            _kernel(one).start([parent.spec for parent in _parents(one)]) for one in self._due
        ]

    def steps(self) -> Iterator[MeasureStep]:
        """Yield the steps of the pass that is due, in the order in which they are taken in."""
        queries = [
            _kernel(one).query(state) for one, state in zip(self._due, self._states, strict=True)
        ]
        for at, shape in enumerate(self._shapes):
            tensors: list[Tensor] = []
            asked = []
            for one, parents, query in zip(self._due, self._inputs, queries, strict=True):
                place = next((n for n, t in enumerate(tensors) if t is parents[at]), len(tensors))
                if place == len(tensors):
                    tensors.append(parents[at])
                asked.append((_kernel(one), place, query))
            for box in blocks_of(tensors[0], Box.whole(shape)):
                yield MeasureStep(tuple(tensors), box, tuple(asked))

    def absorb(self, box: Box, partials: list[Any]) -> None:
        """Take in what a block contributes."""
        for one, state, partial in zip(self._due, self._states, partials, strict=True):
            _kernel(one).absorb(state, box, partial)

    def finish(self, known: Measurement) -> bool:
        """End a pass, note what is known then, and tell whether that is all."""
        left = []
        for one, parents, state in zip(self._due, self._inputs, self._states, strict=True):
            values = _kernel(one).finish(state)
            if values is None:
                left.append((one, parents, state))
            else:
                known.know(one, values)
        self._due = [one for one, _, _ in left]
        self._inputs = [parents for _, parents, _ in left]
        self._states = [state for _, _, state in left]
        return not left


def _pass(due: list[_Passes], shift: Shift) -> Iterator[tuple[_Passes, Box, list[Any], Traffic]]:
    """Yield what every block contributes, in the order of the blocks."""
    running: deque[tuple[list[Entry], Future[list[tuple[list[Any], Traffic]]]]] = deque()

    def first() -> Iterator[tuple[_Passes, Box, list[Any], Traffic]]:
        entries, future = running.popleft()
        for (owner, step), found in zip(entries, future.result(), strict=True):
            yield owner, step.box, *found

    steps = ((passes, step) for passes in due for step in passes.steps())
    try:
        for entries in batches(steps, lambda entry: entry[1].weight):
            if len(running) >= shift.window:
                yield from first()
            tasks = Batch(tuple(step for _, step in entries))
            running.append((entries, shift.submit(tasks)))
        while running:
            yield from first()
    finally:
        for _, future in running:
            future.cancel()
        wait([future for _, future in running])
