"""What a training changed on the same test videos, in numbers and in words that claim no more than
these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from froster.evaluation.metrics import Predictions, paired_gain
from froster.training.fine_tune import Row

TOLD = {"base": "gained on base classes", "novel": "kept on novel classes"}


@dataclass(frozen=True)
class Change:
    """Top-1 accuracy before and after, in per cent."""

    before: float
    after: float
    error: float
    """One standard error of the difference, in points."""
    videos: int
    classes: int

    @property
    def gain(self) -> float:
        return self.after - self.before

    @property
    def chance(self) -> float:
        return 100 / self.classes

    @property
    def kind(self) -> str:
        """good or bad where the difference is beyond two standard errors, else ""."""
        return "" if abs(self.gain) <= 2 * self.error else "good" if self.gain > 0 else "bad"

    @property
    def words(self) -> str:
        if not self.error:
            return "the same videos right"
        return {
            "": "within the error",
            "good": "a gain beyond two standard errors",
            "bad": "a loss beyond two standard errors",
        }[self.kind]

    @property
    def points(self) -> str:
        return f"{self.gain:+.1f} ± {self.error:.1f}"

    def __str__(self) -> str:
        return f"{self.before:.1f} -> {self.after:.1f} ({self.points}, {self.words})"

    @property
    def among(self) -> str:
        return f"{self.videos} videos among {self.classes} labels, chance {self.chance:.1f}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain, "chance": self.chance, "words": self.words}


def change(before: Predictions, after: Predictions) -> Change:
    """Of two models on the same videos among the same classes."""
    return Change(
        before.top(1),
        after.top(1),
        paired_gain(before, after)[1],
        len(after.labels),
        len(after.classes),
    )


def changes(
    before: Mapping[str, Predictions], after: Mapping[str, Predictions]
) -> dict[str, Change]:
    """Of the base and the novel classes, as far as they were measured."""
    return {
        name: change(before[name], after[name])
        for name in ("base", "novel")
        if name in before and name in after
    }


def changes_of(before: Row, after: Row) -> dict[str, Any]:
    """For a report: of base and of novel classes, and, under "together", of both among the labels
    of both."""
    found: dict[str, Any] = {
        name: c.to_dict() for name, c in changes(before.predictions, after.predictions).items()
    }
    if before.together and after.together:
        asked = changes(before.together.predictions, after.together.predictions)
        found["together"] = {name: c.to_dict() for name, c in asked.items()}
    return found


def told(before: Row, after: Row) -> list[str]:
    """The same in lines."""
    lines = [
        f"{TOLD[name]}: {c} on {c.among}"
        for name, c in changes(before.predictions, after.predictions).items()
    ]
    if before.together and after.together:
        asked = changes(before.together.predictions, after.together.predictions)
        labels = asked["base"]
        lines.append(
            f"asked for all {labels.classes} labels together (chance {labels.chance:.1f}): "
            + "; ".join(f"{name} {c}" for name, c in asked.items())
            + f"; harmonic mean {before.together.hm:.1f} -> {after.together.hm:.1f}"
        )
    return lines
