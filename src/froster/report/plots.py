"""The charts of the reports: bars, curves over training, coverage, and the line to CLIP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from froster.utils import strict_json as json
from froster.utils.drawing import COLOURS, save, styled

DARK = "#333333"
DASHED = (0, (4, 3))
NARROW = 0.2
"""A bar of less than this share of its group is too narrow for a number that lies."""
ROOM = 8.0
"""Points that a number inside a bar takes."""
LINES = {
    "base": ("gained: base classes", COLOURS[2]),
    "novel": ("kept: novel classes", COLOURS[1]),
    "hm_together": ("HM, all labels asked together", COLOURS[3]),
    "agreement": ("kept: answers as CLIP", COLOURS[4]),
}
STYLES = {"base": (COLOURS[2], "o"), "novel": (COLOURS[1], "s"), "HM": (COLOURS[3], "D")}


@dataclass(frozen=True)
class Bars:
    """One model's bars: a value and a standard error (per cent) for every column; None leaves a
    gap."""

    name: str
    values: Sequence[float | None]
    errors: Sequence[float | None]


@styled
def accuracy_bars(
    columns: Sequence[str], models: Sequence[Bars], path: Path, chance: Sequence[float | None] = ()
) -> Path:
    """Groups of bars, one group a column (base, novel, …), one bar a model, whiskers of one
    standard error; dashed what guessing gets in each column."""
    figure = Figure(figsize=(1.6 + 1.25 * len(columns), 3.6))
    axes = figure.subplots()
    width = 0.84 / len(models)
    for m, model in enumerate(models):
        name: str | None = model.name  # until a bar has it
        for c, (value, error) in enumerate(zip(model.values, model.errors, strict=True)):
            if value is None:
                continue
            x = c + (m - (len(models) - 1) / 2) * width
            colour = COLOURS[m % len(COLOURS)]
            axes.bar(x, value, width * 0.94, color=colour, label=name)
            name = None
            if error is not None:
                axes.errorbar(x, value, error, color=DARK, linewidth=0.8, capsize=1.5)
            guessed = (chance[c] if chance else None) or 0.0
            foot = guessed if guessed < ROOM else 0.0  # above the dashed line
            inside = value > foot + ROOM  # a lower bar has no room for its number
            axes.annotate(
                f"{value:.1f}",
                (x, foot if inside else value + (error or 0)),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color="w" if inside else DARK,
                rotation=90 if width < NARROW else 0,
            )
    levels = [(c, level) for c, level in enumerate(chance) if level is not None]
    for n, (c, level) in enumerate(levels):
        line = axes.hlines(level, c - 0.46, c + 0.46, DARK, "--", linewidth=1, zorder=3)
        line.set_label("chance" if n == 0 else None)
    axes.set_xticks(range(len(columns)), columns, fontsize=10)
    axes.set(ylim=(0, 100), ylabel="accuracy, per cent")
    axes.legend(ncols=len(models) + 1, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    return save(figure, path)


@styled
def training_curves(runs: Mapping[str, Path], path: Path) -> Path:
    """Cross-entropy, distances to the teacher and training accuracy over the steps, from each run's
    `metrics.jsonl`."""
    panels = {
        "ce": "cross-entropy",
        "distill_v": "distance to the teacher: vision",
        "distill_t": "distance to the teacher: text",
        "distill": "distance to the teacher",
        "accuracy": "accuracy on training clips, %",
    }
    metrics = {
        name: [line for line in map(json.loads, file.read_text().splitlines()) if "step" in line]
        for name, file in runs.items()
    }
    keys = {key for lines in metrics.values() for line in lines for key in line}
    shown = [key for key in panels if key in keys]
    figure = Figure(figsize=(3.3 * len(shown), 2.7))
    for axes, key in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for i, (name, lines) in enumerate(metrics.items(), 1):
            steps = [line["step"] for line in lines if key in line]
            values = smooth([line[key] for line in lines if key in line])
            if steps:
                axes.plot(steps, values, color=COLOURS[i % len(COLOURS)], label=name)
        axes.set(title=panels[key], xlabel="step")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7)
    figure.tight_layout()
    return save(figure, path)


def smooth(values: Sequence[float]) -> list[float]:
    """A running mean over a twentieth of the run, as single batches are too noisy to compare."""
    window = max(1, len(values) // 20)
    parts = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]


@styled
def validation_curves(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Per cent over the epochs; dashed what frozen CLIP has."""
    figure = Figure(figsize=(5.6, 3.0))
    axes = figure.subplots()
    epochs = [values["epoch"] for values in history]
    for name, (title, colour) in LINES.items():
        if name in history[0]:
            axes.plot(epochs, [v[name] for v in history], "o-", color=colour, label=title)
        if f"{name}_frozen" in history[0]:
            axes.axhline(history[0][f"{name}_frozen"], color=colour, linewidth=1, linestyle=DASHED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(ylim=(0, 103), xlabel="epoch", ylabel="per cent")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return save(figure, path)


@styled
def coverage_figure(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> Path:
    """A line for each named curve of `reliability.coverage`: the accuracy of the surest videos, up
    to all of them."""
    figure = Figure(figsize=(5.2, 3.2))
    axes = figure.subplots()
    for i, (name, points) in enumerate(curves.items()):
        shares, accuracies = ([p[key] for p in points] for key in ("coverage", "accuracy"))
        axes.plot(shares, accuracies, "o-", color=COLOURS[i % len(COLOURS)], label=name)
    axes.set(xlim=(0, 102), ylim=(0, 103), ylabel="right among them, per cent")
    axes.set_xlabel("videos answered, the surest first, per cent")
    axes.legend(loc="lower left")
    return save(figure, path)


@styled
def draw_blend(report: Mapping[str, Any], path: Path) -> Path:
    """base, novel and HM (those of them that were measured, per cent) over the ratio, large markers
    at the chosen one.

    In grey what it was chosen by: the accuracy on the choosing videos, and how far below the best
    of it the rule lets it fall.
    """
    points, chosen, best = report["points"], report["ratio"], report["choosing"]["best"]
    floor = best - (report["choosing"]["standard_error"] if report["rule"] == "one-se" else 0.0)
    ratios, choosing = ([p[key] for p in points] for key in ("ratio", "choosing"))
    figure = Figure(figsize=(6.0, 3.4))
    axes = figure.subplots()
    axes.axvline(chosen, color=DARK, linewidth=0.9)
    if floor < max(choosing):
        error: dict[str, Any] = {"alpha": 0.16, "linewidth": 0, "label": "within its error"}
        axes.fill_between([0, 1], floor, max(choosing), color=COLOURS[0], **error)
    axes.plot(ratios, choosing, "--", color="#a6a6a6", linewidth=1.2, label="base, choosing videos")
    shown = [*choosing, floor]
    for name, (colour, marker) in STYLES.items():
        values = [p[name.lower()] for p in points]
        if values[0] is not None:
            large: dict[str, Any] = {"markersize": 9, "markeredgecolor": "w", "zorder": 4}
            axes.plot(ratios, values, color=colour, marker=marker, markersize=3.5, label=name)
            axes.plot(chosen, values[ratios.index(chosen)], marker, color=colour, **large)
            shown += values
    margin = 0.08 * max(max(shown) - min(shown), 10)
    axes.set_ylim(max(0, min(shown) - margin), min(101, max(shown) + margin))
    axes.set(xlim=(-0.03, 1.03), ylabel="accuracy, per cent")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\n(tuned)", "0.25", "0.5", "0.75", "1\n(CLIP)"])
    axes.set_xlabel("ratio: CLIP's share of the weights", labelpad=-6)
    place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center"}
    axes.text(chosen, 1.01, f"chosen: {chosen:.3g}", fontsize=8, **place)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), reverse=True)
    return save(figure, path)
