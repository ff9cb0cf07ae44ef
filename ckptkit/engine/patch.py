"""What an edit in place changes, as pieces that a journal can hold: places, old bytes, new bytes.

Steps that would write hand over what they would write. A checksum follows from the one that was
there and from what changed, so that bytes which were damaged before stay found out.
"""

from __future__ import annotations

import copy
import os
from collections import deque
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ckptkit import _native
from ckptkit.bulk import as_int64s
from ckptkit.engine.ledger import Ledger
from ckptkit.engine.program import is_aligned, is_measured
from ckptkit.engine.queue import Queue
from ckptkit.engine.read import check as check_sum
from ckptkit.engine.spans import changes as span_changes
from ckptkit.engine.steps import Done, SumStep
from ckptkit.engine.strided import OFFSET, Strided, read_old
from ckptkit.engine.work import Check
from ckptkit.errors import EditError
from ckptkit.model import Derived, Stored

if TYPE_CHECKING:
    from collections.abc import Buffer, Generator, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from ckptkit.catalog import Catalog
    from ckptkit.engine.run import Shift
    from ckptkit.engine.steps import Step, Worker
    from ckptkit.engine.work import Work
    from ckptkit.model import Tensor
    from ckptkit.placement import Placement
    from ckptkit.storage.changes import Bytes
    from ckptkit.storage.disk import Sources

    Int64s = NDArray[np.int64]


class Patch(NamedTuple):
    """Runs of bytes of one file that change.

    Attributes:
        path: The file.
        width: Bytes of each run.
        offsets: int64, where each run starts; they rise.
        old, new: The bytes of all runs, joined.
        read: Bytes that were read to make it.
        item: The item that all of them are in, if it is one; None if they are a single run that
            may go across many.
    """

    path: str
    width: int
    offsets: Int64s
    old: Bytes
    new: Bytes
    read: int
    item: int | None = None


@dataclass
class Piece:
    """Patches that are journalled and written together.

    Attributes:
        patches: In order.
        sums: What they do to the checksums of items, or spans, to be combined by exclusive or.
    """

    patches: list[Patch] = field(default_factory=list)
    sums: dict[int, int] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Bytes that change."""
        return sum(len(patch.new) for patch in self.patches)

    @property
    def read(self) -> int:
        """Bytes that were read to make it."""
        return sum(patch.read for patch in self.patches)


# --- making patches ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StridedStep:
    """Compute a part of a region."""

    part: Strided

    @property
    def journal_bytes(self) -> int:
        """Bytes that a journal takes for it, about."""
        return self.part.journal_bytes

    def run(self, worker: Worker) -> list[Patch]:
        """Read and compute; nothing is written."""
        worker.arena.reset()
        part = self.part
        width, offsets, old = read_old(worker, part)
        new = part.compute(worker, old)
        patch = Patch(
            part.path, width, offsets, old.tobytes(), new.tobytes(), part.bytes_read, part.item
        )
        return [patch]


@dataclass(frozen=True, slots=True)
class CaptureStep:
    """Run a step that writes, and hand over what it would have written."""

    step: Step

    @property
    def journal_bytes(self) -> int:
        """Bytes that a journal takes for it, about."""
        return 2 * self.step.weight + OFFSET

    def run(self, worker: Worker) -> list[Patch]:
        """Read and compute; nothing is written."""
        capturing = copy.copy(worker)
        captured = _Capture(worker.sources, self.step.place)
        capturing.sources = capturing.targets = cast("Sources", captured)
        capturing.sums = False
        done = self.step.run(capturing)
        return [patch._replace(read=done.moved.read) for patch in captured.patches]


@dataclass(frozen=True, slots=True)
class GivenStep:
    """Take values that are given."""

    path: str
    offset: int
    values: bytes | memoryview

    @property
    def journal_bytes(self) -> int:
        """Bytes that a journal takes for it, about."""
        return 2 * len(self.values) + OFFSET

    def run(self, worker: Worker) -> list[Patch]:
        """Read what is there; nothing is written."""
        new = bytes(self.values)
        old = bytes(worker.sources.file(self.path).read(self.offset, len(new)))
        return [_patch(self.path, self.offset, old, new)]


PatchStep = StridedStep | CaptureStep | GivenStep


class _Capture:
    """Stands where steps expect the files that they read and write.

    What a step reads of the place that it writes to is kept: it is what was there before.
    """

    def __init__(self, sources: Sources, place: tuple[str, int, int] | None) -> None:
        self.sources = sources
        self.patches: list[Patch] = []
        self._place = place
        self._old: Bytes = b""

    def file(self, path: str) -> _CapturedFile:
        return _CapturedFile(self, path)

    def read(self, path: str, values: Buffer, offset: int) -> None:
        if (path, offset, memoryview(values).nbytes) == self._place:
            self._old = _copy(values)

    def write(self, path: str, values: Buffer, offset: int) -> None:
        new = _copy(values)
        known = len(self._old) == len(new) and self._place == (path, offset, len(new))
        old = self._old if known else bytes(self.sources.file(path).read(offset, len(new)))
        self.patches.append(_patch(path, offset, old, new))


class _CapturedFile:
    def __init__(self, capture: _Capture, path: str) -> None:
        self._capture = capture
        self._file = capture.sources.file(path)
        self._path = os.path.abspath(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read_into(self, buffer: Buffer, offset: int) -> None:
        self._file.read_into(buffer, offset)
        self._capture.read(self._path, buffer, offset)

    def write(self, values: Buffer, offset: int) -> None:
        self._capture.write(self._path, values, offset)

    def write_runs(self, width: int, offsets: Sequence[int], joined: Buffer) -> None:
        values = memoryview(joined).cast("B")
        for at, offset in enumerate(offsets):
            self.write(values[at * width : (at + 1) * width], offset)


def _copy(values: Buffer) -> NDArray[np.uint8]:
    """Return a copy of bytes; unlike ``bytes``, NumPy lets other threads work meanwhile."""
    return np.array(np.frombuffer(values, np.uint8))


def _patch(path: str, offset: int, old: Bytes, new: Bytes) -> Patch:
    return Patch(path, len(new), np.array([offset], np.int64), old, new, len(new))


# --- pieces ------------------------------------------------------------------------------------


def pieces(
    work: Work, placement: Placement, byteorder: str, shift: Shift, limit: int, skip: int = 0
) -> Generator[Piece, None, None]:
    """Yield all that changes, in pieces of about ``limit`` bytes of a journal, in a fixed order.

    Args:
        work: What is computed.
        placement: Where it goes.
        byteorder: Of the numbers in the data files.
        shift: Who computes.
        limit: Bytes of a journal that a piece takes; a single step may take more.
        skip: Pieces that were done before, and are not made again.

    The next piece is being computed while the one before is written, so no step may read what
    another one changes unless all of it fits one piece; see :func:`entangled`.

    Raises:
        CorruptError: A tensor that only is read does not match its checksum.
    """
    _check_inputs([*work.checks, *_only_read(work, placement)], shift)
    items = _Items(placement)
    piece, current = Piece(), skip
    for number, patches in _results(
        _numbered(work, placement, byteorder, shift, limit), skip, shift, limit
    ):
        if number > current:
            yield piece
            piece, current = Piece(), number
        piece.patches += [patch for patch in patches if len(patch.offsets)]
        for patch in patches:
            for item, change in items.changes(patch):
                piece.sums[item] = piece.sums.get(item, 0) ^ change
    yield piece


def _numbered(
    work: Work, placement: Placement, byteorder: str, shift: Shift, limit: int
) -> Iterator[tuple[int, PatchStep]]:
    """Yield the steps with the number of the piece that each belongs to."""
    number = held = 0
    for step in _steps(work, placement, byteorder, shift.chunk):
        size = step.journal_bytes
        if held and held + size > limit:
            number, held = number + 1, 0
        held += size
        yield number, step


def _results(
    steps: Iterator[tuple[int, PatchStep]], skip: int, shift: Shift, limit: int
) -> Iterator[tuple[int, list[Patch]]]:
    """Yield what the steps give, in their order."""
    running: deque[tuple[int, Future[Any]]] = deque()
    # A piece is journalled while the next one is computed: all of that one may be ahead.
    ahead = max(shift.window, limit // (2 * shift.chunk))
    try:
        for number, step in steps:
            if number < skip:
                continue
            if len(running) >= ahead:
                first, future = running.popleft()
                yield first, future.result()
            running.append((number, shift.submit(step)))
        while running:
            first, future = running.popleft()
            yield first, future.result()
    finally:
        # Files and memory are taken away from under what still runs as soon as this is over. What
        # a pool that is shut down has cancelled is never done, and not waited for.
        wait([future for _, future in running if not future.cancel()])


def _steps(work: Work, placement: Placement, byteorder: str, chunk: int) -> Iterator[PatchStep]:
    for region in work.regions:
        for part in region.parts(chunk):
            yield StridedStep(part)
    queue = Queue(work, placement, placement.files, byteorder, chunk, Ledger(placement))
    for step, _ in queue.computed():
        yield CaptureStep(step)
    for item, payload in sorted(placement.payloads.items()):
        path, offset = placement.files[placement.shard[item]], int(placement.offset[item])
        for at in range(0, len(payload), chunk):
            yield GivenStep(path, offset + at, payload[at : at + chunk])


def _only_read(work: Work, placement: Placement) -> Iterator[Check]:
    """Yield the pieces that chains read elsewhere than where their result goes."""
    for flat in work.flats:
        path = placement.files[flat.shard]
        places = placement.offset[flat.first : flat.first + len(flat)]
        for inputs in flat.inputs:
            elsewhere = inputs.offset + flat.starts * inputs.spec.itemsize != places
            elsewhere |= os.path.abspath(inputs.path) != path
            elsewhere &= inputs.sums is not None
            for at in np.flatnonzero(elsewhere).tolist():
                yield Check(flat.name(at), flat.piece(inputs, at))


def _check_inputs(checks: Sequence[Check], shift: Shift) -> None:
    """Compare the checksums of what is only read, before anything is written."""
    for check in checks:
        extent, found = check.piece.extent, 0
        for start in range(0, extent.length, shift.chunk):
            length = min(shift.chunk, extent.length - start)
            step = SumStep(extent.path, extent.offset + start, length)
            done: Done = shift.submit(step).result()
            found = _native.crc32c_combine(found, done.input_sums[0][0], length)
        check_sum(check.name, check.piece, found)


class _Items:
    """The items of a placement by where they are."""

    def __init__(self, placement: Placement) -> None:
        stored = np.flatnonzero(placement.size > 0)
        self._placement = placement
        self._numbers = stored
        self._offset = placement.offset[stored]
        self._end = self._offset + placement.size[stored]
        self._bounds = {
            path: np.searchsorted(placement.shard[stored], [shard, shard + 1]).tolist()
            for shard, path in enumerate(placement.files)
        }
        self._end_of = dict(zip(stored.tolist(), self._end.tolist(), strict=True))

    def changes(self, patch: Patch) -> Iterator[tuple[int, int]]:
        """Yield what a patch does to the checksum of each item, or span, that it is in."""
        if self._placement.spans is not None:
            runs = patch.width, patch.offsets, patch.old, patch.new
            yield from span_changes(self._placement, patch.path, *runs)
            return
        if patch.item is not None:
            tails = self._end_of[patch.item] - patch.offsets - patch.width
            change = _native.crc32c_patch_runs(0, patch.old, patch.new, patch.width, tails)
            yield patch.item, change
            return
        start = int(patch.offsets[0])
        low, high = self._bounds[patch.path]
        first = low + int(np.searchsorted(self._end[low:high], start, "right"))
        last = low + int(np.searchsorted(self._offset[low:high], start + patch.width, "left"))
        ends = np.minimum(self._end[first:last], start + patch.width) - start
        old = np.frombuffer(_native.crc32c_segments(patch.old, ends), np.uint32)
        new = np.frombuffer(_native.crc32c_segments(patch.new, ends), np.uint32)
        tails = self._end[first:last] - start - ends
        for at, (change, tail) in enumerate(zip((old ^ new).tolist(), tails.tolist(), strict=True)):
            yield int(self._numbers[first + at]), _native.crc32c_combine(change, 0, tail)


# --- what cannot be patched --------------------------------------------------------------------


def check_apart(placement: Placement, names: Catalog) -> None:
    """Refuse to change bytes that belong to more than one tensor.

    Raises:
        EditError: A tensor that changes shares bytes with another one.
    """
    used = np.flatnonzero(placement.size > 0)
    offset, shard = placement.offset[used], placement.shard[used]
    end = offset + placement.size[used]
    changed = placement.source_file[used] < 0
    for number in np.unique(shard[changed]).tolist():
        mine = slice(*np.searchsorted(shard, [number, number + 1]).tolist())
        furthest = np.maximum.accumulate(end[mine])
        shared = np.flatnonzero(offset[mine][1:] < furthest[:-1])
        # All that lie between two that overlap are suspects; that is rare, and never wrong.
        for at in shared.tolist():
            reach = offset[mine] < furthest[at]
            group = reach & (end[mine] > offset[mine][at + 1])
            if np.any(changed[mine][group]):
                item = int(used[mine][group][0])
                msg = "its bytes belong to more than one tensor; append, or write a copy"
                raise EditError(msg, tensor=names.names[int(placement.tensor[item])])


def entangled(after: Catalog) -> bool:
    """Tell whether a tensor that changes is computed from another one that does."""
    # What recipes derive reads nothing else than what it replaces.
    foreign = {
        (piece.extent.path, piece.extent.offset)
        for tensor in after.single.values()
        for leaf in _foreign(tensor)
        for piece in _pieces_of(leaf)
    }
    if not foreign:
        return False
    rows = as_int64s(after.rows)[after.changed_at()].tolist()
    return any(
        (piece.extent.path, piece.extent.offset) in foreign
        for row in rows
        if row >= 0
        for piece in _pieces_of(after.columns.tensor(row))
    )


def _pieces_of(tensor: Tensor) -> Iterator[Any]:
    if isinstance(tensor.source, Stored):
        yield from tensor.source.pieces


def _foreign(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the stored tensors that are read elsewhere than where the result goes.

    Statistics count for nothing here: they are measured before the first byte changes.
    """
    current = tensor
    while isinstance(current.source, Derived):
        source = current.source
        aligned = source.region is not None or is_aligned(current)
        for parent in source.parents[1:] if aligned else source.parents:
            yield from _leaves(parent)
        if not source.parents or not aligned:
            return
        current = source.parents[0]


def _leaves(tensor: Tensor) -> Iterator[Tensor]:
    if isinstance(tensor.source, Stored):
        yield tensor
    elif not is_measured(tensor):
        for parent in tensor.source.parents:
            yield from _leaves(parent)
