"""Who scores which videos of a set: one process all of them, or several a share each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass
class Scores:
    """What networks make of the videos of some batches."""

    models: int
    width: int
    """Logits of a view, over all label sets."""
    logits: list[Tensor] = field(default_factory=list)
    """Of each network (videos, views, width), NaN for a video that could not be read; empty as long
    as none could be."""
    errors: list[tuple[int, str]] = field(default_factory=list)
    """(index of the video, message)"""


class Spread(Protocol):
    def share(self, batches: Sequence[T]) -> list[T]:
        """Those of this process."""

    def join(
        self, batches: Sequence[range], scores: Scores, failure: Exception | None
    ) -> Scores | None:
        """The scores of all batches, in their order; None in a process that does not get them.
        `failure` is what ended this process's work, and is raised."""


class Alone:
    """One process scores all."""

    def share(self, batches: Sequence[T]) -> list[T]:
        return list(batches)

    def join(self, batches: Sequence[range], scores: Scores, failure: Exception | None) -> Scores:
        if failure is not None:
            raise failure
        return scores


ALONE = Alone()
