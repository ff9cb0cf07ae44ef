"""Steps: byte movements with a destination of their own, which any worker may run, and rerun."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

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
    """

    moved: Traffic
    sums: tuple[int, ...] = ()
    input_sums: tuple[tuple[int, ...], ...] = ()


class Step(Protocol):
    """One byte movement."""

    @property
    def weight(self) -> int:
        """Bytes by which it counts as progress."""

    def run(self, worker: Worker) -> Done:
        """Move the bytes. Running a step twice gives what running it once gives."""


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

    def run(self, worker: Worker) -> Done:
        """Read, compute, sum, write."""
        worker.arena.reset()
        reader = _BoxReader(self, worker)
        values = evaluate(self.tensor, self.block, reader, worker.device.run)
        out = to_stored(values, self.tensor.spec, self.byteorder)
        if self.tail is None:
            sums = (_native.crc32c(out),)
        else:
            sums = (_native.crc32c_patch(0, reader.old, out, self.tail),)
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
