"""Do the scores mean what they say? Calibration error, coverage against accuracy, and how well
"none" is detected."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from froster.errors import DataError
from froster.evaluation.calibration import (
    Calibration,
    LabelScores,
    NoneRule,
    energy,
    fits_none,
    leave_out,
    sizes,
)
from froster.evaluation.metrics import Fusion, readable

BINS = 15


def calibration_error(confidence: Float[Tensor, " n"], hit: Shaped[Tensor, " n"]) -> float:
    """Expected calibration error in per cent: |accuracy - confidence|, averaged over `BINS` equal
    parts of 0 … 1, as in Guo et al. With few videos it is too large by chance alone."""
    if not len(confidence):
        raise DataError("a calibration error needs a readable video")
    place = (confidence * BINS).long().clamp(0, BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, place, confidence.double() - hit.double())
    return 100 * float(gaps.abs().sum()) / len(confidence)


def coverage(
    confidence: Float[Tensor, " n"], hit: Bool[Tensor, " n"], points: int = 20
) -> list[dict[str, float]]:
    """Accuracy (per cent) of the most confident share of the videos, for shares up to all."""
    right = hit[confidence.argsort(descending=True, stable=True)].double().cumsum(0)
    n = len(right)
    if not n:
        return []
    counts = sorted({max(1, round(n * i / points)) for i in range(1, points + 1)})
    return [{"coverage": 100 * k / n, "accuracy": 100 * float(right[k - 1]) / k} for k in counts]


def auroc(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> float:
    """The probability, per cent, that a positive is scored above a negative; of equal scores half.
    Raises DataError where there is none of either."""
    if not (len(positive) and len(negative)):
        raise DataError("nothing to tell apart: no readable video on one of the two sides")
    both = torch.cat([positive, negative]).double()
    _, place, count = both.unique(return_inverse=True, return_counts=True)
    rank = (count.cumsum(0).double() - (count.double() - 1) / 2)[place]
    n, m = len(positive), len(negative)
    return 100 * (float(rank[:n].sum()) - n * (n + 1) / 2) / (n * m)


def reliability(outputs: LabelScores, labels: Int[Tensor, " n"]) -> dict[str, Any]:
    """Calibration error and coverage of n videos whose label is one of the K; unreadable ones (NaN)
    are left out."""
    kept = ~outputs.scores.isnan().any(1)
    scores, right = outputs.scores[kept], labels[kept]
    if not len(right):
        return {"ece": None, "coverage": [], "videos": 0, "called_none": None}
    confidence, answer = scores.max(1)
    hit = answer == right
    return {
        "ece": calibration_error(confidence, hit),
        "coverage": coverage(outputs.probabilities[kept].amax(1), hit),
        "videos": len(right),
        "called_none": None if outputs.none is None else share_called_none(outputs.none[kept]),
    }


def share_called_none(none: Float[Tensor, " n"]) -> float:
    """P(none), not NaN -> how many of the videos are answered "none of these", per cent."""
    return 100 * float(fits_none(none).double().mean())


def detection(
    rule: NoneRule,
    logits: Float[Tensor, "n labels"],
    labels: Int[Tensor, " n"],
    scale: float | None,
) -> Iterator[dict[str, float]]:
    """How well "its label is not among them" is told, for label sets of every size, in half of
    which it is so. Per cent: `error` is the calibration error of P(none), `right` the share that is
    answered right."""
    for count in sizes(logits.shape[-1]):
        present, absent = (energy(side, scale) for side in leave_out(logits, labels, count))
        none = rule(torch.cat([present, absent]), count)
        truth = torch.arange(len(none)) >= len(present)
        yield {
            "labels": count,
            "auroc": auroc(-absent, -present),
            "right": 100 * float((fits_none(none) == truth).double().mean()),
            "error": calibration_error(none, truth),
        }


def measured(
    calibration: Calibration,
    views: Float[Tensor, "n views labels"],
    labels: Int[Tensor, " n"],
    scale: float | None,
    fusion: Fusion = "logits",
) -> dict[str, Any]:
    """Scores before (temperature 1) and after, and the none rule (empty without one), for videos
    that were not fitted to. Raises DataError where none of them can be read."""
    kept = readable(views)
    if not kept.any():
        raise DataError(f"none of the {len(kept)} videos to measure it by can be read")
    views, labels, rule = views[kept].double(), labels[kept], calibration.none
    return {
        "videos": len(labels),
        "before": reliability(Calibration().score(views, scale, fusion), labels),
        "after": reliability(calibration.score(views, scale, fusion), labels),
        "none": [] if rule is None else list(detection(rule, views.mean(dim=1), labels, scale)),
    }
