"""The declarations of `froster train`, `evaluate`, `calibrate` and `blend`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from froster.cli import options
from froster.cli.options import (
    DATA,
    MACHINE,
    SPREAD,
    DataOptions,
    at_least,
    documented_by,
    number,
    option,
    switch,
)

METHOD = Group("Method", sort_key=2)
DISTILLATION = Group("Distillation", sort_key=3)
CLIPS = Group("Clips", sort_key=4)
OPTIMISATION = Group("Optimisation", sort_key=5)
RUN = Group("Run", sort_key=6)


@documented_by("methods/recipe.py", "Recipe")
@dataclass(frozen=True)
class RecipeOptions:
    """Fields of `Recipe`; None: as the preset says."""

    epochs: Annotated[int | None, at_least(1)] = None
    batch_size: Annotated[int | None, at_least(1)] = None
    lr: float | None = None
    new_scale: Annotated[float | None, Parameter(group=OPTIMISATION)] = None
    average_from: Annotated[int | None, at_least(1, group=OPTIMISATION)] = None
    patience: Annotated[int | None, at_least(0, group=OPTIMISATION)] = None
    seed: Annotated[int, Parameter(group=OPTIMISATION)] = 0
    tune: Annotated[Literal["method", "both", "image", "text"] | None, Parameter(group=METHOD)] = (
        None
    )
    keep: Annotated[int, at_least(0, group=RUN)] = 1
    compile: Annotated[bool, Parameter(group=MACHINE)] = False
    checkpointing: Annotated[bool, Parameter(group=MACHINE)] = False


@documented_by("training/distill.py", "Distill")
@dataclass(frozen=True)
class DistillOptions:
    """Fields of `Distill`; None: as `--distill` says."""

    alpha: float | None = None
    beta_v: float | None = None
    beta_t: float | None = None
    distance: Literal["cosine", "l2", "mse"] | None = None
    level: Literal["frame", "video"] | None = None


@documented_by("video/sampling.py", "Sampling")
@dataclass(frozen=True)
class SamplingOptions:
    """Fields of `Sampling`; None: as the preset says."""

    kind: Annotated[Literal["dense", "uniform"] | None, Parameter(name="--sampling")] = None
    clamp: Literal["released", "even"] | None = None
    frames: Annotated[int | None, at_least(1)] = None


def train(
    *,
    data: options.Data,
    out: Annotated[Path, option("Folder of the run: models, checkpoints, metrics, report.")],
    model: options.Model = None,
    method: Annotated[str, option("Video network; froster methods lists them.")] = "vclip",
    preset: Annotated[
        Literal["official", "froster"] | None,
        option("The method's own paper's setting, or FROSTER's; default: official."),
    ] = None,
    distill: Annotated[
        Literal["residual", "mlp", "plain", "none", "froster", "froster-paper", "froster-2024-01"]
        | None,
        option("How features are distilled from frozen CLIP; default: as the preset says."),
    ] = None,
    novel_fraction: Annotated[
        float, number("Share of the classes to hold out, two at least.", 0, 0.9)
    ] = 0.0,
    recipe: Annotated[RecipeOptions, SPREAD] = RecipeOptions(),
    variant: Annotated[
        str | None, option("Variant of the method; froster methods lists them.", group=METHOD)
    ] = None,
    option: Annotated[
        list[str] | None,
        option("NAME=VALUE of the method; may be repeated.", name=("--option", "-O"), group=METHOD),
    ] = None,
    distillation: Annotated[
        DistillOptions, SPREAD, Parameter(group=DISTILLATION)
    ] = DistillOptions(),
    novel_column: Annotated[
        str | None, option("Manifest column that says base or novel.", group=DATA)
    ] = None,
    novel_file: Annotated[
        Path | None, option("File of the class names to hold out, one a line.", group=DATA)
    ] = None,
    split_seed: Annotated[int, option("Draws the held-out classes and videos.", group=DATA)] = 0,
    shots: Annotated[
        int | None, number("Training videos a class; default: all.", 1, group=DATA)
    ] = None,
    holdout: Annotated[
        float | None,
        number(
            "Share of videos kept for the test if there is no split; default: by their number.",
            0,
            0.9,
            group=DATA,
        ),
    ] = None,
    watch: Annotated[
        float | None,
        number(
            "Share of training videos to watch it by; 0: none; default: 0.1 without a split.",
            0,
            0.9,
            group=DATA,
        ),
    ] = None,
    look: Annotated[
        bool, switch("Look for test videos that are training videos too.", "look", group=DATA)
    ] = True,
    labelled: Annotated[DataOptions, SPREAD] = DataOptions(),  # noqa: B008
    sampling: Annotated[SamplingOptions, SPREAD, Parameter(group=CLIPS)] = SamplingOptions(),
    views: Annotated[int | None, number("Clips a test video.", 1, group=CLIPS)] = None,
    flip: Annotated[
        bool,
        switch(
            "Mirror half of the training clips (not for left/right classes).", "flip", group=CLIPS
        ),
    ] = True,
    resume: Annotated[bool, option("Go on with the run that --out holds.", group=RUN)] = False,
    blend_points: Annotated[
        int, number("Ratios of the report's blend curve; 0: none.", 0, group=RUN)
    ] = 5,
    logger: Annotated[
        Literal["tensorboard", "wandb"] | None, option("Also log there (extras).", group=RUN)
    ] = None,
    workers: options.Workers = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Fine-tune on labelled videos and report what was gained on base classes and kept on held-out
    ones.

    Example: froster train --data videos/ --model nano --novel-fraction 0.3 --out runs/first
    """
    from froster.cli.train import run

    settings = asdict(recipe)
    run(
        data=data,
        out=out,
        model=model,
        method=method,
        variant=variant,
        option=option,
        preset=preset,
        distill=distill,
        novel_column=novel_column,
        novel_file=novel_file,
        novel_fraction=novel_fraction,
        split_seed=split_seed,
        shots=shots,
        holdout=holdout,
        watch=watch,
        compile_towers=settings.pop("compile"),
        frames=sampling.frames,
        sampling=sampling.kind,
        clamp=sampling.clamp,
        views=views,
        flip=flip,
        workers=workers,
        resume=resume,
        look=look,
        blend_points=blend_points,
        logger=logger,
        device=device,
        precision=precision,
        as_json=as_json,
        **settings,
        **asdict(distillation),
        **asdict(labelled),
    )


def evaluate(
    *,
    data: options.Data,
    model: options.Model = None,
    labels_file: Annotated[
        Path | None, option("Classes to choose from; default: those of the data.")
    ] = None,
    split: Annotated[
        list[str] | None, option("Splits to score, one result each; default: test, or all.")
    ] = None,
    part: Annotated[
        Literal["test", "trained", "watched", "all"] | None,
        option("Default: test where the model has seen some of the data, else all."),
    ] = None,
    views: options.Views = None,
    sampling: options.Sampling = None,
    clamp: options.Clamp = None,
    out: Annotated[
        Path | None, option("Folder for predictions, report and confusion picture.")
    ] = None,
    labelled: Annotated[DataOptions, SPREAD] = DataOptions(),  # noqa: B008
    batch_size: Annotated[int, number("Videos a batch.", 1, group=MACHINE)] = 8,
    workers: options.Workers = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Accuracy of a model on labelled videos: top-1, top-5, per class. Videos that it was trained
    on are not scored unasked.

    Example: froster evaluate --data videos/ --model runs/first
    """
    from froster.cli.evaluate import run

    run(
        data=data,
        model=model,
        labels_file=labels_file,
        split=split,
        part=part,
        views=views,
        sampling=sampling,
        clamp=clamp,
        batch_size=batch_size,
        workers=workers,
        out=out,
        device=device,
        precision=precision,
        as_json=as_json,
        **asdict(labelled),
    )


def calibrate(
    model: Annotated[
        str,
        option(
            "Output folder of froster train, or any model (then with --data).",
            name=("--model", "-m"),
        ),
    ],
    *,
    data: Annotated[
        Path | None, option("Held-out labelled videos; default: those that the run held out.")
    ] = None,
    split: Annotated[
        str | None, option("Split to fit to; default: validation, or all if there is no split.")
    ] = None,
    out: Annotated[
        Path | None, option("Write a calibrated copy of the model here; default: into its folder.")
    ] = None,
    views: options.Views = None,
    labelled: Annotated[DataOptions, SPREAD] = DataOptions(),  # noqa: B008
    workers: options.Workers = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Make scores mean what they say, and fit how likely "none of these" is, to held-out videos.

    Example: froster calibrate runs/first
    """
    from froster.cli.calibrate import run

    run(
        model=model,
        data=data,
        split=split,
        out=out,
        views=views,
        workers=workers,
        device=device,
        precision=precision,
        as_json=as_json,
        **asdict(labelled),
    )


def blend(
    folder: Annotated[Path, option("Output folder of froster train.", metavar="RUN")],
    /,
    *,
    data: Annotated[Path | None, option("The run's data, if it lies elsewhere now.")] = None,
    root: options.Root = None,
    out: Annotated[
        Path | None, option("Folder of model, numbers and picture; default: RUN/blend.")
    ] = None,
    epochs: Annotated[
        str | None,
        option("A-B: tuned is the mean of these epochs' checkpoints; default: the run's own mean."),
    ] = None,
    points: Annotated[int, option("Ratios measured, evenly from 0 (tuned) to 1 (CLIP).")] = 11,
    rule: Annotated[
        Literal["one-se", "best"],
        option(
            "On held-out base videos, never on novel ones: the largest ratio within one standard"
            " error of the best accuracy, or the best."
        ),
    ] = "one-se",
    ratio: Annotated[
        float | None, option("Take this share of CLIP; measure and choose nothing.")
    ] = None,
    model: Annotated[
        options.Model, option("The CLIP of the run, if it lies elsewhere now.")
    ] = None,
    workers: options.Workers = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Mix a run's weights with CLIP's: base, novel and HM over the ratio; a ratio chosen on
    held-out base videos.

    Example: froster blend runs/first --epochs 2-6
    """
    from froster.cli.blend import run

    run(
        folder=folder,
        data=data,
        root=root,
        out=out,
        epochs=epochs,
        points=points,
        rule=rule,
        ratio=ratio,
        model=model,
        workers=workers,
        device=device,
        precision=precision,
        as_json=as_json,
    )
