"""Where in the videos of an index something can be seen: every segment is compared with a text or a
video, none is estimated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from froster.encoders.model import unit
from froster.errors import DataError, UsageError, VideoError
from froster.inference.index import check_comparable, check_model, segment_reader
from froster.inference.recognizer import Recognizer, as_recognizer
from froster.inference.store import EntryPlace, IndexEntry, Store
from froster.text.labels import check_labels
from froster.utils.address import Address, as_path
from froster.video.cut import clip_name, cut
from froster.video.windows import VideoSegment

_ROWS = 65_536
"""Compared at a time."""
JOIN_DEVIATIONS = 0.5
"""A neighbour belongs to a hit that is better by at most so many standard deviations of all scores.
"""


@dataclass(frozen=True)
class Hit:
    """A stretch of a video."""

    entry: IndexEntry
    score: float
    """Cosine similarity of its best segment."""
    start: float
    end: float
    best: tuple[float, float]
    """Start and end of that segment, in seconds like the others."""

    def path(self, root: Path) -> Path:
        return self.entry.file(root)


@dataclass(frozen=True)
class SearchResult:
    """The best hits first."""

    query: str
    store: Store
    hits: list[Hit]
    left_out: list[str]
    """Paths under which the index has the very video that was asked with."""

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON."""
        hits = [
            {
                "video": str(hit.path(self.store.root)),
                "score": hit.score,
                "start": hit.start,
                "end": hit.end,
                "best": list(hit.best),
            }
            for hit in self.hits
        ]
        size = {"videos": len(self.store.places), "segments": self.store.segments}
        return {"query": self.query, **size, "hits": hits}


def search(
    index: Store | str | Path,
    text: str | None = None,
    *,
    video: str | Path | None = None,
    model: Recognizer | str | Path | None = None,
    top: int = 10,
    join: bool = True,
    by_video: bool = False,
    truncate: bool = False,
) -> SearchResult:
    """The `top` stretches of the indexed videos that fit a text, or are like a video.

    `model` is the one that made the index, by default loaded by its name. `join`: neighbouring
    segments that fit nearly as well are one hit. `by_video`: the best hit of each video alone.
    Raises UsageError without a query or with another model, DataError where the index is empty or
    cannot be read.
    """
    if (text is None) == (video is None):
        raise UsageError('say what to look for: a text, "a person surfing", or --video FILE')
    if text is not None:
        check_labels([text])
    store = index if isinstance(index, Store) else Store(Path(index))
    check_not_empty(store)
    model = as_recognizer(model or store.source)
    check_comparable(model)
    check_model(store, model)
    copies: list[str] = []
    if video is None:
        assert text is not None
        query = model.embed_text([text], truncate)[0]
    else:
        query = _embed_segments(model, as_path(video), store.seconds)
        copies = _copies_of(as_path(video), store)
    hits = nearest(store, query, top, join=join, by_video=by_video, without=copies)
    return SearchResult(text or str(video), store, hits, copies)


def cut_hits(hits: Sequence[Hit], root: Path, folder: Path) -> list[Path]:
    """The hits as files, numbered from the best; those of videos that are gone are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for number, hit in enumerate(hits, 1):
        name = clip_name(hit.start, hit.end, as_path(hit.entry.path).stem)
        with suppress(VideoError):
            files += cut(hit.path(root), [(hit.start, hit.end, folder / f"{number:02d} {name}")])
    return files


def check_not_empty(store: Store) -> None:
    """Raises DataError where an index has no video."""
    if not store.places:
        raise DataError(f"{store.folder}: there is no video in this index yet")


def _embed_segments(model: Recognizer, video: Path, seconds: float) -> Tensor:
    """The mean of its segments (E,), as a video of the index has it."""
    parts = segment_reader(model, seconds)(str(video))
    clips = [part.clip for part in parts if isinstance(part, VideoSegment)]
    embeddings = [model.embed_clips(torch.from_numpy(clip)[None]) for clip in clips]
    return unit(torch.cat(embeddings).mean(0))


def _copies_of(video: Path, store: Store) -> list[str]:
    """The paths under which the index has this very file: that it is like itself is no answer."""
    if isinstance(video, Address):
        return [key for key in (str(video),) if key in store.places]
    size = video.stat().st_size
    entries = [place.entry for place in store.places.values() if place.entry.size == size]
    paths = [(entry.path, entry.file(store.root)) for entry in entries]
    paths = [(name, path) for name, path in paths if not isinstance(path, Address)]
    return [name for name, path in paths if path.exists() and path.samefile(video)]


def nearest(
    store: Store,
    query: Float[Tensor, " embed"],
    top: int,
    *,
    join: bool = True,
    by_video: bool = False,
    without: Sequence[str] = (),
) -> list[Hit]:
    """The `top` best hits for a unit embedding, joined and by video as in `search`. `without`:
    paths, as the index has them, of videos that are no answer."""
    parts = store.by_part()
    places = [place for part in parts.values() for place in part]
    if not places:
        return []
    scores = torch.cat(
        [_scores(store.tensors(name)["segments"], part, query) for name, part in parts.items()]
    )
    counts = torch.tensor([len(place.entry.starts) for place in places])
    owner = torch.arange(len(places)).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    margin = JOIN_DEVIATIONS * float(scores.std(unbiased=False)) if join else -1.0
    used, hits, videos = torch.zeros(len(scores), dtype=torch.bool), [], set()
    for row in scores.argsort(descending=True, stable=True).tolist():
        video = int(owner[row])
        if used[row] or (by_video and video in videos) or places[video].entry.path in without:
            continue
        low, high, least = row, row + 1, scores[row] - margin
        end = first[video] + counts[video]
        while low > first[video] and not used[low - 1] and scores[low - 1] >= least:
            low -= 1
        while high < end and not used[high] and scores[high] >= least:
            high += 1
        used[low:high] = True
        videos.add(video)
        entry, at = places[video].entry, int(first[video])
        best = entry.starts[row - at], entry.ends[row - at]
        stretch = entry.starts[low - at], entry.ends[high - 1 - at]
        hits.append(Hit(entry, float(scores[row]), *stretch, best))
        if len(hits) == top:
            break
    return hits


def _scores(segments: Tensor, places: Sequence[EntryPlace], query: Tensor) -> Tensor:
    """Of a part's valid segments, in the order of its videos."""
    scores = torch.cat([rows.float() @ query for rows in segments.split(_ROWS)])
    return torch.cat([scores[place.rows] for place in places])
