"""Many videos through one network: processes read while it computes, and every video gets one
answer, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from froster.data.dataset import ReadViews, Views
from froster.data.listing import ListedVideo
from froster.inference.recognizer import Classification, Recognizer
from froster.inference.results import Row
from froster.utils import pool


@dataclass(frozen=True)
class Answer:
    """`row` is None exactly where `error` says why."""

    video: ListedVideo
    row: Row | None
    error: str = ""


def answers(
    model: Recognizer,
    labels: Sequence[str],
    videos: Sequence[ListedVideo],
    *,
    workers: int = 0,
    batch_size: int = 1,
    top: int = 5,
    truncate: bool = False,
    limit: float = pool.SECONDS_OF_SILENCE,
) -> Iterator[list[Answer]]:
    """The answers in the order of the videos, a batch at a time.

    With `workers` a file that a decoder crashes on, or hangs on for `limit` seconds, is an error
    like others.
    """
    classes = model.class_embeddings(labels, truncate)
    work = ReadViews(
        model.config.sampling, model.config.views, model.image_size, model.preprocessing
    )
    window = workers + 2 * batch_size
    paths = [str(video.path) for video in videos]
    ends = pool.ends(pool.in_order(pool.run(work, paths, workers, limit=limit, window=window)))
    batch: list[tuple[ListedVideo, Views | str]] = []
    with closing(pool.ahead(ends, window) if workers else ends) as following:
        for task, views, error in following:
            batch.append((videos[task], error if views is None else views))
            if sum(isinstance(found, Views) for _, found in batch) == batch_size:
                yield _answered(model, labels, classes, batch, top)
                batch = []
    if batch:
        yield _answered(model, labels, classes, batch, top)


def _answered(
    model: Recognizer,
    labels: Sequence[str],
    classes: torch.Tensor,
    batch: list[tuple[ListedVideo, Views | str]],
    top: int,
) -> list[Answer]:
    seen = [found for _, found in batch if isinstance(found, Views)]
    best: Iterator[tuple[list[float], list[int], float | None, float | None]] = iter(())
    if seen:
        judged = model.judge_clips(
            torch.stack([torch.from_numpy(found.clips) for found in seen]), classes
        )
        values, places = judged.scores.sort(dim=-1, descending=True)
        none, cosine = (
            [None] * len(seen) if each is None else each.tolist()
            for each in (judged.none, judged.cosine)
        )
        best = zip(values[:, :top].tolist(), places[:, :top].tolist(), none, cosine, strict=True)
    found = []
    for video, views in batch:
        if isinstance(views, str):
            found.append(Answer(video, None, views))
            continue
        values_, places_, none_, cosine_ = next(best)
        said = Classification([labels[place] for place in places_], values_, none_, cosine_)
        row = {
            "path": video.key,
            "label": said.label,
            "score": values_[0],
            "labels": said.labels,
            "scores": values_,
        }
        row |= {"answer": said.answer, "none": none_, "cosine": cosine_}
        row |= {
            "seconds": round(views.seconds, 3),
            "frames": views.frames,
            "damaged": views.damaged,
        }
        found.append(Answer(video, row))
    return found
