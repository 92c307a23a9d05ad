"""From what was asked of `froster train`, and the number of videos, to what it will do: method,
loss, recipe, clips, and what that trains.

What is not asked for comes from the method's preset, fitted to the model (`fitted`), and for a
folder of videos from their number (`choose`), which says why in a line. Published protocols (data
with a split of its own, or a preset that was asked for) are left exactly as they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from froster.data.items import Item, label_counts
from froster.data.splits import Split, has_split
from froster.encoders.blank import blank
from froster.encoders.model import CLIP
from froster.errors import UsageError
from froster.inference.recognizer import Recognizer
from froster.methods import Method, VideoCLIP
from froster.methods.closed_set import TaughtMethod
from froster.methods.recipe import FROSTER, Preset, Recipe
from froster.methods.trainings import setting_of
from froster.methods.weight_names import new_weights
from froster.text.prompts import fitting
from froster.training.attach import CLIP_VOCABULARY, attach, freeze, trained
from froster.training.distill_options import Distill, distill_preset
from froster.training.options import TrainOptions
from froster.video.augment import FROSTER_AUGMENT

FEWEST_STEPS = 150
MOST_EPOCHS = 40
VALIDATION_FEWEST, VALIDATION_MOST = 20, 200
"""Fewer say too little to stop a training by, or to calibrate with; more take too long after every
epoch."""
TEXT = ("clip.text.", "text_")
SMALL_WIDTH = 256
SMALL_LR = 3e-4
SMALL_RECIPE = Recipe(
    epochs=6, batch_size=16, lr=SMALL_LR, warmup_epochs=1.0, weight_decay=0.05, tune="both"
)


@dataclass(frozen=True)
class TrainPlan:
    method: Method
    preset: Preset
    distill: Distill
    trained: int
    """Weights that get a gradient, projectors aside."""
    weights: int
    has_new: bool
    """Are there trained weights that CLIP does not have?"""
    has_clip: bool
    """Are there trained weights that CLIP has?"""
    notes: list[str]


def make_plan(
    base: Recognizer, method: Method, classes: Sequence[str], asked: TrainOptions
) -> TrainPlan:
    """What a method's own paper says, where nothing else is asked for. Raises UsageError where
    nothing would be trained, or where distillation would run without effect."""
    if isinstance(base.config.method, TaughtMethod):
        raise UsageError(
            f"this model was taught to be a classifier ({base.config.method.name}): train the one"
            " that it was made from"
        )
    setting = preset_of(base, method, asked)
    method = adapted(method, setting, asked.preset)
    kind = distill_preset(asked.distill or setting.distill)
    level = kind.level if kind.level == "video" else method.level
    distill = dataclasses.replace(kind, **{"level": level, **asked.loss})
    if distill.kind == "none" and asked.loss.keys() - {"kind"}:
        names = ", ".join(sorted(asked.loss.keys() - {"kind"})).replace("_", "-")
        raise UsageError(
            f"nothing is distilled in this setting, so {names} would change nothing: choose a"
            " distillation with --distill"
        )
    check_use_of_features(method, distill, setting.recipe)
    try:
        with blank():
            probe = method.for_classes(classes).build(CLIP(base.clip.config))
    except (ValueError, RuntimeError, TypeError) as error:
        raise UsageError(f"{method.name} cannot be built with these options: {error}") from None
    freeze(probe, method, setting.recipe.tune)
    image_alone = asked.tune is None and leaves_text(base, probe)
    if image_alone:
        setting = dataclasses.replace(
            setting, recipe=dataclasses.replace(setting.recipe, tune="image")
        )
        freeze(probe, method, "image")
    if base.class_file is not None and trained(probe, *TEXT):
        raise UsageError(
            f"{method.name} trains the text side, whose place the file of class embeddings takes:"
            " --tune image, or another method"
        )
    counts = {name: p.numel() for name, p in probe.named_parameters() if p.requires_grad}
    if not counts:
        raise UsageError(
            f"the method {method.name} trains nothing; choose another, for example --method vclip"
        )
    if setting.recipe.specialise and not probe.compares:
        raise UsageError(
            f"{method.name} has a closed head, which sees no projection of the video's features:"
            " leave --specialise out"
        )
    notes = [setting.note] if setting.note else []
    notes += text_note(base, probe, image_alone)
    if distill.kind != "none":
        notes += attach(probe, distill, method.name)[2]
    new = new_weights(probe)
    has_new = bool(new & counts.keys()) or setting.recipe.specialise
    has_clip = bool(counts.keys() - new)
    if asked.new_scale is not None and not (has_new and has_clip):
        which = "only new weights" if has_new else "no new weights"
        raise UsageError(
            f"--new-scale compares new weights with CLIP's, and {method.name} trains {which}: use"
            " --lr"
        )
    weights = sum(p.numel() for p in probe.parameters())
    return TrainPlan(
        method, setting, distill, sum(counts.values()), weights, has_new, has_clip, notes
    )


def has_dear_text(clip: CLIP) -> bool:
    """Does a step's text cost far more than CLIP's? It does where rows cannot be cut, with a larger
    vocabulary, and where the text tower has as many weights as the image tower, unless both are
    small.

    A prompt of PE-Core or SigLIP costs 8 to 12 times one of CLIP B/16.
    """
    text = clip.config.text
    image_weights, text_weights = (
        sum(weight.numel() for weight in tower.transformer.parameters())
        for tower in (clip.visual, clip.text)
    )
    heavy = text_weights >= image_weights and clip.config.vision.width > SMALL_WIDTH
    return text.full_length or text.vocab > CLIP_VOCABULARY or heavy


def leaves_text(base: Recognizer, probe: VideoCLIP) -> bool:
    """Is the text side left as it is unasked? So it is where something else is trained, and the
    text tower is dear, or class embeddings from a file take its place."""
    if not trained(probe, "clip.visual.", "head."):
        return False
    if base.class_file is not None:
        return trained(probe, *TEXT)
    return has_dear_text(base.clip) and trained(probe, "clip.text.")


def text_note(base: Recognizer, probe: VideoCLIP, image_alone: bool) -> list[str]:
    """What is left as it is of the text tower, in one line."""
    if image_alone and base.class_file is not None:
        return ["the image tower is trained alone, as the class embeddings come from a file"]
    if image_alone:
        return [
            "the image tower is trained alone, as the text tower of this encoder is dear"
            " (--tune both trains it too)"
        ]
    rows = base.clip.config.text.vocab
    if rows > CLIP_VOCABULARY and trained(probe, "clip.text."):
        return [f"the {rows:,} token embeddings stay as they are"]
    return []


def check_use_of_features(method: Method, distill: Distill, recipe: Recipe) -> None:
    """Raises UsageError where a method does not use what is to be held or projected."""
    if method.closed and distill.kind != "none" and distill.joint:
        raise UsageError(
            f"{method.name} has a head of its own classes, whose scores cannot be held against"
            " those of texts: --target features"
        )
    if recipe.specialise and (method.closed or method.objective == "in-batch sets"):
        raise UsageError(
            f"{method.name} does not compare a video's embedding with the labels, so that"
            " --specialise would change nothing"
        )


def preset_of(base: Recognizer, method: Method, asked: TrainOptions) -> Preset:
    """The paper's setting, fitted to the model and changed as asked. Fields of `Recipe` are options
    of the same name."""
    preset = fitted(setting_of(method, asked.preset), base, method)
    options = [f.name for f in dataclasses.fields(Recipe) if hasattr(asked, f.name)]
    recipe = dataclasses.replace(
        preset.recipe, **{**asked.asked(*options), "precision": base.precision}
    )
    if asked.averaging == "gaussian" and recipe.average_from is None:
        recipe = dataclasses.replace(recipe, average_from=1)
    if asked.new_scale is not None and not method.trains_clip:
        recipe = dataclasses.replace(recipe, new_scale=1.0, clip_lr=recipe.lr / recipe.new_scale)
    augment = preset.augment
    return dataclasses.replace(
        preset,
        recipe=recipe,
        sampling=preset.sampling.changed(**asked.asked("clamp", "frames", kind="sampling")),
        views=asked.views or preset.views,
        augment=augment if asked.flip else dataclasses.replace(augment, flip=False),
        prompting=fitting(preset.prompting, base.clip.config.text.context),
    )


def adapted(method: Method, setting: Preset, preset: str | None) -> Method:
    """The method for clips of so many frames, and pooled as FROSTER does inside its training."""
    changes: dict[str, Any] = {}
    if getattr(method, "frames", 0):  # positions in time: as many as the clips have frames
        changes["frames"] = setting.sampling.frames
    if preset == "froster" and hasattr(method, "pooling"):
        changes["pooling"] = "frame_unit"
    return dataclasses.replace(method, **changes)


def is_small(model: Recognizer) -> bool:
    return model.clip.config.vision.width <= SMALL_WIDTH


def default_recipe(model: Recognizer) -> Recipe:
    """FROSTER's recipe; a small network, such as the nano, needs larger steps (`docs/lab.md`)."""
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


def ema_beta_of(steps: int) -> float:
    """For a run of so many steps, the beta of an EMA teacher that looks back over a quarter of
    them, as TACO's 0.9998 does over its 18,750."""
    return 1 - 4 / max(steps, 8)


@dataclass(frozen=True)
class ChosenRecipe:
    recipe: Recipe
    why: list[str]


def is_plain(items: Sequence[Item], preset: str | None) -> bool:
    """May the defaults be chosen? Not for data with a split, nor for a preset that was named."""
    return preset is None and not has_split(items)


def holdout_share(items: Sequence[Item]) -> float:
    """Of all videos: a fifth; more of very few, as a test of ten says little; at most 2,000 of very
    many."""
    n = len(items)
    return 0.3 if n < 100 else 0.2 if n <= 10_000 else 2000 / n


def validation_share(training: float) -> float | None:
    """Of about this many training videos: a tenth, or up to a fifth if that gives enough; None
    where it does not."""
    if 0.2 * training < VALIDATION_FEWEST:
        return None
    return min(0.2, max(0.1, 1.25 * VALIDATION_FEWEST / training), VALIDATION_MOST / training)


def choose(
    recipe: Recipe, parts: Split, given: set[str], plain: bool, world: int = 1
) -> ChosenRecipe:
    """Batch, epochs and patience for these training videos. What is in `given` was asked for and
    stays. Nothing depends on the number of processes, `world`, so that another may go on; a batch
    that is too small for them is said.
    """
    n, why = len(parts.train), []
    changes: dict[str, int | None] = {}
    batch = recipe.batch_size
    if plain and "batch_size" not in given:
        batch = min(batch, max(4, 2 ** int(math.log2(max(1, n / 8)))))
        if batch != recipe.batch_size:
            changes["batch_size"] = batch
            steps = max(1, n // batch)
            why.append(
                f"batch {batch} in place of {recipe.batch_size}: {n} training videos give {steps}"
                " steps an epoch"
            )
    if batch < world:
        why.append(
            f"a batch of {batch} clips leaves {world - batch} of {world} processes without any:"
            f" --batch-size {world} or more"
        )
    if plain and "epochs" not in given:
        steps = max(1, n // batch)
        epochs = min(MOST_EPOCHS, max(recipe.epochs, math.ceil(FEWEST_STEPS / steps)))
        if epochs != recipe.epochs:
            changes["epochs"] = epochs
            why.append(
                f"up to {epochs} epochs in place of {recipe.epochs}: fewer than {FEWEST_STEPS}"
                " steps teach little"
            )
    if (
        plain
        and "patience" not in given
        and "epochs" not in given
        and len(parts.validation) >= VALIDATION_FEWEST
    ):
        patience = max(3, changes.get("epochs", recipe.epochs) // 2)  # type: ignore[operator]
        changes["patience"] = patience
        why.append(
            f"stops early: after {patience} epochs without a gain on the {len(parts.validation)}"
            " validation videos"
        )
    if plain and "patience" not in given and len(parts.validation) < VALIDATION_FEWEST:
        why.append(f"fewer than {VALIDATION_FEWEST} validation videos: no early stop")
    sizes = label_counts(parts.train).values()
    if plain and "shots" not in given:
        why.append(
            f"all training videos are used, {min(sizes)} to {max(sizes)} a class (--shots N: at"
            " most N)"
        )
    return ChosenRecipe(dataclasses.replace(recipe, **changes), why)  # type: ignore[arg-type]
