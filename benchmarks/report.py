"""What was measured, as tables for people and as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.trial import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.trial import Outcome, Target, Trial


@dataclass(frozen=True)
class Judged:
    """A target, and the figure that was reached."""

    target: Target
    value: float

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.target.met(self.value)

    def __str__(self) -> str:
        """Return ``ckptkit faster than tensorflow: 12.3 x (>= 10 x) met``."""
        target = self.target
        unit = f" {target.unit}" if target.unit else ""
        verdict = "met" if self.met else "MISSED"
        promise = f"{target.sense} {target.limit:g}{unit}"
        return f"{target.text}: {self.value:.3g}{unit} ({promise}) {verdict}"


@dataclass(frozen=True)
class Result:
    """A trial and what was measured."""

    benchmark: str
    trial: Trial
    outcomes: tuple[Outcome, ...]

    @property
    def judged(self) -> list[Judged]:
        """Every target with its figure."""
        found = {outcome.name: outcome for outcome in self.outcomes}
        return [Judged(target, target.figure(found)) for target in self.trial.targets]

    def to_dict(self) -> dict[str, Any]:
        """Return all raw samples, ready for JSON."""
        return {
            "title": self.trial.title,
            "bytes": self.trial.nbytes,
            "contenders": [_raw(outcome) for outcome in self.outcomes],
            "targets": [
                {
                    "text": one.target.text,
                    "sense": one.target.sense,
                    "limit": one.target.limit,
                    "unit": one.target.unit,
                    "value": one.value,
                    "met": one.met,
                }
                for one in self.judged
            ],
            "notes": list(self.trial.notes),
        }


def _raw(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "median_seconds": outcome.seconds,
        "resting_bytes": None if outcome.outside else outcome.resting,
        "peak_bytes": None if outcome.outside else outcome.peak,
        "samples": [
            {
                "seconds": sample.seconds,
                "laps": dict(sample.extra.laps),
                "facts": dict(sample.extra.facts),
            }
            for sample in outcome.samples
        ],
    }


def table(result: Result) -> str:
    """Return times, ratios and memory of all contenders, then the targets."""
    trial = result.trial
    found = {outcome.name: outcome for outcome in result.outcomes}
    floor = found[trial.floor].seconds if trial.floor else None
    incumbent = found[trial.incumbent].seconds if trial.incumbent else None
    header = ["", "median", "range", *_over(trial), "peak MiB"]
    if trial.nbytes:
        header.insert(3, "GB/s")
    rows = [header]
    for outcome in result.outcomes:
        times = [sample.seconds for sample in outcome.samples]
        spread = f"{_duration(min(times))} - {_duration(max(times))}"
        peak = "-" if outcome.outside else f"{outcome.peak / MIB:,.0f}"
        rows.append([outcome.name, *_row(outcome.seconds, spread, trial, floor, incumbent), peak])
        for lap in outcome.samples[0].extra.laps:
            seconds = outcome.lap(lap)
            rows.append([f"  {lap}", *_row(seconds, "", trial, floor, incumbent), ""])
    lines = [f"{result.benchmark}: {trial.title}", *_aligned(rows)]
    lines += [f"  {one}" for one in result.judged]
    lines += [f"  note: {note}" for note in trial.notes]
    return "\n".join(lines)


def _over(trial: Trial) -> list[str]:
    return [f"/ {name}" for name in (trial.floor, trial.incumbent) if name]


def _row(
    seconds: float, spread: str, trial: Trial, floor: float | None, incumbent: float | None
) -> list[str]:
    rate = [f"{trial.nbytes / seconds / 1e9:.2f}"] if trial.nbytes else []
    ratios = [f"{seconds / base:.3g}" for base in (floor, incumbent) if base]
    return [_duration(seconds), spread, *rate, *ratios]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join(["", first.ljust(widths[0]), *cells])


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def summary(results: Sequence[Result], failed: Sequence[str]) -> str:
    """Return the last line: how many promises are kept."""
    judged = [one for result in results for one in result.judged]
    met = sum(one.met for one in judged)
    parts = [f"{met} of {len(judged)} targets met", f"{len(judged) - met} MISSED"]
    if failed:
        parts.append(f"{len(failed)} benchmarks FAILED: {', '.join(failed)}")
    return ", ".join(parts)


def write_json(
    folder: str, name: str, scale: str, machine: dict[str, str], results: Sequence[Result]
) -> str:
    """Write all samples of a benchmark; return the path.

    Args:
        folder: Where to; it exists.
        name: The benchmark.
        scale: How large its inputs were.
        machine: What the figures depend on.
        results: One for each of its trials.
    """
    path = os.path.join(folder, f"{name}.json")
    content = {
        "benchmark": name,
        "scale": scale,
        "machine": machine,
        "trials": [result.to_dict() for result in results],
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    return path
