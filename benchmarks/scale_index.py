"""The index at a million segments: synthetic unit vectors of 512 numbers, a cone with a spread of 64
dimensions, ten segments that are alike a video.

What was before is the hand-made store at commit 4fec9ec, on the same kind of vectors.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.scale import Line
from froster.inference.approximate import RECALL_AT, approximate, closest, exactly, search_options
from froster.inference.search import nearest
from froster.inference.store import IndexEntry, Store

SIZE, OF_VIDEO, PART = 512, 10, 20_000
ABOUT = {
    "model": "x",
    "source": "x",
    "segment": 4.0,
    "frames": 8,
    "dtype": "float16",
    "root": "/videos",
}


def spent(work: Callable[[], object], times: int = 1) -> float:
    """Processor seconds, the least of so many."""
    seconds = []
    for _ in range(times):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return min(seconds)


class Vectors:
    """Segments of videos, and texts: these have another mean."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.mean, self.text_mean = self._normal(SIZE), self._normal(SIZE)
        self.basis = self._normal(64, SIZE) / 8

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator)

    def videos(self, count: int) -> torch.Tensor:
        shared = self._normal(count, 1, 64) + 0.4 * self._normal(count, OF_VIDEO, 64)
        rows = shared.flatten(0, 1) @ self.basis + self.mean
        return torch.nn.functional.normalize(rows, dim=-1)

    def texts(self, count: int) -> torch.Tensor:
        rows = self._normal(count, 64) @ self.basis + self.text_mean
        return torch.nn.functional.normalize(rows, dim=-1)


def filled(folder: Path, segments: int, vectors: Vectors) -> tuple[Store, float, float]:
    """An index with so many segments, and the processor seconds of writing them and of what comes
    at the end of `froster index`."""
    store, seconds = Store.create(folder, ABOUT, SIZE), 0.0
    starts = [4.0 * i for i in range(OF_VIDEO)]
    ends = [start + 4 for start in starts]
    for first in range(0, segments, PART):
        rows = vectors.videos(min(PART, segments - first) // OF_VIDEO).split(OF_VIDEO)
        done = [
            (IndexEntry(f"v{first + i}.mp4", 1, 1, 40.0, 1000, 0, starts, ends), part)
            for i, part in enumerate(rows)
        ]
        seconds += spent(lambda done=done: store.add(done))  # type: ignore[misc]
    return store, seconds, spent(store.table.compact)


def run(toy: bool) -> list[Line]:
    """A million segments, and a hundred thousand."""
    segments, smaller = (4000, 2000) if toy else (1_000_000, 100_000)
    vectors, lines = Vectors(), []
    at = f"{segments:,} segments"
    with tempfile.TemporaryDirectory(prefix="froster-scale-") as folder:
        store, seconds, end = filled(Path(folder, "large"), segments, vectors)
        lines.append(Line(f"write {at}", "CPU s", 8.7, seconds))
        lines.append(Line(f"join the parts of {at}", "CPU s", None, end))
        opened = spent(lambda: Store(Path(folder, "large")), 3)
        lines.append(Line(f"open {at}", "CPU s", 2.5, opened, 0.05))
        first, *queries = vectors.texts(6)
        lines.append(
            Line(
                f"first exact search, {at}", "CPU s", 2.3, spent(lambda: nearest(store, first, 10))
            )
        )
        rest = min(spent(lambda q=q: nearest(store, q, 10)) for q in queries)  # type: ignore[misc]
        lines.append(Line(f"exact search, {at}", "CPU s", 2.3, rest, 0.7))
        where = spent(lambda: nearest(store, first, 10, where="path like 'v1%' and start > 8"), 2)
        lines.append(Line(f"exact search with a condition, {at}", "CPU s", None, where))
        gone = [f"v{i * PART}.mp4" for i in range(1, 4)]
        lines.append(
            Line(f"prune 3 videos, {at}", "CPU s", 11.1, spent(lambda: store.remove(gone)))
        )
        lines += estimated(store, vectors, segments, 2.3)
        small, _, _ = filled(Path(folder, "small"), smaller, vectors)
        lines += estimated(small, vectors, smaller, 0.17)
    return lines


def estimated(store: Store, vectors: Vectors, segments: int, before: float) -> list[Line]:
    """The search index, its recall and its time; the recall also of texts by which nothing was
    chosen."""
    texts, others, at = vectors.texts(67), vectors.texts(40), f"{segments:,} segments"
    recall: dict[str, float] = {}
    made = spent(lambda: recall.update(approximate(store, texts)))
    lines = [Line(f"search index with its recall, {at}", "CPU s", None, made)]
    for kind in ("text", "video"):
        lines.append(Line(f"recall at 10, {kind} queries, {at}", "", 1, recall[kind], 0.95, False))
    looked_into = search_options(store, exact=False)
    shares = [
        len(closest(store, query, use_index=False) & closest(store, query, **looked_into))
        for query in others
    ]
    of_others = sum(shares) / (RECALL_AT * len(others))
    lines.append(Line(f"recall at 10, other texts, {at}", "", 1, of_others, 0.95, False))
    for query in texts[:3]:
        nearest(store, query, 10, exact=False)
    seconds = min(spent(lambda q=q: nearest(store, q, 10, exact=False)) for q in texts[:10])  # type: ignore[misc]
    note = "exact search before"
    lines.append(Line(f"estimated search, {at}", "CPU s", before, seconds, 0.03, note=note))
    exactly(store)
    return lines
