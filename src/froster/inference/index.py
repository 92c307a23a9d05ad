"""From videos to an index: processes cut them into segments, the network embeds these, and parts go
to the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from froster.data.fingerprint import file_fingerprint
from froster.data.listing import ListedVideo, Listing
from froster.errors import DataError, UsageError
from froster.inference.approximate import approximate, exactly
from froster.inference.batch import ReadOptions, as_listing
from froster.inference.failed import FailureTable
from froster.inference.fingerprint import model_fingerprint
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer, as_recognizer
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
from froster.inference.tables import LanceTable
from froster.methods import VideoCLIP
from froster.text.sentences import read_descriptions
from froster.utils import pool
from froster.video.windows import ReadSegments, VideoSegment, VideoSummary

PART_SECONDS = 60.0
QUERIES = 12
"""Every twelfth class of Kinetics-400 is a query by which the recall is told."""
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


def index(
    model: Recognizer | str | Path | None,
    videos: Listing | Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    settings: IndexSettings = IndexSettings(),
    options: ReadOptions = ReadOptions(),  # noqa: B008
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
    model = as_recognizer(model or (earlier.source if earlier else DEFAULT_MODEL))
    check_comparable(model)
    listing = as_listing(videos, earlier.root if earlier else None)
    store = _open_or_create(out, model, os.path.abspath(listing.root), settings)
    indexed = store.files()
    current = _current(store, listing, indexed)
    failures = FailureTable(out, current)
    passed = current if settings.retry_failed else current | failures.causes.keys()
    todo = [video for video in listing if video.key not in passed]
    done = len(listing) - len(todo)

    def on_end(video: ListedVideo, error: str) -> None:
        nonlocal done
        if error:
            failures.add(video.key, error)
        done += 1
        on_progress(BatchProgress(done, len(listing), len(failures.causes)))

    try:
        on_progress(BatchProgress(done, len(listing), len(failures.causes)))
        build(model, store, todo, options, on_end)
    finally:
        store.table.refresh()
        files = store.files()
        added = _current(store, todo, files)
        failures.close(added)
    rows = {video.key: video.columns for video in listing if video.key in current if video.columns}
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
    failed = {video.key: causes[video.key] for video in listing if video.key in causes}
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
            "source": model.source or "",
            "segment": settings.segment or 4.0,
            "frames": model.config.sampling.frames,
            "dtype": settings.dtype or "float16",
            "root": root,
        }
        store = Store.create(out, about, model.clip.config.embed_dim)
    check_model(store, model)
    for name, value in (("segment", settings.segment), ("dtype", settings.dtype)):
        if value is not None and value != store.about[name]:
            raise UsageError(
                f"{out} was made with --{name} {store.about[name]}: leave --{name} out, or choose"
                " another --out"
            )
    return store


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
    wanted = model_fingerprint(model), model.config.sampling.frames
    if (store.model, store.about["frames"]) != wanted:
        raise UsageError(
            f"{store.folder} was made by another model ({store.source}): pass that one with --model"
        )


def check_prunable(out: str | Path, store: Store | None) -> None:
    """Raises UsageError where the folder of the videos does not exist: all would be gone."""
    if store is not None and not os.path.isdir(store.root):
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


def build(
    model: Recognizer,
    store: Store,
    videos: Sequence[ListedVideo],
    options: ReadOptions,
    on_end: Callable[[ListedVideo, str], None],
) -> None:
    """Adds the videos to the store; what was finished is written also where this is interrupted.
    `on_end` is called once for each video, with what failed or ""."""
    done: list[tuple[IndexEntry, Tensor]] = []
    written = time.monotonic()
    try:
        for video, entry, embeddings, error in _embedded(model, store.seconds, videos, options):
            if entry is not None:
                done.append((entry, embeddings))
            segments = sum(len(entry.starts) for entry, _ in done)
            if time.monotonic() - written > PART_SECONDS or segments > PART_SEGMENTS:
                store.add(done)
                done, written = [], time.monotonic()
            on_end(video, error)
    finally:
        store.add(done)


@dataclass
class _Pending:
    """What is known so far of a video."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    embeddings: list[Tensor] = field(default_factory=list)
    summary: VideoSummary | None = None

    def entry(self, video: ListedVideo) -> IndexEntry:
        summary = self.summary
        assert summary is not None
        return IndexEntry(
            *(video.key, *summary.state, round(summary.seconds, 3)),
            *(summary.frames, summary.damaged, self.starts, self.ends),
            video=file_fingerprint(video.path),
            columns=video.columns,
        )


def _embedded(
    model: Recognizer, seconds: float, videos: Sequence[ListedVideo], options: ReadOptions
) -> Iterator[tuple[ListedVideo, IndexEntry | None, Tensor, str]]:
    """Each video with its segments' embeddings (n, E), once all of it is embedded or has failed."""
    workers = options.processes(len(videos))
    batch_size = options.batch_size or (32 if model.device.type == "cuda" else 4)
    pending: dict[int, _Pending] = {}
    batch: list[tuple[int, VideoSegment]] = []
    ended: list[tuple[int, str]] = []

    def embed() -> Iterator[tuple[ListedVideo, IndexEntry | None, Tensor, str]]:
        if batch:
            clips = torch.stack([torch.from_numpy(segment.clip) for _, segment in batch])
            for (task, segment), embedding in zip(batch, model.embed_clips(clips), strict=True):
                pending[task].starts.append(round(segment.start, 3))
                pending[task].ends.append(round(segment.end, 3))
                pending[task].embeddings.append(embedding)
            batch.clear()
        for task, error in ended:
            video, state = videos[task], pending.pop(task, _Pending())
            if error:
                yield video, None, torch.empty(0), error
            else:
                yield video, state.entry(video), torch.stack(state.embeddings), ""
        ended.clear()

    work, paths = segment_reader(model, seconds), [str(video.path) for video in videos]
    events: Any = pool.run(work, paths, workers, limit=options.time_limit)
    with closing(pool.ahead(events, 2 * batch_size) if workers else events) as following:
        for event in following:
            if event.done:
                complete = event.task in pending and pending[event.task].summary is not None
                ended.append((event.task, "" if complete else event.error))
            else:
                state = pending.setdefault(event.task, _Pending())
                if isinstance(event.part, VideoSummary):
                    state.summary = event.part
                else:
                    batch.append((event.task, event.part))
            if len(batch) == batch_size or (ended and not batch):
                yield from embed()
    yield from embed()
