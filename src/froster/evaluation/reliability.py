"""Do the scores mean what they say? Calibration error, coverage against accuracy, and how well
"none" is detected."""

from __future__ import annotations

from typing import Any

import torch
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
from froster.evaluation.metrics import Fusion

BINS = 15


def calibration_error(confidence: Tensor, hit: Tensor, bins: int = BINS) -> float:
    """Expected calibration error of (n,) confidences in per cent: |accuracy - confidence|, averaged
    over equal bins.

    `bins` equal parts of 0 … 1, as in Guo et al. With few videos it is too large by chance alone.
    """
    if not len(confidence):
        raise DataError("a calibration error needs a readable video")
    place = (confidence * bins).long().clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(
        0, place, confidence.double() - hit.double()
    )
    return 100 * float(gaps.abs().sum()) / len(confidence)


def coverage(confidence: Tensor, hit: Tensor, points: int = 20) -> list[dict[str, float]]:
    """Accuracy (per cent) of the most confident share of the videos, for shares up to all of them."""
    right = hit[confidence.argsort(descending=True, stable=True)].double().cumsum(0)
    n = len(right)
    if not n:
        return []
    counts = sorted({max(1, round(n * i / points)) for i in range(1, points + 1)})
    return [{"coverage": 100 * k / n, "accuracy": 100 * float(right[k - 1]) / k} for k in counts]


def auroc(positive: Tensor, negative: Tensor) -> float:
    """The probability, per cent, that a positive is scored above a negative; of equal scores half.

    Raises DataError where there is none of either.
    """
    if not (len(positive) and len(negative)):
        raise DataError("nothing to tell apart: no readable video on one of the two sides")
    both = torch.cat([positive, negative]).double()
    _, place, count = both.unique(return_inverse=True, return_counts=True)
    rank = (count.cumsum(0).double() - (count.double() - 1) / 2)[place]
    n, m = len(positive), len(negative)
    return 100 * (float(rank[:n].sum()) - n * (n + 1) / 2) / (n * m)


def reliability(judged: LabelScores, labels: Tensor) -> dict[str, Any]:
    """Calibration error and coverage of n videos whose label is one of the K; unreadable ones (NaN)
    are left out."""
    kept = ~judged.scores.isnan().any(1)
    scores, right = judged.scores[kept], labels[kept]
    if not len(right):
        return {"ece": None, "coverage": [], "videos": 0, "called_none": None}
    confidence, answer = scores.max(1)
    hit = answer == right
    return {
        "ece": calibration_error(confidence, hit),
        "coverage": coverage(judged.probabilities[kept].amax(1), hit),
        "videos": len(right),
        "called_none": None if judged.none is None else share_called_none(judged.none[kept]),
    }


def share_called_none(none: Tensor) -> float:
    """P(none) of n videos, not NaN -> how many of them are answered "none of these", per cent."""
    return 100 * float(fits_none(none).double().mean())


def detection(
    rule: NoneRule, logits: Tensor, labels: Tensor, scale: float | None
) -> list[dict[str, float]]:
    """How well "its label is not among them" is told, for label sets of every size: videos (n, K),
    half of them so.

    `error` is the calibration error of P(none), `right` the share told right at P = 1/2, both per
    cent.
    """
    rows = []
    for count in sizes(logits.shape[-1]):
        energies = [energy(side, scale) for side in leave_out(logits, labels, count)]
        with_own, without = (rule(e, count) for e in energies)
        none = torch.cat([with_own, without])
        truth = torch.cat([torch.zeros_like(with_own), torch.ones_like(without)])
        rows.append(
            {
                "labels": count,
                "auroc": auroc(-energies[1], -energies[0]),
                "right": 100 * float((fits_none(none) == (truth > 0.5)).double().mean()),
                "error": calibration_error(none, truth),
            }
        )
    return rows


def measured(
    calibration: Calibration,
    views: Tensor,
    labels: Tensor,
    scale: float | None,
    fusion: Fusion = "logits",
) -> dict[str, Any]:
    """Scores before (temperature 1) and after, and the none rule, for videos (n, V, K) that were
    not fitted to.

    `none` is empty where there is no rule. Raises DataError where none of the videos can be read.
    """
    kept = ~views.isnan().flatten(1).any(1)
    if not kept.any():
        raise DataError(f"none of the {len(kept)} videos to measure it by can be read")
    views, labels = views[kept].double(), labels[kept]
    return {
        "videos": len(labels),
        "before": reliability(Calibration().score(views, scale, fusion), labels),
        "after": reliability(calibration.score(views, scale, fusion), labels),
        "none": (
            []
            if calibration.none is None
            else detection(calibration.none, views.mean(dim=1), labels, scale)
        ),
    }
