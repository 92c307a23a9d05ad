"""One training step as a module: student, frozen teacher, projectors and losses, so that DDP and
checkpoints see them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from froster.encoders.model import CLIP, normalise, unit
from froster.encoders.precision import autocast, with_cast_weights
from froster.errors import UsageError
from froster.methods.actionclip import in_batch_kl, same_class
from froster.methods.base import Features, LossAt, Method, Regulariser, VideoCLIP, pool
from froster.methods.recipe import Recipe
from froster.text.bank import PromptBank
from froster.training.distill import Distill, Distillation, Losses
from froster.training.distributed import GatherClasses, gather_clips, ranks, this_rank
from froster.training.mixing import mix, soft_targets


@dataclass(frozen=True)
class Teacher:
    """A frozen CLIP that holds the student's features near its own."""

    clip: CLIP
    distill: Distill
    bank: PromptBank | None = None
    """Prompts of its own, all of which count, where the student learns its prompts; None: those of
    the student's step."""


@dataclass
class Outputs:
    """What the student makes of the clips of a step, and the loss of its objective."""

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


def freeze(student: VideoCLIP, method: Method, tune: str) -> None:
    """Leave gradients to what is trained: what the method trains by itself, or with `tune` one
    tower more or less."""
    for name, parameter in student.named_parameters():
        # A closed set of classes has no use for the text tower.
        text = name.startswith(("clip.text.", "text_")) and not method.closed
        own = method.trains(name)
        trained = {"method": own, "both": own or text, "image": own and not text, "text": text}[
            tune
        ]
        parameter.requires_grad_(own if name == "clip.logit_scale" else trained)


def trained(student: VideoCLIP, *parts: str) -> bool:
    """Is any weight of the named parts trained?"""
    return any(p.requires_grad for name, p in student.named_parameters() if name.startswith(parts))


def attach(
    student: VideoCLIP, distill: Distill, network: str = "this network"
) -> tuple[bool, bool, list[str]]:
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
    """Cross-entropy over the classes plus, with a teacher, feature distillation, and what the method
    adds to hold the weights near CLIP's.

    Text of one step: the rows of the bank that the caller names, the same on all ranks (FROSTER:
    one template and the bare label). The teacher's text never changes: it is encoded once.
    """

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
        self.text_is_frozen = not trained(student, "clip.text.", "text_")
        self.teacher: CLIP | None = None
        self.distill: Distillation | None = None
        if teacher is not None:
            self.add_teacher(teacher)
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
        clip.eval().requires_grad_(False)
        self.teacher = with_cast_weights(clip, self.dtype)
        self.distill = distill
        self.teacher_has_own_prompts = teacher.bank is not None
        self.teacher_prompts = self.prompt_table(VideoCLIP(self.teacher), teacher.bank or self.bank)

    def save_memory_and_time(self) -> None:
        """Checkpointing and compiling, as the recipe says."""
        student = self.student.clip
        if self.recipe.checkpointing:
            for tower in (student.visual, student.text):
                tower.transformer.checkpointing = True
        if self.recipe.compile:
            for clip in filter(None, (student, self.teacher)):
                clip.visual.compile()
            if not self.text_is_frozen:
                for block in student.text.transformer.blocks():
                    block.compile()

    def train(self, mode: bool = True) -> Task:
        """As of any module, but the teacher stays as it is used: frozen, without dropout."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def checkpoint_modules(self) -> dict[str, nn.Module]:
        """What a checkpoint must hold: never the teacher."""
        if self.distill is None:
            return {"student": self.student}
        return {"student": self.student, "distill": self.distill}

    def forward(
        self,
        frames: Tensor,
        labels: Tensor,
        rows: list[int],
        rng: random.Random,
        weight: float = 1.0,
    ) -> tuple[Losses, Losses]:
        """frames (B, T, 3, H, W), uint8; labels (B,) ints; rows of the bank; rng: this rank's, for
        this step. Returns what is minimised, and what is only reported.

        `weight` scales what comes from this rank's clips, for ranks that hold unequal numbers of
        readable ones: the mean over the ranks is then the mean over all clips.
        """
        frames = normalise(frames, self.student.clip.config.preprocessing)
        outputs = self.outputs(frames, labels, rows, rng, weight)
        losses, report = self.losses(frames, outputs, rng, weight)
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
            frames, targets = mix(frames, soft, rng, recipe.mixup, recipe.cutmix)
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
        if self.distill is not None:
            assert outputs.teacher_prompts is not None
            distilled, distances = self.distill(
                outputs.features,
                outputs.prompts,
                self.teacher_features(frames),
                outputs.teacher_prompts,
                weight,
                self.clip_prompts,
            )
            losses |= distilled
            report |= distances
        return losses, report

    def encode(self, frames: Tensor) -> Features:
        with autocast(frames.device, self.dtype):
            return self.student.encode(frames)

    def teacher_features(self, frames: Tensor) -> Features | None:
        """None where the vision side is not distilled."""
        if self.teacher is None or self.distill is None or self.distill.projector_v is None:
            return None
        chosen = self.student.frames_of(frames.shape[1])
        if len(chosen) < frames.shape[1]:
            frames = frames[:, chosen]
        with torch.no_grad(), autocast(frames.device, self.dtype):
            f = self.teacher.encode_image(frames).float()
        return Features(f, f.mean(dim=1), pool(f, "frame_unit"))

    def teacher_rows(self, rows: list[int]) -> Tensor | None:
        """The teacher's raw prompts for these rows of the bank, (P, K, E)."""
        if self.teacher is None:
            return None
        return self.teacher_prompts if self.teacher_has_own_prompts else self.teacher_prompts[rows]

    @torch.no_grad()
    def prompt_table(self, model: VideoCLIP, bank: PromptBank) -> Tensor:
        """Every prompt of every class, encoded once: (P, K, E), raw."""
        with autocast(model.clip.logit_scale.device, self.dtype):
            return model.prompts(bank, bank.rows).float()

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
        each = -(-K // world)
        mine = (torch.arange(each) + each * this_rank()).clamp(max=K - 1)
        return GatherClasses.apply(self.encode_tokens(tokens[:, mine]))[:, :K]

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """(P, k, L) -> (P, k, E), raw."""
        with autocast(self.student.clip.logit_scale.device, self.dtype):
            return torch.stack(
                [self.bank.encode(self.student.encode_text, row) for row in tokens]
            ).float()


def no_other_weights(weights: Mapping[str, Tensor]) -> Tensor:
    """The `loss_at` of a contrast within the batch."""
    raise UsageError(
        "this method's regulariser takes the loss at other weights, which the contrast within the"
        " batch does not have: train it with the objective of classes"
    )


class InBatchTask(Task):
    """ActionCLIP's contrast in place of the cross-entropy: every clip with its own class by a
    template of its own, over all ranks' clips together."""

    clip_prompts = True

    def outputs(
        self,
        frames: Tensor,
        labels: Tensor,
        rows: list[int],
        rng: random.Random,
        weight: float = 1.0,
    ) -> Outputs:
        features = self.encode(frames)
        templates = torch.tensor([rng.choice(rows) for _ in labels])
        prompts = self.prompts_of_clips(templates, labels)
        v, t, known = gather_clips(
            unit(features.video), unit(prompts), labels if weight > 0 else labels - labels - 1
        )
        logits = self.student.clip.logit_scale.exp() * v @ t.T
        video, text = in_batch_kl(logits, same_class(known))
        mine = unit(features.video) @ t.T

        teacher = None
        if self.teacher is not None:
            teacher = self.teacher_prompts[templates, labels.cpu()][None]
        predicted = known[mine.argmax(-1)]
        losses = self.student.losses(features, t, logits, lambda _: (video + text) / 2)
        losses = {name: loss * (1.0 if name == "ce" else weight) for name, loss in losses.items()}
        return Outputs(
            losses, logits, predicted, features, prompts[None], teacher, no_other_weights
        )

    def prompts_of_clips(self, templates: Tensor, labels: Tensor) -> Tensor:
        """The prompt of each clip, (B, E), raw."""
        if self.text_is_frozen:
            return self.student_prompts[templates.to(labels.device), labels]
        tokens = self.bank.tokens(*self.bank.rows)[templates, labels.cpu()]
        return self.encode_tokens(tokens[None])[0]


def task_class(method: Method) -> type[Task]:
    """By the method's objective."""
    from froster.training.contrast import SetTask  # which is made of a task itself

    return {"classes": Task, "in-batch": InBatchTask, "in-batch sets": SetTask}[method.objective]
