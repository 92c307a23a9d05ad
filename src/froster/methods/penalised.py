"""Fine-tuning that is held near earlier weights by a penalty: L2-SP and EWC, and synaptic
intelligence between tasks.

    L + lambda / 2 * sum_i F_i (theta_i - theta0_i)^2     L2-SP: F = 1; EWC: the Fisher information
    L + c * sum_i Omega_i (theta_i - theta*_i)^2          SI: theta* is what an earlier task left

Only weights that CLIP has are held. CLIP's own training data cannot be had, so the Fisher
information is estimated on the training videos with the starting weights (`fisher`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from froster.data.dataset import Batch
from froster.encoders.model import CLIP
from froster.encoders.preprocessing import normalise
from froster.errors import UsageError, one_of
from froster.methods.base import LossAt, TrainingClips, VideoCLIP
from froster.methods.clip_per_frame import FineTuned
from froster.methods.weight_names import start_of
from froster.utils.tensors import seed_of


class Penalty:
    """strength / 2 * sum of F_i (theta_i - theta0_i)^2 over the trained weights that CLIP has; new
    ones are free."""

    def __init__(self, clip: CLIP, strength: float, importance: dict[str, Tensor] | None = None):
        self.start, self.strength, self.importance = start_of(clip), strength, importance

    def __call__(
        self, student: VideoCLIP, loss_at: LossAt, rng: random.Random
    ) -> tuple[Tensor, Tensor]:
        penalty = self.of(student)
        return penalty, penalty.detach()

    def of(self, student: VideoCLIP) -> Tensor:
        total = student.clip.logit_scale.new_zeros(())
        for name, parameter in student.named_parameters():
            if parameter.requires_grad and name in self.start:
                squared = (parameter - self.start[name]).square()
                if self.importance is not None:
                    squared = self.importance[name] * squared
                total = total + squared.sum()
        return self.strength / 2 * total


DAMPING = 0.1
"""xi, which keeps the importance of weights that have not moved finite."""


def consolidate(
    path: Tensor,
    change: Tensor,
    earlier: Tensor | None = None,
    damping: float = DAMPING,
    clip: bool = True,
) -> Tensor:
    """Omega of a weight after a task, from its path integral and its change: Omega of the tasks
    before + w / (change^2 + xi).

    The authors' code clips the sum at zero, van de Ven's does not; AdamW and weight decay make some
    path integrals negative, and a negative importance rewards a weight for leaving.
    """
    omega = path / (change.square() + damping)
    if earlier is not None:
        omega = earlier + omega
    return omega.relu() if clip else omega


class Consolidated:
    """strength * sum of Omega_i (theta_i - start_i)^2, over the weights that an earlier task has
    trained (synaptic intelligence)."""

    def __init__(self, start: dict[str, Tensor], strength: float, importance: dict[str, Tensor]):
        self.start, self.strength, self.importance = start, strength, importance

    def of(self, student: nn.Module) -> Tensor:
        total = torch.zeros((), device=next(student.parameters()).device)
        for name, weight in student.named_parameters():
            if weight.requires_grad and name in self.importance:
                squared = (weight - self.start[name]).square()
                total = total + (self.importance[name] * squared).sum()
        return self.strength * total

    def gradient(self, name: str, weight: Tensor) -> Tensor:
        """Of the penalty, by one weight."""
        if name not in self.importance:
            return torch.zeros_like(weight)
        return 2 * self.strength * self.importance[name] * (weight - self.start[name])


def fisher(
    student: VideoCLIP,
    classes: Callable[[], Tensor],
    batches: Iterable[Batch],
    kind: str,
    seed: int,
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of the student as it stands, over labelled clips.

    `classes` encodes the class texts anew, so that a trained text tower gets its share. `batch`
    (Open-VCLIP's code): per batch, the gradient of the mean cross-entropy of the clips it gets
    right, squared, weighted by their number. `sampled`: per clip, the label drawn from the model's
    own prediction.
    """
    named = {name: p for name, p in student.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in named.items()}
    device = student.clip.logit_scale.device
    count = torch.zeros((), device=device)
    generator = torch.Generator().manual_seed(seed_of(seed))
    for batch in batches:
        labels = batch.labels.to(device)
        frames = (
            normalise(batch.frames.to(device), student.clip.config.preprocessing)
            if len(labels)
            else batch.frames
        )
        for x, y in (
            zip(frames.split(1), labels.split(1), strict=True)
            if kind == "sampled"
            else [(frames, labels)]
        ):
            summed, clips = (
                {name: torch.zeros_like(p) for name, p in named.items()},
                torch.zeros((), device=device),
            )
            if len(y):
                logits = student(x, classes())
                if kind == "sampled":
                    y = torch.multinomial(
                        logits.detach().softmax(-1).cpu(), 1, generator=generator
                    )[:, 0].to(device)
                right = (
                    torch.ones_like(y, dtype=torch.bool)
                    if kind == "sampled"
                    else logits.argmax(-1) == y
                )
                loss = F.cross_entropy(logits, y, reduction="none").masked_fill(~right, 0).sum()
                gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
                summed.update(
                    (name, g) for name, g in zip(named, gradients, strict=True) if g is not None
                )
                clips += right.sum()
            if kind == "batch":  # of which every rank holds a part
                over_ranks(*summed.values(), clips)
            for name, gradient in summed.items():
                total[name] += gradient.square() / clips.clamp(min=1)
            count += clips
    if kind == "sampled":
        over_ranks(*total.values(), count)
    return {name: x / count.clamp(min=1) for name, x in total.items()}


def over_ranks(*tensors: Tensor) -> None:
    """Sums each over the ranks, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


@dataclass(frozen=True)
class L2SP(FineTuned):
    """As fine-tuned CLIP, with every weight held equally."""

    name = "l2sp"
    summary = "fine-tuned CLIP, held near its start by a squared distance of the weights"
    reference = "Li et al., L2-SP, ICML 2018"

    strength: float = 0.1
    """lambda"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength >= 0:
            raise UsageError(f"strength must not be negative, it is {self.strength}")

    def regulariser(self, clip: CLIP, student: VideoCLIP, clips: TrainingClips) -> Penalty:
        return Penalty(clip, self.strength)


@dataclass(frozen=True)
class EWC(L2SP):
    """As fine-tuned CLIP, every weight held as firmly as it matters to CLIP's predictions."""

    name = "ewc"
    summary = (
        "fine-tuned CLIP, held near its start by Fisher-weighted distances (elastic weight"
        " consolidation)"
    )
    reference = "Kirkpatrick et al., EWC, PNAS 2017"

    strength: float = 1e3
    fisher: Literal["batch", "sampled"] = "batch"
    """`batch`, as in Open-VCLIP's code: squared batch-mean gradients of what CLIP gets right
    (smaller by about the batch size, so lambda does not carry over). `sampled`: per clip, labels
    drawn from the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("fisher", self.fisher, "batch", "sampled")

    def regulariser(self, clip: CLIP, student: VideoCLIP, clips: TrainingClips) -> Penalty:
        """Looks at every training clip once, with the starting weights."""
        student.eval()
        importance = fisher(student, clips.classes, clips.batches(), self.fisher, clips.seed)
        return Penalty(clip, self.strength, importance)
