"""Which segments to ask a person about, and what their answers teach.

    worth of a segment = (1 - (p1 - p2)) * (1 - cosine with the nearest segment that is known)

p1 and p2 are the model's two highest probabilities: the first factor is near 1 where it cannot
decide (margin sampling, Scheffer et al. 2001), the second is large where nothing like the segment
was asked about. Cosines are of embeddings less their mean, as those of all videos lie in one cone.
Of several segments, each counts as known for the next.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from froster.training.lp_plus import START, STEPS, fit_lp

MOST = 20_000
"""Segments that are compared with those known: the most uncertain, so that a large index answers at
once."""


def around_mean(features: Float[Tensor, "n embed"]) -> Float[Tensor, "n embed"]:
    """Embeddings less their mean, made unit."""
    centred = features - features.mean(0)
    return centred / centred.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def uncertainty(scores: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """1 - (p1 - p2) of logits; 1 where there are no two classes to decide between."""
    if scores.shape[1] < 2:
        return scores.new_ones(len(scores))
    first, second = scores.softmax(-1).topk(2).values.unbind(-1)
    return 1 - (first - second)


def choose(
    features: Float[Tensor, "n embed"],
    scores: Float[Tensor, "n classes"],
    known: Bool[Tensor, " n"],
    count: int = 1,
) -> list[int]:
    """The rows of the `count` segments that are worth most, the best first; fewer where fewer are
    not `known`. `features` are of unit length, `scores` logits. Where no segment is known, the
    first is the most uncertain one."""
    doubt = uncertainty(scores).masked_fill(known, -1.0)
    left = min(MOST, int((~known).sum()))
    doubt, rows = doubt.topk(left)
    candidates = features[rows]
    distance = torch.ones_like(doubt)
    if bool(known.any()):
        distance = (1 - candidates @ features[known].T).amin(1).clamp(min=0)
    chosen: list[int] = []
    used = torch.zeros(left, dtype=torch.bool)
    for _ in range(min(count, left)):
        best = int((doubt * distance).masked_fill(used, -1.0).argmax())
        chosen.append(int(rows[best]))
        used[best] = True
        distance = torch.minimum(distance, (1 - candidates @ candidates[best]).clamp(min=0))
    return chosen


def fit_answers(
    features: Float[Tensor, "known embed"],
    labels: Int64[Tensor, " known"],
    text: Float[Tensor, "classes embed"],
    scale: float,
    steps: int = STEPS,
) -> Float[Tensor, "classes embed"]:
    """A row a class, whose products with a unit embedding are logits: LP++ of the classes that have
    an example, the class embedding times LP++'s first multiplier of those that have none. Without
    any example they are the zero-shot scores, of logit scale `scale`."""
    if not len(labels):
        return scale * text
    present = labels.unique()
    places = torch.full((len(text),), -1)
    places[present] = torch.arange(len(present))
    of_class = [(features[labels == k] @ text[k]).mean() for k in present.tolist()]
    weight = START * torch.stack(of_class).mean() * text
    weight[present] = fit_lp(features, places[labels], text[present], steps)
    return weight
