"""Videos in a picture: frames, and under them what models make of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from froster.utils.drawing import save


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
            best = list(zip(verdict.labels, verdict.scores, strict=True))[:top]
            for i, (label, score) in enumerate(best):
                colour = "#009e73" if label == clip.label else "#b0b0b0"
                axes.barh(i + 0.35, 0.3 * score, 0.7, left=m, color=colour)
                words, x = f"{label}  {100 * score:.0f} %", m + 0.3 * score + 0.02
                axes.text(x, i + 0.35, words, fontsize=7, va="center")
    return save(figure, path)
