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

    `result["surfing"]` is the probability of a label, and iteration gives all of them, so that
    `dict(result)` is `{label: probability}`.
    """

    labels: list[str]
    scores: list[float]
    """How likely each label is if one of them fits; they sum to 1."""
    none: float | None = None
    """How likely it is that none of the labels fits; None of a model without a rule for it, as it
    was not calibrated or its scores do not tell."""
    cosine: float | None = None
    """Of the best label; None where the network's logits are no cosines."""
    pictures: tuple[bytes, ...] = field(default=(), compare=False)
    """A few of the frames that were looked at, as small JPEGs, where `classify` made this."""

    @property
    def label(self) -> str:
        return self.labels[0]

    @property
    def answer(self) -> str | None:
        """The best label, or None where it is more likely that none fits."""
        return None if self.none is not None and fits_none(self.none) else self.labels[0]

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
        table = dict(with_none(self, self.none))
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
        }

    def to_df(self) -> pd.DataFrame:
        """A row a label: label, score, probability. Raises UsageError where pandas is not
        installed."""
        return data_frame(self.to_dict()["scores"])

    def _repr_html_(self) -> str:
        rows = with_none(self, self.none)
        answer = self.answer or NONE
        return filmstrip(self.pictures) + bars([(name, p, name == answer) for name, p in rows])
