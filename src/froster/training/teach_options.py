"""What `froster.teach` can be asked for. The fields are the options of the command; the string
under a field is its help. PyTorch is not needed to read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from froster.errors import UsageError, one_of
from froster.training.options import LabelledOptions

TeachMethod = Literal["prolip", "lp++", "tip", "tip-f"]


@dataclass(frozen=True)
class TeachOptions(LabelledOptions):
    """None: by the number of videos, or as the model that is gone on from was taught."""

    labels: Path | None = None
    """Manifest (path,label) of videos in no class folders, or of an index."""
    more: Path | None = None
    """Corrections, added to what --out was taught: class folders, or a manifest."""
    method: TeachMethod | None = None
    """prolip takes any label afterwards; lp++, tip and tip-f know the taught classes alone;
    default: prolip."""
    hold: Literal["weights", "features", "both", "none"] | None = None
    """What prolip stays near to: its weights, the frames' features (distillation), or both;
    default: weights."""
    strength: str | None = None
    """Of holding the weights: 1/shots, 1/shots2 or a number; default: 1/shots."""
    lr: float | None = None
    """Learning rate of prolip; default: 1e-5, of a small network 1e-3."""
    steps: int | None = None
    """Of prolip and lp++; default: 300."""

    novel_fraction: float = 0.0
    """Share of the classes to hold out, two at least: what of them is kept is measured."""
    holdout: float | None = None
    """Share of videos kept for the test if there is no split; 0: none; default: by their number."""
    shots: int | None = None
    """Taught videos a class; default: all."""
    split_seed: int = 0
    """Draws the held-out classes and videos."""

    views: int = 4
    """Random clips of each taught video, beside those that it would be tested on."""
    features: Path | None = None
    """Folder of kept features; default: features/ in --out, or in the index."""
    workers: int = 0
    """Processes that decode videos; default on the command line: by the cores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("labels", "more", "features"):  # from Python also as texts
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        one_of("--method", self.method or "prolip", "prolip", "lp++", "tip", "tip-f")
        if self.views < 0:
            raise UsageError("--views is 0 or more")
        if (self.method or "prolip") != "prolip":
            given = [name for name in ("hold", "strength", "lr") if getattr(self, name) is not None]
            if given:
                raise UsageError(f"--{given[0]} is of prolip, and this is {self.method}")
        if self.method in ("tip", "tip-f") and self.steps is not None:
            raise UsageError(f"--steps is of prolip and lp++, and this is {self.method}")
