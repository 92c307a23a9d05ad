"""From videos to an index: processes cut them into segments, the network embeds these, and parts go
to the disk."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from froster.data.fingerprint import file_fingerprint
from froster.data.listing import ListedVideo, Listing
from froster.data.shards import Shard
from froster.errors import DataError, UsageError, one_of
from froster.inference.approximate import approximate, exactly
from froster.inference.batch import ModelWork, ReadOptions, as_listing
from froster.inference.failed import FailureTable
from froster.inference.fingerprint import model_fingerprint
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer, as_recognizer, load
from froster.inference.results import BatchProgress, OnProgress, ignore_progress
from froster.inference.store import (
    SEGMENTS,
    IndexedFile,
    IndexEntry,
    Store,
    place_of,
    refuse_old,
    table_at,
)
from froster.inference.tables import LanceTable, check_columns
from froster.methods import VideoCLIP
from froster.text.sentences import read_descriptions
from froster.utils.address import whole_name
from froster.utils.engine import run
from froster.utils.work import End
from froster.video.windows import ReadSegments, VideoSegment, VideoSummary

EmbeddedVideo = tuple[IndexEntry, Tensor]
"""With the embeddings of its segments (n, E)."""
PART_SECONDS = 60.0
QUERIES = 6
"""Every sixth class of Kinetics-400 is a query by which the recall is told."""
PART_SEGMENTS = 20_000
"""A part is written after so long, or so many segments: what a kill can cost."""


@dataclass(frozen=True)
class IndexSettings:
    """What an index holds."""

    segment: float | None = None
    """Seconds of a segment; by default those of the index, or 4."""
    dtype: str | None = None
    """Of the embeddings, float16 or float32; by default that of the index, or float16."""
    prune: bool = False
    """Take out videos that are gone."""
    retry_failed: bool = False
    """Also read what failed before."""

    def __post_init__(self) -> None:
        if self.segment is not None and not 0 < self.segment < math.inf:
            raise UsageError(f"a segment is seconds above zero, not {self.segment:g}")
        one_of("dtype", self.dtype or "float16", "float16", "float32")


def index(
    model: Recognizer | str | Path | None,
    videos: Listing | Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    settings: IndexSettings = IndexSettings(),
    options: ReadOptions = ReadOptions(),  # noqa: B008
    shard: Shard = Shard(),  # noqa: B008
    on_progress: OnProgress = ignore_progress,
) -> dict[str, Any]:
    """Make or extend the index in the folder `out` (or at an address, s3://…), for
    `froster.search`; videos that it has and that have not changed are passed over. Several
    processes may write to one index at once. Without a model it is the one of the index. Returns
    how many videos were added, have changed, are gone and failed. Raises UsageError where the index
    was made with another model or otherwise."""
    earlier = open_index(out)
    if settings.prune:
        check_prunable(out, earlier)
    if model is None and earlier:
        model = load(earlier.source, merge_tokens=earlier.merge_tokens)
    model = as_recognizer(model or DEFAULT_MODEL)
    check_comparable(model)
    listing = as_listing(videos, earlier.root if earlier else None)
    check_columns(listing.columns)
    mine = shard.of(listing) if shard.count > 1 else listing
    store = _open_or_create(out, model, whole_name(listing.root), settings)
    indexed = store.files()
    current = _current(store, mine, indexed)
    failures = FailureTable(out, current)
    passed = current if settings.retry_failed else current | failures.causes.keys()
    parts, work = _Parts(store, failures, passed), Segments(model, store.seconds, options)
    todo = run(work, mine, parts, options.means, lambda *now: on_progress(BatchProgress(*now)))
    store.table.refresh()
    files = store.files()
    added = _current(store, todo, files)
    rows = {video.key: video.columns for video in mine if video.key in current if video.columns}
    relabelled = store.relabel(rows) if rows else 0
    gone = [key for key, file in files.items() if file.is_gone(store.root)]
    if settings.prune:
        check_prunable(out, store)  # a disk may have gone while the videos were read
        store.remove(gone)
    store.drop_doubles()
    if added or relabelled or (settings.prune and gone):
        store.table.compact()
    changed = len(added & indexed.keys())
    causes = failures.causes
    failed = {video.key: causes[video.key] for video in mine if video.key in causes}
    return {
        "index": str(out),
        "videos": store.count,
        "segments": store.segments,
        "new": len(added) - changed,
        "changed": changed,
        "relabelled": relabelled,
        "gone": gone,
        "failed": len(failed),
        "failures": failed,
        "passed_over": dict(listing.passed_over),
    }


def open_index(folder: str | Path) -> Store | None:
    """The index in a folder or at an address, if it holds one. Raises DataError on one of froster
    0.1."""
    place = place_of(folder)
    refuse_old(place)
    return Store(place) if LanceTable.exists(table_at(place, SEGMENTS)) else None


def search_index(model: Recognizer, store: Store, wanted: bool) -> dict[str, float] | None:
    """Makes the search index of an index, or makes it anew, or takes it away. Returns the recall at
    10 of estimated answers to texts and to videos of the index, against the exact search. Raises
    UsageError, and leaves the search exact, where it is below 0.95."""
    if not wanted:
        exactly(store)
        return None
    check_not_empty(store)
    check_model(store, model)
    texts = list(read_descriptions("kinetics400"))[::QUERIES]
    return approximate(store, model.embed_text(texts).cpu())


def _open_or_create(
    out: str | Path, model: Recognizer, root: str, settings: IndexSettings
) -> Store:
    store = open_index(out)
    if store is None:
        about = {
            "made_by": "froster index",
            "model": model_fingerprint(model),
            "runtime": _runtime(model),
            "source": model.source or "",
            "segment": settings.segment or 4.0,
            "frames": model.config.sampling.frames,
            "dtype": settings.dtype or "float16",
            "root": root,
            **({"merge_tokens": model.merge_tokens} if model.merge_tokens else {}),
        }
        store = Store.create(out, about, model.clip.config.embed_dim)
    check_model(store, model)
    if store.about.get("runtime", "") != _runtime(model):
        how = "with another --runtime" if model.runtime else "with a --runtime"
        if not store.about.get("runtime"):
            how = "without --runtime"
        raise UsageError(
            f"{out} was made {how}: embed its new videos so too, or choose another --out"
        )
    for name, value in (("segment", settings.segment), ("dtype", settings.dtype)):
        if value is not None and value != store.about[name]:
            raise UsageError(
                f"{out} was made with --{name} {store.about[name]}: leave --{name} out, or choose"
                " another --out"
            )
    return store


def _runtime(model: Recognizer) -> str:
    return model.runtime.digest if model.runtime else ""


def check_comparable(model: Recognizer) -> None:
    """Raises UsageError for networks that do not compare a video with one embedding of a text."""
    if type(model.model).classes is not VideoCLIP.classes:
        name, cause = model.config.method.name, "so its videos cannot be indexed: use another model"
        raise UsageError(f"{name} has no one embedding of a text, {cause}")


def check_not_empty(store: Store) -> None:
    """Raises DataError where an index has no video."""
    if not store.segments:
        raise DataError(f"{store.folder}: there is no video in this index yet")


def check_model(store: Store, model: Recognizer) -> None:
    """Raises UsageError where an index was made by another model."""
    if store.merge_tokens != model.merge_tokens:
        raise UsageError(
            f"{store.folder} was made with {store.merge_tokens} merged tokens a block, not with"
            f" {model.merge_tokens}: their embeddings differ (--merge-tokens)"
        )
    wanted = model_fingerprint(model), model.config.sampling.frames
    if (store.model, store.about["frames"]) != wanted:
        raise UsageError(
            f"{store.folder} was made by another model ({store.source}): pass that one with --model"
        )


def check_prunable(out: str | Path, store: Store | None) -> None:
    """Raises UsageError where the folder of the videos does not exist: all would be gone."""
    if store is not None and not store.root.is_dir():
        raise UsageError(
            f"{store.root}, the folder of the videos in {store.folder}, is not there (a disk that"
            " is not mounted?): --prune would take them all out"
        )


def _current(
    store: Store, videos: Sequence[ListedVideo], files: Mapping[str, IndexedFile]
) -> set[str]:
    """The videos that the index has as they are now."""
    keys = (video.key for video in videos if video.key in files)
    return {key for key in keys if files[key].is_current(store.root)}


def segment_reader(model: Recognizer, seconds: float) -> ReadSegments:
    """What cuts a video file into segments as the model sees them."""
    frames = model.config.sampling.frames
    return ReadSegments(frames, model.image_size, seconds, model.preprocessing)


class Segments(ModelWork[ListedVideo, EmbeddedVideo]):
    """From a video to the embeddings of its segments."""

    def __init__(self, model: Recognizer, seconds: float, options: ReadOptions) -> None:
        super().__init__(model, segment_reader(model, seconds), options.batch_size)

    def size_on(self, device: torch.device) -> int:
        return self._asked or (32 if device.type == "cuda" else 4)

    def compute(self, parts: list[VideoSegment | VideoSummary]) -> list[Any]:
        segments = [part for part in parts if isinstance(part, VideoSegment)]
        if not segments:
            return parts
        clips = torch.stack([torch.from_numpy(segment.clip) for segment in segments])
        embeddings = iter(self.model.embed_clips(clips))
        return [
            part if isinstance(part, VideoSummary) else (part.start, part.end, next(embeddings))
            for part in parts
        ]

    def finish(self, row: ListedVideo, kept: list[Any]) -> EmbeddedVideo | None:
        if not kept or not isinstance(video := kept.pop(), VideoSummary):
            return None
        starts, ends, embeddings = zip(*kept, strict=True)
        entry = IndexEntry(
            row.key,
            *video.state,
            round(video.seconds, 3),
            video.frames,
            video.damaged,
            [round(time, 3) for time in starts],
            [round(time, 3) for time in ends],
            file_fingerprint(row.path),
            row.columns,
        )
        return entry, torch.stack(embeddings)


class _Parts:
    """The store of `index`: parts of an index are written now and then."""

    def __init__(self, store: Store, failures: FailureTable, passed: Set[str]) -> None:
        self._store, self._failures, self._passed = store, failures, passed
        self._done: list[EmbeddedVideo] = []
        self._added: set[str] = set()
        self._segments, self._written = 0, time.monotonic()

    def has(self, row: ListedVideo) -> bool:
        return row.key in self._passed

    def has_failed(self, row: ListedVideo) -> bool:
        return row.key in self._failures.causes and row.key not in self._added

    def add(self, ends: Sequence[End[ListedVideo, EmbeddedVideo]]) -> None:
        for end in ends:
            if end.result is None:
                self._failures.add(end.row.key, end.error)
            else:
                self._done.append(end.result)
                self._added.add(end.row.key)
                self._segments += len(end.result[0].starts)
        late = time.monotonic() - self._written > PART_SECONDS
        if late or self._segments > PART_SEGMENTS:
            self._write()

    def _write(self) -> None:
        done, self._done, self._segments = self._done, [], 0
        self._store.add(done)
        self._written = time.monotonic()

    def close(self) -> None:
        try:
            self._write()
        finally:
            self._failures.close(self._added)
