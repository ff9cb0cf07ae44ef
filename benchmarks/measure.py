"""Runs contenders side by side, each in a process of its own.

A process imports what its contender needs and stays for all of its samples, so that imports are
never timed and peak memory is its own. Rounds go A B C, A B C, after one round of warm-up, so that
a slow minute of the machine hits all alike; the page cache is warm. Before every sample all dirty
pages are written out: nobody pays for another's.
"""

from __future__ import annotations

import gc
import glob
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from benchmarks.trial import Contender, Extra, Job, Outcome, Sample, Trial

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    Say = Callable[[str], None]

T = TypeVar("T")

LOG: Final = 2000
"""Bytes of a process's last words that are shown when it dies."""

_JOB: list[Job] = []
"""In a process of a contender: its job."""


class BenchmarkError(Exception):
    """A contender failed, or gave a wrong result."""


class Apart:
    """A fresh process that calls functions, one after the other."""

    def __init__(self) -> None:
        """Start it."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed on exit
        arguments = (theirs, self._log.name)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def send(self, function: Callable[[], object]) -> None:
        """Start a call; the function travels by its name."""
        self._pipe.send(function)

    def receive(self) -> object:
        """Wait for a call and return what it gave.

        Raises:
            BenchmarkError: It failed.
        """
        try:
            error, answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            said = self._log.read()[-LOG:].decode(errors="replace")
            msg = f"its process ended with status {self._process.exitcode}\n{said}"
            raise BenchmarkError(msg) from None
        if error is not None:
            raise BenchmarkError(error)
        return answer

    def call(self, function: Callable[[], T]) -> T:
        """Call a function there."""
        self.send(function)
        return self.receive()  # type: ignore[return-value]

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it at once, and what it started: it has told all."""
        pid = self._process.pid
        if self._pipe.closed or pid is None:
            return
        self._pipe.close()
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._log.close()


def _serve(pipe: Connection, log: str) -> None:
    """Answer calls until the other end closes; what libraries chatter goes to a log."""
    # A group of its own: Ctrl-C is for the other end, which then ends all that runs here.
    os.setpgid(0, 0)
    with open(log, "wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    while True:
        try:
            function = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, function()))
        except Exception:  # noqa: BLE001 - the other end is told of everything
            pipe.send((traceback.format_exc(), None))


def _prepare(setup: Callable[[], Job]) -> int:
    _JOB[:] = [setup()]
    return peak_memory()


def _sample() -> Sample:
    gc.collect()
    began = time.perf_counter()
    # What the job gives is let go of after the clock has stopped.
    given = _JOB[0]()
    seconds = time.perf_counter() - began
    return Sample(seconds, peak_memory(), given if isinstance(given, Extra) else Extra())


def peak_memory() -> int:
    """Return the most memory that this process has held since it was started, in bytes.

    Not ``ru_maxrss``, which counts what the parent held when it forked as well.
    """
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def call_apart(function: Callable[[], T]) -> T:
    """Call a function in a process that ends with it, and takes its memory along."""
    with Apart() as process:
        return process.call(function)


@dataclass
class _Runner:
    """A contender and its process, which ends with the last sample."""

    contender: Contender
    process: Apart
    checker: Apart
    wanted: int
    resting: int = 0
    samples: list[Sample] = field(default_factory=list)
    _warm: bool = False

    def go(self, loops: int, say: Say) -> None:
        """Take one sample: the first one is the warm-up."""
        if len(self.samples) >= self.wanted:
            return
        say(self.contender.name)
        os.sync()
        sample = self.process.call(_sample)
        if not self._warm and self.contender.check is not None:
            self.checker.call(self.contender.check)
        if self._warm or self.wanted == 1:
            extra = Extra(
                {name: lap / loops for name, lap in sample.extra.laps.items()}, sample.extra.facts
            )
            self.samples.append(Sample(sample.seconds / loops, sample.peak, extra))
        self._warm = True
        if self.contender.after is not None:
            self.checker.call(self.contender.after)
        if self.contender.makes is not None:
            remove(self.contender.makes)
        if len(self.samples) == self.wanted:
            self.process.__exit__()

    @property
    def outcome(self) -> Outcome:
        """What was measured."""
        contender = self.contender
        return Outcome(contender.name, self.resting, tuple(self.samples), contender.outside)


def measure(trial: Trial, repeats: int, checker: Apart, say: Say) -> tuple[Outcome, ...]:
    """Run all contenders of a trial.

    Args:
        trial: Who runs.
        repeats: Samples of each contender, unless the trial or the contender says otherwise.
        checker: The process in which results are checked.
        say: Is told what runs now.

    Raises:
        BenchmarkError: A contender failed, or its result is wrong.
    """
    rounds = repeats * trial.rounds
    with ExitStack() as stack:
        runners = []
        for contender in trial.contenders:
            if contender.makes is not None:
                stack.callback(remove, contender.makes)
            process = stack.enter_context(Apart())
            process.send(partial(_prepare, contender.setup))
            wanted = min(rounds, contender.most or rounds)
            runners.append(_Runner(contender, process, checker, wanted))
        for runner in runners:
            say(f"{runner.contender.name}: starting")
            runner.resting = runner.process.receive()  # type: ignore[assignment]
        for number in range(rounds + 1):
            for runner in runners:
                runner.go(trial.loops, partial(_say_round, say, number, rounds))
    return tuple(runner.outcome for runner in runners)


def _say_round(say: Say, number: int, rounds: int, name: str) -> None:
    say(f"{name}: {f'{number} of {rounds}' if number else 'warm-up'}")


def remove(beginning: str) -> None:
    """Remove every file and folder whose path begins so."""
    for path in glob.glob(glob.escape(beginning) + "*"):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
