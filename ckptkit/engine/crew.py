"""Threads that share a list of jobs, each with one buffer that it uses again and again."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ckptkit.engine.read import THREADS, pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Scratch = NDArray[np.uint8]


def each(
    jobs: Iterable[Callable[[Scratch], int]], nbytes: int, tick: Callable[[int], None]
) -> None:
    """Run jobs, several at a time, in any order.

    Args:
        jobs: Each takes a buffer and returns how many bytes it dealt with.
        nbytes: Length of the buffers.
        tick: Called with what a job returned; never by two threads at once.

    Raises:
        Exception: The first one that a job raised; no further job is begun after it.
    """
    waiting = iter(jobs)
    lock = threading.Lock()
    stopped = False

    def work() -> None:
        nonlocal stopped
        scratch = np.empty(nbytes, np.uint8)
        try:
            while True:
                with lock:
                    job = None if stopped else next(waiting, None)
                if job is None:
                    return
                moved = job(scratch)
                with lock:
                    tick(moved)
        except BaseException:
            stopped = True
            raise

    futures = [pool().submit(work) for _ in range(THREADS)]
    try:
        for future in futures:
            future.result()
    finally:
        stopped = True
        wait(futures)
