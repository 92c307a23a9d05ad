"""What distillation gains against how often a video keeps its class's habits: `python
docs/results/curve.py` writes `curve.md` and `curve.png` from `cells/` and `curve/*/cells`.

Points are means over near, mid and far. A gain is paired: of the runs of one seed, which train on
the same videos of its world. The test videos of a strength are its own, so that frozen CLIP stands
at another height at each, and networks are compared with it there.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from claims import CROSS, CURVE, FROZEN, HERE, STRENGTHS, Run, paired, shown, sources, with_habits
from matplotlib.figure import Figure

from froster.paper.miniature import HABITS
from froster.utils.drawing import COLOURS, save, styled

ALONE, DISTILLED = CURVE
PAIRS: dict[str, tuple[Run, Run]] = {
    "tuned alone, less frozen CLIP": (ALONE, FROZEN),
    "distilled, less frozen CLIP": (DISTILLED, FROZEN),
    "gain of the distillation": (DISTILLED, ALONE),
}
WORDS = (
    "VCLIP, image tower tuned, plain labels, 16 videos a class, rate 1e-4, which validation chose at"
    " 0.9; mean over near, mid and far, in points, mean ± standard deviation over the seeds."
)
Points = dict[str, dict[float, list[float]]]
"""Pair -> strength -> a difference of every seed."""


def page(points: Points) -> str:
    strengths = sorted({strength for of_pair in points.values() for strength in of_pair})
    lines = [
        f"| a video keeps each habit | {' | '.join(f'{strength:g}' for strength in strengths)} |",
        f"|---{'|---' * len(strengths)}|",
    ]
    for name, of_pair in points.items():
        cells = [shown(of_pair.get(strength, [])) for strength in strengths]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    gain = points["gain of the distillation"]
    seeds = [str(len(gain.get(strength, []))) for strength in strengths]
    lines.append(f"| seeds | {' | '.join(seeds)} |")
    table = "\n".join(lines)
    command = "    python docs/results/curve.py     # of the runs that run.py has made"
    return f"# Gain and habit\n\n{command}\n\n{WORDS}\n\n{table}\n\n![Gain and habit](curve.png)\n"


@styled
def draw(points: Points, path: Path) -> Path:
    figure = Figure(figsize=(5.6, 3.6))
    axes = figure.subplots()
    axes.axhline(0, color="#888888", linewidth=0.8)
    for (name, of_pair), colour in zip(points.items(), COLOURS, strict=False):
        means = [statistics.fmean(values) for values in of_pair.values()]
        spreads = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in of_pair.values()]
        axes.errorbar([*of_pair], means, spreads, marker="o", capsize=2, color=colour, label=name)
    axes.set(xlabel="a video keeps each habit of its class: probability", ylabel="points")
    axes.legend()
    return save(figure, path)


def main() -> None:
    short, _ = sources(HERE)
    worlds = {strength: with_habits(short, strength) for strength in sorted((*STRENGTHS, HABITS))}
    points: Points = {name: {} for name in PAIRS}
    for strength, world in worlds.items():
        for name, pair in PAIRS.items():
            if values := paired(world, *pair, CROSS):
                points[name][strength] = values
    (HERE / "curve.md").write_text(page(points), encoding="utf-8")
    draw(points, HERE / "curve.png")


if __name__ == "__main__":
    main()
