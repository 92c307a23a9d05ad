"""Many videos through one network: processes read while it computes, and every video gets one
answer, in order."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from froster.data.dataset import Views
from froster.data.listing import ListedVideo, Listing, list_videos
from froster.data.shards import Shard
from froster.errors import UsageError
from froster.inference.fingerprint import model_fingerprint
from froster.inference.recognizer import Classification, Recognizer, as_recognizer
from froster.inference.results import (
    BatchProgress,
    Failures,
    OnProgress,
    ResultFile,
    ResultRow,
    check_made_alike,
    check_suffix,
    failures_of,
    ignore_progress,
    place_of,
    sole_writer_of,
)
from froster.text.label_set import Labels, LabelSet, as_labels
from froster.utils import pool
from froster.utils.address import as_path, is_address
from froster.utils.engine import ends, run
from froster.utils.work import LOCAL, End, Engine, Means, Result, Row, Work

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
    engine: Engine = LOCAL
    """Who reads and computes."""

    def __post_init__(self) -> None:
        if self.top < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise UsageError("top and batch_size are 1 or more")
        if not self.time_limit > 0:
            raise UsageError("time_limit is seconds above zero")

    def processes(self, videos: int) -> int:
        return pool.processes(self.workers, videos)

    @property
    def means(self) -> Means:
        return Means(self.engine, self.workers, self.time_limit)


class ModelWork(Work[Row, Result], ABC):
    """Work with a network, which goes where the work goes."""

    network = True

    def __init__(self, model: Recognizer, reader: pool.Work, batch_size: int | None) -> None:
        super().__init__(reader)
        self.model, self._asked = model, batch_size
        self.batch_size = self.size_on(model.device)

    @abstractmethod
    def size_on(self, device: torch.device) -> int:
        """Parts for one pass of the network on a device."""

    def start(self, device: torch.device) -> None:
        self.model = self.model.on(device)
        self.batch_size = self.size_on(device)

    def __getstate__(self) -> dict[str, Any]:
        """For a machine that may have no such device."""
        return self.__dict__ | {"model": self.model.on(torch.device("cpu"))}


class Classify(ModelWork[ListedVideo, ResultRow]):
    """From a video to its row of results."""

    in_order = True

    def __init__(self, model: Recognizer, labels: Sequence[str], options: ReadOptions) -> None:
        super().__init__(model, model.view_reader(), options.batch_size)
        self.labels, self.top, self.alone = labels, options.top, options.multi_label
        asked = model.with_background(labels) if self.alone else labels
        self.classes = model.class_embeddings(asked, options.truncate)

    def size_on(self, device: torch.device) -> int:
        # One on a CPU, where more are no faster and rows are the same to the bit.
        return self._asked or (8 if device.type == "cuda" else 1)

    def start(self, device: torch.device) -> None:
        super().start(device)
        self.classes = self.classes.to(device)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"classes": self.classes.cpu()}

    def compute(self, parts: list[Views]) -> list[tuple[Classification, Views]]:
        clips = torch.stack([torch.from_numpy(views.clips) for views in parts])
        best = self.model.classify_clips(clips, self.labels, self.classes, self.top, self.alone)
        without = [dataclasses.replace(views, clips=views.clips[:0]) for views in parts]
        return list(zip(best, without, strict=True))

    def finish(self, row: ListedVideo, kept: list[Any]) -> ResultRow | None:
        return _row(row.key, *kept[-1]) if kept else None


def answers(
    model: Recognizer,
    labels: Sequence[str],
    videos: Sequence[ListedVideo],
    options: ReadOptions = ReadOptions(),
) -> Iterator[list[End[ListedVideo, ResultRow]]]:
    """The answers in the order of the videos, some at a time. With processes a file that a decoder
    crashes or hangs on is an error like others."""
    yield from ends(Classify(model, labels, options), videos, options.means)


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
    """Which of `labels` fits each video, a row a video in a .csv, .jsonl or .parquet file, or in a
    folder of Parquet parts (`results/`, `s3://bucket/results/`).

    A stopped run goes on with the rows that `out` lacks; what failed before is tried again only
    with `retry_failed`. A shard has a file of its own (`Shard.file`), or parts of its own. Returns
    where the rows and the failures are and how many. Raises UsageError where `out` was made with
    another model, other labels or options.
    """
    model, listing, out = as_recognizer(model), as_listing(videos), place_of(out, shard)
    labels = as_labels(labels)
    check_suffix(out)
    mine = shard.of(listing)
    with sole_writer_of(out, shard):
        check_made_alike(out, _made_with(model, labels, listing, options, shard))
        store = _ClassifyStore(out, min(options.top, len(labels)), shard, retry_failed)
        work = Classify(model, labels, options)
        todo = run(work, mine, store, options.means, lambda *now: on_progress(BatchProgress(*now)))
        store.results.finish()
    results, failures = store.results, store.failures
    failed = sum(video.key in failures.causes for video in mine)
    return {
        "out": str(out),
        "videos": len(mine),
        "rows": sum(video.key in results.done for video in mine),
        "new": sum(video.key in results.done for video in todo),
        "failed": failed,
        "failures": str(failures.path) if failed else None,
        "shard": str(shard),
        "passed_over": dict(listing.passed_over),
        "calibrated": model.calibration.fitted is not None,
    }


class _ClassifyStore:
    """The store of `classify`."""

    def __init__(self, out: str | Path, top: int, shard: Shard, retry_failed: bool) -> None:
        self.results = ResultFile(out, top, shard)
        self.failures = Failures(failures_of(out), self.results.done)
        self._passed = set() if retry_failed else set(self.failures.causes)

    def has(self, row: ListedVideo) -> bool:
        return row.key in self.results.done or row.key in self._passed

    def has_failed(self, row: ListedVideo) -> bool:
        return row.key in self.failures.causes and row.key not in self.results.done

    def add(self, ends: Sequence[End[ListedVideo, ResultRow]]) -> None:
        self.results.add([end.result for end in ends if end.result is not None])
        for end in ends:
            if end.result is None:
                self.failures.add(end.row.key, end.error)

    def close(self) -> None:
        self.results.close()
        self.failures.close(self.results.done)


def _made_with(
    model: Recognizer, labels: Sequence[str], listing: Listing, options: ReadOptions, shard: Shard
) -> dict[str, Any]:
    """What decides the rows of a file."""
    config, rule = model.config.to_dict(), model.calibration.multi_label
    root = listing.root
    return {
        "made_by": "froster classify",
        "rows": FORM,
        **({"merge_tokens": model.merge_tokens} if model.merge_tokens else {}),
        "model": model_fingerprint(model),
        "precision": str(model.dtype).removeprefix("torch."),
        "labels": list(labels),
        "prompts": labels.prompts if isinstance(labels, LabelSet) else None,
        "multi_label": dataclasses.asdict(rule) if options.multi_label else None,
        **({"classes": model.class_file.digest} if model.class_file else {}),
        **({"runtime": model.runtime.digest} if model.runtime else {}),
        **{name: config[name] for name in ("sampling", "views", "fusion")},
        "top": options.top,
        "truncate": options.truncate,
        "calibration": model.calibration.rule,
        "root": str(root) if is_address(root) else os.path.realpath(root),
        "shard": str(shard),
    }
