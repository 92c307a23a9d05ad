"""Contrasts within a batch in place of the cross-entropy over classes: ActionCLIP's, and that
where a class is a set of prompts, all of which count (OST)."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from froster.encoders.model import unit
from froster.methods.actionclip import in_batch_kl, same_class
from froster.methods.base import Method, VideoCLIP
from froster.training.distributed import gather_clips
from froster.training.task import Outputs, Task, no_other_weights


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
        readable = labels if weight > 0 else torch.full_like(labels, -1)
        v, t, known = gather_clips(unit(features.video), unit(prompts), readable)
        logits = self.student.clip.logit_scale.exp() * v @ t.T
        video, text = in_batch_kl(logits, same_class(known))
        mine = unit(features.video) @ t.T

        teacher = self.teacher_prompts_of_clips(templates, labels)
        predicted = known[mine.argmax(-1)]
        losses = self.student.losses(features, t, logits, lambda _: (video + text) / 2)
        losses = {name: loss * (1.0 if name == "ce" else weight) for name, loss in losses.items()}
        return Outputs(
            *(frames, losses, logits, predicted, features, prompts[None], teacher), no_other_weights
        )

    def prompts_of_clips(self, templates: Tensor, labels: Tensor) -> Tensor:
        """The prompt of each clip, (B, E), raw."""
        if self.text_is_frozen:
            return self.student_prompts[templates.to(labels.device), labels]
        tokens = self.bank.tokens(*self.bank.rows)[templates, labels.cpu()]
        return self.encode_tokens(tokens[None])[0]

    @torch.no_grad()
    def teacher_prompts_of_clips(self, templates: Tensor, labels: Tensor) -> Tensor | None:
        """Those of the teacher, (1, B, E)."""
        if self.teacher is None:
            return None
        if isinstance(self.teacher, VideoCLIP) and not self.text_is_frozen:
            tokens = self.bank.tokens(*self.bank.rows)[templates, labels.cpu()]
            return self.encode_tokens(tokens[None], self.teacher)
        return self.teacher_prompts[templates, labels.cpu()][None]


class SetTask(InBatchTask):
    """Every clip with the prompts of its own class and of those of the other clips, over all ranks'
    clips together: the two divergences are added, and not averaged as in ActionCLIP."""

    def outputs(
        self,
        frames: Tensor,
        labels: Tensor,
        rows: list[int],
        rng: random.Random,
        weight: float = 1.0,
    ) -> Outputs:
        student, features = self.student, self.encode(frames)
        assert features.context is not None
        prompts = self.sets_of_clips(rows, labels)  # (P, B, E)
        shapes = features.context.shape[1:], prompts.transpose(0, 1).shape[1:]
        packed = torch.cat(
            [features.video, features.context.flatten(1), prompts.transpose(0, 1).flatten(1)], dim=1
        )
        left, right = F.pad(packed, (0, packed.shape[1] % 2)).chunk(2, dim=1)
        readable = labels if weight > 0 else torch.full_like(labels, -1)
        first, second, known = gather_clips(left, right, readable)
        sizes = [features.video.shape[1], shapes[0].numel(), shapes[1].numel()]
        video, context, sets = torch.cat([first, second], dim=1)[:, : sum(sizes)].split(
            sizes, dim=1
        )
        classes = student.classes(sets.unflatten(1, shapes[1]).transpose(0, 1))
        logits = student.logits(video, classes, context.unflatten(1, shapes[0]))
        of_videos, of_texts = in_batch_kl(logits, same_class(known))
        losses = student.losses(features, classes, logits, lambda _: of_videos + of_texts)
        with torch.no_grad():
            mine = student.logits(features.video, classes, features.context)
        teacher = None
        if self.teacher is not None:
            rows_of_teacher = self.teacher_rows(rows)
            assert rows_of_teacher is not None
            teacher = rows_of_teacher[:, labels]
        predicted = known[mine.argmax(-1)]
        return Outputs(
            frames, losses, logits, predicted, features, prompts, teacher, no_other_weights
        )

    def sets_of_clips(self, rows: list[int], labels: Tensor) -> Tensor:
        """The prompts of the class of each clip, (P, B, E), raw."""
        if self.text_is_frozen:
            return self.student_prompts[rows][:, labels]
        return self.encode_tokens(self.bank.tokens(*rows)[:, labels.cpu()])


def task_class(method: Method) -> type[Task]:
    """By the method's objective."""
    return {"classes": Task, "in-batch": InBatchTask, "in-batch sets": SetTask}[method.objective]
