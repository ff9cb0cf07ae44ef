"""Running the work of a plan: steps on an executor, checksums kept as the results come in."""

from __future__ import annotations

import os
import secrets
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ckptkit import _native
from ckptkit.engine.device import choose, device_from
from ckptkit.engine.ledger import FlatSums, Ledger, Part
from ckptkit.engine.steps import (
    BoxStep,
    CopyStep,
    Done,
    FlatInput,
    FlatStep,
    Step,
    SumStep,
    Worker,
)
from ckptkit.engine.work import COPY, Boxed, Check, Flat
from ckptkit.errors import EditError
from ckptkit.model import TensorSpec
from ckptkit.storage.digest import digest
from ckptkit.storage.disk import Disk, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from ckptkit.engine.device import DeviceName
    from ckptkit.engine.program import Leaf
    from ckptkit.engine.work import Work
    from ckptkit.model import Algorithm
    from ckptkit.placement import Placement

    Progress = Callable[[int, int], None]

MEMORY: Final = 256 << 20
"""Bytes of staging memory, unless the caller says otherwise."""

MIN_MEMORY: Final = 32 << 20
"""Less staging memory than this cannot hold the blocks of one thread."""

SHARES: Final = 8
"""Buffers of one thread's memory: inputs, outputs, and what a kernel makes between them."""

MAX_CHUNK: Final = 4 << 20
"""Bytes of a chunk on a processor: what its cache holds from the read to the write."""

MAX_DEVICE_CHUNK: Final = 32 << 20
"""Bytes of a chunk on a GPU: enough for the bus to be the limit, not the calls."""

WRITEBACK: Final = 256 << 20
"""Bytes after which the device is told to start writing; waiting till the end wastes its time."""

LARGE: Final = 1 << 30
"""Bytes from which a result is not kept in the cache while it is written.

It would push out what others have there, and finding new memory for all of it takes longer than
using the same again: over 4 GiB half of the time.
"""

_WORKERS: dict[str, Worker] = {}
"""The worker of each run, by its token; a process that gets a step makes its own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process needs to know to make a worker.

    Attributes:
        token: Names the run.
        device: Where kernels run.
    """

    token: str
    device: DeviceName


def perform(settings: Settings, step: Step) -> Done:
    """Run a step with the worker of its run. Any executor can call this."""
    worker = _WORKERS.get(settings.token)
    if worker is None:
        # In a process of a pool, which is not told when a run is over: the next one tells it.
        _WORKERS.clear()
        worker = _WORKERS.setdefault(settings.token, Worker(Disk(), device_from(settings.device)))
    return step.run(worker)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What running the work gave.

    Attributes:
        checksums: uint32, CRC-32C of every item of the placement.
        traffic: Bytes that moved.
        device: Where kernels ran; None where there was nothing to compute.
    """

    checksums: NDArray[np.uint32]
    traffic: Traffic
    device: str | None


def run_work(
    work: Work,
    placement: Placement,
    targets: tuple[str, ...],
    byteorder: str,
    *,
    algorithms: Mapping[int, tuple[Algorithm, int]],
    device: DeviceName,
    executor: Executor | None,
    progress: Progress | None,
    memory: int,
    disk: Disk,
) -> Outcome:
    """Fill the data files of a placement.

    Args:
        work: The byte movements.
        placement: Where every item goes.
        targets: The staged data files, which exist, by shard.
        byteorder: Of the numbers in the data files.
        algorithms: For the items with a payload, the checksum and the number of elements.
        device: Where kernels run.
        executor: What runs the steps; threads of our own by default.
        progress: Is told bytes done and bytes in all.
        memory: Bytes of staging memory.
        disk: The file system.

    Raises:
        CorruptError: An input does not match its checksum.
        ConflictError: An input changed since it was scanned.
        EditError: The memory does not suffice, or the device is not there.
    """
    if memory < MIN_MEMORY:
        msg = f"{memory} bytes of memory are too few; the least is {MIN_MEMORY}"
        raise EditError(msg)
    name = choose(device, work)
    # The standard executors keep to themselves how many workers they have.
    workers = getattr(executor, "_max_workers", len(os.sched_getaffinity(0)))
    threads = max(1, min(workers, memory // MIN_MEMORY))
    limit = MAX_DEVICE_CHUNK if name is not None and name.startswith("gpu") else MAX_CHUNK
    chunk = min(limit, memory // (threads * SHARES))
    # Steps that wait keep workers busy; where there are more workers, all of them would run.
    window = threads if workers > threads else 2 * threads
    settings = Settings(secrets.token_hex(8), name or "numpy")
    worker = _WORKERS[settings.token] = Worker(disk, device_from(settings.device))
    ledger = Ledger(placement)
    queue = _Steps(work, placement, targets, byteorder, chunk, ledger)
    own = executor is None
    pool = executor or ThreadPoolExecutor(threads, thread_name_prefix="ckptkit-step")
    flusher = _Flusher(worker, targets, sum(placement.file_sizes))
    try:
        drive = _Drive(pool, settings, window, progress, flusher)
        traffic = drive.run(queue)
        traffic.written += _give(placement, worker, targets, ledger, algorithms, byteorder)
        ledger.finish()
    finally:
        if own:
            pool.shutdown(cancel_futures=True)
        flusher.close()
        _WORKERS.pop(settings.token, None)
        worker.close()
    return Outcome(ledger.checksums, traffic, name)


def _give(
    placement: Placement,
    worker: Worker,
    targets: tuple[str, ...],
    ledger: Ledger,
    algorithms: Mapping[int, tuple[Algorithm, int]],
    byteorder: str,
) -> int:
    """Write the values that are given whole; return how many bytes that were."""
    total = 0
    for run in _neighbours(placement):
        payloads = [placement.payloads[item] for item in run]
        joined = payloads[0] if len(run) == 1 else b"".join(payloads)
        if {algorithms[item][0] for item in run} == {"crc32c"}:
            ends = np.cumsum(placement.size[run])
            sums = np.frombuffer(_native.crc32c_segments(joined, ends), np.uint32)
            ledger.checksums[run] = sums
        else:
            for item, payload in zip(run, payloads, strict=True):
                stream = digest(*algorithms[item], byteorder)
                stream.update(payload)
                ledger.checksums[item] = stream.value()
        target = worker.targets.file(targets[placement.shard[run[0]]])
        target.write(joined, int(placement.offset[run[0]]))
        total += len(joined)
    return total


def _neighbours(placement: Placement) -> Iterator[list[int]]:
    """Yield given items that lie side by side, in runs of about a chunk."""
    run: list[int] = []
    held = 0
    for item in sorted(placement.payloads):
        joins = run and item == run[-1] + 1 and placement.shard[item] == placement.shard[run[0]]
        if run and (held >= MAX_CHUNK or not joins):
            yield run
            run, held = [], 0
        run.append(item)
        held += len(placement.payloads[item])
    if run:
        yield run


class _Steps:
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

    def __iter__(self) -> Iterator[tuple[Step, Callable[[Done], None]]]:
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

    def _computed(
        self,
    ) -> list[tuple[int, int, Iterator[tuple[Step, Callable[[Done], None]]]]]:
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

    def _check(self, check: Check) -> Iterator[tuple[Step, Callable[[Done], None]]]:
        extent = check.piece.extent
        parts = self._ledger.expect(check.name, check.piece)
        for start in range(0, extent.length, self._chunk):
            length = min(self._chunk, extent.length - start)
            step = SumStep(extent.path, extent.offset + start, length)
            yield step, _adder(parts, start, length)

    def _flat(self, flat: Flat) -> Iterator[tuple[Step, Callable[[Done], None]]]:
        widest = max([flat.spec.itemsize, *(TensorSpec(d, ()).itemsize for d in flat.chain.dtypes)])
        per_step = max(self._chunk // widest, 1)
        sums = FlatSums(flat, self._ledger)
        for start in range(0, flat.count, per_step):
            stop = min(start + per_step, flat.count)
            low = int(np.searchsorted(flat.ends, start, "right"))
            high = int(np.searchsorted(flat.ends, stop, "left"))
            cuts = tuple((np.minimum(flat.ends[low : high + 1], stop) - start).tolist())
            inputs = tuple(_input(run[0], start) for run in flat.inputs)
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

    def _boxed(self, boxed: Boxed) -> Iterator[tuple[Step, Callable[[Done], None]]]:
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
                boxed.offset + position,
            )
            yield step, _box_taker(outputs, inputs, position, size, before, block.count * width)


def _input(leaf: Leaf, start: int) -> FlatInput:
    extent, spec = leaf.piece.extent, TensorSpec(leaf.dtype, ())
    return FlatInput(extent.path, extent.offset + start * spec.itemsize, spec, leaf.byteorder)


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


class _Flusher:
    """Has the device write what is already there, while the rest is still being made."""

    def __init__(self, worker: Worker, targets: tuple[str, ...], total: int) -> None:
        self._worker = worker
        self._targets = targets
        self._forget = total >= LARGE
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ckptkit-flush")
        self._pending = 0
        self._running: Future[None] | None = None

    def wrote(self, nbytes: int) -> None:
        """Note bytes that were written or copied."""
        self._pending += nbytes
        idle = self._running is None or self._running.done()
        if self._pending >= WRITEBACK and idle:
            self._pending = 0
            self._running = self._thread.submit(self._flush)

    def _flush(self) -> None:
        for path in self._targets:
            self._worker.targets.file(path).settle(forget=self._forget)

    def close(self) -> None:
        """Wait for the device; errors come out of the final sync."""
        self._thread.shutdown()


class _Drive:
    """Keeps an executor busy with a bounded number of steps."""

    def __init__(
        self,
        pool: Executor,
        settings: Settings,
        window: int,
        progress: Progress | None,
        flusher: _Flusher,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._window = window
        self._progress = progress
        self._flusher = flusher
        self._moved = Traffic()
        self._done = 0

    def run(self, steps: _Steps) -> Traffic:
        """Run all steps; return what they moved."""
        total = steps.weight if self._progress else 0
        running: dict[Future[Done], tuple[Step, Callable[[Done], None]]] = {}
        try:
            for step, take in steps:
                if len(running) >= self._window:
                    self._collect(running, total)
                future = self._pool.submit(perform, self._settings, step)
                running[future] = (step, take)
            while running:
                self._collect(running, total)
        finally:
            for future in running:
                future.cancel()
            wait(running)
        return self._moved

    def _collect(
        self, running: dict[Future[Done], tuple[Step, Callable[[Done], None]]], total: int
    ) -> None:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            step, take = running.pop(future)
            done = future.result()
            take(done)
            self._moved.read += done.moved.read
            self._moved.written += done.moved.written
            self._moved.copied += done.moved.copied
            self._flusher.wrote(done.moved.written + done.moved.copied)
            self._done += step.weight
            if self._progress is not None:
                self._progress(self._done, total)
