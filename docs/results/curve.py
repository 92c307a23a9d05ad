"""Gain of distillation against the strength of the habits: `python docs/results/curve.py` writes
`curve.png` from the runs that there are, VCLIP with both towers tuned and plain labels."""

from __future__ import annotations

import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from claims import CURVE, HERE, PLAIN, curve, scores, sources

from froster.paper.miniature import Miniature

MEASURES = {
    "base": ("base",),
    "base, habits exchanged": ("base-swapped",),
    "novel": ("novel",),
    "near, mid and far": ("near", "mid", "far"),
}


def gains(source: Miniature, measure: tuple[str, ...]) -> list[float]:
    """Of each seed, in points."""
    distilled, alone = (scores(source, (cell, PLAIN), measure) for cell in CURVE)
    return [a - b for a, b in zip(distilled, alone, strict=False)]


def main() -> None:
    short, _ = sources(HERE)
    of_strength = dict(sorted({**curve(short), short.sizes["habits"]: short}.items()))
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for offset, (words, measure) in enumerate(MEASURES.items()):
        points = [(s, gains(source, measure)) for s, source in of_strength.items()]
        known = [(s, values) for s, values in points if len(values) > 1]
        axes.errorbar(
            [s + 0.006 * offset for s, _ in known],
            [statistics.fmean(values) for _, values in known],
            [statistics.stdev(values) for _, values in known],
            label=words,
            marker="o",
            capsize=3,
        )
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("how often a video keeps each habit of its class")
    axes.set_ylabel("gain of distillation in points")
    axes.legend(frameon=False)
    figure.savefig(HERE / "curve.png", dpi=130)


if __name__ == "__main__":
    main()
