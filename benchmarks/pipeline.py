"""pipeline: an edit of all values beside its reads, its arithmetic, and its writes, each alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import jobs
from benchmarks.data import files
from benchmarks.trial import GIB, MIB, Contender, Target, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.data import Inputs
    from benchmarks.trial import Job, Outcomes
    from ckptkit.storage.disk import File

    Buffers = tuple[NDArray[np.float32], NDArray[np.float32]]

STAGES: Final = ("read", "compute", "write")

CHUNK: Final = 4 * MIB
"""Bytes of a step, as the edit takes them."""

SETTLED: Final = 256 * MIB
"""Bytes after which the device is told to start writing, as the edit does."""

THREADS: Final = len(os.sched_getaffinity(0))


def trials(inputs: Inputs) -> list[Trial]:
    """Return who runs, and what is promised."""
    source = inputs.large()
    ours, alone = map(inputs.output, ("ckptkit", "write"))
    return [
        Trial(
            f"halve {inputs.large_bytes / GIB:g} GiB of float32, and each stage of it alone",
            (
                Contender(
                    "ckptkit",
                    partial(jobs.edit, source, ours, "** *= 0.5"),
                    makes=ours,
                    check=partial(jobs.check_sound, ours),
                ),
                Contender("read", partial(read, source)),
                Contender("compute", partial(compute, inputs.large_bytes)),
                Contender("write", partial(write, alone, inputs.large_bytes), makes=alone),
            ),
            (Target("ckptkit / the slowest stage alone", "<=", 1.25, "x", _beside_slowest),),
            nbytes=inputs.large_bytes,
            notes=(
                "The stages move as many bytes with as many threads, through the engine's files.",
                "The edit compares the checksums of what it reads, and makes those of the result.",
            ),
        )
    ]


def _beside_slowest(found: Outcomes) -> float:
    return found["ckptkit"].seconds / max(found[stage].seconds for stage in STAGES)


def _each(step: Callable[[Buffers, int], object], buffers: Sequence[Buffers], nbytes: int) -> None:
    """Take a step at each chunk, in turns, with a thread for each pair of buffers."""

    def turns(number: int) -> None:
        for start in range(number * CHUNK, nbytes, len(buffers) * CHUNK):
            step(buffers[number], start)

    with ThreadPoolExecutor(len(buffers)) as pool:
        list(pool.map(turns, range(len(buffers))))


def _buffers() -> list[Buffers]:
    import numpy as np

    size = CHUNK // 4
    return [(np.ones(size, np.float32), np.ones(size, np.float32)) for _ in range(THREADS)]


def read(source: str) -> Job:
    """Return reads of all data files into buffers that are used again."""
    from ckptkit.storage.disk import Disk

    disk, buffers = Disk(), _buffers()

    def job() -> None:
        for path in files(source):
            with disk.open(path) as file:
                size = file.size

                def step(pair: Buffers, start: int, file: File = file, size: int = size) -> None:
                    raw = memoryview(pair[0]).cast("B")
                    file.read_into(raw[: min(CHUNK, size - start)], start)

                _each(step, buffers, size)

    return job


def compute(nbytes: int) -> Job:
    """Return the multiplications, from buffers into others."""
    import numpy as np

    buffers, factor = _buffers(), np.float32(0.5)

    def job() -> None:
        _each(lambda pair, _: np.multiply(pair[0], factor, out=pair[1]), buffers, nbytes)

    return job


def write(target: str, nbytes: int) -> Job:
    """Return writes of as many bytes to a new file, which are on the device in the end."""
    from ckptkit.storage.disk import Disk

    disk, buffers = Disk(), _buffers()

    def job() -> None:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with disk.create(target) as file, ThreadPoolExecutor(1) as flusher:
            file.resize(nbytes)

            def step(pair: Buffers, start: int) -> None:
                raw = memoryview(pair[0]).cast("B")
                file.write(raw[: min(CHUNK, nbytes - start)], start)
                if start % SETTLED == 0:
                    flusher.submit(file.settle, forget=nbytes >= GIB)

            _each(step, buffers, nbytes)
        jobs.sync([target])

    return job
