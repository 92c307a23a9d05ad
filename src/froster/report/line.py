"""The picture of `froster blend`: accuracy along the line from the tuned weights to CLIP's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from froster.report.plots import COLOURS, save, tidy

STYLES = {"base": (COLOURS[2], "o"), "novel": (COLOURS[1], "s"), "HM": (COLOURS[3], "D")}


def line_figure(
    ratios: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    chosen: float,
    choosing: Sequence[float],
    floor: float,
    path: Path,
) -> Path:
    """base, novel and HM (those of them in `curves`, per cent) over the ratio, large markers at the
    chosen one.

    In grey what it was chosen by: the accuracy on the choosing videos, and the `floor` that it may
    not fall below.
    """
    figure = Figure(figsize=(6.0, 3.4))
    axes = figure.subplots()
    axes.axvline(chosen, color="#333333", linewidth=0.9)
    if floor < max(choosing):
        axes.fill_between(
            [0, 1],
            floor,
            max(choosing),
            color=COLOURS[0],
            alpha=0.16,
            linewidth=0,
            label="within its error",
        )
    axes.plot(
        ratios,
        choosing,
        color="#a6a6a6",
        linewidth=1.2,
        linestyle=(0, (4, 2)),
        label="base, choosing videos",
    )
    at = list(ratios).index(chosen)
    for name, values in curves.items():
        colour, marker = STYLES[name]
        axes.plot(
            ratios, values, color=colour, marker=marker, markersize=3.5, linewidth=1.6, label=name
        )
        axes.plot(
            chosen,
            values[at],
            marker,
            color=colour,
            markersize=9,
            markeredgecolor="w",
            markeredgewidth=1.2,
            zorder=4,
        )
    shown = [*choosing, floor, *(value for values in curves.values() for value in values)]
    margin = 0.08 * max(max(shown) - min(shown), 10)
    axes.set_ylim(max(0, min(shown) - margin), min(101, max(shown) + margin))
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\n(tuned)", "0.25", "0.5", "0.75", "1\n(CLIP)"])
    axes.set_xlabel("ratio: CLIP's share of the weights", fontsize=9, labelpad=-6)
    axes.set_ylabel("accuracy, per cent", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.annotate(
        f"chosen: {chosen:.3g}",
        (chosen, 1),
        (0, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8,
    )
    axes.legend(
        frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, reverse=True
    )
    tidy(axes)
    return save(figure, path)


def draw(report: dict[str, Any], path: Path) -> None:
    points, choosing = report["points"], report["choosing"]
    keys = [
        (name, key)
        for name, key in (("base", "base"), ("novel", "novel"), ("HM", "hm"))
        if points[0][key] is not None
    ]
    floor = choosing["best"] - (choosing["standard_error"] if report["rule"] == "one-se" else 0.0)
    line_figure(
        [p["ratio"] for p in points],
        {name: [p[key] for p in points] for name, key in keys},
        report["ratio"],
        [p["choosing"] for p in points],
        floor,
        path,
    )
