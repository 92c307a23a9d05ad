"""Scores of moments to segments: of one answer at a time, or of each label by itself."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from froster.evaluation.calibration import answers


@dataclass(frozen=True)
class Segment:
    """From `start` to `end`, in seconds from the start of the video, `label` is the answer."""

    start: float
    end: float
    label: str
    score: float
    """The mean of the label's score over the segment."""

    def to_dict(self) -> dict[str, Any]:
        times = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return {**times, "label": self.label, "score": round(self.score, 4)}


def merged(
    scores: Float[Tensor, "moments labels"],
    edges: Sequence[float],
    labels: Sequence[str],
    shortest: float = 0.0,
) -> list[Segment]:
    """Scores of moments and their edges -> segments without gaps: neighbours of the same answer are
    one. While a segment is shorter than `shortest` seconds, the shortest one becomes part of the
    neighbour whose label has the higher score in it."""
    stretches, first = [], 0
    for label, same in itertools.groupby(answers(scores, labels).tolist()):
        stretches.append(_Stretch(first, first + len(list(same)), label))
        first = stretches[-1].end
    starts = {stretch.first: stretch for stretch in stretches}
    ends = {stretch.end: stretch for stretch in stretches}
    heap = [(edges[stretch.end] - edges[stretch.first], stretch) for stretch in stretches]
    heapq.heapify(heap)
    while heap and len(starts) > 1:
        length, stretch = heapq.heappop(heap)
        if starts.get(stretch.first) != stretch:
            continue  # it has become part of another one
        if length >= shortest - 1e-6:
            break
        beside = [*filter(None, (ends.get(stretch.first), starts.get(stretch.end)))]
        label = max(
            (other.label for other in beside),
            key=lambda label: float(scores[stretch.first : stretch.end, label].mean()),
        )
        parts = [stretch, *(other for other in beside if other.label == label)]
        for part in parts:
            del starts[part.first], ends[part.end]
        union = _Stretch(min(part.first for part in parts), max(part.end for part in parts), label)
        starts[union.first] = ends[union.end] = union
        heapq.heappush(heap, (edges[union.end] - edges[union.first], union))
    return [
        Segment(
            edges[stretch.first],
            edges[stretch.end],
            labels[stretch.label],
            float(scores[stretch.first : stretch.end, stretch.label].mean()),
        )
        for _, stretch in sorted(starts.items())
    ]


class _Stretch(NamedTuple):
    """Moments from `first` to before `end`, all of one label."""

    first: int
    end: int
    label: int


def by_label(
    scores: Float[Tensor, "moments labels"],
    edges: Sequence[float],
    labels: Sequence[str],
    thresholds: Sequence[float],
    shortest: float = 0.0,
) -> list[Segment]:
    """The stretches in which a label reaches its threshold, in the order of their starts; those of
    different labels may overlap. Shorter ones than `shortest` seconds are left out."""
    segments = []
    for place, (label, threshold) in enumerate(zip(labels, thresholds, strict=True)):
        first = 0
        for fits, same in itertools.groupby((scores[:, place] >= threshold).tolist()):
            end = first + len(list(same))
            if fits and edges[end] - edges[first] >= shortest - 1e-6:
                score = float(scores[first:end, place].mean())
                segments.append(Segment(edges[first], edges[end], label, score))
            first = end
    return sorted(segments, key=lambda segment: segment.start)
