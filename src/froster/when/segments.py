"""From the logits of windows to segments: smoothing, merging, and what is too short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from froster.evaluation import Fusion
from froster.video.windows import Plan


@dataclass(frozen=True)
class Segment:
    """From `start` to `end`, in seconds from the start of the video, `label` fits best."""

    start: float
    end: float
    label: str
    score: float
    """The mean of the label's score over the segment."""


def smoothed(logits: Tensor, plan: Plan, duration: float, fusion: Fusion) -> Tensor:
    """Logits of windows (n, K) -> of moments (m, K), each a stride long: the mean over the windows that cover its middle.

    As in `classify`, where the windows that cover a moment are its views: the mean of their logits, or (the log of) that
    of their soft-maxes.
    """
    moments = max(1, -int(-(duration - 1e-6) // plan.stride))
    each = logits if fusion == "logits" else logits.softmax(dim=-1)
    rows = []
    for moment in range(moments):
        middle = min((moment + 0.5) * plan.stride, duration)
        last = min(int(middle / plan.stride), len(logits) - 1)
        first = min(max(0, int((middle - plan.window) // plan.stride) + 1), last)
        rows.append(each[first : last + 1].mean(dim=0))
    joined = torch.stack(rows)
    return joined if fusion == "logits" else joined.log()


def merged(scores: Tensor, edges: Sequence[float], labels: Sequence[str], shortest: float = 0.0) -> list[Segment]:
    """Scores of moments (m, K) and their edges (m + 1) -> segments without gaps: neighbours of the same label are one.

    While a segment is shorter than `shortest` seconds, the shortest one gets the label of the neighbour whose label has
    the higher score in it, and becomes part of that.
    """
    best = scores.argmax(dim=-1).tolist()
    runs = [[i, i + 1, label] for i, label in enumerate(best)]
    runs = _joined(runs)
    while len(runs) > 1:
        length = [edges[end] - edges[first] for first, end, _ in runs]
        i = min(range(len(runs)), key=length.__getitem__)
        if length[i] >= shortest - 1e-6:
            break
        first, end, _ = runs[i]
        beside = [runs[j][2] for j in (i - 1, i + 1) if 0 <= j < len(runs)]
        runs[i][2] = max(beside, key=lambda label: float(scores[first:end, label].mean()))
        runs = _joined(runs)
    return [
        Segment(edges[first], edges[end], labels[label], float(scores[first:end, label].mean()))
        for first, end, label in runs
    ]


def _joined(runs: list[list[int]]) -> list[list[int]]:
    joined: list[list[int]] = []
    for first, end, label in runs:
        if joined and joined[-1][2] == label:
            joined[-1][1] = end
        else:
            joined.append([first, end, label])
    return joined
