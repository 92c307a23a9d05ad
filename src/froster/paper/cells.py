"""One training run of the programme, whatever tables it serves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from froster.methods import METHODS, Method
from froster.recipe import Tune


@dataclass(frozen=True)
class Cell:
    method: str
    variant: str | None = None
    preset: str = "froster"
    """`official`: as the method's own paper trains it; `froster`: inside FROSTER's training."""
    tune: Tune = "method"
    described: bool = False
    """Labels with a sentence each, in training."""
    distill: str = "none"
    changes: tuple[tuple[str, Any], ...] = ()
    """Single settings of the distillation, as ("alpha", 0.5)."""

    @property
    def key(self) -> str:
        """A file name that tells cells apart."""
        parts = [
            self.method, self.variant, self.preset, f"tune-{self.tune}", "described" if self.described else "plain",
            self.distill, *(f"{name}-{value}" for name, value in self.changes),
        ]  # fmt: skip
        return "_".join(str(part) for part in parts if part is not None)

    def build(self) -> Method:
        return METHODS[self.method].make(self.variant)


def froster_cell(**changes: Any) -> Cell:
    """The paper's own configuration: VCLIP, both towers, described labels, residual distillation."""
    return dataclasses.replace(Cell("vclip", tune="both", described=True, distill="residual"), **changes)
