"""Each label by itself: how likely it is that it fits, whichever others do.

A label is weighed against a background, what the model makes of a text that says nothing. The
weights of both are fitted by logistic regression to videos of which one label is known, and the
threshold to the best F1 (`docs/none-of-these.md`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from froster.evaluation.logistic import logistic

BACKGROUND = "something"
"""The text that says nothing of a video."""
FEWEST = 5
"""Videos of a label that it takes for a threshold of its own."""


@dataclass(frozen=True)
class MultiLabelRule:
    """P(label) = sigmoid(intercept + label * its logit - background * that of the background)."""

    intercept: float = 0.0
    label: float = 1.0
    background: float = 1.0
    threshold: float = 0.5
    """The probability from which on a label is taken to fit."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """Of the labels that have one of their own."""

    def __call__(self, logits: Float[Tensor, "n columns"]) -> Float[Tensor, "n labels"]:
        """Logits of the labels and, in the last column, of the background -> probabilities."""
        labels, background = logits[:, :-1], logits[:, -1:]
        return (self.intercept + self.label * labels - self.background * background).sigmoid()

    def of(self, labels: Sequence[str]) -> list[float]:
        """The threshold of each label."""
        return [self.thresholds.get(label, self.threshold) for label in labels]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MultiLabelRule:
        """Raises ValueError, TypeError or KeyError on what is none."""
        rule = cls(**values)
        numbers = [*dataclasses.astuple(rule)[:4], *rule.thresholds.values()]
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
            raise ValueError("its numbers make no sense")
        return rule


def fit_multi_label(
    logits: Float[Tensor, "n columns"], labels: Int[Tensor, " n"], classes: Sequence[str]
) -> MultiLabelRule:
    """From videos that each have one of `classes`; the last column is the background's."""
    rows = logits.double()
    right = F.one_hot(labels, len(classes)).bool()
    x = torch.stack(
        [rows[:, :-1].flatten(), -rows[:, -1:].expand(-1, len(classes)).flatten()], dim=1
    )
    intercept, label, background = logistic(x, right.flatten().double())
    rule = MultiLabelRule(intercept, label, background)
    scores = rule(rows)
    several = {
        name: best_threshold(scores[:, place], right[:, place])
        for place, name in enumerate(classes)
        if int(right[:, place].sum()) >= FEWEST
    }
    return dataclasses.replace(
        rule, threshold=best_threshold(scores.flatten(), right.flatten()), thresholds=several
    )


def average_precision(scores: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> float:
    """The mean of the precision at each video that has the label, by falling score; of equal scores
    that without it counts first. NaN where none has it."""
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), bool(right[i])))
    hits = right[order]
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else math.nan


def measured_alone(
    scores: Float[Tensor, "n labels"],
    right: Bool[Tensor, "n labels"],
    thresholds: Sequence[float],
    labels: Sequence[str],
) -> dict[str, Any]:
    """How well each label is told by itself, in per cent: the mean average precision, and at the
    thresholds precision, recall and F1 over all pairs of a video and a label. An unreadable video
    has no score and fits no label."""
    given = scores >= torch.tensor(thresholds)
    ranked = scores.nan_to_num(nan=-1.0)
    hits, answers, truths = int((given & right).sum()), int(given.sum()), int(right.sum())
    per_class = {}
    for place, label in enumerate(labels):
        videos, both = int(right[:, place].sum()), int((given & right)[:, place].sum())
        if videos:
            per_class[label] = {
                "videos": videos,
                "ap": 100 * average_precision(ranked[:, place], right[:, place]),
                "f1": 200 * both / (videos + int(given[:, place].sum())),
            }
    of_labels = [values["ap"] for values in per_class.values()]
    return {
        "map": sum(of_labels) / len(of_labels),
        "f1": 200 * hits / (answers + truths),
        "precision": 100 * hits / answers if answers else None,
        "recall": 100 * hits / truths,
        "labels_a_video": truths / len(right),
        "per_class": per_class,
    }


def best_threshold(scores: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> float:
    """The least score that is taken for right where F1 is highest: halfway to the next lower."""
    ordered, places = scores.sort(descending=True)
    hits = right[places].cumsum(0)
    counts = torch.arange(1, len(scores) + 1)
    f1 = 2 * hits / (counts + int(right.sum()))
    # Equal scores are taken together.
    last = torch.ones_like(right)
    last[:-1] = ordered[:-1] != ordered[1:]
    best = int(torch.where(last, f1, -1.0).argmax())
    lower = ordered[best + 1] if best + 1 < len(ordered) else torch.zeros(())
    return float((ordered[best] + lower) / 2)
