"""The accuracies along the line to CLIP: which videos choose a ratio, what is measured, how it is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from froster.blend import Line, Rule, choose, choosing_half, measure_line
from froster.errors import DataError
from froster.evaluation import Predictions, harmonic_mean, percent, standard_error
from froster.experiment import EvalSet
from froster.insight.line import line_figure
from froster.recognizer import Recognizer
from froster.splits import Split
from froster.video.dataset import Item


@dataclass(frozen=True)
class HeldOut:
    """Held-out videos of a run; those of base classes are taken apart into what chooses and what is reported."""

    parts: Split
    """Its `base_test` holds both."""
    chooses: Tensor
    """(N,) bools, for `parts.base_test`."""
    origin: str


def held_out(parts: Split, validation: Sequence[Item]) -> HeldOut:
    """Validation videos choose, else the videos that the training was watched by, else half of the test. Raises
    DataError where there is too little."""
    for videos, origin in ((validation, "the validation split"), (parts.watch, "the watched videos")):
        if videos:
            both = dataclasses.replace(parts, base_test=[*videos, *parts.base_test])
            return HeldOut(both, torch.arange(len(both.base_test)) < len(videos), origin)
    if len(parts.base_test) < 2:
        raise DataError(
            f"{len(parts.base_test)} held-out videos of base classes are too few: give froster calibrate others with --data, "
            "froster blend a ratio with --ratio"
        )
    return HeldOut(parts, choosing_half(parts.base_test), "half of the base test videos")


def curve(
    base: Recognizer, line: Line, held: HeldOut, sets: Sequence[EvalSet], points: int, rule: Rule, bars: Progress,
    workers: int, truncate: bool,
) -> dict[str, Any]:  # fmt: skip
    """All points of the line, evenly from 0 to 1, and the choice between them. Accuracies are in per cent."""
    ratios = [i / (points - 1) for i in range(points)]
    frozen, found = measure_line(base, line, ratios, sets, bars, workers, truncate)
    measured = [{"ratio": r, **accuracies(p, held.chooses)} for r, p in zip(ratios, found, strict=True)]
    choosing, videos = [p["choosing"] for p in measured], int(held.chooses.sum())
    best = max(choosing)
    return {
        "ratio": choose(ratios, choosing, videos, rule),
        "rule": rule,
        "choosing": {
            "videos": videos, "of": held.origin, "best": best, "standard_error": standard_error(best, videos),
        },
        "reported": {"base": len(held.chooses) - videos, "novel": len(held.parts.novel_test) if "novel" in frozen else 0},
        "frozen": accuracies(frozen, held.chooses),
        "points": measured,
        "unreadable": [message for p in frozen.values() for _, message in p.errors],
    }  # fmt: skip


def accuracies(predictions: dict[str, Predictions], chooses: Tensor) -> dict[str, Any]:
    """On the choosing base videos, the other base videos and the novel ones; None where there are none."""
    hit = predictions["base"].ranks() < 1
    base = percent(hit[~chooses]) if (~chooses).any() else None
    novel = predictions["novel"].top(1) if "novel" in predictions else None
    hm = harmonic_mean(base, novel) if base is not None and novel is not None else None
    return {"choosing": percent(hit[chooses]), "base": base, "novel": novel, "hm": hm}


def draw(report: dict[str, Any], path: Path) -> None:
    points, choosing = report["points"], report["choosing"]
    keys = [(name, key) for name, key in (("base", "base"), ("novel", "novel"), ("HM", "hm")) if points[0][key] is not None]
    floor = choosing["best"] - (choosing["standard_error"] if report["rule"] == "one-se" else 0.0)
    line_figure(
        [p["ratio"] for p in points], {name: [p[key] for p in points] for name, key in keys}, report["ratio"],
        [p["choosing"] for p in points], floor, path,
    )  # fmt: skip
