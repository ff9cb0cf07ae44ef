"""Running the work of a plan: steps on an executor, checksums kept as the results come in."""

from __future__ import annotations

import os
import secrets
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from ckptkit import _native
from ckptkit.engine.device import choose, device_from, logical_devices
from ckptkit.engine.ledger import Ledger
from ckptkit.engine.measure import measured
from ckptkit.engine.queue import Queue
from ckptkit.engine.spans import sums_of_new
from ckptkit.engine.steps import Batch, Done, Step, Task, Worker, batches
from ckptkit.errors import EditError
from ckptkit.storage.digest import digest
from ckptkit.storage.disk import Disk, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from ckptkit.engine.device import Device, DeviceName
    from ckptkit.engine.receipts import Receipts
    from ckptkit.engine.spans import Noted
    from ckptkit.engine.work import Work
    from ckptkit.model import Algorithm
    from ckptkit.placement import Placement

    Progress = Callable[[int, int], None]
    Running = dict[Future[list[Done]], list[tuple[Step, Callable[[Done], None]]]]

T = TypeVar("T")

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

PER_GPU: Final = 3
"""Threads for each GPU: while one chunk is computed, others are copied in and copied out."""

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


def perform(settings: Settings, task: Task[T]) -> T:
    """Do a task with the worker of its run. Any executor can call this."""
    worker = _WORKERS.get(settings.token)
    if worker is None:
        # In a process of a pool, which is not told when a run is over: the next one tells it.
        _WORKERS.clear()
        worker = _WORKERS.setdefault(settings.token, Worker(Disk(), device_from(settings.device)))
    return task.run(worker)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What running the work gave.

    Attributes:
        checksums: uint32, CRC-32C of every item of the placement.
        traffic: Bytes that moved.
        device: Where kernels ran; None where there was nothing to compute.
        spans: uint32, CRC-32 of every span of files that were written anew.
    """

    checksums: NDArray[np.uint32]
    traffic: Traffic
    device: str | None
    spans: NDArray[np.uint32] | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What a plan may use to run.

    Attributes:
        device: Where kernels run.
        executor: What runs the steps; threads of our own by default.
        progress: Is told bytes done and bytes in all.
        memory: Bytes of staging memory.
        disk: The file system.
        chunk: Bytes that are computed at a time at most, where an earlier run has decided that.
        whole: What has to see a whole tensor may take more memory.
        prepared: The device itself, where it was needed before.
    """

    device: DeviceName = "auto"
    executor: Executor | None = None
    progress: Progress | None = None
    memory: int = MEMORY
    disk: Disk = field(default_factory=Disk)
    chunk: int | None = None
    whole: bool = False
    prepared: Device | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """Workers that are at work for one plan.

    Attributes:
        device: Where kernels run; None where there is nothing to compute.
        settings: What a process of the pool needs to know.
        pool: What runs steps.
        worker: The one of this process.
        window: Steps that may wait or run.
        chunk: Bytes that a step takes at a time.
    """

    device: str | None
    settings: Settings
    pool: Executor
    worker: Worker
    window: int
    chunk: int

    def submit(self, task: Task[T]) -> Future[T]:
        """Have a worker do a task."""
        return self.pool.submit(perform, self.settings, task)


@dataclass(frozen=True, slots=True)
class Terms:
    """How some work will be done.

    Attributes:
        device: Where kernels run; None where there is nothing to compute.
        threads: Workers, if they are our own.
        window: Steps that may wait or run.
        chunk: Bytes that a step takes at a time.
    """

    device: str | None
    threads: int
    window: int
    chunk: int


def terms(work: Work, means: Means) -> Terms:
    """Return how some work will be done.

    Raises:
        EditError: The memory does not suffice, or the device is not there.
    """
    if means.memory < MIN_MEMORY:
        msg = f"{means.memory} bytes of memory are too few; the least is {MIN_MEMORY}"
        raise EditError(msg)
    peak = work.peak
    if peak > means.memory and not means.whole:
        msg = (
            f"a function has to see {peak} bytes at a time, and the memory is {means.memory}:"
            f" give --memory {peak}, or --allow-whole"
        )
        raise EditError(msg)
    name = choose(means.device, work)
    on_gpu = name is not None and name.startswith("gpu")
    wanted = len(os.sched_getaffinity(0))
    if name is not None and on_gpu:
        wanted = max(wanted, PER_GPU * len(logical_devices(name)))
    # The standard executors keep to themselves how many workers they have.
    workers = getattr(means.executor, "_max_workers", wanted)
    threads = max(1, min(workers, means.memory // max(MIN_MEMORY, peak)))
    limit = MAX_DEVICE_CHUNK if on_gpu else MAX_CHUNK
    chunk = min(means.chunk or limit, limit, means.memory // (threads * SHARES))
    # Steps that wait keep workers busy; where there are more workers, all of them would run.
    window = threads if workers > threads else 2 * threads
    return Terms(name, threads, window, chunk)


@contextmanager
def on_shift(work: Work, means: Means) -> Iterator[Shift]:
    """Have workers ready while in the block.

    Raises:
        EditError: The memory does not suffice, or the device is not there.
    """
    agreed = terms(work, means)
    settings = Settings(secrets.token_hex(8), agreed.device or "numpy")
    device = means.prepared or device_from(settings.device)
    worker = _WORKERS[settings.token] = Worker(means.disk, device)
    pool = means.executor or ThreadPoolExecutor(agreed.threads, thread_name_prefix="ckptkit-step")
    try:
        yield Shift(agreed.device, settings, pool, worker, agreed.window, agreed.chunk)
    finally:
        if means.executor is None:
            pool.shutdown(cancel_futures=True)
        _WORKERS.pop(settings.token, None)
        worker.close()


def run_work(
    work: Work,
    placement: Placement,
    targets: tuple[str, ...],
    byteorder: str,
    *,
    algorithms: Mapping[int, tuple[Algorithm, int]],
    means: Means,
    receipts: Receipts | None = None,
) -> Outcome:
    """Fill the data files of a placement.

    Args:
        work: The byte movements.
        placement: Where every item goes.
        targets: The data files, which exist, by shard; staged ones where they are new.
        byteorder: Of the numbers in the data files.
        algorithms: For the items with a payload, the checksum and the number of elements.
        means: What to use.
        receipts: What an earlier run did, and where to note what this one does.

    Raises:
        CorruptError: An input does not match its checksum.
        ConflictError: An input changed since it was scanned.
        EditError: The memory does not suffice, or the device is not there.
    """
    with on_shift(work, means) as shift:
        ledger = Ledger(placement)
        gauge = Gauge(means.progress)
        ready = Queue(work, placement, targets, byteorder, shift.chunk, ledger)
        if means.progress is not None:
            gauge.total = work.bytes_measured + ready.weight
        settled, measuring = measured(work, shift, means.memory, gauge.advance, whole=means.whole)
        queue = Queue(settled, placement, targets, byteorder, shift.chunk, ledger)
        noting = _note(shift.worker, placement, targets)
        flusher = _Flusher(shift.worker, placement, targets)
        try:
            traffic = _Drive(shift, gauge, flusher, receipts).run(queue)
            traffic.read += measuring.read
            traffic.written += _give(
                placement, shift.worker, targets, ledger, algorithms, byteorder
            )
            ledger.finish()
            spans = None if noting is None else sums_of_new(placement, targets, *noting)
        finally:
            flusher.close()
    return Outcome(ledger.checksums, traffic, shift.device, spans)


def _note(
    worker: Worker, placement: Placement, targets: tuple[str, ...]
) -> tuple[Noted, Noted] | None:
    """Have a worker note what the checksums of spans are made of, where there may be any."""
    if placement.spans is None:
        return None
    bases = [span.base for span in placement.spans if span.base is not None]
    written = [targets[span.shard] for span in placement.spans]
    return worker.note(bases, written)


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
    held = ends = 0
    for item in sorted(placement.payloads):
        joins = run and placement.shard[item] == placement.shard[run[0]]
        joins = joins and placement.offset[item] == ends
        if run and (held >= MAX_CHUNK or not joins):
            yield run
            run, held = [], 0
        run.append(item)
        held += len(placement.payloads[item])
        ends = int(placement.offset[item]) + len(placement.payloads[item])
    if run:
        yield run


class _Flusher:
    """Has the device write what is already there, while the rest is still being made."""

    def __init__(self, worker: Worker, placement: Placement, targets: tuple[str, ...]) -> None:
        self._worker = worker
        written = set(placement.shard[~placement.stays].tolist())
        self._targets = [targets[shard] for shard in sorted(written)]
        large = int(placement.size[~placement.stays].sum()) >= LARGE
        # What has to be read again for its checksum should still be there.
        again = any(span.checksum is None for span in placement.spans or ())
        self._forget = large and not again
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


@dataclass
class Gauge:
    """Tells how far a run has come.

    Attributes:
        progress: Is told bytes done and bytes in all.
        total: Bytes in all.
        done: Bytes done.
    """

    progress: Progress | None
    total: int = 0
    done: int = 0

    def advance(self, nbytes: int) -> None:
        """Note that some more bytes are done."""
        self.done += nbytes
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


class _Drive:
    """Keeps an executor busy with a bounded number of steps."""

    def __init__(
        self,
        shift: Shift,
        gauge: Gauge,
        flusher: _Flusher,
        receipts: Receipts | None,
    ) -> None:
        self._shift = shift
        self._gauge = gauge
        self._flusher = flusher
        self._receipts = receipts
        self._moved = Traffic()

    def run(self, steps: Queue) -> Traffic:
        """Run all steps; return what they moved."""
        running: Running = {}
        try:
            for entries in batches(steps, lambda entry: entry[0].weight):
                if len(running) >= self._shift.window:
                    self._collect(running)
                wanted = [
                    step if self._receipts is None else self._receipts.resumed(step)
                    for step, _ in entries
                ]
                running[self._shift.submit(Batch(tuple(wanted)))] = entries
            while running:
                self._collect(running)
        finally:
            for future in running:
                future.cancel()
            wait(running)
        return self._moved

    def _collect(self, running: Running) -> None:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            entries = running.pop(future)
            for (step, take), done in zip(entries, future.result(), strict=True):
                take(done)
                if self._receipts is not None:
                    self._receipts.note(step, done)
                self._moved.read += done.moved.read
                self._moved.written += done.moved.written
                self._moved.copied += done.moved.copied
                self._flusher.wrote(done.moved.written + done.moved.copied)
                self._gauge.advance(step.weight)
