"""The picture of how far scores can be trusted: accuracy against the share of the videos that are
answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from froster.report.plots import COLOURS, save, tidy


def coverage_figure(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> Path:
    """A line for each named curve of `reliability.coverage`: the accuracy of the surest videos, up
    to all of them."""
    figure = Figure(figsize=(5.2, 3.2))
    axes = figure.subplots()
    for i, (name, points) in enumerate(curves.items()):
        axes.plot(
            [p["coverage"] for p in points],
            [p["accuracy"] for p in points],
            color=COLOURS[i % len(COLOURS)],
            marker="o",
            markersize=3,
            linewidth=1.6,
            label=name,
        )
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 103)
    axes.set_xlabel("videos answered, the surest first, per cent", fontsize=9)
    axes.set_ylabel("right among them, per cent", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    tidy(axes)
    return save(figure, path)
