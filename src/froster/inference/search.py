"""The segments of an index that are nearest to a text or a video: all are compared, none is
estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from froster.inference.store import Entry, Place, Store

_ROWS = 65_536
"""Compared at a time."""
JOIN_DEVIATIONS = 0.5
"""A neighbour belongs to a hit whose score is at most so many standard deviations of all scores
below the best."""


@dataclass(frozen=True)
class Hit:
    """A stretch of a video."""

    entry: Entry
    score: float
    """Cosine similarity of its best segment."""
    start: float
    end: float
    best: tuple[float, float]
    """Start and end of that segment, in seconds like the others."""

    def path(self, root: Path) -> Path:
        return root / self.entry.path


def search(
    store: Store,
    query: Tensor,
    top: int,
    *,
    join: bool = True,
    by_video: bool = False,
    without: Sequence[str] = (),
) -> list[Hit]:
    """The `top` best hits for a unit embedding (E,).

    Neighbouring segments that answer nearly as well as the best of them are one hit. `by_video`:
    the best hit of each video alone. `without`: paths, as the index has them, of videos that are no
    answer.
    """
    parts = store.by_part()
    places = [place for part in parts.values() for place in part]
    if not places:
        return []
    scores = torch.cat(
        [_scores(store.tensors(part)["segments"], of, query) for part, of in parts.items()]
    )
    counts = torch.tensor([len(place.entry.starts) for place in places])
    owner = torch.arange(len(places)).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    margin = JOIN_DEVIATIONS * float(scores.std(unbiased=False)) if join else -1.0
    taken, hits, seen = torch.zeros(len(scores), dtype=torch.bool), [], set()
    for row in scores.argsort(descending=True, stable=True).tolist():
        video = int(owner[row])
        if taken[row] or (by_video and video in seen) or places[video].entry.path in without:
            continue
        low = high = row
        while low > first[video] and not taken[low - 1] and scores[low - 1] >= scores[row] - margin:
            low -= 1
        while (
            high + 1 < first[video] + counts[video]
            and not taken[high + 1]
            and scores[high + 1] >= scores[row] - margin
        ):
            high += 1
        taken[low : high + 1] = True
        seen.add(video)
        entry, at = places[video].entry, int(first[video])
        best = entry.starts[row - at], entry.ends[row - at]
        hits.append(
            Hit(entry, float(scores[row]), entry.starts[low - at], entry.ends[high - at], best)
        )
        if len(hits) == top:
            break
    return hits


def _scores(segments: Tensor, places: Sequence[Place], query: Tensor) -> Tensor:
    """Of a part's valid segments, in the order of its videos."""
    every = torch.cat([rows.float() @ query for rows in segments.split(_ROWS)])
    return torch.cat([every[place.first :][: len(place.entry.starts)] for place in places])
