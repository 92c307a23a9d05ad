"""Many videos through one network: processes read while it computes, and every video gets one
answer, in order."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from froster.data.dataset import Views
from froster.data.listing import ListedVideo, Listing, list_videos
from froster.data.shards import Shard
from froster.inference.fingerprint import model_fingerprint
from froster.inference.inputs import processes
from froster.inference.recognizer import Classification, Recognizer, as_recognizer
from froster.inference.results import (
    BatchProgress,
    Failures,
    OnProgress,
    ResultFile,
    ResultRow,
    check_made_alike,
    check_suffix,
    ignore_progress,
)
from froster.text.label_set import Labels, LabelSet, as_labels
from froster.utils import pool
from froster.utils.address import as_path, is_address
from froster.utils.files import sole_maker

FORM = 2
"""Of the rows of a file of results: 1 had no answer and no cosine, and said "none" of models that
were not calibrated."""


@dataclass(frozen=True)
class ReadOptions:
    """How many videos are read and answered; changes only what `top` leaves out and `truncate` lets
    pass."""

    workers: int | None = None
    """Processes that read; by default none for a few videos, else by the cores, up to four."""
    batch_size: int | None = None
    """By default what suits the device."""
    time_limit: float = pool.SECONDS_OF_SILENCE
    """Seconds after which a process that gives no sign of life is replaced."""
    top: int = 5
    """Labels of a row."""
    truncate: bool = False
    """Cut labels that are too long, in place of refusing them."""
    multi_label: bool = False
    """Each label is weighed by itself: any number may fit."""

    def processes(self, videos: int) -> int:
        return processes(self.workers, videos)


@dataclass(frozen=True)
class Answer:
    """`row` is None exactly where `error` says why."""

    video: ListedVideo
    row: ResultRow | None
    error: str = ""


def answers(
    model: Recognizer,
    labels: Sequence[str],
    videos: Sequence[ListedVideo],
    options: ReadOptions = ReadOptions(),
) -> Iterator[list[Answer]]:
    """The answers in the order of the videos, a batch at a time. With processes a file that a
    decoder crashes or hangs on is an error like others."""
    alone = options.multi_label
    asked = model.with_background(labels) if alone else labels
    classes = model.class_embeddings(asked, options.truncate)
    workers = options.processes(len(videos))
    # One on a CPU, where more are no faster and rows are the same to the bit.
    batch_size = options.batch_size or (8 if model.device.type == "cuda" else 1)
    window = workers + 2 * batch_size
    paths = [str(video.path) for video in videos]
    events = pool.run(model.view_reader(), paths, workers, limit=options.time_limit, window=window)
    ends = pool.ends(pool.in_order(events))
    batch: list[tuple[ListedVideo, Views | None, str]] = []

    def answered() -> list[Answer]:
        clips = [torch.from_numpy(views.clips) for _, views, _ in batch if views is not None]
        best: Iterator[Classification] = iter(())
        if clips:
            best = iter(
                model.classify_clips(torch.stack(clips), labels, classes, options.top, alone)
            )
        return [
            Answer(video, None if views is None else _row(video.key, next(best), views), error)
            for video, views, error in batch
        ]

    with closing(pool.ahead(ends, window) if workers else ends) as following:
        for task, views, error in following:
            batch.append((videos[task], views, error))
            if sum(views is not None for _, views, _ in batch) == batch_size:
                yield answered()
                batch = []
    if batch:
        yield answered()


def _row(key: str, answer: Classification, views: Views) -> ResultRow:
    return {
        "path": key,
        "label": answer.label,
        "score": answer.scores[0],
        "labels": answer.labels,
        "scores": answer.scores,
        "answer": answer.answer,
        "none": answer.none,
        "cosine": answer.cosine,
        "seconds": round(views.seconds, 3),
        "frames": views.frames,
        "damaged": views.damaged,
        **({"groups": answer.groups} if answer.groups else {}),
        **(
            {"answers": answer.answers, "thresholds": answer.thresholds}
            if answer.thresholds is not None
            else {}
        ),
    }


def row_classification(row: ResultRow) -> Classification:
    """The answer that a row of results holds."""
    groups, thresholds = row.get("groups", {}), row.get("thresholds")
    return Classification(
        row["labels"], row["scores"], row["none"], row["cosine"], groups, thresholds
    )


def as_listing(
    videos: Listing | Sequence[str | Path] | str | Path, base: Path | None = None
) -> Listing:
    """The videos themselves, or those of files, folders and manifests, named from `base`."""
    if isinstance(videos, Listing):
        return videos
    sources = [videos] if isinstance(videos, (str, Path)) else videos
    return list_videos([as_path(source) for source in sources], base=base)


def classify(
    model: Recognizer | str | Path,
    videos: Listing | Sequence[str | Path] | str | Path,
    labels: Labels,
    out: str | Path,
    *,
    options: ReadOptions = ReadOptions(),
    shard: Shard = Shard(),  # noqa: B008
    retry_failed: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, Any]:
    """Which of `labels` fits each video, a row a video in a .csv, .jsonl or .parquet file.

    A stopped run goes on with the rows that `out` lacks; what failed before is tried again only
    with `retry_failed`. A shard has a file of its own (`Shard.file`). Returns where the rows and
    the failures are and how many. Raises UsageError where `out` was made with another model, other
    labels or options.
    """
    model, listing, out = as_recognizer(model), as_listing(videos), shard.file(Path(out))
    labels = as_labels(labels)
    check_suffix(out)
    mine = shard.of(listing)
    with sole_maker(out):
        check_made_alike(out, _made_with(model, labels, listing, options, shard))
        results = ResultFile(out, min(options.top, len(labels)))
        failures = Failures(out.with_name(f"{out.name}.failures.jsonl"), results.done)
        passed = results.done if retry_failed else results.done | failures.causes.keys()
        todo = [video for video in mine if video.key not in passed]
        done = len(mine) - len(todo)
        try:
            on_progress(BatchProgress(done, len(mine), len(failures.causes)))
            for batch in answers(model, labels, todo, options):
                results.add([answer.row for answer in batch if answer.row is not None])
                for answer in batch:
                    if answer.row is None:
                        failures.add(answer.video.key, answer.error)
                done += len(batch)
                on_progress(BatchProgress(done, len(mine), len(failures.causes)))
        finally:
            results.close()
            failures.close(results.done)
        results.finish()
    failed = sum(video.key in failures.causes for video in mine)
    return {
        "out": str(out),
        "videos": len(mine),
        "rows": sum(video.key in results.done for video in mine),
        "new": sum(video.key in results.done for video in todo),
        "failed": failed,
        "failures": str(failures.path) if failed else None,
        "shard": f"{shard.index}/{shard.count}",
        "passed_over": dict(listing.passed_over),
        "calibrated": model.calibration.fitted is not None,
    }


def _made_with(
    model: Recognizer, labels: Sequence[str], listing: Listing, options: ReadOptions, shard: Shard
) -> dict[str, Any]:
    """What decides the rows of a file."""
    config, rule = model.config.to_dict(), model.calibration.multi_label
    root = listing.root
    return {
        "made_by": "froster classify",
        "rows": FORM,
        "model": model_fingerprint(model),
        "precision": str(model.dtype).removeprefix("torch."),
        "labels": list(labels),
        "prompts": labels.prompts if isinstance(labels, LabelSet) else None,
        "multi_label": dataclasses.asdict(rule) if options.multi_label else None,
        **({"classes": model.class_file.digest} if model.class_file else {}),
        **{name: config[name] for name in ("sampling", "views", "fusion")},
        "top": options.top,
        "truncate": options.truncate,
        "calibration": model.calibration.rule,
        "root": str(root) if is_address(root) else os.path.realpath(root),
        "shard": f"{shard.index}/{shard.count}",
    }
