"""Training from packed shards, from end to end: clips a second of the loader and the step together
against the step alone, within an epoch of Kinetics-400's size.

A few made videos are packed into a shard, and a manifest of 240,436 rows names them in turn: what
grows with the rows (reading it, shuffling it, asking for a row) is that of the real set, and what a
clip costs is that of a made one. The disk is not measured, for the shard stays in memory. The steps
that are timed are those of `froster train`, behind some that are not, in which processes start.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from benchmarks.clips import Kind, write_clip
from benchmarks.setup import FRAMES, clips, labels, precisions, scene
from benchmarks.step import OurStep
from benchmarks.timing import Row, Spread
from froster.data.dataset import Batch, VideoDataset
from froster.data.listing import list_videos
from froster.data.manifest import read_items, read_rows
from froster.data.pack import PackOptions, pack
from froster.data.pack_folder import PACKED
from froster.training.batches import epoch_batches
from froster.training.checkpoint import EpochPart
from froster.training.trainer import Trainer, prefetch_metrics
from froster.utils.pool import processes
from froster.utils.work import Means
from froster.video.sampling import Sampling

K400_CLIPS = 240_436
"""Training videos of Kinetics-400 as its lists have them."""
GOAL = 0.9
# As Kinetics' videos are when they are packed: ten seconds, the shorter side 256.
KINETICS = Kind("mp4", "libx264", 340, 256, 30, 300)
SMALL = Kind("mp4", "libx264", 96, 64, 25, 40)


@dataclass(frozen=True)
class Pipeline:
    """What was measured."""

    alone: list[float]
    """Clips a second of the step on clips that lie in memory, before and behind the others."""
    together: float
    """Clips a second of loader and step."""
    loader: float
    """Clips a second of the loader when nothing computes."""
    rows: int
    ready: float
    """Seconds to read the manifest and make the data set."""
    first: float
    """Seconds to the first batch: the order of the epoch, and the processes' start."""
    steps: int
    workers: int

    @property
    def ratio(self) -> float:
        return self.together / (sum(self.alone) / len(self.alone))

    @property
    def note(self) -> str:
        return (
            f"{self.steps} steps timed of an epoch of {self.rows:,} rows, {self.workers} workers;"
            f" manifest read in {self.ready:.1f} s, first batch after {self.first:.1f} s, loader"
            f" alone {self.loader:.3g} clips/s"
        )


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    stage = scene(toy)
    step = OurStep(stage, labels(10), FRAMES, precisions(toy)[-1])
    with tempfile.TemporaryDirectory() as name:
        folder = packed(Path(name), SMALL if toy else KINETICS, 2)
        size = (4, 10, 40) if toy else (2, 2, 4)
        found = measure(step, folder, *size, rows=1000 if toy else K400_CLIPS, workers=1)
    row = Row(
        f"training from packed shards, batches of {size[0]} clips, 10 classes",
        "loader and step",
        "step alone",
        Spread.of([found.together]),
        Spread.of(found.alone),
        "clips/s",
        Spread.of([found.together / alone for alone in found.alone]),
        GOAL,
    )
    return [row], [found.note]


def packed(folder: Path, kind: Kind, count: int) -> Path:
    """A folder that `froster pack` has made of so many videos, as one shard."""
    source = folder / "source"
    source.mkdir()
    files = [write_clip(source / f"{seed}.{kind.suffix}", kind, seed) for seed in range(count)]
    listing = list_videos(files, base=source)
    keys: list[tuple[str, dict[str, str]]] = [(key, {}) for key in listing.keys]
    means = Means(workers=processes(None, count))
    pack(listing, keys, folder / "packed", PackOptions(10**9), means)
    return folder / "packed"


def measure(
    step: OurStep, folder: Path, batch: int, before: int, steps: int, *, rows: int, workers: int
) -> Pipeline:
    """`before`: steps that do not count."""
    trainer, size = step.trainer, step.task.student.clip.config.vision.image_size
    names = [f"class {number}" for number in range(len(step.task.bank.labels))]
    began = time.perf_counter()
    manifest = many_rows(folder, names, rows)
    dataset = VideoDataset(read_items(manifest), names, Sampling("dense"), size, train=True)
    ready = time.perf_counter() - began
    trainer.recipe = dataclasses.replace(trainer.recipe, batch_size=batch, workers=workers)

    began = time.perf_counter()
    with closing(epoch_batches(dataset, trainer.recipe, 0)) as loader:  # type: ignore[type-var]
        next(loader)
        first = time.perf_counter() - began
        alone_loader = rate(loader, batch, before, steps)
    kept = clips(batch, size)
    if torch.cuda.is_available():
        kept = kept.pin_memory()
    still = Batch(kept, torch.arange(batch) % len(names), torch.arange(batch), [])
    alone = [trained(trainer, iter([still] * (before + steps + 1)), batch, before, steps)]
    with closing(epoch_batches(dataset, trainer.recipe, 0)) as loader:  # type: ignore[type-var]
        together = trained(trainer, loader, batch, before, steps)
    alone += [trained(trainer, iter([still] * (before + steps + 1)), batch, before, steps)]
    return Pipeline(alone, together, alone_loader, len(dataset), ready, first, steps, workers)


def many_rows(folder: Path, names: list[str], rows: int) -> Path:
    """A manifest that names the packed videos in turn."""
    paths = [str(path) for path, _ in read_rows(folder / PACKED)]
    manifest = folder / "many.csv"
    with open(manifest, "w", encoding="utf-8") as file:
        file.write("path,label\n")
        for row in range(rows):
            file.write(f"{paths[row % len(paths)]},{names[row % len(names)]}\n")
    return manifest


def trained(
    trainer: Trainer, batches: Iterator[Batch], batch: int, before: int, steps: int
) -> float:
    """Clips a second of training steps as `Trainer.epoch` takes them: the numbers of each are read
    when the next one has been started."""
    part = EpochPart()
    started = trainer.steps(0, before + steps + 1, batches, part)
    with closing(started):  # type: ignore[type-var]
        found = rate((each.metrics() for each in prefetch_metrics(started)), batch, before, steps)
    if part.errors:
        raise SystemExit(f"not every clip could be read: {part.errors[0]}")
    return found


def rate(items: Iterator[object], batch: int, before: int, steps: int) -> float:
    """Clips a second of what takes a batch each, once `before` have gone."""
    for _ in islice(items, before):
        pass
    began = time.perf_counter()
    done = sum(1 for _ in islice(items, steps))
    if done != steps:
        raise SystemExit(f"{done} batches in place of {steps}")
    return batch * steps / (time.perf_counter() - began)
