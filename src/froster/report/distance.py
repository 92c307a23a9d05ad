"""How far apart two label sets are, and what the distance of a class from training has to do with
what tuning did to it.

The released code's "distance" is a similarity: for every name of the one set the largest cosine
with any name of the other, and of these maxima the mean (the number that FROSTER's paper prints as
a Hausdorff distance; larger is closer), the largest and the smallest. The directed Hausdorff
distance is the largest step from a name to its nearest one in the other set, h(A, B) = max over a
of min over b of 1 - cos(a, b), that is 1 - the smallest of those maxima.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from froster.encoders.model import unit
from froster.errors import UsageError
from froster.evaluation.metrics import Predictions
from froster.inference.recognizer import Recognizer
from froster.report.plots import COLOURS, save, tidy
from froster.text.bank import PromptBank
from froster.utils.tensors import finite
from froster.utils.text import printable


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


def folded(name: str) -> str:
    """As CLIP's tokenizer reads it: without capitals, blanks of any kind and number as one."""
    return " ".join(name.lower().split())


@torch.no_grad()
def text_features(recognizer: Recognizer, names: list[str], truncate: bool = False) -> Tensor:
    """The bare names through the text tower, without template or description, as the released code
    does: (n, E)."""
    context = recognizer.clip.config.text.context
    tokens = recognizer.tokenizer(names, context, truncate or recognizer.cuts_texts)
    return finite(
        PromptBank.encode(recognizer.clip.encode_text, tokens).float().cpu(), "text embeddings"
    )


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
    there = frozenset() if overlap else frozenset(map(spelt, to_names))
    kept = [i for i, name in enumerate(names) if spelt(name) not in there]
    if not kept:
        return None
    similarity, index = (unit(features[kept].float()) @ unit(to_features.float()).T).max(dim=1)
    return Nearest([names[i] for i in kept], [to_names[i] for i in index.tolist()], similarity)


def similarity_histogram(sets: Mapping[str, Nearest], path: Path) -> Path:
    """Cosines of names with their nearest ones, a histogram for each direction; the dashed line is
    the mean."""
    least = min(found.smallest for found in sets.values())
    figure = Figure(figsize=(5.2, 1.7 * len(sets) + 0.6))
    panels = figure.subplots(len(sets), 1, squeeze=False, sharex=True)[:, 0]
    for i, (axes, (title, found)) in enumerate(zip(panels, sets.items(), strict=True)):
        colour = COLOURS[(i + 1) % len(COLOURS)]
        axes.hist(
            found.similarity.clamp(max=1).numpy(),
            bins=40,
            range=(min(least, 0.99), 1),
            color=colour,
        )
        axes.axvline(found.mean, color="#333333", linewidth=1, linestyle="--")
        axes.set_title(
            f"{title}: mean {found.mean:.3f}, smallest {found.smallest:.3f}", fontsize=9, loc="left"
        )
        axes.set_ylabel("names", fontsize=8)
        axes.tick_params(labelsize=7)
        tidy(axes)
    panels[-1].set_xlabel("cosine with the nearest name of the other set", fontsize=8)
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
    return [
        ClassGain(name, similar[name], accuracy, after[name]) for name, accuracy in before.items()
    ]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, ties at their mean rank; not a number where all values of one side are equal."""
    ranks = [_ranks(torch.tensor(values, dtype=torch.float64)) for values in (x, y)]
    a, b = (r - r.mean() for r in ranks)
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms else math.nan


def _ranks(values: Tensor) -> Tensor:
    below = (values[:, None] > values).sum(1)
    equal = (values[:, None] == values).sum(1)
    return below + (equal - 1) / 2


def gain_scatter(gains: Sequence[ClassGain], path: Path, title: str = "", named: int = 4) -> Path:
    """Gain of every class against its similarity to training, with the means of fifths of the
    classes.

    `named` classes at either end of the gains are named.
    """
    if not gains:
        raise UsageError("there is no class to draw")
    x, y = [point.similarity for point in gains], [point.gain for point in gains]
    figure = Figure(figsize=(5.6, 3.8))
    axes = figure.subplots()
    axes.axhline(0, color="#333333", linewidth=0.8)
    colours = [COLOURS[3] if gain > 0 else COLOURS[6] if gain < 0 else COLOURS[0] for gain in y]
    axes.scatter(x, y, s=16, c=colours, alpha=0.75, linewidths=0)
    ordered = sorted(gains, key=lambda point: point.similarity)
    if len(gains) >= 10:
        parts = [ordered[i * len(ordered) // 5 : (i + 1) * len(ordered) // 5] for i in range(5)]
        means = [
            [sum(getattr(p, key) for p in part) / len(part) for part in parts]
            for key in ("similarity", "gain")
        ]
        axes.plot(
            *means,
            color=COLOURS[2],
            marker="o",
            markersize=4,
            linewidth=1.4,
            label="mean of a fifth of the classes",
        )
        axes.legend(frameon=False, fontsize=7, loc="best")
    by_gain = sorted(gains, key=lambda point: point.gain)
    for point in dict.fromkeys([*by_gain[:named], *by_gain[::-1][:named]]):
        axes.annotate(
            point.name[:32],
            (point.similarity, point.gain),
            (4, 2),
            textcoords="offset points",
            fontsize=6,
        )
    rho = rank_correlation(x, y) if len(gains) > 1 else float("nan")
    mean = sum(y) / len(y)
    ranked = "–" if math.isnan(rho) else f"{rho:+.2f}"
    axes.set_title(
        f"{title + ': ' if title else ''}mean gain {mean:+.1f}, rank correlation {ranked}",
        fontsize=9,
        loc="left",
    )
    axes.set_xlabel("similarity of the class's name to the nearest training class", fontsize=8)
    axes.set_ylabel("gain in accuracy, points", fontsize=8)
    axes.tick_params(labelsize=7)
    tidy(axes)
    return save(figure, path)


def confusion_matrix(predictions: Predictions) -> Tensor:
    """Counts (K, K): row = right class, column = predicted one. Unreadable videos are in no cell."""
    K = len(predictions.classes)
    readable = ~predictions.logits.isnan().any(dim=1)
    cells = predictions.labels[readable] * K + predictions.logits[readable].argmax(dim=1)
    return torch.bincount(cells, minlength=K * K).view(K, K)


def confusion_picture(counts: Tensor, classes: Sequence[str], path: Path, title: str = "") -> Path:
    """Counts (K, K) as shares of each row, darker is more. Names are written up to 60 classes, per
    cents up to 20."""
    K = len(classes)
    share = 100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = min(14.0, max(3.0, 0.24 * K + 1.2))
    figure = Figure(figsize=(side + 0.8, side))
    axes = figure.subplots()
    picture = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if K <= 60:
        axes.set_xticks(
            range(K), [printable(name)[:28] for name in classes], rotation=90, fontsize=6
        )
        axes.set_yticks(range(K), [printable(name)[:28] for name in classes], fontsize=6)
    if K <= 20:
        for row, column in share.round().nonzero().tolist():
            value = float(share[row, column])
            axes.text(
                column,
                row,
                f"{value:.0f}",
                fontsize=6,
                ha="center",
                va="center",
                color="w" if value > 55 else "#333333",
            )
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("right", fontsize=8)
    if title:
        axes.set_title(title, fontsize=9, loc="left")
    bar = figure.colorbar(picture, ax=axes, shrink=0.7)
    bar.set_label("per cent of the class's videos", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return save(figure, path)
