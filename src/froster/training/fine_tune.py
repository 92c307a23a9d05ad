"""Fine-tune a model on base classes and measure what was gained there and what was kept elsewhere."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

from froster.data.dataset import Batch
from froster.errors import UsageError
from froster.evaluation.metrics import (
    Predictions,
    Scorer,
    evaluate,
    harmonic_mean,
    harmonic_mean_error,
)
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import Method, method_dict
from froster.methods.base import TrainingClips
from froster.methods.recipe import FROSTER, Preset, Recipe
from froster.methods.weight_names import new_weights, plain_clip
from froster.training.distill import Distill
from froster.training.loop import Trained, epoch_loader, global_batch, rows_of_step, train
from froster.training.task import Task, freeze
from froster.training.weights import towards
from froster.utils.progress import Log
from froster.utils.tensors import StateDict, cpu_state
from froster.video.augment import FROSTER_AUGMENT

SMALL_WIDTH = 256
SMALL_LR = 3e-4
SMALL_RECIPE = Recipe(
    epochs=6, batch_size=16, lr=SMALL_LR, warmup_epochs=1.0, weight_decay=0.05, tune="both"
)


TOGETHER = "together"
"""`Predictions.also` has the labels of base and novel classes under this name."""


def is_small(model: Recognizer) -> bool:
    return model.clip.config.vision.width <= SMALL_WIDTH


def default_recipe(model: Recognizer) -> Recipe:
    """FROSTER's recipe; a small network such as the nano CLIP needs larger steps (`docs/lab.md`)."""
    return SMALL_RECIPE if is_small(model) else FROSTER.recipe


def fitted(preset: Preset, model: Recognizer, method: Method) -> Preset:
    """A paper's setting for this model. Published rates and lengths are for CLIP B/16 on large
    data: a small network is trained with few, large steps in their place, without the mixing,
    smoothing and colour changes that only pay in long training, and takes its clips as it was made
    to. What remains is the method's own: prompts, objective, what it trains."""
    if not is_small(model):
        return preset
    rates: dict[str, Any] = {"lr": SMALL_LR, "new_scale": method.small_scale, "clip_lr": None}
    if not method.trains_clip:
        rates = {"lr": SMALL_LR * method.small_scale, "new_scale": 1.0, "clip_lr": SMALL_LR}
    recipe = dataclasses.replace(
        preset.recipe,
        **rates,
        epochs=SMALL_RECIPE.epochs,
        batch_size=SMALL_RECIPE.batch_size,
        warmup_epochs=1.0,
        lr_ends=0.01,
        schedule="cosine",
        optimizer="adamw",
        clip_norm=1.0,
        average_from=2,
        weight_decay=SMALL_RECIPE.weight_decay,
        label_smoothing=0.0,
        mixup=0.0,
        cutmix=0.0,
    )
    note = "a small network: few, large steps and FROSTER's augmentation in place of the paper's"
    return dataclasses.replace(
        preset,
        recipe=recipe,
        sampling=model.config.sampling,
        views=model.config.views,
        augment=FROSTER_AUGMENT,
        note=note,
    )


@dataclass(frozen=True)
class EvalSet:
    """Videos that are scored against their own classes only, as the base-to-novel protocol does."""

    name: str
    dataset: Dataset
    classes: list[str]
    texts: list[str] | None = None
    """What the model is asked for, one text a class, where it is more than the class's name."""
    videos: list[str] | None = None
    """Names for the predictions file."""
    together: list[str] | None = None
    """The labels of base and novel classes: what a user asks for, who does not know of which kind a
    video is."""


def asked_together(sets: Sequence[EvalSet]) -> list[EvalSet]:
    """The same sets, of which "base" and "novel", where both are there, are scored among the labels
    of both too."""
    both = [
        label for name in ("base", "novel") for s in sets if s.name == name for label in s.classes
    ]
    if not {"base", "novel"} <= {s.name for s in sets}:
        return list(sets)
    return [
        dataclasses.replace(s, together=both) if s.name in ("base", "novel") else s for s in sets
    ]


@dataclass
class Row:
    """One line of a results table: a set of weights, measured on every evaluation set."""

    method: str
    weights: str
    predictions: dict[str, Predictions] = field(repr=False)

    def top1(self, name: str) -> float | None:
        return self.predictions[name].top(1) if name in self.predictions else None

    @property
    def hm(self) -> float | None:
        base, novel = self.top1("base"), self.top1("novel")
        return harmonic_mean(base, novel) if base is not None and novel is not None else None

    @property
    def together(self) -> Row | None:
        """The same videos among the labels of base and novel together, or None where these were not
        asked for."""
        found = {
            name: p.also[TOGETHER] for name, p in self.predictions.items() if TOGETHER in p.also
        }
        return Row(self.method, self.weights, found) if found else None

    @property
    def generalised(self) -> dict[str, float]:
        """base, novel and hm where the labels of both are asked together; empty where they were
        not."""
        columns = self.together.columns() if self.together else {}
        return {name: value for name, value in columns.items() if value is not None}

    def error(self, name: str) -> float | None:
        """One standard error of test sampling of "base", "novel" or another set; for "hm"
        propagated from both."""
        if name != "hm":
            return self.predictions[name].error if name in self.predictions else None
        base, novel = (self.predictions.get(part) for part in ("base", "novel"))
        return (
            None
            if base is None or novel is None
            else harmonic_mean_error(base.top(1), novel.top(1), base.error, novel.error)
        )

    def columns(self) -> dict[str, float | None]:
        return {"base": self.top1("base"), "novel": self.top1("novel"), "hm": self.hm}

    def to_dict(self) -> dict[str, Any]:
        """Per cent; `generalised` is measured among base and novel labels together, `cross` holds
        every set beside them."""
        cross = {
            name: p.top(1) for name, p in self.predictions.items() if name not in ("base", "novel")
        }
        return {
            "method": self.method,
            "weights": self.weights,
            **self.columns(),
            "standard_error": {name: self.error(name) for name in self.columns()},
            **({"generalised": self.generalised} if self.together else {}),
            **({"cross": cross} if cross else {}),
        }


def measure(
    model: Recognizer,
    sets: Sequence[EvalSet],
    bars: Progress,
    label: str,
    workers: int = 0,
    truncate: bool = False,
) -> dict[str, Predictions]:
    """Predictions of one model on every set; classes are encoded once."""
    return measure_many([model], sets, bars, label, workers, truncate)[0]


def measure_many(
    models: Sequence[Recognizer],
    sets: Sequence[EvalSet],
    bars: Progress,
    label: str,
    workers: int = 0,
    truncate: bool = False,
) -> list[dict[str, Predictions]]:
    """The same for several models, which all see a video from one decode."""
    total = sum(len(s.dataset) for s in sets)  # type: ignore[arg-type, misc]
    bar = bars.add_task(f"evaluate {label}", total=total, note="")
    results: list[dict[str, Predictions]] = [{} for _ in models]
    text = {
        label: words
        for s in sets
        if s.together
        for label, words in zip(s.classes, s.texts or s.classes, strict=True)
    }
    wide = [m.class_embeddings(list(text.values()), truncate) if text else None for m in models]
    for s in sets:
        bars.update(bar, note=s.name)
        scorers = [
            scorer_of(m, s, every, list(text), truncate)
            for m, every in zip(models, wide, strict=True)
        ]
        found = evaluate(
            scorers,
            s.dataset,
            s.classes,
            names=s.videos,
            workers=workers,
            on_videos=lambda n: bars.update(bar, advance=n),
            also={TOGETHER: s.together} if s.together else {},
        )
        for result, predictions in zip(results, found, strict=True):
            result[s.name] = predictions
    bars.update(bar, note="")
    return results


def scorer_of(
    model: Recognizer, s: EvalSet, every: Tensor | None, labels: list[str], truncate: bool
) -> Scorer:
    """For one set. `every`: the embeddings of all `labels` of base and novel, of which a set that
    is asked for them takes its own too."""
    if not s.together or every is None:
        classes = model.class_embeddings(s.texts or s.classes, truncate)
        return Scorer(model.inference, classes, model.dtype, model.config.fusion)
    together = every[..., [labels.index(label) for label in s.together], :]
    if model.model.shared_prompts:
        classes = every[..., [labels.index(label) for label in s.classes], :]
    else:  # a class has a context of its own only where all labels that are asked for have one
        classes = model.class_embeddings(s.texts or s.classes, truncate)
    return Scorer(model.inference, classes, model.dtype, model.config.fusion, (together,))


def student_of(base: Recognizer, method: Method, preset: Preset | None = None) -> Recognizer:
    """A copy of `base` turned into `method`'s network, which starts from the weights of `base`.

    It is built from plain blocks, whatever blocks `base` has: what is saved is then what its config
    says. With a preset it also reads videos and labels as that says. Raises UsageError where `base`
    has been given weights that the new network would lose.
    """
    if new_weights(base.model):
        raise UsageError(
            f"this model is {base.config.method.name} already: start from a plain CLIP, or resume"
            " its run"
        )
    config = dataclasses.replace(base.config, method=method)
    if preset is not None:
        config = dataclasses.replace(
            config,
            prompting=preset.prompting,
            sampling=preset.sampling,
            views=preset.views,
            fusion=preset.fusion,
        )
    model = method.build(plain_clip(base.model))
    return Recognizer(model, base.tokenizer, config, device=base.device, precision=base.precision)


def fine_tune(
    base: Recognizer,
    method: Method,
    distill: Distill,
    recipe: Recipe,
    train_set: Dataset,
    classes: list[str],
    out: Path,
    bars: Progress,
    label: str,
    run: dict[str, Any] | None = None,
    truncate: bool = False,
    log: Log | None = None,
    preset: Preset | None = None,
    watch: Callable[[Recognizer, int], dict[str, float]] | None = None,
) -> tuple[Recognizer, Trained]:
    """Train a student of `base` on `train_set`, whose integer labels count through `classes`. After
    every epoch `watch(student, epoch)` may measure it.

    Returns the student (holding the last epoch's weights) and the weights a run ends with.
    """
    torch.manual_seed(recipe.seed)
    method = method.for_classes(classes)
    student = student_of(base, method, preset)
    freeze(student.model, method, recipe.tune)
    if not any(p.requires_grad for p in student.model.parameters()):
        raise UsageError(f"{method.name} trains nothing; choose another method, or --tune")
    # Projectors start from the seed alone, whatever was drawn before.
    torch.manual_seed(recipe.seed)
    task = Task(
        student.model,
        student.bank(classes, truncate),
        distill,
        teacher=base.clip if distill.kind != "none" else None,
        dtype=student.dtype,
        recipe=recipe,
        network=method.name,
        objective=method.objective,
        teacher_bank=(
            base.bank(classes, truncate)
            if method.learns_prompts and distill.kind != "none"
            else None
        ),
        regulariser=method.regulariser(
            base.clip, student.model, training_clips(student, train_set, classes, recipe, bars)
        ),
    ).to(base.device)
    bar = bars.add_task(f"train {label}", total=None, note="")

    def on_step(done: int, total: int, metrics: dict[str, float]) -> None:
        bars.update(bar, completed=done, total=total, note=f"loss {metrics['loss']:.3f}")
        if log is not None:
            log(done, metrics)

    trained = train(
        task,
        train_set,
        recipe,
        out,
        run={
            "method": method_dict(method),
            "distill": dataclasses.asdict(distill),
            "classes": classes,
            "start": fingerprint(base),
            "input": student.config.to_dict(),
            **use_of_weights(student),
            **(run or {}),
        },
        on_step=on_step,
        watch=None if watch is None else lambda epoch: watch(student, epoch),
    )
    student.model.eval().requires_grad_(False)
    return student, trained


def training_clips(
    student: Recognizer, train_set: Dataset, classes: list[str], recipe: Recipe, bars: Progress
) -> TrainingClips:
    """What a method may look at before the first step; a bar counts the batches it takes."""
    count = len(train_set)  # type: ignore[arg-type]
    batch = global_batch(recipe, count)
    steps = max(1, count // batch)
    bank = student.bank(classes, True)
    rows = rows_of_step(recipe.draw, 0, bank)

    def all_batches() -> Iterator[Batch]:
        bar = bars.add_task("weigh CLIP's weights (Fisher)", total=steps, note="")
        for clips in epoch_loader(train_set, recipe, 0, steps, batch):
            yield clips
            bars.advance(bar)

    model = student.model
    return TrainingClips(
        all_batches, lambda: model.classes(model.prompts(bank, rows).float()), recipe.seed
    )


def fingerprint(model: Recognizer) -> str:
    """Tells the starting weights of one run from those of another, and the type they are computed
    in."""
    return hashlib.sha256(f"{weights_fingerprint(model)} {model.dtype}".encode()).hexdigest()[:16]


def use_of_weights(model: Recognizer) -> dict[str, Any]:
    """What a digest of the weights does not tell: the sizes, the activation, how frames are
    prepared. As JSON gives it back."""
    return {
        "preprocessing": model.preprocessing.to_dict(),
        "architecture": model.clip.architecture(),
    }


def with_weights(
    student: Recognizer, state: StateDict, config: ModelConfig | None = None
) -> Recognizer:
    """The same network with other weights of it."""
    model = copy.deepcopy(student.model)
    model.load_state_dict(state)
    return Recognizer(
        model,
        student.tokenizer,
        config or student.config,
        device=student.device,
        precision=student.precision,
    )


def halfway(
    base: Recognizer, student: Recognizer, tuned: StateDict, ratio: float = 0.5
) -> StateDict:
    """ratio * the starting weights + (1 - ratio) * the tuned ones, new parts scaled
    (`weights.towards`)."""
    start = {f"clip.{name}": tensor for name, tensor in cpu_state(base.clip).items()}
    return towards(start, tuned, ratio, student.config.method.output_layers)
