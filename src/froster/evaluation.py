"""Accuracy over views and classes: top-1, top-5, per class, base / novel / harmonic mean, several splits."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from froster.clip.model import normalise
from froster.files import write_text
from froster.finite import finite
from froster.interrupt import check, ignore
from froster.methods import VideoCLIP
from froster.precision import autocast
from froster.video.dataset import collate
from froster.weights import Space, ensemble

Fusion = Literal["logits", "probs"]


@dataclass
class Predictions:
    """Scores of N videos for K classes. A video that could not be read has no score and counts as wrong."""

    classes: list[str]
    labels: Tensor
    """(N,) ints"""
    logits: Tensor
    """(N, K), fused over the views; NaN where the video was unreadable."""
    errors: list[tuple[int, str]] = field(default_factory=list)
    """(index, message) of the unreadable ones."""
    names: list[str] | None = None
    views: Tensor | None = None
    """(N, V, K), the logits of each view, before they were fused."""

    def ranks(self) -> Tensor:
        """Place of the right class, (N,): 0 is a hit; beyond any k for an unreadable video.

        Of equal scores the earlier class comes first, as in `argmax`, so a model that cannot tell gets no credit.
        """
        right = self.logits.gather(1, self.labels[:, None])
        earlier = torch.arange(len(self.classes)) < self.labels[:, None]
        above = ((self.logits > right) | ((self.logits == right) & earlier)).sum(1)
        return torch.where(right[:, 0].isnan(), torch.iinfo(torch.long).max, above)

    def top(self, k: int) -> float:
        """Top-k accuracy in per cent, unreadable videos counted wrong."""
        return percent(self.ranks() < k)

    def per_class(self) -> dict[str, float]:
        hit = self.ranks() < 1
        return {
            name: percent(hit[self.labels == i])
            for i, name in enumerate(self.classes)
            if (self.labels == i).any()
        }

    def summary(self) -> dict[str, Any]:
        return {
            "top1": self.top(1),
            "top5": self.top(5),
            "videos": len(self.labels),
            "classes": len(self.classes),
            "unreadable": len(self.errors),
            "standard_error": standard_error(self.top(1), len(self.labels)),
            "per_class": self.per_class(),
        }

    def joined(self, tuned: Predictions, space: Space) -> Predictions:
        """The mean of two models' outputs for the same views and classes, of their logits or of their soft-maxes; then
        the sum over the views, however each model fuses its own."""
        if self.views is None or tuned.views is None:
            raise ValueError("outputs are joined view by view, which were not kept")
        each = ensemble(self.views, tuned.views, 0.5, space)  # (N, V, K)
        return Predictions(self.classes, self.labels, each.sum(dim=1), self.errors, self.names, each)

    def save(self, path: Path) -> None:
        """A CSV line a video: name, label, prediction, rank of the right class, its logits."""
        buffer = io.StringIO()
        table = csv.writer(buffer, lineterminator="\n")
        table.writerow(["video", "label", "prediction", "rank", *self.classes])
        ranks = self.ranks().tolist()
        for i, row in enumerate(self.logits.tolist()):
            readable = row[0] == row[0]
            best = self.classes[max(range(len(row)), key=row.__getitem__)] if readable else ""
            scores = [f"{x:.4f}" for x in row] if readable else [""] * len(row)
            name = self.names[i] if self.names else str(i)
            table.writerow([name, self.classes[int(self.labels[i])], best, ranks[i] if readable else "", *scores])
        write_text(path, buffer.getvalue())


def percent(hits: Tensor) -> float:
    """The share of true values, counted exactly."""
    return 100 * int(hits.sum()) / len(hits)


def standard_error(percent: float, count: int) -> float:
    """Of one accuracy, in points: the binomial spread of `count` test videos."""
    return (percent * (100 - percent) / count) ** 0.5


def harmonic_mean(base: float, novel: float) -> float:
    return 2 * base * novel / (base + novel) if base + novel > 0 else 0.0


def harmonic_mean_error(base: float, novel: float, base_error: float, novel_error: float) -> float:
    """One standard error of the harmonic mean, propagated from those of its parts."""
    if base + novel <= 0:
        return 0.0
    slopes = 2 * (novel / (base + novel)) ** 2, 2 * (base / (base + novel)) ** 2
    return ((slopes[0] * base_error) ** 2 + (slopes[1] * novel_error) ** 2) ** 0.5


def paired_gain(before: Predictions, after: Predictions) -> tuple[float, float]:
    """Points of accuracy gained on the same videos, and one standard error of that difference."""
    change = (after.ranks() < 1).double() - (before.ranks() < 1).double()
    spread = float(change.std(correction=0)) if len(change) > 1 else 0.0
    return 100 * float(change.mean()), 100 * spread / max(1, len(change)) ** 0.5


def over_splits(accuracies: Sequence[float]) -> dict[str, float]:
    """Mean and (sample) standard deviation over several splits."""
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return {"mean": statistics.fmean(accuracies), "std": spread, "splits": len(accuracies)}


def fuse(logits: Tensor, fusion: Fusion) -> Tensor:
    """Logits of the views (…, V, K) -> (…, K): their sum (as released), or the log of the mean of their soft-maxes."""
    if fusion == "logits":
        return logits.sum(dim=-2)
    return logits.softmax(dim=-1).mean(dim=-2).log()


@dataclass
class Scorer:
    """A network with the classes it chooses from."""

    model: VideoCLIP
    classes: Tensor
    """The result of `model.classes`, made once."""
    dtype: torch.dtype = torch.float32
    fusion: Fusion = "logits"

    def __call__(self, views: Tensor) -> Tensor:
        """uint8 frames (B, V, T, 3, H, W) -> logits of every view (B, V, K), on the CPU."""
        device = self.model.clip.logit_scale.device
        with autocast(device, self.dtype):
            features = self.model.encode(normalise(views.to(device).flatten(0, 1)))
        each = self.model.logits(features.video, self.classes, features.context)
        return finite(each.float().cpu(), "logits").unflatten(0, views.shape[:2])


@torch.no_grad()
def evaluate(
    scorers: Sequence[Scorer],
    dataset: Dataset,
    classes: list[str],
    *,
    names: list[str] | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    on_videos: Callable[[int], None] | None = None,
) -> list[Predictions]:
    """Every video of `dataset`, scored by each of the networks; it is decoded once for all of them.

    `batch_size` videos at a time; left out, as many as have 32 views together.
    """
    count = len(dataset)  # type: ignore[arg-type]
    batch_size = batch_size or max(1, 32 // getattr(dataset, "views", 1))
    logits: list[Tensor] = []
    errors: list[tuple[int, str]] = []
    for scorer in scorers:
        scorer.model.eval()
    for batch in DataLoader(dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate, worker_init_fn=ignore):
        check()
        errors += batch.errors
        if len(batch.labels):
            V = batch.frames.shape[1]
            logits = logits or [torch.full((count, V, len(classes)), float("nan")) for _ in scorers]
            for scorer, own in zip(scorers, logits, strict=True):
                own[batch.indices] = scorer(batch.frames)
        if on_videos is not None:
            on_videos(len(batch.labels) + len(batch.errors))
    labels = torch.tensor([dataset.label(i) for i in range(count)])  # type: ignore[attr-defined]
    logits = logits or [torch.full((count, 1, len(classes)), float("nan")) for _ in scorers]
    return [
        Predictions(classes, labels, fuse(own, scorer.fusion), errors, names, own)
        for scorer, own in zip(scorers, logits, strict=True)
    ]
