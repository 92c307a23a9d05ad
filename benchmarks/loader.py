"""Clips a second of a loader with two workers against one process, on UCF-like files.

Each turn starts its workers anew, as an epoch does, from a server that the first one, which does
not count, has left.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.clips import UCF, write_clip
from benchmarks.timing import Row, Spread, interleave
from froster.data.dataset import VideoDataset
from froster.data.loader import batches
from froster.data.manifest import Item
from froster.video.sampling import Sampling

GOAL = 1.7
WORKERS = 2
BATCH = 8
FILES = 8


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    kind = dataclasses.replace(UCF, width=160, height=96, frames=30, bit_rate=None) if toy else UCF
    clips = 2 * BATCH if toy else 24 * BATCH
    works: dict[str, dict[str, Any]] = {
        "training clips": {"sampling": Sampling("dense"), "train": True},
        "evaluation, 3 views": {"sampling": Sampling("uniform"), "train": False, "views": 3},
    }
    rows, starts = [], []
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_clip(Path(folder, f"{seed}.avi"), kind, seed)
            for seed in range(2 if toy else FILES)
        ]
        items = [Item(paths[number % len(paths)], "ab"[number % 2]) for number in range(clips)]
        for what, how in works.items():
            dataset = VideoDataset(items, ["a", "b"], image_size=224, **how)
            began = time.perf_counter()
            next(batches(dataset, [range(BATCH)], WORKERS))
            starts.append(time.perf_counter() - began)
            seconds = interleave(
                {"alone": partial(epoch, dataset, 0), "helped": partial(epoch, dataset, WORKERS)},
                rounds or (1 if toy else 7),
            )
            rows.append(row(what, clips, seconds["helped"], seconds["alone"]))
    return rows, [
        f"{clips} clips a turn in batches of {BATCH}, from {len(paths)} files that lie in memory;"
        " each turn starts its workers. For the first time in a process that took, to the first"
        f" batch, {max(starts):.2g} s."
    ]


def epoch(dataset: VideoDataset, workers: int) -> None:
    order = [range(first, first + BATCH) for first in range(0, len(dataset), BATCH)]
    seen = sum(len(batch.labels) for batch in batches(dataset, order, workers))
    if seen != len(dataset):
        raise RuntimeError(f"{seen} clips in place of {len(dataset)}")


def row(what: str, clips: int, helped: list[float], alone: list[float]) -> Row:
    return Row(
        what,
        f"{WORKERS} workers",
        "one process",
        Spread.of([clips / seconds for seconds in helped]),
        Spread.of([clips / seconds for seconds in alone]),
        "clips/s",
        Spread.of([b / a for a, b in zip(helped, alone, strict=True)]),
        GOAL,
    )
