"""The figures of a report: accuracy bars, training curves, frames of videos with their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

from froster.utils import strict_json as json
from froster.utils.files import atomic_file
from froster.utils.printable import printable

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


@dataclass(frozen=True)
class Verdict:
    """One model's best labels for one video, best first, and the right one."""

    model: str
    labels: Sequence[str]
    scores: Sequence[float]


@dataclass(frozen=True)
class Clip:
    """A classified video: its frames (T, 3, H, W) uint8, its right label (None if unknown) and what
    models said."""

    title: str
    frames: Tensor
    label: str | None
    verdicts: Sequence[Verdict]


def classified_clips(clips: Sequence[Clip], path: Path, top: int = 3) -> Path:
    """A row a video: its frames, and under them the best labels of each model; the right label in
    green."""
    T = max(len(clip.frames) for clip in clips)
    figure = Figure(figsize=(1.05 * T, (2.15 + 0.17 * top) * len(clips)))
    # An empty row after each video leaves room for the title of the next.
    rows = [1, 0.28 * top, 0.25] * len(clips)
    grid = figure.add_gridspec(len(rows), T, height_ratios=rows, hspace=0.12, wspace=0.06)
    for row, clip in enumerate(clips):
        for t, frame in enumerate(clip.frames):
            axes = figure.add_subplot(grid[3 * row, t])
            axes.imshow(frame.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_axis_off()
            if t == 0:
                axes.set_title(clip.title, fontsize=9, loc="left")
        axes = figure.add_subplot(grid[3 * row + 1, :])
        axes.set_axis_off()
        axes.set(xlim=(0, len(clip.verdicts)), ylim=(top, -0.9))
        for m, verdict in enumerate(clip.verdicts):
            axes.text(m, -0.45, verdict.model, fontsize=8, weight="bold", va="center")
            for i, (label, score) in enumerate(
                zip(verdict.labels[:top], verdict.scores[:top], strict=True)
            ):
                colour = "#009e73" if label == clip.label else "#b0b0b0"
                axes.barh(i + 0.35, 0.3 * score, 0.7, left=m, color=colour)
                axes.text(
                    m + 0.3 * score + 0.02,
                    i + 0.35,
                    f"{label}  {100 * score:.0f} %",
                    fontsize=7,
                    va="center",
                )
    return save(figure, path)
