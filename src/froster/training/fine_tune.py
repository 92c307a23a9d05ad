"""Fine-tune a model on base classes."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from froster.data.dataset import Batch
from froster.errors import UsageError
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import Method, VideoCLIP, method_dict
from froster.methods.base import TrainingClips
from froster.methods.recipe import Preset, Recipe
from froster.methods.weight_names import new_weights, plain_clip
from froster.text.bank import PromptBank
from froster.training.attach import freeze
from froster.training.batches import epoch_batches, rows_of_step, steps_of_epoch
from froster.training.contrast import task_class
from froster.training.distill_options import Distill
from froster.training.importance import holding
from froster.training.reporter import Reporter
from froster.training.task import Task, Teacher
from froster.training.trainer import Trained, Trainer
from froster.utils.tensors import StateDict, seed_of


@dataclass(frozen=True)
class FineTuning:
    """How a model is fine-tuned."""

    method: Method
    distill: Distill
    recipe: Recipe
    preset: Preset | None = None
    """Videos and labels are read as this says; None: as the model does."""
    truncate: bool = False
    """Cut labels that are too long for the text tower, in place of refusing them."""
    run: dict[str, Any] = field(default_factory=dict)
    """What else makes it another run, whose checkpoints are not taken: the data, for example."""
    name: str = ""
    """Of its bar; the method's if empty."""
    importance: StateDict = field(default_factory=dict)
    """What the run before has recorded of its weights, where the recipe holds them."""


@dataclass(frozen=True)
class Hooks:
    """Who is told what happens."""

    reporter: Reporter = field(default_factory=Reporter)
    on_step: Callable[[int, dict[str, float]], None] | None = None
    """The metrics of each step, counted from 1."""
    validate: Callable[[Recognizer, int], dict[str, float]] | None = None
    """Measures the student after an epoch, counted from 1, on all ranks; what it returns as "base"
    on rank 0 may stop the run (`Recipe.patience`)."""


def student_of(base: Recognizer, method: Method, preset: Preset | None = None) -> Recognizer:
    """A copy of `base` turned into `method`'s network, which starts from the weights of `base`, and
    reads videos and labels as the preset says; where it is that network already, a copy. It is
    built from plain blocks, whatever blocks `base` has, so that its config describes it. Raises
    UsageError where `base` has weights that the new network would lose."""
    return base.with_network(*student_parts(base, method, preset))


def student_parts(
    base: Recognizer, method: Method, preset: Preset | None = None
) -> tuple[VideoCLIP, ModelConfig]:
    """The network and the config of `student_of`."""
    goes_on = bool(new_weights(base.model))
    if goes_on and base.config.method != method:
        raise UsageError(
            f"this model is {base.config.method.name} already: go on with that method and its"
            " options, start from a plain CLIP, or resume its run"
        )
    config = dataclasses.replace(base.config, method=method)
    if preset is not None:
        fields = ("prompting", "sampling", "views", "fusion")
        config = dataclasses.replace(config, **{name: getattr(preset, name) for name in fields})
    model = copy.deepcopy(base.model) if goes_on else method.build(plain_clip(base.model))
    return model, config


def fine_tune(
    base: Recognizer,
    how: FineTuning,
    train_set: Dataset,
    classes: list[str],
    out: Path,
    hooks: Hooks | None = None,
) -> tuple[Recognizer, Trained]:
    """Train a student of `base` on `train_set`, whose integer labels count through `classes`,
    continuing the run that `out` holds. Returns the student (holding the last epoch's weights) and
    the weights a run ends with."""
    hooks = hooks or Hooks()
    recipe, reporter = how.recipe, hooks.reporter
    torch.manual_seed(seed_of(recipe.seed))
    method = how.method.for_encoder(base.clip.config).for_classes(classes)
    student = student_of(base, method, how.preset)
    task = task_of(
        base,
        student,
        how,
        classes,
        lambda bank: training_clips(student, bank, train_set, recipe, reporter),
    ).to(base.device)
    trainer = Trainer(task, recipe, train_set.sampling.frames)  # type: ignore[attr-defined]
    total = recipe.epochs * steps_of_epoch(recipe, len(train_set))  # type: ignore[arg-type]
    run = {
        "method": method_dict(method),
        "distill": dataclasses.asdict(how.distill),
        "classes": classes,
        "start": fingerprint(base),
        "input": student.config.to_dict(),
        **({"class_file": base.class_file.digest} if base.class_file else {}),
        **use_of_weights(student),
        **how.run,
    }
    validate = hooks.validate

    def now() -> Recognizer:
        """The student, whole where the ranks share its weights out."""
        shards = trainer.shards
        return student if shards is None else student.with_network(shards.student(), student.config)

    with reporter.bar(f"train {how.name or method.name}", total) as bar:
        done = 0

        def on_step(step: int, metrics: dict[str, float]) -> None:
            nonlocal done
            bar(step - done, f"loss {metrics['loss']:.3f}")
            done = step
            if hooks.on_step is not None:
                hooks.on_step(step, metrics)

        trained = trainer.fit(
            train_set,
            out,
            run,
            on_step=on_step,
            validate=None if validate is None else lambda epoch: validate(now(), epoch),
            warn=reporter.warn,
        )
    student = now()
    student.model.eval().requires_grad_(False)
    trainer.optimizer.zero_grad()  # of the last step, as large as what was trained
    return student, trained


def task_of(
    base: Recognizer,
    student: Recognizer,
    how: FineTuning,
    classes: list[str],
    clips: Callable[[PromptBank], TrainingClips],
) -> Task:
    """The task of a student that has been made of `base`. `clips`: what the method may look at
    before the first step. Raises UsageError where nothing would be trained."""
    method, recipe = student.config.method, how.recipe
    freeze(student.model, method, recipe.tune)
    if not any(p.requires_grad for p in student.model.parameters()):
        raise UsageError(f"{method.name} trains nothing; choose another method, or --tune")
    # Projectors start from the seed alone, whatever was drawn before.
    torch.manual_seed(seed_of(recipe.seed))
    bank = student.bank(classes, how.truncate)
    teacher = None
    if how.distill.kind != "none":
        prompts = base.bank(classes, how.truncate) if method.learns_prompts else None
        teacher = Teacher(base.clip, how.distill, prompts)
    task = task_class(method)(
        student.model,
        bank,
        recipe,
        student.dtype,
        teacher=teacher,
        regulariser=method.regulariser(base.clip, student.model, clips(bank)),
    )
    if recipe.hold is not None:
        task.hold = holding(student.model, how.importance, recipe.hold, recipe.hold_strength)
    return task


def training_clips(
    student: Recognizer, bank: PromptBank, train_set: Dataset, recipe: Recipe, reporter: Reporter
) -> TrainingClips:
    """What a method may look at before the first step; a bar counts the batches it takes."""
    model, rows = student.model, rows_of_step(recipe.draw, 0, bank)

    def clips() -> Iterator[Batch]:
        steps = steps_of_epoch(recipe, len(train_set))  # type: ignore[arg-type]
        with reporter.bar("weigh CLIP's weights (Fisher)", steps) as bar:
            for batch in epoch_batches(train_set, recipe, 0):
                yield batch
                bar()

    classes = lambda: model.classes(model.prompts(bank, rows).float())  # noqa: E731
    return TrainingClips(clips, classes, recipe.seed)


def fingerprint(model: Recognizer) -> str:
    """Of the starting weights and the type they are computed in."""
    return hashlib.sha256(f"{weights_fingerprint(model)} {model.dtype}".encode()).hexdigest()[:16]


def use_of_weights(model: Recognizer) -> dict[str, Any]:
    """What a digest of the weights does not tell, as JSON gives it back."""
    preprocessing, architecture = model.preprocessing.to_dict(), model.clip.architecture()
    return {"preprocessing": preprocessing, "architecture": architecture}
