"""The straight line in weight space from a tuned network to CLIP: measured point by point, and one
point chosen.

W(r) = r * CLIP + (1 - r) * tuned. The ratio r counts as in Open-VCLIP, which takes 0.5; WiSE-FT
(Wortsman et al., CVPR 2022) and PAINT (Ilharco et al., NeurIPS 2022) write alpha = 1 - r.
`docs/blend.md` has the rule and its reasons.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from rich.progress import Progress
from torch import Tensor

from froster.data.manifest import Item
from froster.data.splits import Split
from froster.errors import DataError
from froster.evaluation.metrics import (
    Predictions,
    Scorer,
    evaluate,
    harmonic_mean,
    percent,
    standard_error,
)
from froster.inference.recognizer import Recognizer
from froster.training.fine_tune import EvalSet
from froster.training.weights import towards
from froster.utils.tensors import StateDict

Rule = Literal["one-se", "best"]


class Line:
    """All networks W(r) in the memory of one: `student`'s weights are set anew for every ratio.

    Ratio 1 has CLIP's weights in the student's network, which may still read videos in its own way
    (VCLIP's frames see their neighbours).
    """

    def __init__(self, base: Recognizer, student: Recognizer, tuned: StateDict):
        self.student = student
        self.start = {f"clip.{name}": tensor for name, tensor in base.clip.state_dict().items()}
        self.tuned = {name: tensor.to(student.device) for name, tensor in tuned.items()}

    def move_to(self, ratio: float) -> Recognizer:
        """The student, now with the weights W(ratio)."""
        state = towards(self.start, self.tuned, ratio, self.student.config.method.output_layers)
        self.student.model.load_state_dict(state)
        return self.student


class PointScorer(Scorer):
    """Scores with the weights of one point of a line."""

    def __init__(self, line: Line, ratio: float, texts: Sequence[str], truncate: bool):
        student = line.move_to(ratio)
        classes = student.class_embeddings(texts, truncate)
        super().__init__(student.model, classes, student.dtype, student.config.fusion)
        self.line, self.ratio = line, ratio

    def __call__(self, views: Tensor) -> Tensor:
        self.line.move_to(self.ratio)
        return super().__call__(views)


def measure_line(
    base: Recognizer,
    line: Line,
    ratios: Sequence[float],
    sets: Sequence[EvalSet],
    bars: Progress,
    workers: int = 0,
    truncate: bool = False,
) -> tuple[dict[str, Predictions], list[dict[str, Predictions]]]:
    """Frozen CLIP, and the network at each ratio, on every set; a video is decoded once for all of
    them."""
    total = sum(len(s.dataset) for s in sets)  # type: ignore[arg-type, misc]
    bar = bars.add_task(f"evaluate {len(ratios)} ratios", total=total, note="")
    frozen: dict[str, Predictions] = {}
    points: list[dict[str, Predictions]] = [{} for _ in ratios]
    for s in sets:
        texts = s.texts or s.classes
        bars.update(bar, note=f"{s.name}: class texts")
        scorers: list[Scorer] = [
            Scorer(
                base.inference,
                base.class_embeddings(texts, truncate),
                base.dtype,
                base.config.fusion,
            )
        ]
        scorers += [PointScorer(line, ratio, texts, truncate) for ratio in ratios]
        bars.update(bar, note=s.name)
        frozen[s.name], *found = evaluate(
            scorers,
            s.dataset,
            s.classes,
            names=s.videos,
            workers=workers,
            on_videos=lambda n: bars.update(bar, advance=n),
        )
        for point, predictions in zip(points, found, strict=True):
            point[s.name] = predictions
    bars.update(bar, note="")
    return frozen, points


def choose(ratios: Sequence[float], accuracies: Sequence[float], videos: int, rule: Rule) -> float:
    """The ratio that `accuracies` (per cent of `videos` held-out base videos) speak for.

    `best`: of the highest accuracy. `one-se`: the largest, nearest to CLIP, whose accuracy is at
    most one standard error of the best one below it. Of equal ratios the larger is taken in both.
    """
    best = max(accuracies)
    floor = best - (standard_error(best, videos) if rule == "one-se" else 0.0)
    return max(
        ratio for ratio, accuracy in zip(ratios, accuracies, strict=True) if accuracy >= floor
    )


def choosing_half(items: Sequence[Item]) -> Tensor:
    """(N,) bools: which half of the held-out base videos chooses; the other half is reported.

    Class by class, every second video in the order of a hash of its name; so no seed, machine or
    novel video matters.
    """
    order = sorted(
        range(len(items)), key=lambda i: (items[i].label, hashed(items[i]), str(items[i].path))
    )
    chooses = torch.zeros(len(items), dtype=torch.bool)
    chooses[torch.tensor(order[::2], dtype=torch.long)] = True
    return chooses


def hashed(item: Item) -> str:
    return hashlib.sha256(
        f"{item.label}/{item.path.name}".encode(errors="surrogateescape")
    ).hexdigest()


@dataclass(frozen=True)
class HeldOut:
    """Held-out videos of a run; those of base classes are taken apart into what chooses and what is
    reported."""

    parts: Split
    """Its `base_test` holds both."""
    chooses: Tensor
    """(N,) bools, for `parts.base_test`."""
    origin: str


def held_out(parts: Split, validation: Sequence[Item]) -> HeldOut:
    """Validation videos choose, else the videos that the training was watched by, else half of the
    test. Raises DataError where there is too little."""
    for videos, origin in (
        (validation, "the validation split"),
        (parts.watch, "the watched videos"),
    ):
        if videos:
            both = dataclasses.replace(parts, base_test=[*videos, *parts.base_test])
            return HeldOut(both, torch.arange(len(both.base_test)) < len(videos), origin)
    if len(parts.base_test) < 2:
        raise DataError(
            f"{len(parts.base_test)} held-out videos of base classes are too few: give froster"
            " calibrate others with --data, froster blend a ratio with --ratio"
        )
    return HeldOut(parts, choosing_half(parts.base_test), "half of the base test videos")


def curve(
    base: Recognizer,
    line: Line,
    held: HeldOut,
    sets: Sequence[EvalSet],
    points: int,
    rule: Rule,
    bars: Progress,
    workers: int,
    truncate: bool,
) -> dict[str, Any]:
    """All points of the line, evenly from 0 to 1, and the choice between them. Accuracies are in
    per cent."""
    ratios = [i / (points - 1) for i in range(points)]
    frozen, found = measure_line(base, line, ratios, sets, bars, workers, truncate)
    measured = [
        {"ratio": r, **accuracies(p, held.chooses)} for r, p in zip(ratios, found, strict=True)
    ]
    choosing, videos = [p["choosing"] for p in measured], int(held.chooses.sum())
    best = max(choosing)
    return {
        "ratio": choose(ratios, choosing, videos, rule),
        "rule": rule,
        "choosing": {
            "videos": videos,
            "of": held.origin,
            "best": best,
            "standard_error": standard_error(best, videos),
        },
        "reported": {
            "base": len(held.chooses) - videos,
            "novel": len(held.parts.novel_test) if "novel" in frozen else 0,
        },
        "frozen": accuracies(frozen, held.chooses),
        "points": measured,
        "unreadable": [message for p in frozen.values() for _, message in p.errors],
    }


def accuracies(predictions: dict[str, Predictions], chooses: Tensor) -> dict[str, Any]:
    """On the choosing base videos, the other base videos and the novel ones; None where there are
    none."""
    hit = predictions["base"].ranks() < 1
    base = percent(hit[~chooses]) if (~chooses).any() else None
    novel = predictions["novel"].top(1) if "novel" in predictions else None
    hm = harmonic_mean(base, novel) if base is not None and novel is not None else None
    return {"choosing": percent(hit[chooses]), "base": base, "novel": novel, "hm": hm}
