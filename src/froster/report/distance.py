"""How far apart two label sets are, and what the distance of a class from training has to do with
what tuning did to it.

The released code's "distance" is a similarity: for every name of the one set the largest cosine
with any name of the other, and of these maxima the mean (the number that FROSTER's paper prints as
a Hausdorff distance; larger is closer), the largest and the smallest. The directed Hausdorff
distance is the largest step from a name to its nearest one in the other set, h(A, B) = max over a
of min over b of 1 - cos(a, b), that is 1 - the smallest of those maxima.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from froster.encoders.model import unit
from froster.errors import UsageError
from froster.evaluation.metrics import Predictions
from froster.inference.recognizer import Recognizer
from froster.report.plots import DARK
from froster.text.bank import PromptBank
from froster.utils.drawing import COLOURS, save, styled
from froster.utils.tensors import finite
from froster.utils.text import printable

NAMED = 4
"""Classes at either end of the gains that a picture names."""


@dataclass(frozen=True)
class Nearest:
    """Every name of a set with the nearest one of another."""

    names: list[str]
    nearest: list[str]
    similarity: Tensor
    """(n,) cosines, of the names with their nearest ones."""

    @property
    def mean(self) -> float:
        return float(self.similarity.double().mean())

    @property
    def largest(self) -> float:
        return float(self.similarity.max())

    @property
    def smallest(self) -> float:
        return float(self.similarity.min())

    @property
    def hausdorff(self) -> float:
        """The directed distance from this set to the other, in 1 - cosine: 0 to 2."""
        return max(0.0, 1 - self.smallest)

    def released(self) -> dict[str, float]:
        """The numbers of the released code."""
        numbers = {"mean_of_max": self.mean, "max_of_max": self.largest}
        return {"names": len(self.names), **numbers, "min_of_max": self.smallest}


def folded(name: str) -> str:
    """As CLIP's tokenizer reads it: without capitals, blanks of any kind and number as one."""
    return " ".join(name.lower().split())


@torch.no_grad()
def text_features(recognizer: Recognizer, names: list[str], truncate: bool = False) -> Tensor:
    """The bare names through the text tower, without template or description, as the released code
    does: (n, E)."""
    context = recognizer.clip.config.text.context
    tokens = recognizer.tokenizer(names, context, truncate or recognizer.cuts_texts)
    features = PromptBank.encode(recognizer.clip.encode_text, tokens)
    return finite(features.float().cpu(), "text embeddings")


def nearest(
    names: Sequence[str],
    features: Tensor,
    to_names: Sequence[str],
    to_features: Tensor,
    *,
    overlap: bool = True,
    spelt: Callable[[str], str] = str,
) -> Nearest | None:
    """Names and their text features (n, E), of any length -> the nearest of `to_names` for each.

    `overlap=False` leaves out the names that stand in both sets, spelt exactly alike, as the
    released code does, or alike after `spelt`; the result is None where no name is left.
    """
    equal = frozenset() if overlap else frozenset(map(spelt, to_names))
    kept = [i for i, name in enumerate(names) if spelt(name) not in equal]
    if not kept:
        return None
    similarity, index = (unit(features[kept].float()) @ unit(to_features.float()).T).max(dim=1)
    return Nearest([names[i] for i in kept], [to_names[i] for i in index.tolist()], similarity)


@styled
def similarity_histogram(sets: Mapping[str, Nearest], path: Path) -> Path:
    """Cosines of names with their nearest ones, a histogram for each direction; the dashed line is
    the mean."""
    bins = (min(0.99, *(names.smallest for names in sets.values())), 1)
    figure = Figure(figsize=(5.2, 1.7 * len(sets) + 0.6))
    panels = figure.subplots(len(sets), 1, squeeze=False, sharex=True)[:, 0]
    for axes, colour, (title, names) in zip(panels, COLOURS[1:], sets.items(), strict=False):
        axes.hist(names.similarity.clamp(max=1).numpy(), bins=40, range=bins, color=colour)
        axes.axvline(names.mean, color=DARK, linewidth=1, linestyle="--")
        axes.set_title(f"{title}: mean {names.mean:.3f}, smallest {names.smallest:.3f}")
        axes.set_ylabel("names")
    panels[-1].set_xlabel("cosine with the nearest name of the other set")
    figure.tight_layout()
    return save(figure, path)


@dataclass(frozen=True)
class ClassGain:
    """One class of a test set, in per cent."""

    name: str
    similarity: float
    """Of its name to the nearest training class."""
    before: float
    after: float

    @property
    def gain(self) -> float:
        return self.after - self.before


def class_gains(
    before: Mapping[str, float], after: Mapping[str, float], training: Nearest
) -> list[ClassGain]:
    """Per-class accuracies of two models on the same test (`Predictions.per_class`), with each
    class's similarity to the training set: the points of the paper's Figure 5. Raises UsageError
    where the classes are not the same.
    """
    similar = dict(zip(training.names, training.similarity.tolist(), strict=True))
    for other, whose in ((after, "the tuned model's result"), (similar, "the distances")):
        if missing := [name for name in before if name not in other]:
            raise UsageError(
                f"{len(missing)} of {len(before)} classes are not in {whose}, for example"
                f" {missing[0]!r}"
            )
    return [ClassGain(name, similar[name], before[name], after[name]) for name in before]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, ties at their mean rank; not a number where all values of one side are equal."""
    ranks = []
    for values in (torch.tensor(side, dtype=torch.float64) for side in (x, y)):
        below = (values[:, None] > values).sum(1)
        rank = below + ((values[:, None] == values).sum(1) - 1) / 2
        ranks.append(rank - rank.mean())
    norms = float(ranks[0].norm() * ranks[1].norm())
    return float(ranks[0] @ ranks[1]) / norms if norms else math.nan


@styled
def gain_scatter(points: Sequence[ClassGain], path: Path, title: str = "") -> Path:
    """Gain of every class against its similarity to training, with the means of fifths of the
    classes; those that gain or lose most are named. Raises UsageError where there is no class."""
    if not points:
        raise UsageError("there is no class to draw")
    x, y = [point.similarity for point in points], [point.gain for point in points]
    figure = Figure(figsize=(5.6, 3.8))
    axes = figure.subplots()
    axes.axhline(0, color=DARK, linewidth=0.8)
    colours = [COLOURS[3] if gain > 0 else COLOURS[6] if gain < 0 else COLOURS[0] for gain in y]
    axes.scatter(x, y, s=16, c=colours, alpha=0.75, linewidths=0)
    if len(points) >= 10:
        fifths = np.array_split(np.array(sorted(zip(x, y, strict=True))), 5)
        means = np.array([fifth.mean(axis=0) for fifth in fifths]).T
        axes.plot(*means, "o-", color=COLOURS[2], label="mean of a fifth of the classes")
        axes.legend()
    by_gain = sorted(points, key=lambda point: point.gain)
    for point in dict.fromkeys([*by_gain[:NAMED], *by_gain[::-1][:NAMED]]):
        place, offset = (point.similarity, point.gain), "offset points"
        axes.annotate(point.name[:32], place, (4, 2), textcoords=offset, fontsize=6)
    rho = rank_correlation(x, y)
    ranked = "–" if math.isnan(rho) else f"{rho:+.2f}"
    mean = f"mean gain {statistics.fmean(y):+.1f}, rank correlation {ranked}"
    axes.set_title(f"{title}: {mean}" if title else mean)
    axes.set_xlabel("similarity of the class's name to the nearest training class")
    axes.set_ylabel("gain in accuracy, points")
    return save(figure, path)


def confusion_matrix(predictions: Predictions) -> Tensor:
    """Counts (K, K): row = right class, column = predicted one; no cell has unreadable videos."""
    K = len(predictions.classes)
    readable = ~predictions.logits.isnan().any(dim=1)
    cells = predictions.labels[readable] * K + predictions.logits[readable].argmax(dim=1)
    return torch.bincount(cells, minlength=K * K).view(K, K)


@styled
def confusion_picture(counts: Tensor, classes: Sequence[str], path: Path, title: str = "") -> Path:
    """Counts (K, K) as shares of each row, darker is more. Names are written up to 60 classes, per
    cents up to 20."""
    K = len(classes)
    share = 100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = min(14.0, max(3.0, 0.24 * K + 1.2))
    figure = Figure(figsize=(side + 0.8, side))
    axes = figure.subplots()
    axes.grid(False)
    picture = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if K <= 60:
        names = [printable(name)[:28] for name in classes]
        axes.set_xticks(range(K), names, rotation=90, fontsize=6)
        axes.set_yticks(range(K), names, fontsize=6)
    for row, column in share.round().nonzero().tolist() if K <= 20 else ():
        value = float(share[row, column])
        colour = "w" if value > 55 else DARK
        place: dict[str, Any] = {"ha": "center", "va": "center", "color": colour}
        axes.text(column, row, f"{value:.0f}", fontsize=6, **place)
    axes.set(xlabel="predicted", ylabel="right", title=title)
    bar = figure.colorbar(picture, ax=axes, shrink=0.7)
    bar.set_label("per cent of the class's videos", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return save(figure, path)
