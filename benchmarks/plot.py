"""The picture: how far from its promise every figure is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.report import Result

MET: Final = "#2a7f62"
MISSED: Final = "#c0392b"
HIGHEST: Final = 100.0
"""Bars end here; a figure of 0, where anything was allowed, is endlessly good."""


def write_plot(folder: str, title: str, results: Sequence[Result]) -> str | None:
    """Write a bar for each target; return the path, or None where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    bars = [(result.benchmark, one) for result in results for one in result.judged]
    figure = Figure(figsize=(11, 1.4 + 0.36 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ends = [min(max(one.target.headroom(one.value), 1 / HIGHEST), HIGHEST) for _, one in bars]
    colours = [MET if one.met else MISSED for _, one in bars]
    axes.barh(range(len(bars)), [end - 1 for end in ends], left=1, color=colours, height=0.7)
    for at, (end, (_, one)) in enumerate(zip(ends, bars, strict=True)):
        unit = f" {one.target.unit}" if one.target.unit else ""
        label = f"{one.value:.3g}{unit} ({one.target.sense} {one.target.limit:g}{unit})"
        axes.text(max(end, 1) * 1.06, at, label, va="center", fontsize=8)
    names = [f"{benchmark}: {one.target.text}" for benchmark, one in bars]
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(0.4, *ends) * 0.8, max(2.0, *ends) * 6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times better than promised (log scale); the line is the promise")
    axes.set_title(title, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    path = os.path.join(folder, "targets.png")
    figure.savefig(path, dpi=130)
    return path
