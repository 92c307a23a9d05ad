"""From what was asked of `froster train` to what it will do: method, loss, recipe, clips, and what
that trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from froster.encoders.model import CLIP, blank
from froster.errors import UsageError, one_of
from froster.inference.recognizer import Recognizer
from froster.methods import Method
from froster.methods.recipe import Preset
from froster.methods.weight_names import new_weights
from froster.training.distill import Distill, distill_preset
from froster.training.fine_tune import fitted
from froster.training.task import attach, freeze


@dataclass(frozen=True)
class Plan:
    method: Method
    preset: Preset
    loss: Distill
    trained: int
    """Weights that get a gradient, projectors aside."""
    weights: int
    has_new: bool
    """Are there trained weights that CLIP does not have?"""
    has_clip: bool
    """Are there trained weights that CLIP has?"""
    notes: list[str]


def make_plan(
    base: Recognizer,
    method: Method,
    preset: str | None,
    distill: str | None,
    classes: Sequence[str],
    *,
    loss: dict[str, Any],
    recipe: dict[str, Any],
    sampling: dict[str, Any],
    views: int | None,
    flip: bool,
) -> Plan:
    """`loss`, `recipe` and `sampling` hold what was asked for one by one; the rest comes from the
    preset.

    Raises UsageError where nothing would be trained, or where distillation would run without
    effect.
    """
    one_of("preset", preset or "official", "official", "froster")
    setting = method.froster_preset() if preset == "froster" else method.preset()
    setting = fitted(setting, base, method)
    rates = dataclasses.replace(setting.recipe, **recipe)
    if "new_scale" in recipe and not method.trains_clip:
        rates = dataclasses.replace(rates, new_scale=1.0, clip_lr=rates.lr / rates.new_scale)
    setting = dataclasses.replace(
        setting,
        recipe=rates,
        sampling=setting.sampling.changed(**sampling),
        views=views or setting.views,
        augment=setting.augment if flip else dataclasses.replace(setting.augment, flip=False),
    )
    changes: dict[str, Any] = {}
    if getattr(method, "frames", 0):  # positions in time: as many as the clips have frames
        changes["frames"] = setting.sampling.frames
    if preset == "froster" and hasattr(method, "pooling"):
        changes["pooling"] = "frame_unit"
    method = dataclasses.replace(method, **changes)
    kind = distill_preset(distill or setting.distill)
    config = dataclasses.replace(
        kind, **{"level": kind.level if kind.level == "video" else method.level, **loss}
    )
    try:
        with blank():
            probe = method.for_classes(classes).build(CLIP(base.clip.config))
    except (ValueError, RuntimeError, TypeError) as error:
        raise UsageError(f"{method.name} cannot be built with these options: {error}") from None
    freeze(probe, method, setting.recipe.tune)
    trained = {name: p.numel() for name, p in probe.named_parameters() if p.requires_grad}
    if not trained:
        raise UsageError(
            f"the method {method.name} trains nothing; choose another, for example --method vclip"
        )
    notes = [setting.note] if setting.note else []
    if config.kind != "none":
        notes += attach(probe, config, method.name)[2]
    weights = sum(p.numel() for p in probe.parameters())
    has_new, has_clip = (
        bool(new_weights(probe) & trained.keys()),
        bool(trained.keys() - new_weights(probe)),
    )
    if "new_scale" in recipe and not (has_new and has_clip):
        which = "only new weights" if has_new else "no new weights"
        raise UsageError(
            f"--new-scale compares new weights with CLIP's, and {method.name} trains {which}: use"
            " --lr"
        )
    return Plan(method, setting, config, sum(trained.values()), weights, has_new, has_clip, notes)
