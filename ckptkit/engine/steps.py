"""Steps: byte movements with a destination of their own, which any worker may run, and rerun."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec
import numpy as np

from ckptkit import _native
from ckptkit.engine.program import evaluate, read_bytes
from ckptkit.engine.read import aligned, from_stored, read_box, to_stored
from ckptkit.model import Stored, TensorSpec
from ckptkit.storage.disk import Disk, Sources, Traffic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ckptkit.engine.device import Device
    from ckptkit.engine.program import Chain
    from ckptkit.model import Piece, Tensor
    from ckptkit.region import Box

    Array = NDArray[Any]
    Bytes = NDArray[np.uint8]

T = TypeVar("T", covariant=True)  # noqa: PLC0105  as short as it is plain

COMPARED: Final = 4 << 20
"""Bytes of a copy that are compared with the original at a time."""


class Arena(threading.local):
    """Staging memory of one thread, reused from step to step."""

    def __init__(self) -> None:
        """Start with no memory."""
        self._buffers: list[Bytes] = []
        self._used = 0

    def reset(self) -> None:
        """Take back all that was handed out."""
        self._used = 0

    def take(self, nbytes: int) -> Bytes:
        """Return memory, aligned, that is good until the next reset."""
        if self._used == len(self._buffers):
            self._buffers.append(np.empty(0, np.uint8))
        buffer = self._buffers[self._used]
        if buffer.nbytes < nbytes:
            buffer = self._buffers[self._used] = aligned(nbytes)
        self._used += 1
        return buffer[:nbytes]


class Worker:
    """What steps need: open files, a device, staging memory. Shared by threads."""

    def __init__(self, disk: Disk, device: Device) -> None:
        """Start with no file open."""
        self.sources = Sources(disk)
        self.targets = Sources(disk, writable=True)
        self.device = device
        self.arena = Arena()

    def close(self) -> None:
        """Let go of every file."""
        self.sources.close()
        self.targets.close()


@dataclass(frozen=True, slots=True)
class Done:
    """What a step did.

    Attributes:
        moved: Bytes read, written and copied.
        sums: Checksums of what was written, in pieces that the step names.
        input_sums: The same for each input.
        resumed: It had been done before.
    """

    moved: Traffic
    sums: tuple[int, ...] = ()
    input_sums: tuple[tuple[int, ...], ...] = ()
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


@dataclass(frozen=True, slots=True)
class FlatStep:
    """Compute a run of elements, of one tensor or many, from the same run of each input.

    Attributes:
        cuts: The element at which each tensor ends within the run; the last one is its length.
    """

    chain: Chain
    inputs: tuple[FlatInput, ...]
    cuts: tuple[int, ...]
    spec: TensorSpec
    byteorder: str
    target: str
    offset: int

    @property
    def weight(self) -> int:
        """Bytes that are written."""
        return self.cuts[-1] * self.spec.itemsize

    @property
    def place(self) -> tuple[str, int, int]:
        """Where the run goes."""
        return self.target, self.offset, self.weight

    def holds(self, worker: Worker, receipt: Receipt) -> bool:
        """Compare the checksums of what is there with those of the run."""
        buffer = worker.arena.take(self.weight)
        worker.targets.file(self.target).read_into(buffer, self.offset)
        return self._sums(buffer, self.spec.itemsize) == receipt.sums

    def run(self, worker: Worker) -> Done:
        """Read, compute, sum, write."""
        worker.arena.reset()
        count = self.cuts[-1]
        arrays, input_sums, read = [], [], 0
        for source in self.inputs:
            raw = worker.arena.take(count * source.spec.itemsize)
            worker.sources.file(source.path).read_into(raw, source.offset)
            read += raw.nbytes
            input_sums.append(self._sums(raw, source.spec.itemsize))
            arrays.append(from_stored(raw, source.spec, source.byteorder))
        values = worker.device.run(self.chain, arrays, self.spec.dtype)
        if values.shape != (count,):
            values = np.broadcast_to(values, (count,))
        out = to_stored(values, self.spec, self.byteorder)
        sums = self._sums(out, self.spec.itemsize)
        worker.targets.file(self.target).write(out, self.offset)
        return Done(Traffic(read=read, written=out.nbytes), sums, tuple(input_sums))

    def _sums(self, raw: Bytes, itemsize: int) -> tuple[int, ...]:
        if len(self.cuts) == 1:
            return (_native.crc32c(raw),)
        ends = np.array(self.cuts, np.int64) * itemsize
        return tuple(memoryview(_native.crc32c_segments(raw, ends)).cast("I"))


@dataclass(frozen=True, slots=True)
class BoxStep:
    """Compute a block of one tensor.

    Attributes:
        base: The stored piece that the block edits in place, if there is one, and ``position``
            the byte of it at which the block begins.
        tail: Bytes of the piece after the block, when its checksum follows the change; else None.
    """

    tensor: Tensor
    block: Box
    base: Piece | None
    position: int
    tail: int | None
    byteorder: str
    target: str
    offset: int

    @property
    def weight(self) -> int:
        """Bytes that are written."""
        return self.block.count * self.tensor.spec.itemsize

    @property
    def place(self) -> tuple[str, int, int]:
        """Where the block goes."""
        return self.target, self.offset, self.weight

    def holds(self, worker: Worker, receipt: Receipt) -> bool:
        """Compare the checksum of what is there with that of the block."""
        buffer = worker.arena.take(self.weight)
        worker.targets.file(self.target).read_into(buffer, self.offset)
        return receipt.sums[-1:] == (_native.crc32c(buffer),)

    def run(self, worker: Worker) -> Done:
        """Read, compute, sum, write."""
        worker.arena.reset()
        reader = _BoxReader(self, worker)
        values = evaluate(self.tensor, self.block, reader, worker.device.run)
        out = to_stored(values, self.tensor.spec, self.byteorder)
        sums: tuple[int, ...] = (_native.crc32c(out),)
        if self.tail is not None:
            sums = (_native.crc32c_patch(0, reader.old, out, self.tail), *sums)
        worker.targets.file(self.target).write(out, self.offset)
        input_sums = () if reader.old_sum is None else ((reader.old_sum,),)
        return Done(Traffic(read=reader.read, written=out.nbytes), sums, input_sums)


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
