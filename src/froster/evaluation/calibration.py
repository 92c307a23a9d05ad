"""How sure a model is: a temperature for its scores, and the probability that none of the labels
fits.

The temperature is that of Guo et al. (*On calibration of modern neural networks*, ICML 2017), one
number that is fitted to the likelihood of held-out labels. What tells a video that no label fits is
the energy of Liu et al. (*Energy-based out-of-distribution detection*, NeurIPS 2020), the
log-sum-exp of the logits, here divided by CLIP's logit scale: a soft maximum of the cosines. What
the energy of a right answer is differs from one CLIP to the next, so there is no rule without a
fit. `docs/none-of-these.md` has the rule, its reasons and what was measured.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from froster.errors import CheckpointError, DataError
from froster.evaluation.logistic import logistic
from froster.evaluation.metrics import Fusion, fuse, readable
from froster.evaluation.multi_label import MultiLabelRule
from froster.text.labels import NONE
from froster.utils import strict_json as json
from froster.utils.files import write_json

FEWEST_VIDEOS, FEWEST_CLASSES = 20, 3
NO_RULE = (
    'the scores do not tell whether a label fits: the model has a temperature and no "none of'
    ' these"'
)
MOST_VIDEOS = 1000
"""More do not make the none rule any better."""


CALIBRATION = "calibration.json"
"""Beside the weights in a model folder."""


def fits_none(none: float | Tensor) -> Any:
    """P(none), a number or a tensor -> is the answer that none of the labels fits? The one place
    that says from where on."""
    return none > 0.5


def answers(probabilities: Float[Tensor, "*n labels"], labels: Sequence[str]) -> Int[Tensor, "*n"]:
    """The places of the answers among the labels, of which the last may be `NONE`: that where it is
    likelier than not, and else the best label, however many share the rest."""
    if labels[-1] != NONE:
        return probabilities.argmax(dim=-1)
    best = probabilities[..., :-1].argmax(dim=-1)
    return torch.where(fits_none(probabilities[..., -1]), len(labels) - 1, best)


def with_none(rows: Iterable[tuple[str, float]], none: float | None) -> list[tuple[str, float]]:
    """Labels and their probabilities, the likeliest first, `NONE` in its place if it has one."""
    every = [*rows, *([] if none is None else [(NONE, none)])]
    return sorted(every, key=lambda row: -row[1])


@dataclass(frozen=True)
class NoneRule:
    """P(none) = sigmoid(intercept - slope * energy + per_label * log K), for K labels."""

    intercept: float
    slope: float
    per_label: float
    """The more labels, the larger the energy of a video that fits none."""

    def __call__(self, energy: Float[Tensor, " n"], labels: int) -> Float[Tensor, " n"]:
        """Energies among this many labels -> probabilities."""
        return (self.intercept - self.slope * energy + self.per_label * math.log(labels)).sigmoid()


@dataclass(frozen=True)
class LabelScores:
    """What a model says of n videos."""

    scores: Float[Tensor, "n labels"]
    """How likely each label is if one of them fits; they sum to 1."""
    none: Float[Tensor, " n"] | None
    """How likely it is that none of them fits; None of a model without a rule for it."""
    cosine: Float[Tensor, " n"] | None = None
    """Of the best label; None where the network's logits are no cosines."""

    @property
    def probabilities(self) -> Float[Tensor, "n labels"]:
        """Of each label, with the possibility that none fits. With `none` they sum to 1."""
        return self.scores if self.none is None else self.scores * (1 - self.none[:, None])


@dataclass(frozen=True)
class Calibration:
    temperature: float = 1.0
    none: NoneRule | None = None
    """None without a fit, and where that found that the scores do not tell whether a label fits."""
    fitted: dict[str, Any] | None = None
    """What it was fitted to and what that measured; None for the default, without effect."""
    multi_label: MultiLabelRule = field(default_factory=MultiLabelRule)
    """How likely each label is by itself, and from where on it is taken to fit."""

    def __post_init__(self) -> None:
        if self.none is not None and not self.none.slope > 0:  # an older fit that tells nothing
            object.__setattr__(self, "none", None)

    @property
    def rule(self) -> dict[str, Any]:
        """The numbers alone, which decide what is answered."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in ("temperature", "none")}

    def score(
        self, views: Float[Tensor, "n views labels"], scale: float | None, fusion: Fusion = "logits"
    ) -> LabelScores:
        """Of the logits of n videos, and the scale of cosines that they hold, or None. NaN where
        NaN."""
        return self.score_fused(fuse(views, fusion), views.mean(dim=-2), scale)

    def score_fused(
        self,
        logits: Float[Tensor, "n labels"],
        mean: Float[Tensor, "n labels"],
        scale: float | None,
    ) -> LabelScores:
        """The same from the views' fused logits, which make the scores, and their mean."""
        none = None if self.none is None else self.none(energy(mean, scale), mean.shape[-1])
        cosine = None if scale is None else mean.amax(dim=-1) / scale
        return LabelScores((logits / self.temperature).softmax(-1), none, cosine)

    def save(self, folder: Path) -> Path:
        write_json(folder / CALIBRATION, dataclasses.asdict(self))
        return folder / CALIBRATION


def read_calibration(folder: Path) -> Calibration:
    """A model folder's calibration, or the default where it has none. Raises CheckpointError on a
    damaged file."""
    path = folder / CALIBRATION
    if not path.is_file():
        return Calibration()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        none, temperature = values["none"], float(values["temperature"])
        numbers = {name: float(value) for name, value in (none or {}).items()}
        rule = None if none is None else NoneRule(**numbers)
        if not (temperature > 0 and all(map(math.isfinite, (temperature, *numbers.values())))):
            raise ValueError("its numbers make no sense")
        if not isinstance(values["fitted"], dict | None):
            raise ValueError("it does not say what it was fitted to")
        alone = MultiLabelRule.from_dict(values.get("multi_label") or {})
        return Calibration(temperature, rule, values["fitted"], alone)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        cause = f"not a calibration that froster calibrate wrote ({error})"
        raise CheckpointError(f"{path}: {cause}") from error


def energy(logits: Float[Tensor, "n labels"], scale: float | None) -> Float[Tensor, " n"]:
    """Of the mean over the views: a soft maximum of the cosines, at CLIP's own temperature; of
    logits that are no cosines (scale None), one of the logits as they are."""
    return logits.logsumexp(-1) / (1.0 if scale is None else scale)


def fit(
    views: Float[Tensor, "n views labels"],
    labels: Int[Tensor, " n"],
    scale: float | None,
    fusion: Fusion = "logits",
    fewest: int = FEWEST_VIDEOS,
) -> Calibration:
    """Temperature and none rule from the logits of held-out videos. Raises DataError where the
    readable ones or their classes are too few. `fitted` is left to the caller."""
    kept = readable(views)
    views, labels = views[kept].double(), labels[kept]
    classes = len(labels.unique())
    if len(labels) < fewest or classes < FEWEST_CLASSES:
        raise DataError(
            f"{len(labels)} readable videos of {classes} classes are too few to calibrate with: it"
            f" takes {fewest} of {FEWEST_CLASSES}"
        )
    # Of log-probabilities no energy is left: labels have been weighed against each other.
    normalised = bool((views.logsumexp(-1).abs() < 1e-3).all())
    none = None if normalised else fit_none(views.mean(dim=1), labels, scale)
    return Calibration(fit_temperature(fuse(views, fusion), labels), none)


def fit_temperature(logits: Float[Tensor, "n labels"], labels: Int[Tensor, " n"]) -> float:
    """The temperature in 0.05 … 20 with the least cross-entropy; golden section, as that has one
    minimum in 1 / T."""
    loss = lambda x: float(F.cross_entropy(logits / math.exp(x), labels))  # noqa: E731
    low, high, ratio = math.log(0.05), math.log(20), (math.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) <= loss(b) else (a, high)
    return math.exp((low + high) / 2)


def fit_none(
    logits: Float[Tensor, "n labels"], labels: Int[Tensor, " n"], scale: float | None
) -> NoneRule | None:
    """Logistic regression of "its label is not among them" on the energy and the logarithm of the
    number of labels. Every video stands on both sides, with its own label in the set and with that
    left out, for label sets of all sizes; so the rule takes either case for equally likely. None
    where the energy tells nothing."""
    if len(logits) > MOST_VIDEOS:
        spread = torch.linspace(0, len(logits) - 1, MOST_VIDEOS).long()
        logits, labels = logits[spread], labels[spread]
    rows, targets = [], []
    for count in sizes(logits.shape[-1]):
        for side, target in zip(leave_out(logits, labels, count), (0.0, 1.0), strict=True):
            e = energy(side, scale)
            rows.append(torch.stack([-e, torch.full_like(e, math.log(count))], dim=1))
            targets.append(torch.full_like(e, target))
    intercept, slope, per_label = logistic(torch.cat(rows), torch.cat(targets))
    return NoneRule(intercept, slope, per_label) if slope > 0 else None


def sizes(classes: int) -> list[int]:
    """Numbers of labels that a user may ask for: 1, 2, 4 … and all but one."""
    return [2**i for i in range(classes.bit_length()) if 2**i < classes - 1] + [classes - 1]


def leave_out(
    logits: Float[Tensor, "n labels"], labels: Int[Tensor, " n"], count: int
) -> tuple[Tensor, Tensor]:
    """Each video among `count` labels with its own one, and among `count` others: two tensors (n *
    rounds, count). The others are drawn by the video's position. Raises DataError where there is no
    video."""
    if not len(logits):
        raise DataError("there is no readable video to leave labels out for")
    included, left_out = [], []
    rounds = max(1, min(4, MOST_VIDEOS // len(logits)))
    for i, right in enumerate(labels.tolist()):
        others = [c for c in range(logits.shape[-1]) if c != right]
        for turn in range(rounds):
            drawn = random.Random(f"none/{count}/{i}/{turn}").sample(others, count)
            included.append(logits[i, [right, *drawn[1:]]])
            left_out.append(logits[i, drawn])
    return torch.stack(included), torch.stack(left_out)
