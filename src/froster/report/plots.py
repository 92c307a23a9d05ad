"""The charts of the reports: bars, curves over training, coverage, and the line to CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from froster.utils import strict_json as json
from froster.utils.files import atomic_file
from froster.utils.text import printable

# Okabe and Ito's palette: told apart by colour-blind readers too. Grey is always the frozen model.
COLOURS = ("#8c8c8c", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


NARROW = 0.2
"""A bar of less than this share of its group is too narrow for a number that lies."""


@dataclass(frozen=True)
class Bars:
    """One model's bars: a value and a standard error (per cent) for every column; None leaves a
    gap."""

    name: str
    values: Sequence[float | None]
    errors: Sequence[float | None]


def save(figure: Figure, path: Path) -> Path:
    """Texts are names and labels: a $ in them begins no formula, and controls are written out
    (names of ticks come so)."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
    with atomic_file(path) as part:
        figure.savefig(part, format="png", dpi=130, bbox_inches="tight")
    return path


def tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def accuracy_bars(
    columns: Sequence[str], models: Sequence[Bars], path: Path, chance: Sequence[float | None] = ()
) -> Path:
    """Groups of bars, one group a column (base, novel, …), one bar a model, whiskers of one
    standard error; dashed what guessing gets in each column."""
    figure = Figure(figsize=(1.6 + 1.25 * len(columns), 3.6))
    axes = figure.subplots()
    width = 0.84 / len(models)
    for m, model in enumerate(models):
        for c, (value, error) in enumerate(zip(model.values, model.errors, strict=True)):
            if value is None:
                continue
            x = c + (m - (len(models) - 1) / 2) * width
            colour = COLOURS[m % len(COLOURS)]
            axes.bar(x, value, width * 0.94, color=colour, label=model.name if c == 0 else None)
            if error is not None:
                axes.errorbar(x, value, error, color="#333333", linewidth=0.8, capsize=1.5)
            inside = value > 8  # a lower bar has no room for its number
            axes.annotate(
                f"{value:.1f}",
                (x, 0 if inside else value + (error or 0)),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color="w" if inside else "#333333",
                rotation=90 if width < NARROW else 0,
            )
    for c, guessed in enumerate(chance):
        if guessed is not None:
            line = axes.hlines(
                guessed,
                c - 0.46,
                c + 0.46,
                color="#333333",
                linewidth=1,
                linestyle=(0, (3, 2)),
                zorder=3,
            )
            line.set_label("chance" if c == 0 else None)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylim(0, 100)
    axes.set_ylabel("accuracy, per cent")
    axes.legend(
        frameon=False,
        ncols=len(models) + 1,
        loc="upper center",
        bbox_to_anchor=(0.5, 1.14),
        fontsize=8,
    )
    tidy(axes)
    return save(figure, path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl` that belong to steps."""
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [line for line in lines if "step" in line]


def training_curves(runs: Mapping[str, Path], path: Path) -> Path:
    """Cross-entropy, distances to the teacher and training accuracy over the steps, from each run's
    `metrics.jsonl`."""
    panels = [
        ("ce", "cross-entropy"),
        ("distill_v", "distance to the teacher: vision"),
        ("distill_t", "distance to the teacher: text"),
        ("distill", "distance to the teacher"),
        ("accuracy", "accuracy on training clips, %"),
    ]
    metrics = {name: read_metrics(file) for name, file in runs.items()}
    shown = [
        (key, title)
        for key, title in panels
        if any(key in line for lines in metrics.values() for line in lines)
    ]
    figure = Figure(figsize=(3.3 * len(shown), 2.7))
    for axes, (key, title) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
    ):
        for i, (name, lines) in enumerate(metrics.items()):
            points = [(line["step"], line[key]) for line in lines if key in line]
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(
                    steps,
                    smooth(values),
                    color=COLOURS[(i + 1) % len(COLOURS)],
                    linewidth=1.4,
                    label=name,
                )
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=7)
        tidy(axes)
    figure.tight_layout()
    return save(figure, path)


def smooth(values: Sequence[float]) -> list[float]:
    """A running mean over a twentieth of the run: single batches are too noisy to compare by eye."""
    window = max(1, len(values) // 20)
    return [
        sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))
    ]


LINES = {
    "base": ("gained: base classes", COLOURS[2]),
    "novel": ("kept: novel classes", COLOURS[1]),
    "hm_together": ("HM, all labels asked together", COLOURS[3]),
    "agreement": ("kept: answers as CLIP", COLOURS[4]),
}


def validation_curves(history: Sequence[Mapping[str, float]], path: Path) -> Path:
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


def draw_blend(report: dict[str, Any], path: Path) -> None:
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
