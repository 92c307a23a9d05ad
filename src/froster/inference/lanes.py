"""The picture of a timeline: a lane a label, and the curves of the scores under them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from froster.utils.drawing import COLOURS, plain_texts, save, styled
from froster.utils.text import printable

if TYPE_CHECKING:
    from froster.inference.timeline import Timeline

LANE, CURVES, GAP, WIDTH = 0.2, 1.7, 0.15, 11.0
"""Inches: of a lane, of the curves, between them, and of the picture."""
GREY = "#b5b5b5"
LONGEST_NAME = 34
POINTS = 2000
"""More than these, the pixels across the picture, would only take time."""
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
"""Seconds between marks on the axis of time."""


class Picture(Figure):
    """A figure that a notebook shows, whether pyplot has been imported or not."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100, bbox_inches="tight")
        return file.getvalue()


def draw_timeline(timeline: Timeline, title: str, path: Path) -> Path:
    """As a .png."""
    return save(timeline_figure(timeline, title), path)


@styled
def timeline_figure(timeline: Timeline, title: str = "") -> Picture:
    """Lanes: a label's score as the depth of grey, the segments it wins in colour. Curves: the
    scores themselves.

    The labels that win for the longest time have colours of their own; the curves of those that
    never win are thin.
    """
    labels, colours = timeline.labels, _colours(timeline)
    lanes = LANE * len(labels) + 0.15
    figure = Picture(figsize=(WIDTH, lanes + CURVES + 0.9))
    gap = {"hspace": 2 * GAP / (lanes + CURVES)}  # a share of the mean height
    above, below = figure.subplots(
        2, 1, sharex=True, height_ratios=[lanes, CURVES], gridspec_kw=gap
    )
    edges, scores = _thinned(np.asarray(timeline.edges), timeline.scores.numpy())

    above.grid(False)
    rows = np.arange(len(labels) + 1) - 0.5
    above.pcolormesh(edges, rows, scores.T, cmap="Greys", vmin=0, vmax=1.6)
    for segment in timeline.segments:
        lane, width = labels.index(segment.label), segment.end - segment.start
        above.barh(lane, width, 1, segment.start, color=colours[lane], linewidth=0)
    above.hlines(rows[1:-1], *edges[[0, -1]], color="#f3f3f3", linewidth=0.8)
    names = [printable(label) for label in labels]
    names = [n if len(n) <= LONGEST_NAME else f"{n[: LONGEST_NAME - 1]}…" for n in names]
    above.set_yticks(range(len(labels)), names, fontsize=8)
    for tick, colour in zip(above.get_yticklabels(), colours, strict=True):
        tick.set_color(colour if colour != GREY else "#555555")
    above.set_ylim(len(labels) - 0.5, -0.5)
    above.tick_params(length=0)
    above.spines[:].set_visible(False)
    above.set_title(title if timeline.complete else f"{title} (stopped early)")

    for label, colour in enumerate(colours):
        width, order = (0.5, 2) if colour == GREY else (1.4, 3)
        below.stairs(
            scores[:, label], edges, baseline=None, color=colour, linewidth=width, zorder=order
        )
    below.set(xlim=(timeline.start, timeline.end), ylim=(0, 1.02), ylabel="score")
    length = timeline.end - timeline.start
    step = next((step for step in TICKS if length <= 10 * step), length / 10)
    below.xaxis.set_major_locator(MultipleLocator(step))
    below.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds, timeline.end)))
    plain_texts(figure)
    return figure


def clock(seconds: float, longest: float = 0.0) -> str:
    """`"1:02:03"`, `"2:03"`; with tenths of a second where the whole is under a minute."""
    if longest < 60:
        return f"{seconds:.4g} s"
    minutes, rest = divmod(round(seconds), 60)
    if longest < 3600:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _colours(timeline: Timeline) -> list[str]:
    """One a label: the palette to those that win for the longest time, one more colour to all
    others that win."""
    seconds = dict.fromkeys(timeline.labels, 0.0)
    for segment in timeline.segments:
        seconds[segment.label] += segment.end - segment.start
    winners = sorted(filter(seconds.get, seconds), key=lambda label: -seconds[label])
    palette = dict(zip(winners, COLOURS[1:], strict=False))
    return [palette.get(label, "#444444" if seconds[label] else GREY) for label in seconds]


def _thinned(edges: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbours where there are more moments than the picture can show."""
    every = -(-len(scores) // POINTS)
    starts = np.arange(0, len(scores), every)
    counts = np.diff([*starts, len(scores)])
    return edges[[*starts, len(scores)]], np.add.reduceat(scores, starts) / counts[:, None]
