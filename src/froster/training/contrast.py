"""The contrast within a batch where a class is a set of prompts, all of which count (OST)."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from froster.methods.actionclip import in_batch_kl, same_class
from froster.training.distributed import gather_clips
from froster.training.task import InBatchTask, Outputs, no_other_weights


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
        return Outputs(losses, logits, predicted, features, prompts, teacher, no_other_weights)

    def sets_of_clips(self, rows: list[int], labels: Tensor) -> Tensor:
        """The prompts of the class of each clip, (P, B, E), raw."""
        if self.text_is_frozen:
            return self.student_prompts[rows][:, labels]
        return self.encode_tokens(self.bank.tokens(*rows)[:, labels.cpu()])
