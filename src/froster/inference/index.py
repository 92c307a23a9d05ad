"""From videos to an index: processes cut them into segments, the network embeds these, and parts go
to the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from froster.data.listing import ListedVideo, Listing
from froster.encoders.model import unit
from froster.errors import UsageError
from froster.inference.batch import ReadOptions, as_listing
from froster.inference.fingerprint import model_fingerprint
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer, as_recognizer
from froster.inference.results import BatchProgress, Failures, OnProgress, ignore_progress
from froster.inference.store import ABOUT, FAILURES, IndexEntry, Store
from froster.methods import VideoCLIP
from froster.utils import pool
from froster.utils.address import whole_name
from froster.utils.files import refuse_current, sole_maker
from froster.video.windows import ReadSegments, VideoSegment, VideoSummary

PART_SECONDS = 60.0
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
    """Make or extend the index in the folder `out`, for `froster.search`; videos that it has and
    that have not changed are passed over. Without a model it is the one of the index. Returns how
    many videos were added, have changed, are gone and failed. Raises UsageError where the index was
    made with another model or otherwise."""
    out = Path(out)
    earlier = open_index(out)
    if settings.prune:
        check_prunable(out, earlier)
    model = as_recognizer(model or (earlier.source if earlier else DEFAULT_MODEL))
    check_comparable(model)
    listing = as_listing(videos, earlier.root if earlier else None)
    with sole_maker(out):
        store = _open_or_create(out, model, whole_name(listing.root), settings)
        current = {video.key for video in listing if _is_current(store, video)}
        failures = Failures(out / FAILURES, current)
        passed = current if settings.retry_failed else current | failures.causes.keys()
        todo = [video for video in listing if video.key not in passed]
        indexed, done = set(store.places), len(listing) - len(todo)

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
            failures.close({video.key for video in todo if _is_current(store, video)})
        added = [video.key for video in todo if _is_current(store, video)]
        changed = sum(key in indexed for key in added)
        gone = [key for key, place in store.places.items() if place.entry.is_gone(store.root)]
        if settings.prune:
            check_prunable(out, store)  # a disk may have gone while the videos were read
            store = store.without(gone)
    return {
        "index": str(out),
        "videos": len(store.places),
        "segments": store.segments,
        "new": len(added) - changed,
        "changed": changed,
        "gone": gone,
        "failed": sum(video.key in failures.causes for video in listing),
        "passed_over": dict(listing.passed_over),
    }


def open_index(folder: str | Path) -> Store | None:
    """The index in a folder, if it holds one."""
    return Store(Path(folder)) if (Path(folder) / ABOUT).exists() else None


def _open_or_create(out: Path, model: Recognizer, root: str, settings: IndexSettings) -> Store:
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
        return Store.create(out, about)
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


def check_model(store: Store, model: Recognizer) -> None:
    """Raises UsageError where an index was made by another model."""
    wanted = model_fingerprint(model), model.config.sampling.frames
    if (store.model, store.about["frames"]) != wanted:
        raise UsageError(
            f"{store.folder} was made by another model ({store.source}): pass that one with --model"
        )


def check_prunable(out: Path, store: Store | None) -> None:
    """Raises UsageError where the folder of the videos does not exist: all would be gone."""
    refuse_current(out)
    if store is not None and not os.path.isdir(store.root):
        raise UsageError(
            f"{store.root}, the folder of the videos in {store.folder}, is not there (a disk that"
            " is not mounted?): --prune would take them all out"
        )


def _is_current(store: Store, video: ListedVideo) -> bool:
    place = store.places.get(video.key)
    return place is not None and place.entry.is_current(store.root)


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
    done: list[tuple[IndexEntry, Tensor, Tensor]] = []
    written = time.monotonic()
    try:
        for video, entry, embeddings, error in _embedded(model, store.seconds, videos, options):
            if entry is not None:
                done.append((entry, embeddings, unit(embeddings.mean(0))))
            segments = sum(len(entry.starts) for entry, _, _ in done)
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

    def entry(self, key: str) -> IndexEntry:
        video = self.summary
        assert video is not None
        seconds, counts = round(video.seconds, 3), (video.frames, video.damaged)
        return IndexEntry(key, *video.state, seconds, *counts, self.starts, self.ends)


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
                yield video, state.entry(video.key), torch.stack(state.embeddings), ""
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
