"""One training step as a module: student, teacher, projectors and losses, so that DDP and
checkpoints see them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from froster.encoders.model import CLIP
from froster.encoders.precision import autocast, with_cast_weights
from froster.encoders.preprocessing import normalise
from froster.errors import UsageError
from froster.methods.base import Features, LossAt, Regulariser, VideoCLIP, pool
from froster.methods.penalised import Consolidated
from froster.methods.recipe import Recipe
from froster.text.bank import PromptBank
from froster.training.attach import attach, trained
from froster.training.batches import mix_clips, soft_targets
from froster.training.compiling import compile_towers
from froster.training.distill import Distillation, Losses, Scored
from froster.training.distill_options import Distill
from froster.training.distributed import GatherClasses, ranks, this_rank
from froster.training.taco import Specialisation, follow, follower


@dataclass(frozen=True)
class Teacher:
    """What holds the student's features near its own."""

    clip: CLIP
    """The frozen teacher; one that follows the student (`distill.teacher`) is made from it."""
    distill: Distill
    bank: PromptBank | None = None
    """Prompts of its own, all of which count, where the student learns its prompts; None: those of
    the student's step."""


@dataclass
class Outputs:
    """What the student makes of the clips of a step, and the loss of its objective."""

    frames: Tensor
    """As the student saw them, which may be mixed: a teacher looks at the same."""
    losses: Losses
    """The objective ("ce") and what the method adds to it, with this rank's weight."""
    logits: Tensor
    """(B, K), or over all ranks' clips (B, B) within the batch."""
    predicted: Tensor
    """(B,) class numbers"""
    features: Features
    prompts: Tensor
    """(P, K, E), raw: what is distilled on the text side."""
    teacher_prompts: Tensor | None
    """The teacher's, of the same rows."""
    loss_at: LossAt


class Task(nn.Module):
    """Cross-entropy over the classes plus, with a teacher, distillation, and what the method adds
    to hold the weights near CLIP's.

    Text of one step: the rows of the bank that the caller names, the same on all ranks (FROSTER:
    one template and the bare label). A frozen teacher's text never changes: it is encoded once."""

    # Constants on the student's device, not buffers: DDP would send them round at every step.
    teacher_prompts: Tensor
    student_prompts: Tensor
    clip_prompts = False
    """Does each clip bring a prompt of its own?"""

    def __init__(
        self,
        student: VideoCLIP,
        bank: PromptBank,
        recipe: Recipe | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        teacher: Teacher | None = None,
        regulariser: Regulariser | None = None,
    ):
        super().__init__()
        self.student, self.bank = student, bank
        self.recipe, self.dtype = recipe or Recipe(), dtype
        self.regulariser = regulariser
        self.hold: Consolidated | None = None
        self.text_is_frozen = not trained(student, "clip.text.", "text_")
        self.teacher: CLIP | VideoCLIP | None = None
        self.distill: Distillation | None = None
        if teacher is not None:
            self.add_teacher(teacher)
        width = student.clip.config.embed_dim
        self.specialise = Specialisation(width) if self.recipe.specialise else None
        if self.text_is_frozen:
            self.student_prompts = self.prompt_table(student, bank)
        self.save_memory_and_time()

    def add_teacher(self, teacher: Teacher) -> None:
        """Raises UsageError where it wants its frames in another way than the student."""
        clip, student = teacher.clip, self.student
        vision, text, _ = attach(student, teacher.distill)
        width = student.clip.config.embed_dim
        distill = Distillation(width, teacher.distill, vision=vision, text=text)
        if clip.config.preprocessing != student.clip.config.preprocessing:
            raise UsageError(
                "teacher and student want their frames prepared in different ways: they cannot"
                " share them"
            )
        self.distill = distill
        if teacher.distill.teacher == "ema":
            self.teacher = follower(student)
            self.teacher_has_own_prompts = False
            if self.text_is_frozen:
                self.teacher_prompts = self.prompt_table(self.teacher, self.bank)
            return
        clip.eval().requires_grad_(False)
        self.teacher = with_cast_weights(clip, self.dtype)
        self.teacher_has_own_prompts = teacher.bank is not None
        self.teacher_prompts = self.prompt_table(VideoCLIP(self.teacher), teacher.bank or self.bank)

    def save_memory_and_time(self) -> None:
        """Checkpointing and compiling, as the recipe says."""
        student = self.student.clip
        if self.recipe.checkpointing:
            for tower in (student.visual, student.text):
                tower.transformer.checkpointing = True
        if self.recipe.compile:
            compile_towers(student, self.teacher_clip, self.text_is_frozen)

    def train(self, mode: bool = True) -> Task:
        """As of any module, but the teacher stays as it is used: frozen, without dropout."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    @property
    def teacher_clip(self) -> CLIP | None:
        return self.teacher.clip if isinstance(self.teacher, VideoCLIP) else self.teacher

    def update_teacher(self) -> None:
        """Once a step, before the clips are looked at: a teacher that follows the student does."""
        if isinstance(self.teacher, VideoCLIP) and self.distill is not None:
            follow(self.teacher, self.student, self.distill.config.ema_beta)

    def checkpoint_modules(self) -> dict[str, nn.Module]:
        """What a checkpoint must hold: of teachers only one that follows the student."""
        modules = {
            "student": self.student,
            "distill": self.distill,
            "specialise": self.specialise,
            "teacher": self.teacher if isinstance(self.teacher, VideoCLIP) else None,
        }
        return {name: module for name, module in modules.items() if module is not None}

    def forward(
        self,
        frames: Tensor,
        labels: Tensor,
        rows: list[int],
        rng: random.Random,
        weight: float = 1.0,
    ) -> tuple[Losses, Losses]:
        """frames (B, T, 3, H, W), uint8, or kept features of them (B, T, D); labels (B,) ints; rows
        of the bank; rng: this rank's, for this step. Returns what is minimised, and what is only
        reported.

        `weight` scales what comes from this rank's clips, for ranks that hold unequal numbers of
        readable ones: the mean over the ranks is then the mean over all clips.
        """
        if frames.ndim == 5:
            frames = normalise(frames, self.student.clip.config.preprocessing)
        outputs = self.outputs(frames, labels, rows, rng, weight)
        losses, report = self.losses(outputs.frames, outputs, rng, weight)
        right = (outputs.predicted == labels).float().mean()
        return losses, {**report, "accuracy": 100 * right * weight}

    def outputs(
        self,
        frames: Tensor,
        labels: Tensor,
        rows: list[int],
        rng: random.Random,
        weight: float = 1.0,
    ) -> Outputs:
        """Of normalised frames."""
        recipe, targets = self.recipe, labels
        if recipe.label_smoothing or recipe.mixup or recipe.cutmix:
            soft = soft_targets(labels, len(self.bank.labels), recipe.label_smoothing)
            frames, targets = mix_clips(frames, soft, rng, recipe.mixup, recipe.cutmix)
        prompts = self.text_prompts(rows)
        features = self.encode(frames)
        classes = self.student.classes(prompts)
        logits = self.student.logits(features.video, classes, features.context)
        losses = self.student.losses(
            features, classes, logits, lambda logits: F.cross_entropy(logits, targets)
        )

        def loss_at(weights: Mapping[str, Tensor]) -> Tensor:
            with autocast(frames.device, self.dtype):
                mixed = functional_call(self.student, dict(weights), (frames, classes))
            return F.cross_entropy(mixed.float(), targets) * weight

        return Outputs(
            frames,
            {name: loss * weight for name, loss in losses.items()},
            logits,
            logits.argmax(-1),
            features,
            self.student.text_embeddings(prompts),
            self.teacher_rows(rows),
            loss_at,
        )

    def losses(
        self, frames: Tensor, outputs: Outputs, rng: random.Random, weight: float = 1.0
    ) -> tuple[Losses, Losses]:
        """The objective, what the method adds to it and distillation: what is minimised, and what
        is reported of these."""
        losses = dict(outputs.losses)
        report = {name: loss.detach() for name, loss in losses.items()}
        if self.regulariser is not None:
            losses["regulariser"], report["regulariser"] = self.regulariser(
                self.student, outputs.loss_at, rng
            )
        if self.hold is not None:
            losses["hold"] = self.hold.of(self.student)
            report["hold"] = losses["hold"].detach()
        if self.distill is not None:
            distilled, distances = self.distilled(frames, outputs, rng, weight)
            losses |= distilled
            report |= distances
        return losses, report

    def distilled(
        self, frames: Tensor, outputs: Outputs, rng: random.Random, weight: float
    ) -> tuple[Losses, Losses]:
        """What the teacher says of the same frames and prompts, held against the student's."""
        assert self.distill is not None and outputs.teacher_prompts is not None
        features = self.teacher_features(frames)
        if not self.distill.config.joint:
            return self.distill(
                outputs.features,
                outputs.prompts,
                features,
                outputs.teacher_prompts,
                weight,
                self.clip_prompts,
            )
        assert features is not None and self.teacher_clip is not None
        scales = self.student.clip.logit_scale.exp(), self.teacher_clip.logit_scale.exp()
        return self.distill.joint(
            Scored(outputs.features, outputs.prompts, scales[0]),
            Scored(features, outputs.teacher_prompts, scales[1]),
            rng.getrandbits(63),
            weight,
            self.clip_prompts,
        )

    def encode(self, frames: Tensor) -> Features:
        with autocast(frames.device, self.dtype):
            features = self.student.encode_kept(frames)
        if self.specialise is None:
            return features
        return self.specialise.features(self.student, features)

    @torch.no_grad()
    def teacher_features(self, frames: Tensor) -> Features | None:
        """None where nothing on the vision side is compared."""
        if self.teacher is None or self.distill is None:
            return None
        config = self.distill.config
        if self.distill.projector_v is None and not config.joint:
            return None
        with autocast(frames.device, self.dtype):
            if isinstance(self.teacher, VideoCLIP):
                return self.teacher.encode_kept(frames)
            chosen = self.student.frames_of(frames.shape[1])
            if len(chosen) < frames.shape[1]:
                frames = frames[:, chosen]
            visual = self.teacher.visual
            f = (visual(frames) if frames.ndim == 5 else visual.project(frames)).float()
        # Features are compared as the release pools them, all else as the student does.
        pooling = "frame_unit" if config.target == "features" else self.student.pooling
        return Features(f, f.mean(dim=1), pool(f, pooling))

    def teacher_rows(self, rows: list[int]) -> Tensor | None:
        """The teacher's raw prompts for these rows of the bank, (P, K, E)."""
        if self.teacher is None:
            return None
        if not isinstance(self.teacher, VideoCLIP):
            table = self.teacher_prompts
            return table if self.teacher_has_own_prompts else table[rows]
        table = (
            self.teacher_prompts[rows]
            if self.text_is_frozen
            else self.prompt_table(self.teacher, self.bank, rows)
        )
        return self.teacher.text_embeddings(table)

    @torch.no_grad()
    def prompt_table(
        self, model: VideoCLIP, bank: PromptBank, rows: list[int] | None = None
    ) -> Tensor:
        """These rows of prompts, or all, of every class: (P, K, E), raw."""
        with autocast(model.clip.logit_scale.device, self.dtype):
            return model.prompts(bank, bank.rows if rows is None else rows).float()

    def text_prompts(self, rows: list[int]) -> Tensor:
        """The student's raw embeddings of these rows of prompts, (P, K, E); the ranks share the
        classes out."""
        if self.text_is_frozen:
            return self.student_prompts[rows]
        world = ranks()
        # Learned prompts may belong to a class: these are not shared out.
        if world == 1 or self.student.reserved_tokens:
            with autocast(self.student.clip.logit_scale.device, self.dtype):
                return self.student.prompts(self.bank, rows).float()
        tokens = self.bank.tokens(*rows)  # (P, K, L)
        K = tokens.shape[1]
        share = -(-K // world)
        mine = (torch.arange(share) + share * this_rank()).clamp(max=K - 1)
        return GatherClasses.apply(self.encode_tokens(tokens[:, mine]))[:, :K]

    def encode_tokens(self, tokens: Tensor, model: VideoCLIP | None = None) -> Tensor:
        """(P, k, L) -> (P, k, E), raw, by the student or another network."""
        model = model or self.student
        with autocast(self.student.clip.logit_scale.device, self.dtype):
            return torch.stack([self.bank.encode(model.encode_text, row) for row in tokens]).float()


def no_other_weights(weights: Mapping[str, Tensor]) -> Tensor:
    """The `loss_at` of a contrast within the batch."""
    raise UsageError(
        "this method's regulariser takes the loss at other weights, which the contrast within the"
        " batch does not have: train it with the objective of classes"
    )
