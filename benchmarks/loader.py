"""Clips a second of a loader with two workers against one process, on UCF-like files.

The workers stay between the turns and the first turn does not count, so their start is left out, which is paid once
an epoch.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.clips import UCF, write_clip
from benchmarks.timing import Row, Spread, interleave
from froster.interrupt import ignore
from froster.video.dataset import Batch, Item, VideoDataset, collate
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
        paths = [write_clip(Path(folder, f"{seed}.avi"), kind, seed) for seed in range(2 if toy else FILES)]
        items = [Item(paths[number % len(paths)], "ab"[number % 2]) for number in range(clips)]
        for what, how in works.items():
            dataset = VideoDataset(items, ["a", "b"], image_size=224, **how)
            alone = DataLoader(dataset, BATCH, collate_fn=collate)
            helped = DataLoader(
                dataset, BATCH, collate_fn=collate, num_workers=WORKERS, persistent_workers=True, worker_init_fn=ignore
            )
            began = time.perf_counter()
            next(iter(helped))
            starts.append(time.perf_counter() - began)
            seconds = interleave(
                {"alone": partial(epoch, alone, clips), "helped": partial(epoch, helped, clips)}, rounds or (1 if toy else 7)
            )
            rows.append(row(what, clips, seconds["helped"], seconds["alone"]))
    return rows, [
        f"{clips} clips a turn in batches of {BATCH}, from {len(paths)} files that lie in memory; the workers are kept and "
        f"warm. Starting them, to the first batch, took {max(starts):.2g} s."
    ]


def epoch(loader: DataLoader[Batch], clips: int) -> None:
    seen = sum(len(batch.labels) for batch in loader)
    if seen != clips:
        raise RuntimeError(f"{seen} clips in place of {clips}")


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
