"""The picture: how far from its promise every figure is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.report import Result

MET: Final = "#2a7f62"
MISSED: Final = "#c0392b"
HIGHEST: Final = 1000.0
"""Bars end here; a figure of 0 where little was allowed is endlessly good."""


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
    lengths = [min(max(one.target.headroom(one.value), 1e-3), HIGHEST) for _, one in bars]
    colours = [MET if one.met else MISSED for _, one in bars]
    drawn = axes.barh(range(len(bars)), lengths, color=colours, height=0.7)
    labels = []
    for _, one in bars:
        unit = f" {one.target.unit}" if one.target.unit else ""
        labels.append(f"{one.value:.3g}{unit} ({one.target.sense} {one.target.limit:g}{unit})")
    axes.bar_label(drawn, labels, padding=4, fontsize=8)
    names = [f"{benchmark}: {one.target.text}" for benchmark, one in bars]
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(0.4, *lengths) * 0.8, max(2.0, *lengths) * 6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times better than promised (log scale); the line is the promise")
    axes.set_title(title, fontsize=8, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
    path = os.path.join(folder, "targets.png")
    figure.savefig(path, dpi=130)
    return path
