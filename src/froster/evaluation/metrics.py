"""Accuracy over views and classes: top-1, top-5, per class, base / novel / harmonic mean, several
splits and label sets."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from froster.data.loader import batches
from froster.encoders.precision import autocast
from froster.encoders.preprocessing import normalise
from froster.evaluation.probes import Probe, frame_order
from froster.evaluation.spread import ALONE, Scores, Spread
from froster.methods import VideoCLIP
from froster.utils.files import write_csv
from froster.utils.interrupt import check
from froster.utils.tensors import finite

Fusion = Literal["logits", "probs"]
Space = Literal["logit", "prob"]
TOP_5_CLASSES = 6
"""Among fewer classes the right one is always in the best five."""
VIEWS_AT_ONCE = 32
"""That a network is shown together, unless it is said otherwise."""


@dataclass
class Predictions:
    """Scores of N videos for K classes; one that could not be read has none and counts as wrong."""

    classes: list[str]
    labels: Int64[Tensor, " videos"]
    logits: Float[Tensor, "videos classes"]
    """Fused over the views; NaN where the video was unreadable."""
    errors: list[tuple[int, str]] = field(default_factory=list)
    """(index, message) of the unreadable ones."""
    names: list[str] | None = None
    views: Float[Tensor, "videos views classes"] | None = None
    """The logits of each view, before they were fused."""
    also: dict[str, Predictions] = field(default_factory=dict, repr=False)
    """The same features among other label sets: the videos whose class is one of a set's labels."""

    def rows(self, kept: list[int]) -> Predictions:
        """Some of the videos, among the same labels."""
        place = {row: i for i, row in enumerate(kept)}
        return Predictions(
            self.classes,
            self.labels[kept],
            self.logits[kept],
            [(place[i], message) for i, message in self.errors if i in place],
            None if self.names is None else [self.names[i] for i in kept],
            None if self.views is None else self.views[kept],
        )

    def places(self, classes: Sequence[str]) -> list[int]:
        """Of the videos of these classes."""
        wanted = set(classes)
        return [i for i, label in enumerate(self.labels.tolist()) if self.classes[label] in wanted]

    def asked(
        self, classes: Sequence[str], views: Float[Tensor, "videos views asked"], fusion: Fusion
    ) -> Predictions:
        """The videos of `classes`, among these labels alone; from the logits of all videos. Labels
        that are no class of the set are asked of all videos, whose right label counts as the first.
        """
        if set(classes).isdisjoint(self.classes):
            kept = list(range(len(self.labels)))
            names = [classes[0]] * len(kept)
        else:
            kept = self.places(classes)
            names = [self.classes[label] for label in self.labels[kept].tolist()]
        return dataclasses.replace(
            self.rows(kept),
            classes=list(classes),
            labels=torch.tensor([classes.index(name) for name in names], dtype=torch.long),
            logits=fuse(views[kept], fusion),
            views=views[kept],
        )

    @property
    def chance(self) -> float:
        """What guessing gets, per cent."""
        return 100 / len(self.classes)

    @property
    def error(self) -> float:
        """One standard error of sampling so many test videos, in points of the top-1 accuracy."""
        return standard_error(self.top(1), len(self.labels))

    def ranks(self) -> Int64[Tensor, " videos"]:
        """Place of the right class: 0 is a hit; beyond any k for an unreadable video. Of equal
        scores the earlier class comes first, as in `argmax`: who cannot tell gets no credit."""
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
        """Accuracies in per cent; `top5` is None among so few classes that it were always 100."""
        return {
            "top1": self.top(1),
            "top5": self.top(5) if len(self.classes) >= TOP_5_CLASSES else None,
            "videos": len(self.labels),
            "classes": len(self.classes),
            "chance": self.chance,
            "unreadable": len(self.errors),
            "standard_error": self.error,
            "per_class": self.per_class(),
        }

    def ensemble(self, tuned: Predictions, space: Space) -> Predictions:
        """The mean of two models' outputs for the same views and classes, of their logits or of
        their soft-maxes; then the mean over the views, however each model fuses its own."""
        if self.views is None or tuned.views is None:
            raise ValueError("outputs are joined view by view, which were not kept")
        views = ensemble(self.views, tuned.views, 0.5, space)
        also = {name: p.ensemble(tuned.also[name], space) for name, p in self.also.items()}
        return dataclasses.replace(self, logits=fuse(views, "logits"), views=views, also=also)

    def save(self, path: Path) -> None:
        """A CSV line a video: name, label, prediction, rank of the right class, its logits."""
        rows: list[list[object]] = [["video", "label", "prediction", "rank", *self.classes]]
        names = self.names or [str(i) for i in range(len(self.labels))]
        labels = [self.classes[label] for label in self.labels.tolist()]
        ranks, logits = self.ranks().tolist(), self.logits.tolist()
        for name, label, rank, scores in zip(names, labels, ranks, logits, strict=True):
            if math.isnan(scores[0]):
                rows.append([name, label, "", "", *("" for _ in scores)])
            else:
                best = self.classes[scores.index(max(scores))]
                rows.append([name, label, best, rank, *(f"{score:.4f}" for score in scores)])
        write_csv(path, rows)


def percent(hits: Bool[Tensor, " videos"]) -> float:
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


def paired_error(before: Predictions, after: Predictions) -> float:
    """One standard error, in points, of a difference in accuracy on the same videos: McNemar's,
    sqrt(n) / N of the n videos that one model names right and the other wrong. It is not zero where
    all of a few videos changed in the same way, which may be chance too."""
    changed = (after.ranks() < 1) != (before.ranks() < 1)
    return 100 * int(changed.sum()) ** 0.5 / max(1, len(changed))


def over_splits(accuracies: Sequence[float]) -> dict[str, float]:
    """Mean and (sample) standard deviation over several splits."""
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return {"mean": statistics.fmean(accuracies), "std": spread, "splits": len(accuracies)}


def readable(views: Float[Tensor, "videos views classes"]) -> Bool[Tensor, " videos"]:
    """Which videos have logits."""
    return ~views.isnan().flatten(1).any(1)


def fuse(
    logits: Float[Tensor, "*videos views classes"], fusion: Fusion
) -> Float[Tensor, "*videos classes"]:
    """The mean of the logits of the views, or the log of the mean of their soft-maxes. The released
    code sums the logits, which ranks labels in the same way."""
    if fusion == "logits":
        return logits.mean(dim=-2)
    return logits.softmax(dim=-1).mean(dim=-2).log()


@dataclass
class Scorer:
    """A network with the classes it chooses from."""

    model: VideoCLIP
    classes: Tensor
    """The result of `model.classes`, made once."""
    dtype: torch.dtype = torch.float32
    fusion: Fusion = "logits"
    also: Sequence[Tensor] = ()
    """Other label sets, made in the same way, that the same features are compared with."""
    probe: Probe | None = None
    """What is done to the frames of every clip before the network sees them."""

    def __call__(
        self,
        views: UInt8[Tensor, "batch views time 3 height width"]
        | Float[Tensor, "batch views time dim"],
    ) -> Float[Tensor, "batch views classes"]:
        """The logits of every view, of its frames or of what is kept of them, on the CPU; those of
        `also` follow, set by set."""
        device, how = self.model.clip.logit_scale.device, self.model.clip.config.preprocessing
        if self.probe is not None:
            views = views[:, :, frame_order(self.probe, views.shape[2])]
        x = views.to(device).flatten(0, 1)
        with autocast(device, self.dtype):
            features = self.model.encode_kept(normalise(x, how) if x.ndim == 5 else x)
        # Set by set and not all at once: ActionCLIP's logits of a label depend on the others.
        sets = [
            self.model.logits(features.video, classes, features.context)
            for classes in (self.classes, *self.also)
        ]
        return finite(torch.cat(sets, dim=-1).float().cpu(), "logits").unflatten(0, views.shape[:2])


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
    also: Mapping[str, Sequence[str]] | None = None,
    spread: Spread = ALONE,
) -> list[Predictions]:
    """Every video of `dataset`, scored by each of the networks, which share one decode. `also`
    names the label sets of the scorers' `also`, for `Predictions.also`. `batch_size` videos at a
    time; left out, as many as have `VIEWS_AT_ONCE`. `spread`: over which processes; one that does
    not get the scores has predictions of which no video can be read."""
    count = len(dataset)  # type: ignore[arg-type]
    batch_size = batch_size or max(1, VIEWS_AT_ONCE // getattr(dataset, "views", 1))
    also = also or {}
    widths = [len(labels) for labels in (classes, *also.values())]
    order = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    scores, failure = Scores(len(scorers), sum(widths)), None
    done = 0

    def on_share(videos: int) -> None:
        nonlocal done
        done += videos
        if on_videos is not None:
            on_videos(videos)

    try:
        score(scorers, dataset, spread.share(order), scores, workers, on_share)
    except Exception as error:
        failure = error
    joined = spread.join(order, scores, failure) or Scores(len(scorers), sum(widths))
    if on_videos is not None and done < count:
        on_videos(count - done)
    labels = torch.tensor([dataset.label(i) for i in range(count)])  # type: ignore[attr-defined]
    return [
        predictions_of(classes, labels, of_scorer, scorer.fusion, joined.errors, names, also)
        for scorer, of_scorer in zip(
            scorers, joined.logits or unread(joined, count, 1), strict=True
        )
    ]


def predictions_of(
    classes: list[str],
    labels: Int64[Tensor, " videos"],
    logits: Float[Tensor, "videos views columns"],
    fusion: Fusion,
    errors: list[tuple[int, str]],
    names: list[str] | None,
    also: Mapping[str, Sequence[str]],
) -> Predictions:
    """From what a `Scorer` gives: the columns of `classes`, then those of each set of `also`."""
    widths = [len(labels) for labels in (classes, *also.values())]
    views, *others = logits.split(widths, dim=-1)
    result = Predictions(classes, labels, fuse(views, fusion), errors, names, views)
    result.also = {
        name: result.asked(also[name], of_set, fusion)
        for name, of_set in zip(also, others, strict=True)
    }
    return result


def score(
    scorers: Sequence[Scorer],
    dataset: Dataset,
    order: Sequence[range],
    scores: Scores,
    workers: int,
    on_videos: Callable[[int], None],
) -> None:
    """Fills `scores` with what the networks make of these batches, video by video."""
    row = {index: i for i, index in enumerate(index for part in order for index in part)}
    for scorer in scorers:
        scorer.model.eval()
    for batch in batches(dataset, order, workers):
        check()
        scores.errors += batch.errors
        if len(batch.labels):
            scores.logits = scores.logits or unread(scores, len(row), batch.frames.shape[1])
            rows = [row[index] for index in batch.indices.tolist()]
            for scorer, of_scorer in zip(scorers, scores.logits, strict=True):
                of_scorer[rows] = scorer(batch.frames)
        on_videos(len(batch.labels) + len(batch.errors))


def unread(scores: Scores, videos: int, views: int) -> list[Tensor]:
    """The logits of videos of which none could be read."""
    return [torch.full((videos, views, scores.width), math.nan) for _ in range(scores.models)]


def ensemble(
    frozen: Float[Tensor, "*videos classes"],
    tuned: Float[Tensor, "*videos classes"],
    ratio: float = 0.5,
    space: Space = "logit",
) -> Float[Tensor, "*videos classes"]:
    """ratio * frozen + (1 - ratio) * tuned, of the logits of two models ("logit") or of their
    soft-maxes ("prob")."""
    if space == "prob":
        frozen, tuned = frozen.softmax(-1), tuned.softmax(-1)
    return ratio * frozen + (1 - ratio) * tuned
