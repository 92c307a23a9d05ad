"""What `froster.train`, `froster.evaluate` and `froster.teach` can be asked for. The fields are the
options of the commands; the string under a field is its help. PyTorch is not needed to read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from froster.errors import UsageError, one_of
from froster.training.distill_options import Distill

Distillations = Literal[
    "froster",
    "froster-paper",
    "froster-2024-01",
    "residual",
    "mlp",
    "plain",
    "none",
    "kd",
    "similarity",
    "hint",
    "rkd",
    "pkt",
    "anchors",
    "taco",
]
"""The names of `distill_options.PRESETS`."""


SHARES = ("novel_fraction", "holdout", "validation")
LEAST = {
    **dict.fromkeys(("shots", "batch_size", "kept_views", "steps"), 1),
    **dict.fromkeys(("views", "workers", "patience", "keep", "blend_points"), 0),
}
"""Fields that an option may have, and the least that each may be."""


@dataclass(frozen=True)
class LabelledOptions:
    """How labelled videos are read, and where is computed."""

    root: Path | None = None
    """Folder that the manifest's paths start from; default: its own."""
    labels_json: Path | None = None
    """Label JSON for lists with integer labels."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Keep rows where COLUMN=VALUE, e.g. dataset=UCF101; may be repeated."""
    descriptions: Path | None = None
    """JSON of name: sentence; or kinetics400, kinetics600, ucf101, hmdb51, ssv2."""
    truncate: bool = False
    """Cut labels that are too long for the text tower."""
    classes: Path | None = None
    """Safetensors of class names and embeddings, in place of the text tower."""
    clamp: Literal["released", "even"] | None = None
    """Of dense sampling; default: as the model does."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; the default is CUDA if there is one."""
    precision: str = "auto"
    """auto (bfloat16 where the chip has it), float32 (fp32) or bfloat16 (bf16)."""

    def __post_init__(self) -> None:
        if self.classes is not None and self.descriptions is not None:
            raise UsageError(
                "descriptions are for the text tower, whose place --classes takes: give one of them"
            )
        for name in SHARES:
            share = getattr(self, name, None)
            if share is not None and not 0 <= share <= 0.9:
                raise UsageError(f"{name} is a share from 0 to 0.9, not {share}")
        for name, least in LEAST.items():
            number = getattr(self, name, None)
            if number is not None and not number >= least:
                raise UsageError(f"{name} is {least} or more, not {number}")

    def asked(self, *names: str, **renamed: str) -> dict[str, Any]:
        """Of these fields those that were asked for; `renamed` have other names in the result."""
        fields = {**{name: name for name in names}, **renamed}
        values = {name: getattr(self, field) for name, field in fields.items()}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class TrainOptions(LabelledOptions):
    """None: by the method's preset, or by the number of videos."""

    method: str = "vclip"
    """Video network; froster methods lists them."""
    variant: str | None = None
    """Variant of the method; froster methods lists them."""
    option: Mapping[str, Any] = field(default_factory=dict)
    """NAME=VALUE of the method; may be repeated."""
    preset: Literal["official", "froster", "taco", "open-mede"] | None = None
    """Setting of the method's own paper, of FROSTER, or of a later training; default: official."""

    distill: Distillations | None = None
    """How it is distilled from a teacher; froster methods lists them; default: as the preset says.
    """
    loss: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Distill` that are to be otherwise; of the command and of `froster.train` each is
    an option of its own."""
    specialise: bool | None = None
    """Train through a linear residual on the video's features, dropped afterwards (TACO)."""

    novel_column: str | None = None
    """Manifest column that says base or novel."""
    novel_file: Path | None = None
    """File of the class names to hold out, one a line."""
    novel_fraction: float = 0.0
    """Share of the classes to hold out, two at least."""
    split_seed: int = 0
    """Draws the held-out classes and videos."""
    shots: int | None = None
    """Training videos a class; default: all."""
    holdout: float | None = None
    """Share of videos kept for the test if there is no split; default: by their number."""
    validation: float | None = None
    """Share of training videos for validation; 0: none; default: 0.1 without a split."""

    patience: int | None = None
    """Epochs without gain on validation videos that stop it; 0: never."""
    epochs: int | None = None
    """Passes over the training videos."""
    average_from: int | None = None
    """First epoch of the final mean of the weights."""
    averaging: Literal["uniform", "gaussian"] | None = None
    """Epochs of that mean count alike, or by a normal curve."""
    average_mu: float | None = None
    """Centre of the normal curve, in epochs from 1; default: the middle."""
    average_sigma: float | None = None
    """Its width, in epochs; default: a sixth of the run."""
    batch_size: int | None = None
    """Clips a step, over all processes."""
    lr: float | None = None
    """Peak learning rate of what the method trains."""
    new_scale: float | None = None
    """Rate of new weights, as a multiple of CLIP's."""
    tune: Literal["method", "both", "image", "text", "head"] | None = None
    """What the method trains itself, both towers, one, or its head on the frames alone."""
    kept_views: int | None = None
    """Different clips of a training video, in turn over the epochs; of a frozen image tower they
    are computed once; default: new ones in every epoch."""
    seed: int = 0
    """Order, templates, crops and projectors."""

    frames: int | None = None
    """Frames a clip."""
    sampling: Literal["dense", "uniform"] | None = None
    """A few seconds at a fixed rate, or the whole video; default: as the preset says."""
    views: int | None = None
    """Clips a test video."""
    flip: bool = True
    """Mirror half of the training clips (not for left/right classes)."""

    look: bool = True
    """Look at the videos first: for test videos that are training videos too, and for classes that
    their scenes give away."""

    meta: float | None = None
    """Weight of the gradient on the next batch, after an inner step (Open-MeDe); default: 0, as the
    preset says."""
    meta_rate: float | None = None
    """Rate of that inner step; default: 0.01."""
    remember: bool = False
    """Record what every weight has done for the loss, so that a later run can hold it."""
    hold: Literal["si", "si-total"] | None = None
    """Hold what --model, a run trained with --remember, has learnt: by synaptic intelligence, or by
    its form of the total loss."""
    hold_strength: float | None = None
    """Weight of that penalty; default: 10,000."""

    resume: bool = False
    """Go on with the run that --out holds."""
    keep: int = 1
    """Checkpoints kept; 0: every epoch's (for blend --epochs)."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints within an epoch; 0: only after each."""
    blend_points: int = 5
    """Ratios of the report's blend curve; 0: none."""
    logger: Literal["tensorboard", "wandb"] | None = None
    """Also log there (extras)."""
    workers: int = 0
    """Processes that decode videos; default on the command line: by the cores."""
    compile: bool = False
    """Kernels made by torch.compile: faster on a GPU."""
    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, slower."""
    memory: bool = False
    """Say how much memory the run would need, and end."""
    shard_weights: bool = False
    """The processes of torchrun share the weights out (FSDP2), for towers that do not fit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "frames" in self.option:
            raise UsageError(
                "a network is made for clips of as many frames as --frames says: use that"
            )
        if self.memory and self.shard_weights:
            raise UsageError(
                "--memory counts processes that hold all weights, which those of --shard-weights do"
                " not: leave one of them out"
            )
        novel = (
            self.novel_column is not None,
            self.novel_file is not None,
            self.novel_fraction > 0,
        )
        if sum(novel) > 1:
            raise UsageError(
                "hold classes out by one of --novel-column, --novel-file and --novel-fraction"
            )

    @classmethod
    def of(cls, **options: Any) -> TrainOptions:
        """From options by name, among them the fields of `Distill`, which may be None."""
        names = {field.name for field in fields(Distill)} & options.keys()
        values = {name: options.pop(name) for name in names}
        loss = {name: value for name, value in values.items() if value is not None}
        if loss:
            options["loss"] = loss
        return cls(**options)


@dataclass(frozen=True)
class EvaluateOptions(LabelledOptions):
    """The options of `froster evaluate`."""

    labels_file: Path | None = None
    """Classes to choose from; default: those of the data."""
    split: Sequence[str] | None = None
    """Splits to score, one result each; default: test, or all."""
    part: Literal["test", "trained", "validation", "all"] | None = None
    """Default: test where the model has seen some of the data, else all."""
    views: int | None = None
    """Clips a video."""
    sampling: Literal["dense", "uniform"] | None = None
    """A few seconds at a fixed rate, or the whole video; default: as the model does."""
    multi_label: bool = False
    """Each label by itself, as classify does; rows of one video are all its labels."""
    transport: bool = False
    """Match frames with each label's sentences (name: a; b | c; d) by optimal transport (OST)."""
    merge_tokens: int = 0
    """Merge so many of a frame's most similar tokens in every block (ToMe): faster, less exact."""
    probe: Sequence[Literal["static", "shuffled", "reversed"]] | None = None
    """Score the same clips again without their motion: one frame repeated, the frames in another
    order, or backwards; may be repeated."""
    batch_size: int = 8
    """Videos a batch."""
    workers: int = 0
    """Processes that decode videos."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("split", "probe"):  # from Python also one alone
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, [getattr(self, name)])


@dataclass(frozen=True)
class RehearsalOptions:
    """How the head is trained. The defaults are the authors' setting."""

    epochs: int = 10
    """Passes over the training videos; 0: none, the head is used as it is."""
    batch_size: int = 128
    """Videos a step."""
    lr: float = 1e-4
    """Peak rate, after a first epoch in which it rises by equal ratios."""
    weight_decay: float = 1e-4
    """L2 on the head, not on the BERT."""
    negatives: int = 0
    """Random concepts that a video does not show, added to the batch's for each video."""
    fusion: Literal["late", "early"] = "late"
    """late: the paper's score, in which objects only speak for a class; early: that of the authors'
    evaluation over three splits."""
    width: int = 512
    """Of the space in which videos and texts are compared."""
    seed: int = 0
    """Draws the head's first weights, the order of the videos and the negatives."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.width < 1 or self.negatives < 0:
            raise UsageError("epochs and negatives are 0 or more, batch size and width 1 or more")
        if not (self.lr > 0 and self.weight_decay >= 0):
            raise UsageError("lr must be positive, and weight_decay not negative")


TeachMethod = Literal["prolip", "lp++", "tip", "tip-f"]


@dataclass(frozen=True)
class TeachOptions(LabelledOptions):
    """None: by the number of videos, or as the model that is gone on from was taught."""

    labels: Path | None = None
    """Manifest (path,label) of videos in no class folders, or of an index."""
    more: Path | None = None
    """Corrections, added to what --out was taught: class folders, or a manifest."""
    method: TeachMethod | None = None
    """prolip takes any label afterwards; lp++, tip and tip-f know the taught classes alone;
    default: prolip."""
    hold: Literal["weights", "features", "both", "none"] | None = None
    """What prolip stays near to: its weights, the frames' features (distillation), or both;
    default: weights."""
    strength: str | None = None
    """Of holding the weights: 1/shots, 1/shots2 or a number; default: 1/shots."""
    lr: float | None = None
    """Learning rate of prolip; default: 1e-5, of a small network 1e-3."""
    steps: int | None = None
    """Of prolip and lp++; default: 300."""

    novel_fraction: float = 0.0
    """Share of the classes to hold out, two at least: what of them is kept is measured."""
    holdout: float | None = None
    """Share of videos kept for the test if there is no split; 0: none; default: by their number."""
    shots: int | None = None
    """Taught videos a class; default: all."""
    split_seed: int = 0
    """Draws the held-out classes and videos."""

    views: int = 4
    """Random clips of each taught video, beside those that it would be tested on."""
    features: Path | None = None
    """Folder of kept features; default: features/ in --out, or in the index."""
    workers: int = 0
    """Processes that decode videos; default on the command line: by the cores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("labels", "more", "features", "classes"):  # from Python also as texts
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        one_of("--method", self.method or "prolip", "prolip", "lp++", "tip", "tip-f")
        if (self.method or "prolip") != "prolip":
            given = [name for name in ("hold", "strength", "lr") if getattr(self, name) is not None]
            if given:
                raise UsageError(f"--{given[0]} is of prolip, and this is {self.method}")
        if self.method in ("tip", "tip-f") and self.steps is not None:
            raise UsageError(f"--steps is of prolip and lp++, and this is {self.method}")
