"""Schedule, parameter groups and draws against the released ones."""

from __future__ import annotations

import json

import torch

from froster.clip.model import CLIP, CLIPConfig, TextConfig, VisionConfig
from froster.optim import draw_template, epoch_order, learning_rate, parameter_groups
from froster.training import Recipe
from golden import shared


def test_every_point_of_the_released_schedules() -> None:
    facts = json.loads(shared("fixtures", "facts_lr_schedule.json").read_text())
    assert facts["schedules"]
    for s in facts["schedules"].values():
        for point in s["points"]:
            rate = learning_rate(
                point["epoch"] + point["it"] / s["iters_per_epoch"],
                base=s["base_lr"], start=s["warmup_start_lr"], end=s["cosine_end_lr"],
                warmup_epochs=s["warmup_epochs"], max_epochs=s["max_epoch"],
            )  # fmt: skip
            assert abs(rate - point["lr"]) <= 1e-12 + 1e-9 * point["lr"]


def test_the_default_recipe_is_base_to_novel() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.lr, recipe.weight_decay, recipe.clip_norm) == (12, 3.33e-6, 0.01, 1.0)
    assert abs(recipe.rate(0) - 3.33e-8) < 1e-15
    assert abs(recipe.rate(2) - 3.33e-6) < 1e-15


def test_only_vectors_and_biases_escape_weight_decay() -> None:
    clip = CLIP(CLIPConfig(VisionConfig(32, 8, 64, 1, 1), TextConfig(8, 20, 64, 1, 1), 16))
    decayed, free = parameter_groups(clip.named_parameters(), 0.01)
    ids = {id(p) for p in decayed["params"]}
    assert id(clip.logit_scale) in ids
    assert id(clip.text.token_embedding.weight) in ids
    assert id(clip.visual.positional_embedding) in ids
    assert id(clip.visual.class_embedding) not in ids
    assert all(p.ndim == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(clip.parameters()))


def test_draws_depend_on_seed_epoch_and_step_alone() -> None:
    torch.manual_seed(1)
    first = [draw_template(0, e, s, 28) for e in range(3) for s in range(40)], epoch_order(50, 0, 3)
    torch.manual_seed(2)
    assert first == ([draw_template(0, e, s, 28) for e in range(3) for s in range(40)], epoch_order(50, 0, 3))
    assert len(set(first[0])) > 20
    assert sorted(first[1]) == list(range(50))
    assert epoch_order(50, 0, 4) != first[1] != epoch_order(50, 1, 3)
