"""Schedule, parameter groups and draws against the released ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import UsageError
from froster.inference.recognizer import load
from froster.methods import METHODS
from froster.methods.recipe import Preset, Recipe, as_now
from froster.methods.weight_names import new_weights
from froster.training.attach import freeze
from froster.training.batches import draw_template, epoch_order
from froster.training.checkpoint import check_same_run
from froster.training.optim import optimizer_of, parameter_groups, rate, warmup_cosine
from froster.training.options import TrainOptions
from froster.training.plan import TrainPlan, fitted, make_plan
from froster.utils.tensors import seed_of
from golden import shared


def test_every_point_of_the_released_schedules() -> None:
    facts = json.loads(shared("fixtures", "facts_lr_schedule.json").read_text())
    assert facts["schedules"]
    for s in facts["schedules"].values():
        for point in s["points"]:
            lr = warmup_cosine(
                point["epoch"] + point["it"] / s["iters_per_epoch"],
                base=s["base_lr"],
                start=s["warmup_start_lr"],
                end=s["cosine_end_lr"],
                warmup_epochs=s["warmup_epochs"],
                max_epochs=s["max_epoch"],
            )
            assert abs(lr - point["lr"]) <= 1e-12 + 1e-9 * point["lr"]


def test_the_default_recipe_is_base_to_novel() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.lr, recipe.weight_decay, recipe.clip_norm) == (
        12,
        3.33e-6,
        0.01,
        1.0,
    )
    assert abs(rate(recipe, 0) - 3.33e-8) < 1e-15
    assert abs(rate(recipe, 2) - 3.33e-6) < 1e-15


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


@pytest.mark.parametrize("seed", [1_700_000_000_000_000_000, 2**64, -(2**70)])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    """Such as a time in nanoseconds; PyTorch takes 64 bits."""
    assert sorted(epoch_order(5, seed, 1)) == list(range(5))
    torch.manual_seed(seed_of(seed))
    assert seed_of(7) == 7 and seed_of(-7) == -7


def test_draws_depend_on_seed_epoch_and_step_alone() -> None:
    torch.manual_seed(1)
    first = [draw_template(0, e, s, 28) for e in range(3) for s in range(40)], epoch_order(50, 0, 3)
    torch.manual_seed(2)
    assert first == (
        [draw_template(0, e, s, 28) for e in range(3) for s in range(40)],
        epoch_order(50, 0, 3),
    )
    assert len(set(first[0])) > 20
    assert sorted(first[1]) == list(range(50))
    assert epoch_order(50, 0, 4) != first[1] != epoch_order(50, 1, 3)


# Peak rates of CLIP's weights and of new ones, in the paper's own setting and inside FROSTER's; a
# small network has its own.
RATES = {
    "finetuned": ((2e-6, 2e-6), (3.33e-6, 3.33e-6), (3e-4, 9e-3)),
    "vclip": ((3.33e-6, 3.33e-6), (3.33e-6, 3.33e-6), (3e-4, 9e-3)),
    "openvclip": ((3.33e-6, 3.33e-6), (3.33e-6, 3.33e-6), (3e-4, 9e-3)),
    "actionclip": ((5e-6, 5e-5), (3.33e-6, 3.33e-5), (3e-4, 9e-3)),
    "xclip": ((8e-6, 8e-5), (3.33e-6, 8e-5), (3e-4, 9e-3)),
    "efficient-prompt": ((1e-4, 1e-4), (3.33e-6, 1e-4), (3e-4, 9e-3)),
    "text4vis": ((5e-6, 5e-5), (3.33e-6, 3.33e-5), (3e-4, 9e-3)),
    "aim": ((3e-4, 3e-4), (3.33e-6, 3e-4), (3e-4, 9e-3)),
    "st-adapter": ((7.5e-4, 7.5e-4), (3.33e-6, 2.5e-4), (3e-4, 9e-3)),
    "adaptformer": ((0.4, 0.4), (3.33e-6, 3e-4), (3e-4, 3e-2)),
    "vita-clip": ((4e-4, 4e-4), (3.33e-6, 4e-4), (3e-4, 3e-2)),
    "stan": ((2e-6, 2e-5), (3.33e-6, 3.33e-5), (3e-4, 3e-3)),
    "lora": ((2e-4, 2e-4), (3.33e-6, 2e-4), (3e-4, 9e-3)),
    "l2sp": ((2e-6, 2e-6), (3.33e-6, 3.33e-6), (3e-4, 9e-3)),
    "ewc": ((2e-6, 2e-6), (3.33e-6, 3.33e-6), (3e-4, 9e-3)),
    "mote": ((3.5e-6, 5e-5), (3.33e-6, 5e-5), (3e-4, 9e-3)),
    "bdc-clip": ((4e-6, 4e-4), (3.33e-6, 4e-4), (3e-4, 9e-3)),
    "ost": ((8e-6, 8e-6), (3.33e-6, 3.33e-6), (3e-4, 9e-3)),
    "ez-clip": ((1e-4, 1e-4), (3.33e-6, 1e-4), (3e-4, 9e-3)),
    "dualpath": ((1.6796875e-4, 1.6796875e-4), (3.33e-6, 1.6796875e-4), (3e-4, 9e-3)),
    "tc-clip": ((8e-6, 8e-5), (3.33e-6, 8e-5), (3e-4, 9e-3)),
}
ADAPTERS = (
    *("efficient-prompt", "aim", "st-adapter", "adaptformer", "vita-clip", "lora"),
    *("ez-clip", "dualpath"),
)


def presets(name: str) -> tuple[Preset, Preset, Preset, Preset]:
    method = METHODS[name].make(next(iter(METHODS[name].variants), None))
    own, inside, nano = method.preset(), method.froster_preset(), load("nano", device="cpu")
    return own, inside, fitted(own, nano, method), fitted(inside, nano, method)


def test_the_rates_of_every_method_are_these() -> None:
    assert RATES.keys() == METHODS.keys() - {"frozen"}
    for name, (own, inside, small) in RATES.items():
        for preset, rates in zip(presets(name), (own, inside, small, small), strict=True):
            recipe = preset.recipe
            found = (recipe.lr * recipe.clip_scale, recipe.lr * recipe.new_scale)
            assert found == pytest.approx(rates, rel=1e-12), name


@pytest.mark.parametrize("name", RATES)
def test_each_weight_is_trained_at_its_rate(name: str) -> None:
    """Of the groups of the optimiser, inside FROSTER, where text is trained beside adapters;
    projectors as CLIP's weights."""
    clip = CLIP(CLIPConfig(VisionConfig(32, 8, 64, 2, 1), TextConfig(77, 20, 64, 2, 1), 64))
    method = METHODS[name].make(next(iter(METHODS[name].variants), None))
    model = torch.nn.Module()
    model.student = student = method.for_classes(["a", "b"]).build(clip)
    model.projector = torch.nn.Linear(4, 4)
    recipe = method.froster_preset().recipe
    freeze(student, method, recipe.tune)
    rates = {
        p: group["lr"]
        for group in optimizer_of(model, recipe).param_groups
        for p in group["params"]
    }  # type: ignore[arg-type]
    of_clip, of_new = RATES[name][1]
    for named, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = named.removeprefix("student.") in new_weights(student)
            assert rates[parameter] == pytest.approx(of_new if new else of_clip, rel=1e-12), named


def test_lr_is_the_rate_of_what_the_method_trains() -> None:
    """Of adapters and prompts in every preset; CLIP's weights beside them keep theirs."""
    for name in RATES:
        for preset in presets(name):
            recipe = dataclasses.replace(preset.recipe, lr=1e-4)
            trained = recipe.new_scale if name in ADAPTERS else recipe.clip_scale
            assert recipe.lr * trained == pytest.approx(1e-4, rel=1e-12), name
            assert recipe.clip_lr == preset.recipe.clip_lr
            assert rate(recipe, recipe.warmup_epochs) == pytest.approx(1e-4, rel=1e-3)


def test_settings_of_an_old_run_are_read_as_they_were_meant() -> None:
    """`lr` was CLIP's rate in every method: runs begun then go on, and others are still refused."""
    for name in RATES:
        for preset, (of_clip, of_new) in zip(
            presets(name), (*RATES[name], RATES[name][2]), strict=True
        ):
            new = dataclasses.asdict(preset.recipe)
            old = {key: value for key, value in new.items() if key != "clip_lr"}
            if preset.recipe.clip_lr is not None:
                old |= {"lr": of_clip, "new_scale": of_new / of_clip}
            assert as_now(old, new) == new, name
            assert as_now({**old, "lr": 2 * old["lr"]}, new) != new, name
    assert as_now(new, new) is new


def test_an_old_run_took_frames_as_clip_does_and_did_not_say_what_its_network_was() -> None:
    new = {"preprocessing": CLIP_PREPROCESSING.to_dict(), "architecture": {"activation": "gelu"}}
    check_same_run({}, new, Path("run/checkpoints/epoch-0001"))
    squashed = Preprocessing((0.5, 0.4, 0.3), resize="squash").to_dict()
    with pytest.raises(
        UsageError,
        match=r"^run holds a run with preprocessing.mean = .0\.48.*, not \[0\.5, 0\.4, 0\.3\]",
    ):
        check_same_run({}, {**new, "preprocessing": squashed}, Path("run/checkpoints/epoch-0001"))


def plan(name: str, preset: str | None, **recipe: float) -> TrainPlan:
    return make_plan(
        load("nano", device="cpu"),
        METHODS[name].make(),
        ["a", "b"],
        TrainOptions(preset=preset, **recipe),
    )


def test_new_scale_compares_new_weights_with_those_of_clip() -> None:
    adapters = plan("st-adapter", "froster", lr=1e-3, new_scale=50.0).preset.recipe
    assert (adapters.lr * adapters.new_scale, adapters.lr * adapters.clip_scale) == pytest.approx(
        (1e-3, 2e-5)
    )
    head = plan("actionclip", "froster", lr=1e-3, new_scale=50.0).preset.recipe
    assert (head.lr * head.new_scale, head.lr * head.clip_scale) == pytest.approx((5e-2, 1e-3))
    with pytest.raises(UsageError, match="st-adapter trains only new weights"):
        plan("st-adapter", "official", new_scale=50.0)
    with pytest.raises(UsageError, match="vclip trains no new weights"):
        plan("vclip", "official", new_scale=50.0)
    with pytest.raises(UsageError, match="must be positive"):
        plan("st-adapter", "froster", new_scale=0.0)
