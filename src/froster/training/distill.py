"""Residual feature distillation, the contribution of FROSTER (section 3.2).

    h(z) = z + alpha * W2 GELU(W1 z)                    W2 = 0 at the start, no biases
    L    = L_CE + beta_v * D(h_v(z), f) + beta_t * D(h_t(w), u)

z: student frame (or video) features, f: those of the frozen teacher on the same frames; w, u: class
features of the student and the teacher for the same prompts. The identity path lets the teacher
hold the student near CLIP, the MLP path takes up what must differ for video. Only the loss sees h:
the classifier works on z and w themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from froster.encoders.model import unit
from froster.errors import UsageError, one_of
from froster.methods.base import Features, class_embeddings
from froster.training.distributed import ranks

Losses = dict[str, Tensor]
"""Name -> number, as `metrics.jsonl` has it."""


@dataclass(frozen=True)
class Distill:
    """What is distilled, and how. The defaults are the released code's (commit 230ae88)."""

    kind: Literal["residual", "mlp", "plain", "none"] = "residual"
    """The projector: z + alpha*MLP(z), MLP(z), z itself; or no distillation at all."""
    alpha: float = 0.1
    """Weight of the projector's MLP path."""
    beta_v: float = 2.0
    """Weight of the vision distillation."""
    beta_t: float = 2.0
    """Weight of the text distillation."""
    zero_init: bool = True
    """W2 starts at zero (residual only: an MLP without identity path would start with no
    direction)."""
    distance: Literal["cosine", "l2", "mse"] = "cosine"
    """1 - cos; the L2 norm of the difference (the code before 2024-11-25); its square."""
    level: Literal["frame", "video"] = "frame"
    """Distil each frame, or the pooled video."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the frames (or videos) and over the classes."""
    unit: bool = True
    """Distil unit-length features, as the code does. False: raw features, as eq. 7 is printed."""

    def __post_init__(self) -> None:
        one_of("kind", self.kind, "residual", "mlp", "plain", "none")
        one_of("distance", self.distance, "cosine", "l2", "mse")
        one_of("level", self.level, "frame", "video")
        one_of("reduction", self.reduction, "mean", "sum")


PRESETS = {
    "froster": Distill(),
    "froster-paper": Distill(distance="l2", level="video", reduction="sum", unit=False),
    "froster-2024-01": Distill(distance="l2"),
    "residual": Distill(),
    "mlp": Distill(kind="mlp"),
    "plain": Distill(kind="plain"),
    "none": Distill(kind="none"),
}


def distill_preset(name: str) -> Distill:
    """A named setting. `froster` is the released code, `froster-paper` eq. 7 to the letter."""
    if name not in PRESETS:
        raise UsageError(f"unknown distillation {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


class Projector(nn.Module):
    """h: (…, E) -> (…, E). W1 Kaiming-normal, W2 zero, no biases, exact GELU, and the sum is not
    made unit again."""

    def __init__(self, width: int, config: Distill):
        super().__init__()
        self.alpha = config.alpha
        self.residual = config.kind == "residual"
        self.w1 = nn.Linear(width, width, bias=False)
        self.w2 = nn.Linear(width, width, bias=False)
        nn.init.kaiming_normal_(self.w1.weight)
        if self.residual and config.zero_init:
            nn.init.zeros_(self.w2.weight)
        else:
            nn.init.kaiming_normal_(self.w2.weight)

    def forward(self, z: Tensor) -> Tensor:
        y = self.w2(F.gelu(self.w1(z)))
        return z + self.alpha * y if self.residual else y


def distance(student: Tensor, teacher: Tensor, config: Distill) -> Tensor:
    """Features (…, E) of the projected student and of the teacher -> one number."""
    if config.distance == "cosine":
        each = 1 - F.cosine_similarity(student, teacher, dim=-1)
    elif config.distance == "l2":
        each = (student - teacher).norm(dim=-1)
    else:
        each = (student - teacher).square().sum(dim=-1)
    return each.mean() if config.reduction == "mean" else each.sum()


class Distillation(nn.Module):
    """A projector and a distance for each side that is distilled; a side without gradient has no
    projector, and its distance is reported as zero."""

    def __init__(self, width: int, config: Distill, *, vision: bool = True, text: bool = True):
        super().__init__()
        self.config = config

        def projector(attached: bool) -> nn.Module | None:
            if not attached:
                return None
            return nn.Identity() if config.kind == "plain" else Projector(width, config)

        self.projector_v = projector(vision)
        self.projector_t = projector(text)

    def forward(
        self,
        features: Features,
        prompts: Tensor,
        teacher_features: Features | None,
        teacher_prompts: Tensor,
        weight: float = 1.0,
        clip_prompts: bool = False,
    ) -> tuple[Losses, Losses]:
        """Features of B clips and raw prompts (P, K, E) of the student and of the teacher -> what
        is minimised, beta times the distances, and the distances, which are reported.

        `weight` is that of this rank's clips (`Task.forward`). `clip_prompts`: each clip has brought
        a prompt of its own; else the prompts are those of all classes, the same on every rank.
        """
        config = self.config
        of_clips = weight if config.reduction == "mean" else ranks() * (weight > 0)
        vision = text = prompts.new_zeros(())
        if self.projector_v is not None and teacher_features is not None:
            z, f = self.vision_feature(features), self.vision_feature(teacher_features)
            vision = distance(self.projector_v(z), f, config) * of_clips
        if self.projector_t is not None:
            w, u = self.text_feature(prompts), self.text_feature(teacher_prompts)
            text = distance(self.projector_t(w), u, config) * (of_clips if clip_prompts else 1.0)
        losses = {"distill_v": config.beta_v * vision, "distill_t": config.beta_t * text}
        return losses, {"distill_v": vision.detach(), "distill_t": text.detach()}

    def vision_feature(self, features: Features) -> Tensor:
        """What is distilled: (B, T, E) at frame level, (B, E) at video level."""
        if self.config.level == "frame":
            return unit(features.frames) if self.config.unit else features.frames
        return unit(features.video) if self.config.unit else features.pooled

    def text_feature(self, prompts: Tensor) -> Tensor:
        """Raw prompts (P, K, E) -> (K, E)."""
        return class_embeddings(prompts) if self.config.unit else prompts.mean(dim=0)
