"""The grid of distillation: what is compared, through what, with which teacher, on which side and
at which level. PyTorch is not needed to read it.

A cell that can have no meaning is refused with its reason as soon as it is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from froster.errors import UsageError, one_of

JOINT = ("logits", "anchors")
"""Targets that compare videos with classes, so that one term holds both sides."""


@dataclass(frozen=True)
class Distill:
    """What is distilled, and how. The defaults are the released code's (commit 230ae88)."""

    kind: Literal["residual", "mlp", "linear", "plain", "none"] = "residual"
    """Through what the student's features go: z + alpha*MLP(z), MLP(z), a linear map, nothing
    (plain); none: no distillation."""
    alpha: float = 0.1
    """Weight of the projector's MLP path."""
    beta_v: float = 2.0
    """Weight of the vision distillation; of logits and anchors, the weight."""
    beta_t: float = 2.0
    """Weight of the text distillation."""
    zero_init: bool = True
    """The projector starts as the identity: W2 = 0 (residual), the unit matrix (linear)."""
    distance: Literal["cosine", "l2", "mse", "hint"] = "cosine"
    """Between features: 1 - cos; the L2 norm of the difference (the code before 2024-11-25); its
    square; the mean of the squared entries (FitNets)."""
    level: Literal["frame", "video"] = "frame"
    """Distil each frame, or the pooled video."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of the distances over the frames (or videos) and over the classes."""
    unit: bool = True
    """Distil unit-length features, as the code does, or raw ones, as eq. 7 is printed."""
    target: Literal["features", "logits", "similarities", "anchors", "rkd", "pkt"] = "features"
    """What is compared with the teacher's: features; logits (Hinton); similarities within the batch
    (Tung & Mori); scores by way of random anchors (TACO); distances and angles (RKD); similarities
    as probabilities (PKT)."""
    teacher: Literal["frozen", "ema"] = "frozen"
    """CLIP as the run starts from it, or the moving mean of the student."""
    ema_beta: float = 0.9998
    """Of the EMA teacher: how much of it stays in a step."""
    side: Literal["both", "vision", "text"] = "both"
    """Which side is held: where it gets a gradient, or one alone."""
    temperature: float = 1.0
    """Of the soft-max of logits."""
    anchors: int = 200
    """Random directions a step, for anchors."""

    def __post_init__(self) -> None:
        one_of("kind", self.kind, "residual", "mlp", "linear", "plain", "none")
        one_of("distance", self.distance, "cosine", "l2", "mse", "hint")
        one_of("level", self.level, "frame", "video")
        one_of("reduction", self.reduction, "mean", "sum")
        one_of("target", self.target, "features", *JOINT, "similarities", "rkd", "pkt")
        one_of("teacher", self.teacher, "frozen", "ema")
        one_of("side", self.side, "both", "vision", "text")
        if not (0 <= self.ema_beta <= 1 and self.temperature > 0 and self.anchors >= 1):
            raise UsageError(
                "ema_beta lies in [0, 1], temperature is positive, and there is one anchor at least"
            )
        if not (0 <= self.beta_v < math.inf and 0 <= self.beta_t < math.inf):
            raise UsageError("beta_v and beta_t are weights of zero or more")
        if not math.isfinite(self.alpha):
            raise UsageError(f"alpha is a weight, not {self.alpha}")
        for reason in self.impossible():
            raise UsageError(f"this distillation is none: {reason}")

    def impossible(self) -> Iterator[str]:
        """Why this cell of the grid can have no meaning, or would ignore what it says."""
        if self.target != "features" and self.distance != "cosine":
            yield f"a distance ({self.distance}) is between features, and {self.target} have none"
        if self.target != "features" and self.reduction != "mean":
            yield f"a sum is of distances between features, and {self.target} are a mean"
        if self.joint and not self.unit:
            yield f"{self.target} are made of cosines, so features cannot stay raw"
        if self.target == "rkd" and self.level == "frame":
            yield "rkd compares all triples, which are too many of frames: use --level video"
        if self.target != "logits" and self.temperature != 1:
            yield f"a temperature is of the soft-max of logits, not of {self.target}"
        if self.target != "anchors" and self.anchors != Distill.anchors:
            yield f"anchors are drawn for the target anchors, not for {self.target}"
        if self.teacher == "frozen" and self.ema_beta != Distill.ema_beta:
            yield "ema_beta is of an EMA teacher, and the teacher is frozen: use --teacher ema"

    @property
    def joint(self) -> bool:
        """Does one term hold videos and classes together?"""
        return self.target in JOINT

    @property
    def joint_weight(self) -> float:
        return self.beta_t if self.side == "text" else self.beta_v


TACO = Distill("plain", beta_v=0.4, beta_t=0.4, level="video", target="anchors", teacher="ema")
PRESETS = {
    "froster": Distill(),
    "froster-paper": Distill(distance="l2", level="video", reduction="sum", unit=False),
    "froster-2024-01": Distill(distance="l2"),
    "residual": Distill(),
    "mlp": Distill(kind="mlp"),
    "plain": Distill(kind="plain"),
    "none": Distill(kind="none"),
    "kd": Distill("plain", beta_v=9.0, level="video", target="logits", temperature=4.0),
    "similarity": Distill(
        "plain", beta_v=3e3, beta_t=3e3, level="video", unit=False, target="similarities"
    ),
    "hint": Distill(
        "linear", beta_v=100.0, beta_t=100.0, zero_init=False, distance="hint", unit=False
    ),
    "rkd": Distill("plain", beta_v=1.0, beta_t=1.0, level="video", unit=False, target="rkd"),
    "pkt": Distill("plain", beta_v=3e4, beta_t=3e4, level="video", unit=False, target="pkt"),
    "anchors": Distill("plain", beta_v=0.4, beta_t=0.4, level="video", target="anchors"),
    "taco": TACO,
}
"""kd, similarity, hint, rkd and pkt have RepDistiller's weights (kd: 0.9 to 0.1 of the
cross-entropy), anchors and taco TACO's."""


def distill_preset(name: str) -> Distill:
    """A named setting. `froster` is the released code, `froster-paper` eq. 7 to the letter."""
    if name not in PRESETS:
        raise UsageError(f"unknown distillation {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
