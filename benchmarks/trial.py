"""What a benchmark is made of: contenders, targets, and what was measured. Values only."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

MIB: Final = 1 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True)
class Extra:
    """What a job tells beyond the time that it took.

    Attributes:
        laps: Seconds until some point within the job.
        facts: Other numbers.
    """

    laps: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)


Job = Callable[[], object]
"""The work that is timed. An ``Extra`` that it returns is kept with the sample."""


@dataclass(frozen=True)
class Contender:
    """One way of doing a job.

    Attributes:
        name: What the tables call it.
        setup: Called in a process of its own, untimed; returns the job. It travels there, so it
            is a function of a module, or a ``functools.partial`` of one.
        makes: Beginning of the paths that a job makes; they are removed after each sample.
        check: Called in another process after the first sample; raises if its result is wrong.
        after: Called in that process after each sample, untimed: brings an input that the job
            changes back to what it was.
        most: Samples to take at most; a single one is taken without a warm-up.
        outside: The job starts a program, so that the memory of its own process says nothing.
    """

    name: str
    setup: Callable[[], Job]
    makes: str | None = None
    check: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    most: int | None = None
    outside: bool = False


@dataclass(frozen=True)
class Sample:
    """One run of a job: seconds, and the most memory its process has held, in bytes."""

    seconds: float
    peak: int
    extra: Extra = field(default_factory=Extra)


@dataclass(frozen=True)
class Outcome:
    """All samples of a contender.

    Attributes:
        resting: The most memory its process held before the first job, in bytes.
        outside: The work was done by another program.
    """

    name: str
    resting: int
    samples: tuple[Sample, ...]
    outside: bool = False

    @property
    def seconds(self) -> float:
        """Median."""
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def peak(self) -> int:
        """The most memory that its process ever held, in bytes."""
        return max(sample.peak for sample in self.samples)

    def lap(self, name: str) -> float:
        """Return the median of a lap."""
        return statistics.median(sample.extra.laps[name] for sample in self.samples)

    def fact(self, name: str) -> float:
        """Return the worst of a fact."""
        return max(sample.extra.facts[name] for sample in self.samples)


Outcomes = Mapping[str, Outcome]


@dataclass(frozen=True)
class Target:
    """A promise: a figure, and the limit that it keeps.

    Attributes:
        text: What is promised.
        figure: The number, from what was measured.
        unit: ``x``, ``ms``, ``MiB``, or nothing for a count.
    """

    text: str
    sense: Literal["<=", ">="]
    limit: float
    unit: str
    figure: Callable[[Outcomes], float]

    def met(self, value: float) -> bool:
        """Tell whether a figure keeps the promise."""
        return value <= self.limit if self.sense == "<=" else value >= self.limit

    def headroom(self, value: float) -> float:
        """Return how many times better than promised a figure is; below 1 is missed."""
        better, worse = (self.limit, value) if self.sense == "<=" else (value, self.limit)
        return better / worse if worse > 0 else float("inf")


def faster(subject: str, than: str, times: float) -> Target:
    """Promise to be a number of times faster than the incumbent."""
    return Target(
        f"{subject} faster than {than}",
        ">=",
        times,
        "x",
        lambda found: found[than].seconds / found[subject].seconds,
    )


def within(subject: str, of: str, times: float) -> Target:
    """Promise to take at most a multiple of a floor's time."""
    return Target(
        f"{subject} / {of}",
        "<=",
        times,
        "x",
        lambda found: found[subject].seconds / found[of].seconds,
    )


def takes(subject: str, milliseconds: float) -> Target:
    """Promise an absolute time."""
    return Target(
        f"{subject} takes", "<=", milliseconds, "ms", lambda found: found[subject].seconds * 1e3
    )


def peaks(subject: str, mib: float, above: str | None = None) -> Target:
    """Promise peak memory: absolute, or beyond what the process of another one rests at."""

    def figure(found: Outcomes) -> float:
        rest = found[above].resting if above else 0
        return (found[subject].peak - rest) / MIB

    beyond = f" beyond {above} at rest" if above else ""
    return Target(f"{subject} peak memory{beyond}", "<=", mib, "MiB", figure)


def counts(subject: str, fact: str, at_most: float) -> Target:
    """Promise a limit on a fact that a job tells."""
    return Target(f"{subject}: {fact}", "<=", at_most, "", lambda found: found[subject].fact(fact))


def moves(subject: str, fact: str, mib: float) -> Target:
    """Promise a limit on bytes that a job tells."""
    return Target(
        f"{subject}: {fact}", "<=", mib, "MiB", lambda found: found[subject].fact(fact) / MIB
    )


@dataclass(frozen=True)
class Trial:
    """Contenders for the same job, and what is promised.

    Attributes:
        title: What the job is.
        contenders: In the order in which they run, round after round.
        nbytes: Bytes that the job is about, for a throughput; 0 where that says nothing.
        floor: The contender that nobody can beat.
        incumbent: The contender that users have today.
        loops: How often a job does the work; times are divided by it.
        rounds: Rounds relative to what the caller asks for.
        notes: What the reader of the figures should know.
    """

    title: str
    contenders: tuple[Contender, ...]
    targets: tuple[Target, ...]
    nbytes: int = 0
    floor: str | None = None
    incumbent: str | None = None
    loops: int = 1
    rounds: int = 1
    notes: tuple[str, ...] = ()
