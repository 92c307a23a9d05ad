"""Where in the videos of an index something can be seen: every segment is compared with a text or a
video, or, where the index has a search index of its own, those that are likely to fit."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from froster.data.fingerprint import file_fingerprint
from froster.encoders.model import unit
from froster.errors import UsageError, VideoError
from froster.inference.approximate import is_estimated, search_options
from froster.inference.index import check_comparable, check_model, check_not_empty, segment_reader
from froster.inference.recognizer import Recognizer, as_recognizer
from froster.inference.store import Store
from froster.inference.tables import file_name, one_of_them, quoted, text_name, vector_rows
from froster.text.labels import check_labels
from froster.utils.address import Address, as_path, located
from froster.video.container import file_state
from froster.video.cut import clip_name, cut
from froster.video.windows import VideoSegment

_LEAST, _CANDIDATES = 64, 8
"""Best segments that are looked at first, and at least for each answer: neighbours are one."""
_ESTIMATED = 4096
"""More candidates are told by the exact search alone."""
JOIN_DEVIATIONS = 0.5
"""A neighbour belongs to a hit that is better by at most so many standard deviations of all scores.
"""


@dataclass(frozen=True)
class ComparedVideo:
    """A video with its segments, in their order."""

    path: str
    """As the index has it."""
    starts: list[float]
    ends: list[float]
    rows: list[int]
    """Their addresses in the index."""
    vectors: Float[Tensor, "segments embed"]
    fits: list[bool]
    """Whether each meets the condition that was asked for."""


@dataclass(frozen=True)
class Hit:
    """A stretch of a video."""

    entry: ComparedVideo
    score: float
    """Cosine similarity of its best segment."""
    start: float
    end: float
    best: tuple[float, float]
    """Start and end of that segment, in seconds like the others."""

    def path(self, root: Path) -> Path:
        return located(root, self.entry.path)


@dataclass(frozen=True)
class SearchResult:
    """The best hits first."""

    query: str
    store: Store
    hits: list[Hit]
    left_out: list[str]
    """Paths under which the index has the very video that was asked with."""
    estimated: bool = False
    """Not every segment was compared."""

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
        about = {
            "videos": self.store.count,
            "segments": self.store.segments,
            "estimated": self.estimated,
            "left_out": self.left_out,
        }
        return {"query": self.query, **about, "hits": hits}


def search(
    index: Store | str | Path,
    text: str | None = None,
    *,
    video: str | Path | None = None,
    model: Recognizer | str | Path | None = None,
    top: int = 10,
    join: bool = True,
    by_video: bool = False,
    where: str | None = None,
    exact: bool = False,
    truncate: bool = False,
) -> SearchResult:
    """The `top` stretches of the indexed videos that fit a text, or are like a video.

    `model` is the one that made the index, by default loaded by its name. `join`: neighbouring
    segments that fit nearly as well are one hit. `by_video`: the best hit of each video alone.
    `where`: a condition in SQL on the segments, such as "label = 'surfing' and start > 60"; its
    names are the columns of the index. `exact`: every segment is compared also where the index has
    a search index. Raises UsageError without a query, with another model or a condition that is
    none, DataError where the index is empty or cannot be read.
    """
    if (text is None) == (video is None):
        raise UsageError('say what to look for: a text, "a person surfing", or --video FILE')
    if text is not None:
        check_labels([text])
    if top < 1:
        raise UsageError(f"top is 1 or more, not {top}")
    store = index if isinstance(index, Store) else Store(index)
    check_not_empty(store)
    if where is not None:
        store.table.check(where)
    model = as_recognizer(model or store.source, store.merge_tokens)
    check_comparable(model)
    check_model(store, model)
    copies: list[str] = []
    if video is None:
        assert text is not None
        query = model.embed_text([text], truncate)[0]
    else:
        query = _embed_segments(model, as_path(video), store.seconds)
        copies = _copies_of(as_path(video), store)
    exact = exact or not is_estimated(store)
    hits = nearest(
        *(store, query, top),
        join=join,
        by_video=by_video,
        without=set(copies),
        where=where,
        exact=exact,
    )
    return SearchResult(text or str(video), store, hits, copies, not exact)


def cut_hits(hits: Sequence[Hit], root: Path, folder: Path) -> list[Path]:
    """The hits as files, numbered from the best; those of videos that are gone are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for number, hit in enumerate(hits, 1):
        name = clip_name(hit.start, hit.end, as_path(hit.entry.path).stem)
        with suppress(VideoError):
            files += cut(hit.path(root), [(hit.start, hit.end, folder / f"{number:02d} {name}")])
    return files


def _embed_segments(model: Recognizer, video: Path, seconds: float) -> Tensor:
    """The mean of its segments (E,), as a video of the index has it."""
    parts = segment_reader(model, seconds)(str(video))
    clips = [part.clip for part in parts if isinstance(part, VideoSegment)]
    embeddings = [model.embed_clips(torch.from_numpy(clip)[None]) for clip in clips]
    return unit(torch.cat(embeddings).mean(0))


def _copies_of(video: Path, store: Store) -> list[str]:
    """The paths under which the index has this very file, or one of the same content: that it is
    like itself is no answer."""
    fingerprint = file_fingerprint(video)
    size = -1 if isinstance(video, Address) else file_state(video).size
    table = store.table.rows(
        ("path", "video"),
        f"segment = 0 AND (video = {quoted(fingerprint or '')}"
        f" OR (video IS NULL AND size = {size}))",
    )
    names, fingerprints = map(file_name, table["path"].to_pylist()), table["video"].to_pylist()
    return [
        name
        for name, of_file in zip(names, fingerprints, strict=True)
        if of_file is not None or _is_same_file(located(store.root, name), video)
    ]


def _is_same_file(path: Path, video: Path) -> bool:
    if isinstance(path, Address) or not (path.exists() and video.exists()):
        return False
    return path.samefile(video)


def nearest(
    store: Store,
    query: Float[Tensor, " embed"],
    top: int,
    *,
    join: bool = True,
    by_video: bool = False,
    without: Container[str] = (),
    where: str | None = None,
    exact: bool = True,
) -> list[Hit]:
    """The `top` best hits for a unit embedding, joined and by video as in `search`. `without`:
    paths, as the index has them, of videos that are no answer."""
    if where is not None:
        store.table.check(where)
    segments = store.segments
    if not segments:
        return []
    margin = JOIN_DEVIATIONS * store.spread(query) if join else None
    count = max(_LEAST, _CANDIDATES * top)
    while True:
        if count > _ESTIMATED:  # a graph does not give so many
            exact = True
        candidates = store.closest(query, count, where, **search_options(store, exact))
        hits = _hits(store, query, candidates, top, margin, by_video, without, where)
        if len(hits) == top or len(candidates[1]) < count:
            return hits
        count *= 8


def _hits(
    store: Store,
    query: Tensor,
    candidates: tuple[Tensor, list[int], list[str]],
    top: int,
    margin: float | None,
    by_video: bool,
    without: Container[str],
    where: str | None,
) -> list[Hit]:
    """Of the best segments: scores, rows and paths. All better segments are among them, so that a
    hit that begins with one is a hit of all."""
    scores, rows, paths = candidates
    names = [path for path in dict.fromkeys(paths) if path not in without]
    videos: dict[str, _Scored] = {}
    hits: list[Hit] = []
    for score, row, path in zip(scores.tolist(), rows, paths, strict=True):
        if path in without:
            continue
        if path not in videos:
            first = names.index(path)
            more = _segmented(store, names[first : first + top], where)
            videos |= {name: _Scored.of(video, query) for name, video in more.items()}
        video = videos.get(path)
        if video is None or (by_video and video.is_hit) or (at := video.place(row)) is None:
            continue
        low, high = video.stretch(at, None if margin is None else score - margin)
        entry = video.entry
        best, stretch = (
            (entry.starts[at], entry.ends[at]),
            (entry.starts[low], entry.ends[high - 1]),
        )
        hits.append(Hit(entry, score, *stretch, best))
        if len(hits) == top:
            break
    return hits


def _segmented(store: Store, paths: Sequence[str], where: str | None) -> dict[str, ComparedVideo]:
    """Only what a search needs is read: a column that has one value throughout takes Lance a
    millisecond and more, whatever the number of rows."""
    names = ("path", "batch", "segment", "start", "end", "vector")
    chosen = {name: f"`{name}`" for name in names} | ({"fits": where} if where else {})
    videos: dict[str, ComparedVideo] = {}
    for condition in one_of_them("path", map(text_name, paths)):
        table = store.table.rows(chosen, condition).sort_by("segment")
        vectors = vector_rows(table["vector"], store.dimensions)
        of = {name: table[name].to_pylist() for name in table.schema.names if name != "vector"}
        groups: dict[str, dict[str, list[int]]] = {}
        for row, (path, batch) in enumerate(zip(of["path"], of["batch"], strict=True)):
            groups.setdefault(file_name(path), {}).setdefault(batch, []).append(row)
        twice = [path for path, batches in groups.items() if len(batches) > 1]
        newest = store.videos(twice, vectors=False)
        for path, batches in groups.items():
            rows = batches[newest[path].batch if path in newest else next(iter(batches))]
            starts, ends, places = (
                [of[name][row] for row in rows] for name in ("start", "end", "_rowaddr")
            )
            # Of a null it may be null.
            allowed = [where is None or bool(of["fits"][row]) for row in rows]
            videos[path] = ComparedVideo(path, starts, ends, places, vectors[rows], allowed)
    return videos


@dataclass
class _Scored:
    """A video with the scores of its segments."""

    entry: ComparedVideo
    rows: dict[int, int]
    """Address -> place."""
    scores: list[float]
    free: list[bool]
    """Those that may still become a part of a hit."""
    is_hit: bool = False

    @classmethod
    def of(cls, video: ComparedVideo, query: Tensor) -> _Scored:
        scores = (video.vectors.float() @ query).tolist()
        rows = {row: place for place, row in enumerate(video.rows)}
        return cls(video, rows, scores, list(video.fits))

    def place(self, row: int) -> int | None:
        """None where it is part of a hit already, or has been replaced since."""
        place = self.rows.get(row)
        return place if place is not None and self.free[place] else None

    def stretch(self, place: int, least: float | None) -> tuple[int, int]:
        """First and last + 1 of the neighbours with that score at least, which are a hit now."""
        low, high = place, place + 1
        if least is not None:
            while low > 0 and self.free[low - 1] and self.scores[low - 1] >= least:
                low -= 1
            while high < len(self.free) and self.free[high] and self.scores[high] >= least:
                high += 1
        self.free[low:high] = [False] * (high - low)
        self.is_hit = True
        return low, high
