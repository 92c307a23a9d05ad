"""How a run is optimised, and the settings that a paper trains its method with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from froster.errors import UsageError, one_of
from froster.optim import learning_rate
from froster.precision import Precision, parse_precision
from froster.text.prompts import FROSTER_PROMPTS, Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling

Tune = Literal["method", "both", "image", "text"]
Draw = Literal["one", "all", "one a clip"]


@dataclass(frozen=True)
class Recipe:
    """How a run is optimised. The defaults are FROSTER's base-to-novel setting for CLIP B/16."""

    epochs: int = 12
    batch_size: int = 32
    """Clips a step, over all ranks together."""
    lr: float = 3.33e-6
    """Peak rate of the pretrained weights."""
    new_scale: float = 1.0
    """The rate of weights that CLIP does not have (heads, adapters, prompts), as a multiple of `lr`."""
    warmup_epochs: float = 2.0
    lr_ends: float = 0.01
    """The first and the last learning rate, as a fraction of `lr`."""
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    decay: Literal["matrices", "no positions", "all"] = "matrices"
    """`matrices`: not on 1-D tensors and biases; `no positions`: nor on positional embeddings (X-CLIP, AIM). `all`: on
    every weight (ViFi-CLIP, ActionCLIP)."""
    clip_norm: float | None = 1.0
    average_from: int | None = 2
    """First epoch (counted from 1) whose weights enter the average; None: the last epoch's weights stand alone."""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    draw: Draw = "one"
    """Prompts of a training step: one template for all classes (and the bare label), all of them, or one a clip."""
    tune: Tune = "method"
    """What is trained: what the method's paper trains; or with the text tower as well (both), without it (image), or
    the text tower alone."""
    seed: int = 0
    precision: Precision = "auto"
    workers: int = 0
    compile: bool = False
    """Let torch.compile make kernels for the image towers: faster steps after a minute, on a GPU above all."""
    checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the rest again: large networks fit."""
    patience: int | None = None
    """Stop after so many epochs without a gain on watched base videos; None or 0: never. Published recipes never do."""
    keep: int = 1
    """Checkpoints kept: the newest `keep`, or all of them with 0."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0 or self.new_scale <= 0:
            raise UsageError("epochs, batch size and learning rates must be positive")
        if not (0 <= self.label_smoothing < 1 and self.mixup >= 0 and self.cutmix >= 0):
            raise UsageError("label smoothing lies in [0, 1), mixup and cutmix are not negative")
        object.__setattr__(self, "precision", parse_precision(self.precision))
        one_of("tune", self.tune, "method", "both", "image", "text")
        one_of("schedule", self.schedule, "cosine", "constant")
        one_of("optimizer", self.optimizer, "adamw", "sgd")
        one_of("decay", self.decay, "matrices", "no positions", "all")
        one_of("draw", self.draw, "one", "all", "one a clip")

    def rate(self, epoch: float) -> float:
        """The rate of the pretrained weights at a (fractional) epoch."""
        if self.schedule == "constant":
            return self.lr
        ends, warmup = self.lr * self.lr_ends, min(self.warmup_epochs, self.epochs / 2)
        return learning_rate(
            epoch, base=self.lr, start=ends, end=ends, warmup_epochs=warmup, max_epochs=float(self.epochs)
        )

    @property
    def first_averaged(self) -> int:
        return self.epochs if self.average_from is None else min(self.average_from, self.epochs)


@dataclass(frozen=True)
class Preset:
    """Everything that a paper fixes about training its method. The defaults are FROSTER's released setting."""

    recipe: Recipe = field(default_factory=Recipe)
    prompting: Prompting = FROSTER_PROMPTS
    augment: Augment = field(default_factory=Augment)
    sampling: Sampling = field(default_factory=lambda: Sampling("dense"))
    views: int = 3
    fusion: Literal["logits", "probs"] = "logits"
    """How the views of a test video are joined: the sum of the logits, or the mean of the soft-maxes."""
    distill: str = "none"
    note: str = ""
    """What of the paper's setting has no counterpart here."""


FROSTER = Preset(Recipe(tune="both"), distill="residual")
"""The setting of the paper's "with FROSTER" rows: text tuned, residual distillation, averaged epochs."""
