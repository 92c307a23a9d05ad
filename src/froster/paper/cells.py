"""The runs behind the rows of a table, and tables of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from froster.inference.recognizer import Recognizer
from froster.methods import METHODS, Method
from froster.methods.recipe import Preset, Tune
from froster.methods.trainings import setting_of
from froster.paper.published import Values
from froster.training.distill_options import Distill, distill_preset
from froster.training.plan import adapted, fitted

Protocol = Literal["base-to-novel", "cross-dataset"]
Weights = Literal["frozen", "final", "ensemble"]
REHEARSED = "er-zasr"
"""The method that has encoders of its own, and is no network on CLIP (`paper/er_zasr.py`)."""


@dataclass(frozen=True)
class Cell:
    """How one network is trained, whatever tables it serves."""

    method: str
    variant: str | None = None
    preset: str = "froster"
    """`official`: as the method's own paper trains it; `froster`: inside FROSTER's training; or a
    later training (`TRAININGS`)."""
    tune: Tune = "method"
    described: bool = False
    """Labels with a sentence each, in training."""
    distill: str = "none"
    changes: tuple[tuple[str, Any], ...] = ()
    """Single settings of the distillation, as ("alpha", 0.5)."""
    recipe: tuple[tuple[str, Any], ...] = ()
    """Single settings of the recipe, as ("specialise", True)."""

    @property
    def key(self) -> str:
        """A file name that tells cells apart."""
        changes = [f"{name}-{value}" for name, value in (*self.changes, *self.recipe)]
        parts = [self.method, self.variant, self.preset, f"tune-{self.tune}", self.labels]
        parts += [self.distill, *changes]
        return "_".join(str(part) for part in parts if part is not None)

    @property
    def labels(self) -> str:
        return "described" if self.described else "plain"

    @property
    def on_clip(self) -> bool:
        return self.method != REHEARSED

    def setting(self, base: Recognizer, **recipe: Any) -> tuple[Method, Preset]:
        """The method and the preset of a run, fitted to the model it starts from; `recipe` changes
        single settings."""
        method = METHODS[self.method].make(self.variant)
        preset = fitted(setting_of(method, self.preset), base, method)
        recipe = {**dict(self.recipe), **recipe}
        if self.preset == "froster":
            recipe = {"tune": self.tune, **recipe}
        preset = dataclasses.replace(preset, recipe=dataclasses.replace(preset.recipe, **recipe))
        return adapted(method, preset, self.preset), preset

    def loss(self, method: Method) -> Distill:
        kind = distill_preset(self.distill)
        level = kind.level if kind.level == "video" else method.level
        return dataclasses.replace(kind, level=level, **dict(self.changes))


@dataclass(frozen=True)
class TableRow:
    name: str
    cell: Cell | None
    """None: frozen CLIP, or a row that is only quoted."""
    published: Values = field(default_factory=dict)
    weights: Weights = "final"
    """What is measured: frozen CLIP, the run's final weights, or the sum of both outputs."""
    caveat: str = ""
    """What keeps the published numbers from being compared with others."""
    described: bool | None = None
    """Labels at the test; None: as in training."""

    @property
    def quoted(self) -> bool:
        return self.cell is None and self.weights != "frozen"

    @property
    def kind(self) -> str:
        """Weights and labels of the test, such as "final, plain"."""
        described = self.described
        if described is None:
            described = self.cell is not None and self.cell.described
        return f"{self.weights}, {'described' if described else 'plain'}"


@dataclass(frozen=True)
class PaperTable:
    title: str
    protocol: Protocol
    rows: tuple[TableRow, ...]


def vclip(tune: Tune, distill: str, described: bool = False) -> Cell:
    return Cell("vclip", "step1", "froster", tune, described, distill)


def froster_cell(**changes: Any) -> Cell:
    """The paper's own configuration: VCLIP, both towers, described labels, residual distillation.
    `changes` are settings of the distillation."""
    cell = vclip("both", "residual", described=True)
    return dataclasses.replace(cell, changes=tuple(changes.items()))


FROSTER = froster_cell()
ER_ZASR = Cell(REHEARSED, preset="official", described=True)
ALONE = vclip("image", "none")
"""VCLIP tuned by itself: text frozen, plain labels, no distillation."""
