"""The answer to a video: labels with their scores, as Python, a table or a notebook takes them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from froster.errors import UsageError
from froster.evaluation.calibration import NONE, fits_none, with_none
from froster.inference.notebook import bars, data_frame, filmstrip

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 5


@dataclass(frozen=True)
class Classification:
    """Labels with their scores, best first: the soft-max of the logits' mean over the views, or the
    soft-maxes' mean.

    `result["surfing"]` is the probability of a label or of a group of labels, and iteration gives
    those of all labels, so that `dict(result)` is `{label: probability}`.
    """

    labels: list[str]
    scores: list[float]
    """How likely each label is if one of them fits; they sum to 1. With `thresholds`, how likely
    each is by itself."""
    none: float | None = None
    """How likely it is that none of the labels fits; None of a model without a rule for it, as it
    was not calibrated or its scores do not tell."""
    cosine: float | None = None
    """Of the best label; None where the network's logits are no cosines."""
    groups: dict[str, float] = field(default_factory=dict)
    """Of labels such as "sport/archery": the sum of the scores below "sport", outer groups first;
    with `thresholds` the highest of them."""
    thresholds: list[float] | None = None
    """Of a multi-label answer: the probability from which on each label, in the order of `labels`,
    is taken to fit."""
    pictures: tuple[bytes, ...] = field(default=(), compare=False)
    """A few of the frames that were looked at, as small JPEGs, where `classify` made this."""

    @property
    def label(self) -> str:
        return self.labels[0]

    @property
    def answer(self) -> str | None:
        """The best label, or None where it is more likely that none fits."""
        return next(iter(self.answers), None)

    @property
    def answers(self) -> list[str]:
        """The labels that fit: of a multi-label answer any number, else one or none."""
        if self.thresholds is not None:
            rows = zip(self.labels, self.scores, self.thresholds, strict=True)
            return [label for label, score, threshold in rows if score >= threshold]
        return [] if self.none is not None and fits_none(self.none) else self.labels[:1]

    @property
    def probabilities(self) -> list[float]:
        """Of each label, with the possibility that none fits: with `none` they sum to 1. Without
        one, the scores."""
        if self.none is None:
            return self.scores
        return [score * (1 - self.none) for score in self.scores]

    def __getitem__(self, label: str) -> float:
        """The probability of a label, also of "none of these" where there is a rule for it. Raises
        UsageError on one that was not asked for."""
        share = 1.0 if self.none is None else 1 - self.none
        groups = {group: share * score for group, score in self.groups.items()}
        table = groups | dict(with_none(self, self.none))
        if label not in table:
            near = difflib.get_close_matches(str(label), table, n=3, cutoff=0.0)
            raise UsageError(
                f"{label!r:.100} is none of the labels; the nearest: {', '.join(near)}"
            )
        return table[label]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """The labels with their probabilities, best first."""
        return iter(list(zip(self.labels, self.probabilities, strict=True)))

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, label: object) -> bool:
        return label in self.labels

    def __repr__(self) -> str:
        rows = [f"{label!r}: {share:.3f}" for label, share in with_none(self, self.none)]
        more = f", … {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        return f"Classification({', '.join(rows[:_SHOWN])}{more})"

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON: label, answer, none, cosine and, of every label, score and
        probability."""
        entries = zip(self.labels, self.scores, self.probabilities, strict=True)
        keys = ("label", "score", "probability")
        return {
            "label": self.label,
            "answer": self.answer,
            "none": self.none,
            "cosine": self.cosine,
            "scores": [dict(zip(keys, entry, strict=True)) for entry in entries],
            **({"groups": {group: self[group] for group in self.groups}} if self.groups else {}),
            **({} if self.thresholds is None else {"answers": self.answers}),
        }

    def to_df(self) -> pd.DataFrame:
        """A row a label: label, score, probability. Raises UsageError where pandas is not
        installed."""
        return data_frame(self.to_dict()["scores"])

    def _repr_html_(self) -> str:
        rows = with_none(self, self.none)
        strong = self.answers or [NONE]
        groups = [(f"{group}/", self[group], False) for group in self.groups]
        labels = [(name, share, name in strong) for name, share in rows]
        return filmstrip(self.pictures) + bars([*groups, *labels])
