"""One training step as a module: student, frozen teacher, projectors and losses, so that DDP and checkpoints see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from froster.clip.model import CLIP, normalise, unit
from froster.distill import Distill, Distillation
from froster.methods.video_clip import Pooling, VideoCLIP, pool
from froster.precision import autocast
from froster.text.bank import PromptBank


@dataclass
class Losses:
    """What one step returns. `total` is what is minimised; the rest is only reported."""

    total: Tensor
    ce: Tensor
    vision: Tensor
    """The vision distance, before beta."""
    text: Tensor
    logits: Tensor
    """(B, K)"""


class GatherClasses(torch.autograd.Function):
    """Concatenate every rank's class features. Backward: sum over the ranks' losses, then each rank's own slice."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:  # (2, k, E) -> (2, k * ranks, E)
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size(), dim=1)[dist.get_rank()]


def class_embeddings(prompts: Tensor) -> Tensor:
    """Raw prompt embeddings (P, K, E) -> unit class embeddings (K, E): u(mean over prompts of u(prompt))."""
    return unit(unit(prompts).mean(dim=0))


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


class Task(nn.Module):
    """Cross-entropy over the classes plus, with a teacher, feature distillation.

    Text of one step, as released: every class by two prompts, one template (drawn by the caller, the same on all
    ranks) and the bare label. The teacher's text never changes: it is encoded once, for all templates.
    """

    # Constants on the student's device, not buffers: DDP would send them round at every step.
    teacher_prompts: Tensor
    student_prompts: Tensor

    def __init__(
        self,
        student: VideoCLIP,
        bank: PromptBank,
        distill: Distill,
        teacher: CLIP | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if (teacher is None) != (distill.kind == "none"):
            raise ValueError("a teacher is needed for distillation, and only for it")
        self.student = student
        self.bank = bank
        self.teacher = teacher
        self.dtype = dtype
        self.distill = Distillation(student.clip.config.embed_dim, distill) if teacher is not None else None
        self.text_is_frozen = not any(p.requires_grad for p in student.clip.text.parameters())
        if teacher is not None:
            teacher.eval().requires_grad_(False)
            self.teacher_prompts = self.prompt_table(teacher)
        if self.text_is_frozen:
            self.student_prompts = self.prompt_table(student)

    @torch.no_grad()
    def prompt_table(self, model: CLIP | VideoCLIP) -> Tensor:
        """Every prompt of every class, encoded once: (P, K, E), raw; the bare label is the last row."""
        device = model.logit_scale.device if isinstance(model, CLIP) else model.clip.logit_scale.device
        with autocast(device, self.dtype):
            return self.bank.prompt_table(model.encode_text).float()

    def trained(self) -> dict[str, nn.Module]:
        """What a checkpoint must hold: never the teacher."""
        return {"student": self.student, **({"distill": self.distill} if self.distill is not None else {})}

    def text_prompts(self, template: int) -> Tensor:
        """The student's raw embeddings of this step's two prompts a class, (2, K, E); the ranks share the classes out."""
        if self.text_is_frozen:
            return self.student_prompts[[template, -1]]
        tokens = self.bank.train_tokens(template)  # (2, K, L)
        K, world = tokens.shape[1], ranks()
        if world > 1:
            each = -(-K // world)
            mine = (torch.arange(each) + each * dist.get_rank()).clamp(max=K - 1)
            tokens = tokens[:, mine]
        with autocast(self.student.clip.logit_scale.device, self.dtype):
            prompts = self.bank.encode(self.student.encode_text, tokens.flatten(0, 1)).unflatten(0, (2, -1)).float()
        return GatherClasses.apply(prompts)[:, :K] if world > 1 else prompts

    def forward(self, frames: Tensor, labels: Tensor, template: int, weight: float = 1.0) -> Losses:
        """frames (B, T, 3, H, W), uint8; labels (B,) ints; template: row of the bank's templates.

        `weight` scales what comes from this rank's clips, for ranks that hold unequal numbers of readable ones.
        """
        return self.losses(normalise(frames), labels, self.text_prompts(template), template, weight)

    def losses(self, frames: Tensor, labels: Tensor, prompts: Tensor, template: int, weight: float = 1.0) -> Losses:
        """The same, from normalised frames and the student's raw prompt embeddings (2, K, E)."""
        with autocast(frames.device, self.dtype):
            z = self.student.encode_frames(frames).float()
        w = class_embeddings(prompts)
        logits = self.student.logits(pool(z, self.student.pooling), w)
        ce = F.cross_entropy(logits, labels) * weight
        if self.distill is None:
            zero = ce.new_zeros(())
            return Losses(ce, ce.detach(), zero, zero, logits.detach())
        config = self.distill.config
        assert self.teacher is not None
        with torch.no_grad(), autocast(frames.device, self.dtype):
            f = self.teacher.encode_image(frames).float()
        u = self.teacher_prompts[[template, -1]]
        vision, text = self.distill(
            vision_feature(z, self.student.pooling, config),
            vision_feature(f, "frame_unit", config),
            w if config.unit else prompts.mean(dim=0),
            class_embeddings(u) if config.unit else u.mean(dim=0),
        )
        vision = vision * (weight if config.reduction == "mean" else ranks() * (weight > 0))
        total = ce + config.beta_v * vision + config.beta_t * text
        return Losses(total, ce.detach(), vision.detach(), text.detach(), logits.detach())


def vision_feature(z: Tensor, pooling: Pooling, config: Distill) -> Tensor:
    """Frame embeddings (B, T, E) -> what is distilled: (B, T, E) at frame level, (B, E) at video level."""
    if config.level == "frame":
        return unit(z) if config.unit else z
    return unit(pool(z, pooling)) if config.unit else z.mean(dim=1)
