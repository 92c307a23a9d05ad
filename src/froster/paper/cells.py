"""One training run of the programme, whatever tables it serves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from froster.inference.recognizer import Recognizer
from froster.methods import METHODS, Method
from froster.methods.recipe import Preset, Tune
from froster.training.distill import Distill, distill_preset
from froster.training.fine_tune import fitted


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
            self.method,
            self.variant,
            self.preset,
            f"tune-{self.tune}",
            "described" if self.described else "plain",
            self.distill,
            *(f"{name}-{value}" for name, value in self.changes),
        ]
        return "_".join(str(part) for part in parts if part is not None)

    def setting(self, base: Recognizer, **recipe: Any) -> tuple[Method, Preset]:
        """The method and the preset of a run, fitted to the model it starts from; `recipe` changes
        single settings."""
        method = METHODS[self.method].make(self.variant)
        preset = fitted(
            method.froster_preset() if self.preset == "froster" else method.preset(), base, method
        )
        changes: dict[str, Any] = {}
        if getattr(method, "frames", 0):  # positions in time: as many as the clips have frames
            changes["frames"] = preset.sampling.frames
        if self.preset == "froster":
            recipe = {"tune": self.tune, **recipe}
            if hasattr(method, "pooling"):
                changes["pooling"] = "frame_unit"
        preset = dataclasses.replace(preset, recipe=dataclasses.replace(preset.recipe, **recipe))
        return dataclasses.replace(method, **changes), preset

    def loss(self, method: Method) -> Distill:
        kind = distill_preset(self.distill)
        level = kind.level if kind.level == "video" else method.level
        return dataclasses.replace(kind, level=level, **dict(self.changes))


def froster_cell(**changes: Any) -> Cell:
    """The paper's own configuration: VCLIP, both towers, described labels, residual distillation."""
    return dataclasses.replace(
        Cell("vclip", tune="both", described=True, distill="residual"), **changes
    )
