"""From videos to an index: processes cut them into segments, the network embeds these, and parts go
to the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor

from froster.data.listing import ListedVideo
from froster.encoders.model import unit
from froster.inference.recognizer import Recognizer
from froster.inference.store import Entry, Store
from froster.utils import pool
from froster.video.windows import ReadSegments, VideoSegment, VideoSummary

PART_SECONDS = 60.0
PART_SEGMENTS = 20_000
"""A part is written after so long, or so many segments: what a kill can cost."""


@dataclass
class _Video:
    """What is known so far of a video."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    embeddings: list[Tensor] = field(default_factory=list)
    whole: VideoSummary | None = None


def build(
    model: Recognizer,
    store: Store,
    videos: Sequence[ListedVideo],
    *,
    workers: int,
    batch_size: int,
    limit: float,
    on_end: Callable[[ListedVideo, str], None],
) -> None:
    """Adds the videos to the store. `on_end` is called once for each, with what failed or "".

    What was finished is written also where this is interrupted.
    """
    seconds = float(store.about["segment"])
    work = ReadSegments(
        model.config.sampling.frames, model.image_size, seconds, model.preprocessing
    )
    done: list[tuple[Entry, Tensor, Tensor]] = []
    written = time.monotonic()
    try:
        for video, entry, segments, error in _embedded(
            model, work, videos, workers, batch_size, limit
        ):
            if entry is not None:
                done.append((entry, segments, unit(segments.mean(0))))
            if (
                time.monotonic() - written > PART_SECONDS
                or sum(len(e.starts) for e, _, _ in done) > PART_SEGMENTS
            ):
                store.add(done)
                done, written = [], time.monotonic()
            on_end(video, error)
    finally:
        store.add(done)


def _embedded(
    model: Recognizer,
    work: ReadSegments,
    videos: Sequence[ListedVideo],
    workers: int,
    batch_size: int,
    limit: float,
) -> Iterator[tuple[ListedVideo, Entry | None, Tensor, str]]:
    """Each video as soon as all of it is embedded, or has failed."""
    opened: dict[int, _Video] = {}
    batch: list[tuple[int, VideoSegment]] = []
    ended: list[tuple[int, str]] = []
    nothing = torch.empty(0)

    def embed() -> Iterator[tuple[ListedVideo, Entry | None, Tensor, str]]:
        if batch:
            found = model.embed_clips(
                torch.stack([torch.from_numpy(segment.clip) for _, segment in batch])
            )
            for (task, segment), embedding in zip(batch, found, strict=True):
                video = opened[task]
                video.starts.append(round(segment.start, 3))
                video.ends.append(round(segment.end, 3))
                video.embeddings.append(embedding)
            batch.clear()
        for task, error in ended:
            video = opened.pop(task, _Video())
            if error:
                yield videos[task], None, nothing, error
            else:
                yield (
                    videos[task],
                    _entry(videos[task].key, video),
                    torch.stack(video.embeddings),
                    "",
                )
        ended.clear()

    events = pool.run(work, [str(video.path) for video in videos], workers, limit=limit)
    with closing(pool.ahead(events, 2 * batch_size) if workers else events) as following:  # type: ignore[type-var, arg-type]
        for event in following:
            if event.done:
                complete = event.task in opened and opened[event.task].whole is not None
                ended.append((event.task, "" if complete else event.error))
            elif isinstance(event.part, VideoSummary):
                opened.setdefault(event.task, _Video()).whole = event.part
            else:
                opened.setdefault(event.task, _Video())
                batch.append((event.task, event.part))
            if len(batch) == batch_size or (ended and not batch):
                yield from embed()
    yield from embed()


def _entry(key: str, video: _Video) -> Entry:
    whole = video.whole
    assert whole is not None
    numbers = (round(whole.seconds, 3), whole.frames, whole.damaged)
    return Entry(key, whole.state.size, whole.state.mtime, *numbers, video.starts, video.ends)
