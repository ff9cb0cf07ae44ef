"""Steps: byte movements with a destination of their own, which any worker may run, and rerun."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import msgspec
import numpy as np

from ckptkit import _native
from ckptkit.engine.blocks import runs_of
from ckptkit.engine.pinned import Pinned, find_driver
from ckptkit.engine.program import evaluate, read_bytes
from ckptkit.engine.read import PAGE, aligned, from_stored, read_box, to_stored
from ckptkit.engine.spans import Noted
from ckptkit.model import Stored, TensorSpec
from ckptkit.region import Selection
from ckptkit.storage.disk import Disk, Sources, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from ckptkit.engine.device import Device
    from ckptkit.engine.program import Chain
    from ckptkit.model import Piece, Tensor
    from ckptkit.region import Box

    Array = NDArray[Any]
    Bytes = NDArray[np.uint8]
    Sums = tuple[int, ...] | NDArray[np.uint32]

T = TypeVar("T", covariant=True)  # noqa: PLC0105  as short as it is plain

KEPT: Final = 8
"""Buffers of a thread that are kept from step to step."""

LIGHT: Final = 256 << 10
"""Bytes that steps which are handed over together are about, at most."""

MANY: Final = 128
"""Steps that are handed over together, at most."""

COMPARED: Final = 4 << 20
"""Bytes of a copy that are compared with the original at a time."""


class Arena(threading.local):
    """Staging memory of one thread, reused from step to step: whole pages, for a GPU to reach."""

    def __init__(self, pinned: Pinned) -> None:
        """Start with no memory."""
        self._pinned = pinned
        self._buffers: list[Bytes] = []
        self._used = 0

    def reset(self) -> None:
        """Take back all that was handed out."""
        self._used = 0

    def take(self, nbytes: int) -> Bytes:
        """Return memory, aligned, that is good until the next reset.

        Steps that take many pieces one after the other get new memory, which goes when they are
        done with it.
        """
        if self._used == KEPT:
            return aligned(-(-nbytes // PAGE) * PAGE, PAGE)[:nbytes]
        if self._used == len(self._buffers):
            self._buffers.append(np.empty(0, np.uint8))
        buffer = self._buffers[self._used]
        if buffer.nbytes < nbytes:
            self._pinned.unlock(buffer)
            buffer = self._buffers[self._used] = aligned(-(-nbytes // PAGE) * PAGE, PAGE)
            self._pinned.lock(buffer)
        self._used += 1
        return buffer[:nbytes]


class Worker:
    """What steps need: open files, a device, staging memory. Shared by threads.

    Attributes:
        sums: Whether anybody asks for checksums of what steps over runs of elements read and
            write.
    """

    def __init__(self, disk: Disk, device: Device) -> None:
        """Start with no file open."""
        self.sums = True
        self.sources = Sources(disk)
        self.targets = Sources(disk, writable=True)
        self.device = device
        self.pinned = Pinned(find_driver() if device.name.startswith("gpu") else None)
        self.arena = Arena(self.pinned)

    def note(self, read: Iterable[str], written: Iterable[str]) -> tuple[Noted, Noted]:
        """Note checksums of what is read from some files, and written to some, from now on."""
        disk = self.sources.disk
        self.sources.close()
        self.targets.close()
        noting = Noted(disk, read), Noted(disk, written, writable=True)
        self.sources, self.targets = noting
        return noting

    def close(self) -> None:
        """Let go of every file, and of memory that is locked."""
        self.pinned.close()
        self.sources.close()
        self.targets.close()


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What a step did.

    Attributes:
        moved: Bytes read, written and copied.
        sums: Checksums of what was written, in pieces that the step names.
        input_sums: The same for each input.
        resumed: It had been done before.
    """

    moved: Traffic
    sums: Sums = ()
    input_sums: tuple[Sums, ...] = ()
    resumed: bool = False


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a step did, in a run before this one.

    Attributes:
        file: Name of the file that it wrote to.
        offset, length: Where, in bytes.
        sums, input_sums: As the step gave them; see :class:`Done`.
    """

    file: str
    offset: int
    length: int
    sums: tuple[int, ...] = ()
    input_sums: tuple[tuple[int, ...], ...] = ()


class Task(Protocol[T]):
    """Something that a worker does."""

    def run(self, worker: Worker) -> T:
        """Do it."""


class Step(Protocol):
    """One byte movement."""

    @property
    def weight(self) -> int:
        """Bytes by which it counts as progress."""

    @property
    def place(self) -> tuple[str, int, int] | None:
        """The file, the offset and the length of what it writes, in bytes; None if nothing."""

    def run(self, worker: Worker) -> Done:
        """Move the bytes. Running a step twice gives what running it once gives."""

    def holds(self, worker: Worker, receipt: Receipt) -> bool:
        """Tell whether what it writes is there already, from a run that gave this receipt."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Tasks so small that handing each of them over would take longer than doing it."""

    tasks: tuple[Task[T], ...]

    def run(self, worker: Worker) -> list[T]:
        """Do them, one after the other."""
        return [task.run(worker) for task in self.tasks]


E = TypeVar("E")


def batches(entries: Iterable[E], weigh: Callable[[E], int]) -> Iterator[list[E]]:
    """Yield entries in lists that are worth handing over: one, or many small ones.

    Args:
        entries: Steps, or what goes with them.
        weigh: Returns the bytes that one is about.
    """
    batch: list[E] = []
    held = 0
    for entry in entries:
        size = weigh(entry)
        if batch and (held + size > LIGHT or len(batch) >= MANY):
            yield batch
            batch, held = [], 0
        batch.append(entry)
        held += size
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Resumed:
    """A step that may have been done before: it looks first."""

    step: Step
    receipt: Receipt

    @property
    def weight(self) -> int:
        """Bytes by which it counts as progress."""
        return self.step.weight

    @property
    def place(self) -> tuple[str, int, int] | None:
        """Where the step writes."""
        return self.step.place

    def run(self, worker: Worker) -> Done:
        """Look at what is there; move the bytes if it is something else."""
        worker.arena.reset()
        if not self.step.holds(worker, self.receipt):
            return self.step.run(worker)
        read = Traffic(read=self.receipt.length)
        return Done(read, self.receipt.sums, self.receipt.input_sums, resumed=True)

    def holds(self, worker: Worker, receipt: Receipt) -> bool:
        """Tell what the step would tell."""
        return self.step.holds(worker, receipt)


@dataclass(frozen=True, slots=True)
class CopyStep:
    """Carry bytes over as they are."""

    source: str
    source_offset: int
    target: str
    offset: int
    length: int

    @property
    def weight(self) -> int:
        """Bytes that are carried over."""
        return self.length

    @property
    def place(self) -> tuple[str, int, int]:
        """Where the bytes go."""
        return self.target, self.offset, self.length

    def holds(self, worker: Worker, receipt: Receipt) -> bool:
        """Compare the bytes with those that they are a copy of."""
        buffer = worker.arena.take(min(self.length, COMPARED))
        sums = [0, 0]
        for at in range(0, self.length, COMPARED):
            part = buffer[: min(COMPARED, self.length - at)]
            worker.sources.file(self.source).read_into(part, self.source_offset + at)
            sums[0] = _native.crc32c(part, sums[0])
            worker.targets.file(self.target).read_into(part, self.offset + at)
            sums[1] = _native.crc32c(part, sums[1])
        return sums[0] == sums[1] and receipt.length == self.length

    def run(self, worker: Worker) -> Done:
        """Move the bytes."""
        source, target = worker.sources.file(self.source), worker.targets.file(self.target)
        target.copy_from(source, self.source_offset, self.offset, self.length)
        return Done(Traffic(copied=self.length))


@dataclass(frozen=True, slots=True)
class SumStep:
    """Read bytes for nothing but their checksum."""

    source: str
    offset: int
    length: int

    @property
    def weight(self) -> int:
        """Bytes that are read."""
        return self.length

    @property
    def place(self) -> None:
        """Nothing is written."""
        return

    def holds(self, worker: Worker, receipt: Receipt) -> bool:  # noqa: ARG002  the protocol's
        """Tell that it has to be done again: it leaves nothing."""
        return False

    def run(self, worker: Worker) -> Done:
        """Read the bytes."""
        worker.arena.reset()
        buffer = worker.arena.take(self.length)
        worker.sources.file(self.source).read_into(buffer, self.offset)
        return Done(Traffic(read=self.length), input_sums=((_native.crc32c(buffer),),))


@dataclass(frozen=True, slots=True)
class FlatInput:
    """A run of elements in a file."""

    path: str
    offset: int
    spec: TensorSpec
    byteorder: str


@dataclass(frozen=True, slots=True, eq=False)
class FlatStep:
    """Compute a run of elements, of one tensor or many, from the same run of each input.

    Attributes:
        cuts: int64, the element at which each tensor ends within the run; the last one is its
            length.
    """

    chain: Chain
    inputs: tuple[FlatInput, ...]
    cuts: NDArray[np.int64]
    spec: TensorSpec
    byteorder: str
    target: str
    offset: int

    @property
    def weight(self) -> int:
        """Bytes that are written."""
        return int(self.cuts[-1]) * self.spec.itemsize

    @property
    def place(self) -> tuple[str, int, int]:
        """Where the run goes."""
        return self.target, self.offset, self.weight

    def holds(self, worker: Worker, receipt: Receipt) -> bool:
        """Compare the checksums of what is there with those of the run."""
        buffer = worker.arena.take(self.weight)
        worker.targets.file(self.target).read_into(buffer, self.offset)
        return tuple(self._sums(buffer, self.spec.itemsize).tolist()) == receipt.sums

    def run(self, worker: Worker) -> Done:
        """Read, compute, sum, write."""
        worker.arena.reset()
        count = int(self.cuts[-1])
        arrays, read = [], 0
        input_sums: list[Sums] = []
        for source in self.inputs:
            raw = worker.arena.take(count * source.spec.itemsize)
            worker.sources.file(source.path).read_into(raw, source.offset)
            read += raw.nbytes
            if worker.sums:
                input_sums.append(self._sums(raw, source.spec.itemsize))
            arrays.append(from_stored(raw, source.spec, source.byteorder))
        values = worker.device.run(self.chain, arrays, self.spec.dtype)
        if values.shape != (count,):
            values = np.broadcast_to(values, (count,))
        out = to_stored(values, self.spec, self.byteorder)
        sums = self._sums(out, self.spec.itemsize) if worker.sums else ()
        worker.targets.file(self.target).write(out, self.offset)
        return Done(Traffic(read=read, written=out.nbytes), sums, tuple(input_sums))

    def _sums(self, raw: Bytes, itemsize: int) -> NDArray[np.uint32]:
        if len(self.cuts) == 1:
            return np.array([_native.crc32c(raw)], np.uint32)
        return np.frombuffer(_native.crc32c_segments(raw, self.cuts * itemsize), np.uint32)


@dataclass(frozen=True, slots=True)
class BoxStep:
    """Compute a block of one tensor.

    Attributes:
        base: The stored piece that the block edits in place, if there is one, and ``position``
            the byte of it at which the block begins.
        tail: Bytes of the piece after the block, when its checksum follows the change; else None.
        outer: The item, where the block is no run of it; ``offset`` is where the item begins then.
    """

    tensor: Tensor
    block: Box
    base: Piece | None
    position: int
    tail: int | None
    byteorder: str
    target: str
    offset: int
    outer: Box | None = None

    @property
    def weight(self) -> int:
        """Bytes that are written."""
        return self.block.count * self.tensor.spec.itemsize

    @property
    def place(self) -> tuple[str, int, int] | None:
        """Where the block goes; None where that is many places."""
        return None if self.outer is not None else (self.target, self.offset, self.weight)

    def holds(self, worker: Worker, receipt: Receipt) -> bool:
        """Compare the checksum of what is there with that of the block."""
        if self.outer is not None:
            return False
        buffer = worker.arena.take(self.weight)
        worker.targets.file(self.target).read_into(buffer, self.offset)
        return receipt.sums[-1:] == (_native.crc32c(buffer),)

    def run(self, worker: Worker) -> Done:
        """Read, compute, sum, write."""
        worker.arena.reset()
        reader = _BoxReader(self, worker)
        values = evaluate(self.tensor, self.block, reader, worker.device.run)
        out = to_stored(values, self.tensor.spec, self.byteorder)
        if self.outer is not None:
            change = self._write_runs(worker, out, self.outer)
            return Done(Traffic(read=reader.read, written=out.nbytes), (change,))
        sums: tuple[int, ...] = (_native.crc32c(out),)
        if self.tail is not None:
            sums = (_native.crc32c_patch(0, reader.old, out, self.tail), *sums)
        worker.targets.file(self.target).write(out, self.offset)
        input_sums = () if reader.old_sum is None else ((reader.old_sum,),)
        return Done(Traffic(read=reader.read, written=out.nbytes), sums, input_sums)

    def _write_runs(self, worker: Worker, out: Bytes, outer: Box) -> int:
        """Write a block that is no run; return what it does to the checksum of an item of zeros."""
        item = self.tensor.spec.itemsize
        start = tuple(a - b for a, b in zip(self.block.start, outer.start, strict=True))
        everywhere = (True,) * len(start)
        inside = Selection(start, (1,) * len(start), self.block.shape, everywhere)
        width, starts = runs_of(outer.shape, inside)
        width, starts = width * item, starts * item
        target = worker.targets.file(self.target)
        target.write_runs(width, (starts + self.offset).tolist(), out)
        tails = outer.count * item - starts - width
        return _native.crc32c_patch_runs(0, np.zeros_like(out), out, width, tails)


@dataclass
class _BoxReader:
    """Reads what a block needs, and keeps what the checksums need of its base."""

    step: BoxStep
    worker: Worker
    read: int = 0
    old: Bytes = field(default_factory=lambda: np.empty(0, np.uint8))
    old_sum: int | None = None

    def __call__(self, tensor: Tensor, box: Box) -> Array:
        """Return a box of a stored tensor, in memory that is ours."""
        step, source = self.step, tensor.source
        if box != step.block or not isinstance(source, Stored) or step.base not in source.pieces:
            self.read += read_bytes(tensor, box)
            return read_box(self.worker.sources, tensor, box, self.worker.arena.take)
        extent = source.pieces[source.pieces.index(step.base)].extent
        raw = self.worker.arena.take(box.count * tensor.spec.itemsize)
        self.worker.sources.file(extent.path).read_into(raw, extent.offset + step.position)
        self.read += raw.nbytes
        if step.tail is None:
            self.old_sum = _native.crc32c(raw)
        else:
            self.old = raw.copy()
        return from_stored(raw, tensor.spec, source.byteorder).reshape(box.shape)
