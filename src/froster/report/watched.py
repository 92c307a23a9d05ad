"""The picture of a training run that is watched: what is gained and what is kept, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from froster.report.plots import COLOURS, save, tidy

LINES = {
    "base": ("gained: base classes", COLOURS[2]),
    "novel": ("kept: novel classes", COLOURS[1]),
    "hm_together": ("HM, all labels asked together", COLOURS[3]),
    "agreement": ("kept: answers as CLIP", COLOURS[4]),
}


def watched_figure(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Per cent over the epochs; dashed what frozen CLIP has."""
    figure = Figure(figsize=(5.6, 3.0))
    axes = figure.subplots()
    epochs = [values["epoch"] for values in history]
    for name, (title, colour) in LINES.items():
        if name in history[0]:
            axes.plot(
                epochs,
                [v[name] for v in history],
                color=colour,
                marker="o",
                markersize=3,
                linewidth=1.6,
                label=title,
            )
        if f"{name}_frozen" in history[0]:
            axes.axhline(
                history[0][f"{name}_frozen"], color=colour, linewidth=1, linestyle=(0, (4, 3))
            )
    axes.set_ylim(0, 103)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("per cent", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    tidy(axes)
    return save(figure, path)
