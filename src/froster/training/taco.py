"""What TACO adds to a training.

A teacher that follows its student (Mean Teacher): a moving mean of its weights.

    theta_T <- beta theta_T + (1 - beta) theta          once a step, before the teacher is asked

It starts as the student does, and so with what the method adds to CLIP. Checkpoints hold it.

A specialisation projection: a linear residual on the video's features that only training sees, so
that what must differ for the base classes does not have to go into CLIP's weights.

    v = u(m + B(A m))            A: E -> 2E, B: 2E -> E, with biases and nothing between them; B = 0

m: the mean of the raw frame embeddings. The text has none; at the test it is dropped.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from froster.encoders.model import unit
from froster.methods.base import Features, VideoCLIP


def follower(student: VideoCLIP) -> VideoCLIP:
    """A teacher that is the student as it stands, in evaluation mode and without gradients."""
    return copy.deepcopy(student).eval().requires_grad_(False)


@torch.no_grad()
def follow(teacher: VideoCLIP, student: VideoCLIP, beta: float) -> None:
    """One step of the mean, over the weights that are trained: the others are equal already."""
    pairs = [
        (mean, now)
        for mean, now in zip(teacher.parameters(), student.parameters(), strict=True)
        if now.requires_grad
    ]
    # One kernel takes either whole weights or those that the ranks share out.
    for cut in (False, True):
        some = [pair for pair in pairs if hasattr(pair[0], "full_tensor") == cut]
        if some:
            means: list[Tensor] = [mean for mean, _ in some]
            torch._foreach_mul_(means, beta)
            torch._foreach_add_(means, [now.detach() for _, now in some], alpha=1 - beta)
    for kept, now in zip(teacher.buffers(), student.buffers(), strict=True):
        kept.copy_(now)


class Specialisation(nn.Module):
    """(…, E) -> (…, E); the identity at the start."""

    def __init__(self, width: int):
        super().__init__()
        self.linear_a = nn.Linear(width, 2 * width)
        self.linear_b = nn.Linear(2 * width, width)
        nn.init.zeros_(self.linear_b.weight)
        nn.init.zeros_(self.linear_b.bias)

    def forward(self, m: Tensor) -> Tensor:
        return m + self.linear_b(self.linear_a(m))

    def features(self, student: VideoCLIP, features: Features) -> Features:
        """A clip's features, projected. What pools frames by a mean pools the projected ones, which
        for `mean_then_unit` is the formula above; of a temporal head the result is projected."""
        if student.head is None:
            return student.pool_frames(self(features.frames), features.context)
        pooled = self(features.pooled)
        return dataclasses.replace(features, pooled=pooled, video=unit(pooled))
