"""One training step as a module: student, frozen teacher, projectors and losses, so that DDP and
checkpoints see them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from froster.encoders.model import CLIP, normalise, unit
from froster.encoders.precision import autocast, with_cast_weights
from froster.errors import UsageError
from froster.methods.actionclip import in_batch_kl, same_class
from froster.methods.base import (
    Features,
    LossAt,
    Method,
    Regulariser,
    VideoCLIP,
    class_embeddings,
    pool,
)
from froster.methods.recipe import Recipe
from froster.text.bank import PromptBank
from froster.training.distill import Distill, Distillation
from froster.training.mixing import mix, soft_targets


@dataclass
class Losses:
    """What one step returns. `total` is what is minimised; the rest is only reported."""

    total: Tensor
    ce: Tensor
    """Cross-entropy over the classes, or the contrast within the batch."""
    vision: Tensor
    """The vision distance, before beta."""
    text: Tensor
    regulariser: Tensor
    """What holds the weights near CLIP's, with its weight."""
    logits: Tensor
    """(B, K), or (B, B) within the batch."""
    predicted: Tensor
    """(B,) class numbers"""


class GatherClasses(torch.autograd.Function):
    """Concatenate every rank's class features. Backward: sum over the ranks' losses, then each
    rank's own slice."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:  # (P, k, E) -> (P, k * ranks, E)
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size(), dim=1)[dist.get_rank()]


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def freeze(student: VideoCLIP, method: Method, tune: str) -> None:
    """Leave gradients to what is trained: what the method trains by itself, or with `tune` one
    tower more or less."""
    for name, parameter in student.named_parameters():
        text = name.startswith(("clip.text.", "text_prompt"))
        own = method.trains(name)
        trained = {"method": own, "both": own or text, "image": own and not text, "text": text}[
            tune
        ]
        parameter.requires_grad_(own if name == "clip.logit_scale" else trained)


def trained(student: VideoCLIP, *parts: str) -> bool:
    """Is any weight of the named parts trained?"""
    return any(p.requires_grad for name, p in student.named_parameters() if name.startswith(parts))


def attach(student: VideoCLIP, distill: Distill, network: str) -> tuple[bool, bool, list[str]]:
    """Where distillation has a gradient: on the vision side, on the text side, and what to tell the
    user.

    Frame level needs a trained image tower, video level that or a trained head; text a trained text
    tower or learned prompts. Raises UsageError where the chosen vision level has no gradient but
    the other one would, or nothing has.
    """
    text = trained(student, "clip.text.") or (
        student.shared_prompts and trained(student, "text_prompt")
    )
    encoder = trained(student, "clip.visual.")
    head = trained(student, "head.")
    vision = encoder or (head and distill.level == "video")
    if not vision and head:
        raise UsageError(
            f"{network} trains nothing below the frame embeddings, so distillation at frame level"
            " has no gradient: use --level video"
        )
    if not vision and not text:
        raise UsageError(
            f"{network} trains nothing that distillation could hold: use --distill none"
        )
    own = trained(student, "text_prompt")
    why = "prompts that belong to one class have no teacher" if own else "text is frozen"
    notes = [] if text else [f"{why}: distillation on the vision side only"]
    if not vision:
        notes.append("the image side is frozen: distillation on the text side only")
    return vision, text, notes


class Task(nn.Module):
    """Cross-entropy over the classes plus, with a teacher, feature distillation, and what holds the
    weights near CLIP's.

    Text of one step: the rows of the bank that the caller names, the same on all ranks (FROSTER:
    one template and the bare label). The teacher's text never changes: it is encoded once. With
    learned prompts the teacher has a bank of its own, `teacher_bank`, and all of it counts.
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
        *,
        recipe: Recipe | None = None,
        network: str = "this network",
        objective: str = "classes",
        teacher_bank: PromptBank | None = None,
        regulariser: Regulariser | None = None,
    ):
        super().__init__()
        if (teacher is None) != (distill.kind == "none"):
            raise ValueError("a teacher is needed for distillation, and only for it")
        self.student = student
        self.bank = bank
        self.teacher = teacher
        self.dtype = dtype
        self.recipe = recipe or Recipe()
        self.objective = objective
        self.regulariser = regulariser
        self.own_teacher_text = teacher_bank is not None
        self.text_is_frozen = not trained(student, "clip.text.", "text_prompt")
        self.distill: Distillation | None = None
        if teacher is not None:
            vision, text, _ = attach(student, distill, network)
            self.distill = Distillation(
                student.clip.config.embed_dim, distill, vision=vision, text=text
            )
            if teacher.config.preprocessing != student.clip.config.preprocessing:
                raise UsageError(
                    "teacher and student want their frames prepared in different ways: they cannot"
                    " share them"
                )
            teacher.eval().requires_grad_(False)
            self.teacher = teacher = with_cast_weights(teacher, dtype)
            self.teacher_prompts = self.prompt_table(VideoCLIP(teacher), teacher_bank or bank)
        if self.text_is_frozen:
            self.student_prompts = self.prompt_table(student, bank)
        if self.recipe.checkpointing:
            for tower in (student.clip.visual, student.clip.text):
                tower.transformer.checkpointing = True
        if self.recipe.compile:
            for clip in filter(None, (student.clip, self.teacher)):
                clip.visual.compile()
            if not self.text_is_frozen:
                for block in student.clip.text.transformer.blocks():
                    block.compile()

    def train(self, mode: bool = True) -> Task:
        """As of any module, but the teacher stays as it is used: frozen, without dropout."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    @torch.no_grad()
    def prompt_table(self, model: VideoCLIP, bank: PromptBank) -> Tensor:
        """Every prompt of every class, encoded once: (P, K, E), raw."""
        with autocast(model.clip.logit_scale.device, self.dtype):
            return model.prompts(bank, bank.rows).float()

    def trained(self) -> dict[str, nn.Module]:
        """What a checkpoint must hold: never the teacher."""
        return {
            "student": self.student,
            **({"distill": self.distill} if self.distill is not None else {}),
        }

    def text_prompts(self, rows: list[int]) -> Tensor:
        """The student's raw embeddings of these rows of prompts, (P, K, E); the ranks share the
        classes out."""
        if self.text_is_frozen:
            return self.student_prompts[rows]
        world = ranks()
        if (
            world == 1 or self.student.reserved_tokens
        ):  # learned prompts may belong to a class: not shared out
            with autocast(self.student.clip.logit_scale.device, self.dtype):
                return self.student.prompts(self.bank, rows).float()
        tokens = self.bank.tokens(*rows)  # (P, K, L)
        K = tokens.shape[1]
        each = -(-K // world)
        mine = (torch.arange(each) + each * dist.get_rank()).clamp(max=K - 1)
        return GatherClasses.apply(self.encode_tokens(tokens[:, mine]))[:, :K]

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """(P, k, L) -> (P, k, E), raw."""
        with autocast(self.student.clip.logit_scale.device, self.dtype):
            return torch.stack(
                [self.bank.encode(self.student.encode_text, row) for row in tokens]
            ).float()

    def forward(
        self,
        frames: Tensor,
        labels: Tensor,
        rows: list[int],
        rng: random.Random,
        weight: float = 1.0,
    ) -> Losses:
        """frames (B, T, 3, H, W), uint8; labels (B,) ints; rows of the bank; rng: this rank's, for
        this step.

        `weight` scales what comes from this rank's clips, for ranks that hold unequal numbers of
        readable ones.
        """
        frames = normalise(frames, self.student.clip.config.preprocessing)
        if self.objective == "in-batch":
            return self.batch_losses(frames, labels, rows, rng, weight)
        recipe, targets = self.recipe, labels
        if recipe.label_smoothing or recipe.mixup or recipe.cutmix:
            soft = soft_targets(labels, len(self.bank.labels), recipe.label_smoothing)
            frames, targets = mix(frames, soft, rng, recipe.mixup, recipe.cutmix)
        return self.losses(frames, targets, self.text_prompts(rows), rows, weight, rng=rng)

    def losses(
        self,
        frames: Tensor,
        targets: Tensor,
        prompts: Tensor,
        rows: list[int],
        weight: float = 1.0,
        *,
        rng: random.Random | None = None,
    ) -> Losses:
        """The same, from normalised frames, labels (B,) or soft targets (B, K), and the student's
        raw prompts (P, K, E)."""
        features = self.encode(frames)
        classes = self.student.classes(prompts)
        logits = self.student.logits(features.video, classes, features.context)
        ce = F.cross_entropy(logits, targets) * weight

        def loss_at(weights: Mapping[str, Tensor]) -> Tensor:
            with autocast(frames.device, self.dtype):
                mixed = functional_call(self.student, dict(weights), (frames, classes))
            return F.cross_entropy(mixed.float(), targets) * weight

        total, extra = self.regularised(ce, loss_at, rng or random.Random(0))
        vision, text = self.distances(frames, features, prompts, rows)
        return self.sum_up(total, ce, vision, text, extra, logits, logits.argmax(-1), weight)

    def regularised(
        self, loss: Tensor, loss_at: LossAt, rng: random.Random
    ) -> tuple[Tensor, Tensor]:
        """The loss with what the method adds to it, and what is reported of that."""
        if self.regulariser is None:
            return loss, loss.new_zeros(())
        extra, reported = self.regulariser(self.student, loss_at, rng)
        return loss + extra, reported

    def batch_losses(
        self, frames: Tensor, labels: Tensor, rows: list[int], rng: random.Random, weight: float
    ) -> Losses:
        """ActionCLIP's contrast: every clip with its own class by a template of its own, over all
        ranks' clips together."""
        features = self.encode(frames)
        templates = torch.tensor([rng.choice(rows) for _ in labels])
        prompts = self.clip_prompts(templates, labels)[None]  # (1, B, E)
        v, t, known = gather_clips(
            unit(features.video), unit(prompts[0]), labels if weight > 0 else labels - labels - 1
        )
        logits = self.student.clip.logit_scale.exp() * v @ t.T
        video, text = in_batch_kl(logits, same_class(known))
        ce = (video + text) / 2

        def loss_at(weights: Mapping[str, Tensor]) -> Tensor:
            raise NotImplementedError("the contrast within the batch at other weights")

        total, extra = self.regularised(ce, loss_at, rng)
        vision_distance = text_distance = ce.new_zeros(())
        if self.distill is not None:
            own = self.teacher_prompts[templates, labels.cpu()][None]
            vision_distance, text_distance = self.distances(frames, features, prompts, None, own)
        mine = unit(features.video) @ t.T
        return self.sum_up(
            total, ce, vision_distance, text_distance, extra, logits, known[mine.argmax(-1)], weight
        )

    def clip_prompts(self, templates: Tensor, labels: Tensor) -> Tensor:
        """The prompt of each clip, (B, E), raw."""
        if self.text_is_frozen:
            return self.student_prompts[templates.to(labels.device), labels]
        return self.encode_tokens(self.bank.tokens(*self.bank.rows)[templates, labels.cpu()][None])[
            0
        ]

    def encode(self, frames: Tensor) -> Features:
        with autocast(frames.device, self.dtype):
            return self.student.encode(frames)

    def distances(
        self,
        frames: Tensor,
        features: Features,
        prompts: Tensor,
        rows: list[int] | None,
        teacher: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Vision and text distance to the teacher; zero where nothing is attached."""
        zero = prompts.new_zeros(())
        if self.distill is None:
            return zero, zero
        config, vision, text = self.distill.config, zero, zero
        assert self.teacher is not None
        if self.distill.projector_v is not None:
            with torch.no_grad(), autocast(frames.device, self.dtype):
                f = self.teacher.encode_image(frames).float()
            target = Features(f, f.mean(dim=1), pool(f, "frame_unit"))
            vision = self.distill.vision(
                vision_feature(features, config), vision_feature(target, config)
            )
        if self.distill.projector_t is not None:
            if teacher is None:
                teacher = (
                    self.teacher_prompts if self.own_teacher_text else self.teacher_prompts[rows]
                )
            text = self.distill.text(text_feature(prompts, config), text_feature(teacher, config))
        return vision, text

    def sum_up(
        self,
        total: Tensor,
        ce: Tensor,
        vision: Tensor,
        text: Tensor,
        extra: Tensor,
        logits: Tensor,
        predicted: Tensor,
        weight: float,
    ) -> Losses:
        if self.distill is not None:
            config = self.distill.config
            of_clips = weight if config.reduction == "mean" else ranks() * (weight > 0)
            vision = vision * of_clips
            if (
                self.objective == "in-batch"
            ):  # one prompt a clip; else the prompts of all classes, the same on every rank
                text = text * of_clips
            total = total + config.beta_v * vision + config.beta_t * text
        return Losses(
            total,
            ce.detach(),
            vision.detach(),
            text.detach(),
            extra.detach(),
            logits.detach(),
            predicted,
        )


def gather_clips(v: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All ranks' video and text embeddings (B, E) and labels; ranks may hold different numbers, and
    -1 marks no clip."""
    if ranks() == 1:
        return v, t, labels
    most = torch.tensor(len(labels), device=labels.device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    short = int(most) - len(labels)
    both = GatherClasses.apply(F.pad(torch.stack([v, t]), (0, 0, 0, short)))
    padded = F.pad(labels, (0, short), value=-1)
    parts = [torch.empty_like(padded) for _ in range(ranks())]
    dist.all_gather(parts, padded)
    known = torch.cat(parts)
    return both[0][known >= 0], both[1][known >= 0], known[known >= 0]


def vision_feature(features: Features, config: Distill) -> Tensor:
    """What is distilled: (B, T, E) at frame level, (B, E) at video level."""
    if config.level == "frame":
        return unit(features.frames) if config.unit else features.frames
    return unit(features.video) if config.unit else features.pooled


def text_feature(prompts: Tensor, config: Distill) -> Tensor:
    """Raw prompts (P, K, E) -> (K, E)."""
    return class_embeddings(prompts) if config.unit else prompts.mean(dim=0)
