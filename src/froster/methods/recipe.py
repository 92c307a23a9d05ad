"""How a run is optimised, and the settings that a paper trains its method with."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from froster.encoders.precision import Precision, parse_precision
from froster.encoders.preprocessing import CLIP_PREPROCESSING
from froster.errors import UsageError, one_of
from froster.text.prompts import FROSTER_PROMPTS, Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling

Tune = Literal["method", "both", "image", "text", "head"]
Draw = Literal["one", "all", "one a clip"]


@dataclass(frozen=True)
class Recipe:
    """How a run is optimised. The defaults are FROSTER's base-to-novel setting for CLIP B/16."""

    epochs: int = 12
    """Passes over the training videos."""
    batch_size: int = 32
    """Clips a step, over all ranks together."""
    lr: float = 3.33e-6
    """Peak rate of what the method trains: CLIP's weights, or where it trains adapters or prompts
    in their place, those."""
    new_scale: float = 1.0
    """Where CLIP's weights are trained at `lr`: the rate of those that CLIP does not have (heads,
    …), as a multiple of it."""
    clip_lr: float | None = None
    """Where `lr` is the rate of adapters or prompts: that of CLIP's weights which are trained
    beside them; None: `lr` too."""
    warmup_epochs: float = 2.0
    lr_ends: float = 0.01
    """The first and the last learning rate, as a fraction of `lr`."""
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    decay: Literal["matrices", "no positions", "all"] = "matrices"
    """`matrices`: not on 1-D tensors and biases; `no positions`: nor on positional embeddings
    (X-CLIP, AIM). `all`: on every weight (ViFi-CLIP, ActionCLIP)."""
    clip_norm: float | None = 1.0
    average_from: int | None = 2
    """First epoch (counted from 1) whose weights enter the average; None: the last epoch's weights
    stand alone."""
    averaging: Literal["uniform", "gaussian"] = "uniform"
    """How much an epoch counts in the average: all alike, or by a normal curve over the epochs
    (Open-MeDe)."""
    average_mu: float | None = None
    """Of the normal curve: its centre, in epochs from 1; None: the middle of the run."""
    average_sigma: float | None = None
    """Of the normal curve: its width, in epochs; None: a sixth of the run."""
    specialise: bool = False
    """Train through a linear residual on the video's features, which is dropped afterwards (TACO).
    """
    meta: float = 0.0
    """delta: how much the gradient on the next batch, after an inner step, counts beside the step's
    own (Open-MeDe); 0: without."""
    meta_rate: float = 0.01
    """alpha, the rate of the inner step, which is plain gradient descent."""
    remember: bool = False
    """Gather what every weight has done for the loss, for a later run to hold."""
    hold: Literal["si", "si-total"] | None = None
    """Hold what an earlier run has learnt by synaptic intelligence: by its authors' rule, or by van
    de Ven's, of the total loss and not clipped."""
    hold_strength: float = 1e4
    """c, the weight of that penalty."""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    draw: Draw = "one"
    """Prompts of a training step: one template for all classes (and the bare label), all of them,
    or one a clip."""
    tune: Tune = "method"
    """What is trained: what the method's paper trains; or with the text tower as well (both),
    without it (image), the text tower alone, or the head on the frames alone."""
    seed: int = 0
    """Draws the order of the videos, templates, crops and projectors."""
    precision: Precision = "auto"
    workers: int = 0
    compile: bool = False
    """Let torch.compile make kernels for the image towers: faster steps after a minute, on a GPU
    above all."""
    checkpointing: bool = False
    """Keep only the input of each block for the backward pass and compute the rest again: large
    networks fit."""
    patience: int | None = None
    """Stop after so many epochs without a gain on validation videos; None or 0: never. Published
    recipes never do."""
    keep: int = 1
    """Checkpoints kept: the newest `keep`, or all of them with 0."""
    checkpoint_minutes: float = 10.0
    """Minutes from one checkpoint to the next within an epoch; 0: only after each epoch."""
    shard_weights: bool = False
    """The processes share out the weights, gradients and moments of the blocks (FSDP2)."""

    def __post_init__(self) -> None:
        rates = (self.lr, self.new_scale, self.lr if self.clip_lr is None else self.clip_lr)
        if self.epochs < 1 or self.batch_size < 1 or not all(0 < rate < math.inf for rate in rates):
            raise UsageError("epochs, batch size and learning rates must be positive")
        if not (0 <= self.label_smoothing < 1 and self.mixup >= 0 and self.cutmix >= 0):
            raise UsageError("label smoothing lies in [0, 1), mixup and cutmix are not negative")
        object.__setattr__(self, "precision", parse_precision(self.precision))
        one_of("tune", self.tune, "method", "both", "image", "text", "head")
        one_of("schedule", self.schedule, "cosine", "constant")
        one_of("optimizer", self.optimizer, "adamw", "sgd")
        one_of("decay", self.decay, "matrices", "no positions", "all")
        one_of("draw", self.draw, "one", "all", "one a clip")
        if not (self.meta >= 0 and self.meta_rate >= 0):
            raise UsageError("meta and meta_rate must not be negative")
        one_of("hold", self.hold or "si", "si", "si-total")
        if not self.hold_strength >= 0:
            raise UsageError(f"hold_strength must not be negative, it is {self.hold_strength}")
        one_of("averaging", self.averaging, "uniform", "gaussian")
        if self.average_mu is not None and not math.isfinite(self.average_mu):
            raise UsageError(f"average_mu is an epoch, not {self.average_mu}")
        if self.average_sigma is not None and not self.average_sigma > 0:
            raise UsageError(f"average_sigma must be positive, it is {self.average_sigma}")
        if not self.checkpoint_minutes >= 0:
            raise UsageError(
                f"checkpoint_minutes must not be negative, it is {self.checkpoint_minutes}"
            )

    @property
    def clip_scale(self) -> float:
        """The rate of CLIP's weights, as a multiple of `lr`."""
        return 1.0 if self.clip_lr is None else self.clip_lr / self.lr

    def weight_of_epoch(self, epoch: int) -> float:
        """How much an epoch, from 1, counts in the average; only ratios matter. The one nearest to
        the middle of the curve counts 1, however far that is."""
        if self.averaging == "uniform":
            return 1.0
        mu = self.epochs / 2 if self.average_mu is None else self.average_mu
        sigma = self.epochs / 6 if self.average_sigma is None else self.average_sigma
        away = abs(epoch - mu)
        least = min(abs(other - mu) for other in range(1, self.epochs + 1))
        return math.exp(-0.5 * (away - least) * (away + least) / sigma / sigma)

    @property
    def first_averaged(self) -> int:
        return self.epochs if self.average_from is None else min(self.average_from, self.epochs)


LATER: dict[str, Any] = {
    "averaging": "uniform",
    "average_mu": None,
    "average_sigma": None,
    "specialise": False,
    "meta": 0.0,
    "meta_rate": 0.01,
    "remember": False,
    "hold": None,
    "hold_strength": 1e4,
    "shard_weights": False,
    "distill": {
        "target": "features",
        "teacher": "frozen",
        "ema_beta": 0.9998,
        "side": "both",
        "temperature": 1.0,
        "anchors": 200,
    },
}
"""Settings that older runs did not store, as they were then."""


def with_later(old: dict[str, Any], new: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """What was not stored but is asked for, as it was then."""
    added = {name: v for name, v in later.items() if name in new and name not in old}
    for name, value in later.items():
        if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
            inner = with_later(old[name], new[name], value)
            if inner is not old[name]:
                added[name] = inner
    return {**old, **added} if added else old


def as_now(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The settings of an old run in the words of a new one: frames were prepared as CLIP's, what
    the network does with its weights was not said, and `lr` was the rate of CLIP's weights in every
    method."""
    old = with_later(old, new, LATER)
    if "preprocessing" in new and "preprocessing" not in old:
        old = {
            **old,
            "preprocessing": CLIP_PREPROCESSING.to_dict(),
            "architecture": new["architecture"],
        }
    if "clip_lr" in old or not {"lr", "new_scale"} <= old.keys():
        return old
    if new.get("clip_lr") is None:
        return {**old, "clip_lr": None}
    rate = old["lr"] * old["new_scale"]
    return {
        **old,
        "lr": new["lr"] if math.isclose(rate, new["lr"]) else rate,
        "new_scale": 1.0,
        "clip_lr": old["lr"],
    }


@dataclass(frozen=True)
class Preset:
    """Everything that a paper fixes about training its method. The defaults are FROSTER's released
    setting."""

    recipe: Recipe = field(default_factory=Recipe)
    prompting: Prompting = FROSTER_PROMPTS
    augment: Augment = field(default_factory=Augment)
    sampling: Sampling = field(default_factory=lambda: Sampling("dense"))
    views: int = 3
    fusion: Literal["logits", "probs"] = "logits"
    """How the views of a test video are joined: the sum of the logits, or the mean of the
    soft-maxes."""
    distill: str = "none"
    note: str = ""
    """What of the paper's setting has no counterpart here."""


FROSTER = Preset(Recipe(tune="both"), distill="residual")
"""The setting of the paper's "with FROSTER" rows: text tuned, residual distillation, averaged
epochs."""


def with_adapters(lr: float, **changes: Any) -> Preset:
    """FROSTER's setting for a method that trains adapters or prompts at `lr`: its rates were never
    published, so the original's, and FROSTER's for CLIP's weights."""
    recipe = dataclasses.replace(FROSTER.recipe, lr=lr, clip_lr=FROSTER.recipe.lr)
    return dataclasses.replace(FROSTER, recipe=recipe, **changes)


def with_head(lr: float) -> Preset:
    """FROSTER's setting for a method that trains CLIP's weights, and new ones at `lr`."""
    return dataclasses.replace(
        FROSTER, recipe=dataclasses.replace(FROSTER.recipe, new_scale=lr / FROSTER.recipe.lr)
    )


def tuned(lr: float, **changes: Any) -> Recipe:
    """A recipe without FROSTER's own habits: no norm clipping, no averaging of epochs, all
    prompts in every step."""
    return Recipe(**{"lr": lr, "clip_norm": None, "average_from": None, "draw": "all", **changes})
