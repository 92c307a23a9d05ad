"""From the logits of windows to segments: smoothing, merging, and what is too short."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from froster.evaluation.calibration import answers
from froster.evaluation.metrics import Fusion
from froster.video.windows import WindowPlan


@dataclass(frozen=True)
class Segment:
    """From `start` to `end`, in seconds from the start of the video, `label` is the answer."""

    start: float
    end: float
    label: str
    score: float
    """The mean of the label's score over the segment."""


def smoothed(logits: Tensor, plan: WindowPlan, duration: float, fusion: Fusion) -> Tensor:
    """Logits of windows (n, K) -> of moments (m, K), each a stride long: the mean over the windows
    that cover its middle.

    As in `classify`, where the windows that cover a moment are its views: the mean of their logits,
    or (the log of) that of their soft-maxes.
    """
    moments = max(1, -int(-(duration - 1e-6) // plan.stride))
    each = logits if fusion == "logits" else logits.softmax(dim=-1)
    joined = each.new_empty(moments, each.shape[1])
    for moment in range(moments):
        middle = min((moment + 0.5) * plan.stride, duration)
        last = min(int(middle / plan.stride), len(logits) - 1)
        first = min(max(0, int((middle - plan.window) // plan.stride) + 1), last)
        joined[moment] = each[first : last + 1].mean(dim=0)
    return joined if fusion == "logits" else joined.log()


def merged(
    scores: Tensor, edges: Sequence[float], labels: Sequence[str], shortest: float = 0.0
) -> list[Segment]:
    """Scores of moments (m, K) and their edges (m + 1) -> segments without gaps: neighbours of the
    same answer are one.

    While a segment is shorter than `shortest` seconds, the shortest one gets the label of the
    neighbour whose label has the higher score in it, and becomes part of that.
    """
    runs = _runs(answers(scores, labels).tolist())
    starts, ends = {run.first: run for run in runs}, {run.end: run for run in runs}
    heap = [(edges[run.end] - edges[run.first], run) for run in runs]
    heapq.heapify(heap)
    while heap and len(starts) > 1:
        length, run = heapq.heappop(heap)
        if starts.get(run.first) != run:
            continue  # it has become part of another one
        if length >= shortest - 1e-6:
            break
        beside = [
            other for other in (ends.get(run.first), starts.get(run.end)) if other is not None
        ]
        label = max(
            (other.label for other in beside),
            key=lambda label: float(scores[run.first : run.end, label].mean()),
        )
        parts = [run, *(other for other in beside if other.label == label)]
        for part in parts:
            del starts[part.first], ends[part.end]
        whole = _Run(min(part.first for part in parts), max(part.end for part in parts), label)
        starts[whole.first] = ends[whole.end] = whole
        heapq.heappush(heap, (edges[whole.end] - edges[whole.first], whole))
    return [
        Segment(
            edges[run.first],
            edges[run.end],
            labels[run.label],
            float(scores[run.first : run.end, run.label].mean()),
        )
        for _, run in sorted(starts.items())
    ]


class _Run(NamedTuple):
    """Moments from `first` to before `end`, all of one label."""

    first: int
    end: int
    label: int


def _runs(best: Sequence[int]) -> list[_Run]:
    runs, first = [], 0
    for label, same in itertools.groupby(best):
        end = first + len(list(same))
        runs.append(_Run(first, end, label))
        first = end
    return runs
