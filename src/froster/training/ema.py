"""The teacher that follows its student (TACO, Mean Teacher): a moving mean of its weights.

    theta_T <- beta theta_T + (1 - beta) theta          once a step, before the teacher is asked

It starts as the student does, and so with what the method adds to CLIP. Checkpoints hold it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from froster.methods.base import VideoCLIP


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
