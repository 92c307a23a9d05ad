"""`train --kept-views N`: a frozen image tower is computed once.

Each training video gives N different clips, in turn over the epochs, in place of a new one in every
epoch. Where nothing before the projection is trained and no frame sees another, what the tower
makes of their frames is kept, in `OUT/features`, and that of validation and test videos too. A run
with kept features and one that computes everything anew have the same losses, up to rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from froster.data.dataset import Sample, VideoDataset
from froster.data.fingerprint import file_fingerprints
from froster.data.loader import batches
from froster.encoders.blank import blank
from froster.encoders.model import CLIP
from froster.encoders.precision import autocast
from froster.encoders.preprocessing import normalise
from froster.inference.features import PART_BYTES, FeatureStore, about_features, part_key
from froster.inference.recognizer import Recognizer
from froster.methods import Method
from froster.methods.recipe import Recipe
from froster.methods.weight_names import new_weights
from froster.training.attach import freeze, trained
from froster.training.distributed import from_all_ranks, ranks, this_rank
from froster.training.measure import EvalSet
from froster.training.reporter import Reporter
from froster.utils.interrupt import check

CLIPS = 16
"""Computed at a time."""


def moves_frames(base: Recognizer, method: Method, recipe: Recipe) -> str:
    """Why what the tower makes of a frame cannot be kept, in words, or ""."""
    with blank():
        student = method.for_classes(["one", "two"]).build(CLIP(base.clip.config))
    freeze(student, method, recipe.tune)
    if trained(student, "clip.visual."):
        return "the image tower is trained"
    if not (student.frames_apart and base.model.frames_apart) or new_weights(base.model):
        return f"{method.name} changes the image tower"
    if recipe.mixup or recipe.cutmix:
        return "clips are mixed"
    if type(method).regulariser is not Method.regulariser:
        return f"{method.name} weighs its steps by frames"
    return ""


class KeptClips(Dataset[Sample]):
    """A dataset of kept features: (T, D) in training, (views, T, D) in evaluation."""

    at_hand = True

    def __init__(self, source: VideoDataset, videos: Sequence[str | None], tower: KeptTower):
        reader = source.reader
        clips = {
            "sampling": dataclasses.asdict(source.sampling),
            "views": source.views,
            **(
                {"augment": dataclasses.asdict(reader.augment), "seed": reader.seed}
                if reader.train
                else {}
            ),
        }
        about = about_features(tower.base, clips, torch.float32)
        self.source, self.videos, self.tower = source, videos, tower
        self.store = FeatureStore(tower.folder, about)
        self.errors: dict[int, str] = {}
        self.sampling, self.views = source.sampling, source.views
        self.items, self.classes = source.items, source.classes

    def __len__(self) -> int:
        return len(self.source)

    def label(self, index: int) -> int:
        return self.source.label(index)

    def set_epoch(self, epoch: int) -> None:
        """Computes what this epoch's clips lack."""
        self.source.set_epoch(epoch)
        self.fill()

    def name(self, index: int) -> str:
        draw = f"{self.source.draw}-{index}" if self.source.reader.train else "views"
        video = self.videos[index] or str(self.items[index].path)
        return f"{part_key(video, self.items[index].span)}/{draw}"

    def __getitem__(self, index: int) -> Sample:
        label = self.label(index)
        if index in self.errors:
            return Sample(index, None, label, self.errors[index])
        return Sample(index, self.store.get(self.name(index)), label, None)

    def fill(self) -> None:
        """Computes what is missing, this rank's share of it."""
        missing = [
            index
            for index in range(len(self))
            if index not in self.errors and self.name(index) not in self.store.places
        ]
        self.tower.old += len(self) - len(missing)
        if not missing:
            return
        share = missing[this_rank() :: ranks()]
        chunks = [share[i : i + CLIPS] for i in range(0, len(share), CLIPS)]
        part: dict[str, Tensor] = {}
        failed: list[tuple[int, str]] = []
        with self.tower.reporter.bar("features of frames", len(share), keep=False) as bar:
            try:
                for batch in batches(self.source, chunks, self.tower.workers):
                    check()
                    failed += batch.errors
                    if len(batch.labels):
                        x = self.tower.features(batch.frames)
                        indices = batch.indices.tolist()
                        part |= {self.name(i): f for i, f in zip(indices, x, strict=True)}
                    if sum(f.nbytes for f in part.values()) > PART_BYTES:
                        self.store.add(part)
                        part = {}
                    bar(len(batch.labels) + len(batch.errors))
            finally:
                self.store.add(part)
        self.errors |= dict(from_all_ranks(failed))
        self.tower.new += len(missing)
        if ranks() > 1:
            self.store.refresh()


class KeptTower:
    """The frozen tower of a run, and where its features are kept."""

    def __init__(self, base: Recognizer, folder: Path, workers: int, reporter: Reporter):
        self.base, self.folder, self.workers, self.reporter = base, folder, workers, reporter
        self.new = self.old = 0

    @torch.no_grad()
    def features(self, clips: Tensor) -> Tensor:
        """uint8 (B, ..., T, 3, S, S) -> (B, ..., T, D) on the CPU."""
        base, visual = self.base, self.base.model.clip.visual
        frames = normalise(clips.flatten(0, -5).to(base.device), base.preprocessing)
        with autocast(base.device, base.dtype):
            x = visual.pooled(frames).float().cpu()
        return x.view(*clips.shape[:-3], -1)

    def clips(self, dataset: VideoDataset) -> KeptClips:
        """The same clips as features; an epoch computes what it is the first to ask for."""
        return KeptClips(dataset, file_fingerprints(dataset.items), self)

    def sets(self, sets: Sequence[EvalSet]) -> list[EvalSet]:
        """The same videos as features, which are computed now."""
        kept = []
        for s in sets:
            if isinstance(s.dataset, VideoDataset):
                clips = self.clips(s.dataset)
                clips.fill()
                s = dataclasses.replace(s, dataset=clips)
            kept.append(s)
        return kept
