"""The grid of distillation beyond FROSTER's own cell: what the losses leave alone, TACO's three parts,
and cells that are refused."""

from __future__ import annotations

import itertools
import random
import signal
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP, unit
from froster.errors import UsageError
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.methods import METHODS, Features, Frozen
from froster.methods.recipe import Recipe
from froster.methods.trainings import TRAININGS
from froster.text.prompts import Prompting
from froster.training.attach import attach, freeze
from froster.training.contrast import task_class
from froster.training.distill import (
    RELATIONS,
    Distillation,
    Scored,
    random_anchors,
    soft_divergence,
)
from froster.training.distill_options import PRESETS, Distill, distill_preset
from froster.training.fine_tune import student_of
from froster.training.optim import optimizer_of
from froster.training.options import Distillations, TrainOptions
from froster.training.plan import ema_beta_of, make_plan
from froster.training.taco import follow, follower
from froster.training.task import Task, Teacher
from golden import close
from test_training import run, steps, weights

LABELS = ["cat spinning", "boat pacing", "bird hopping", "key glowing"]
TACO = distill_preset("taco")


@pytest.fixture(scope="module")
def base() -> Recognizer:
    """Words of the nano CLIP, weights of nobody."""
    nano = load("nano", device="cpu", precision="float32")
    text = TextConfig(64, nano.tokenizer.vocab_size, 64, 2, 1)
    torch.manual_seed(0)
    clip = CLIP(CLIPConfig(VisionConfig(32, 16, 64, 2, 2), text, 64))
    about = ModelConfig(Frozen(), prompting=Prompting(("a {}.", "the {}."), "plain"))
    return Recognizer(Frozen().build(clip), nano.tokenizer, about, device=torch.device("cpu"))


def clips(count: int = 4, length: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = (count, length, 3, 32, 32)
    frames = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return frames, torch.arange(count) % len(LABELS)


def task_of(
    base: Recognizer, distill: Distill, name: str = "finetuned", specialise: bool = False
) -> Task:
    method = METHODS[name].make().for_classes(LABELS)
    student = student_of(base, method)
    freeze(student.model, method, "both")
    torch.manual_seed(0)
    return task_class(method)(
        student.model,
        student.bank(LABELS),
        Recipe(tune="both", specialise=specialise),
        teacher=Teacher(base.clip, distill) if distill.kind != "none" else None,
    )


def losses_of(task: Task, length: int = 2) -> dict[str, Tensor]:
    return task(*clips(length=length), task.bank.rows[:2], random.Random(0))[0]


def test_logits_are_the_same_up_to_a_constant_and_zero_where_equal() -> None:
    z, t = torch.randn(5, 7), torch.randn(5, 7)
    assert soft_divergence(t, t, 4.0).abs() < 1e-6
    close(soft_divergence(z + torch.randn(5, 1), t, 4.0), soft_divergence(z, t, 4.0))
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(soft_divergence(z, t, 4.0), [z])
    close(gradient, 4 / 5 * ((z / 4).softmax(-1) - (t / 4).softmax(-1)))


@pytest.mark.parametrize("target", RELATIONS)
def test_relations_do_not_see_a_rotation(target: str) -> None:
    relation = RELATIONS[target]
    s, t = torch.randn(6, 16), torch.randn(6, 12)
    rotation = torch.linalg.qr(torch.randn(16, 16))[0]
    assert relation(s, s @ rotation).abs() < 1e-6 < relation(s, t)
    close(relation(s @ rotation, t), relation(s, t))


def test_similarity_preserving_divides_rows_and_not_columns() -> None:
    s, t = torch.randn(6, 16), torch.randn(6, 12)
    scaled = s * torch.tensor([3.0, 1, 1, 1, 1, 1])[:, None]
    assert (RELATIONS["similarities"](scaled, t) - RELATIONS["similarities"](s, t)).abs() > 1e-4
    close(RELATIONS["similarities"](2 * s, t), RELATIONS["similarities"](s, t))


def test_as_many_orthonormal_anchors_as_dimensions_are_plain_logits() -> None:
    width = 8
    v, f = (unit(torch.randn(3, width)) for _ in range(2))
    prompts, teacher_prompts = torch.randn(1, 5, width), torch.randn(1, 5, width)
    scale = torch.tensor(12.0)

    def term(config: Distill) -> Tensor:
        module = Distillation(width, config)
        module.draw_anchors = lambda count, width, seed: torch.linalg.qr(torch.randn(8, 8))[0]
        sides = [Scored(features_of(x), p, scale) for x, p in ((v, prompts), (f, teacher_prompts))]
        return module.joint(*sides, 0, 1.0, False)[1]["distill"]

    anchors = term(Distill("plain", level="video", target="anchors"))
    close(anchors, term(Distill("plain", level="video", target="logits")))


def features_of(video: Tensor) -> Features:
    return Features(video[:, None], video, video)


def test_anchors_are_unit_and_on_average_an_even_share() -> None:
    anchors = random_anchors(20_000, 4, 7)
    close(anchors.norm(dim=1), torch.ones(20_000))
    close(anchors.T @ anchors / 5000, torch.eye(4), atol=0.05)


def test_the_first_step_of_taco_teaches_nothing_but_the_projection_s_second_layer(
    base: Recognizer,
) -> None:
    task = task_of(base, TACO, specialise=True)
    task.update_teacher()
    losses = losses_of(task)
    assert losses["distill"].abs() < 1e-5
    sum(losses.values()).backward()
    assert task.specialise is not None
    assert task.specialise.linear_a.weight.grad.abs().max() == 0
    assert task.specialise.linear_b.weight.grad.abs().max() > 0
    alone = task_of(base, Distill("none"))
    close(losses["ce"], losses_of(alone)["ce"])


PARTS = {
    "anchors": (Distill("plain", level="video", target="anchors"), False),
    "teacher": (Distill(level="video", teacher="ema"), False),
    "projection": (Distill("none"), True),
    "all": (TACO, True),
}
FEW = ["finetuned", "vclip", "xclip"]


# All together run on every network; alone on three, of frames by themselves, of frames that see one
# another, and of texts that follow the video.
@pytest.mark.parametrize(
    ("name", "part"),
    [
        (name, part)
        if part == "all" or name in FEW
        else pytest.param(name, part, marks=pytest.mark.slow)
        for name in sorted(METHODS.keys() - {"frozen", "dualpath"})
        for part in PARTS
    ],
)
def test_the_parts_of_taco_fit_any_network(base: Recognizer, name: str, part: str) -> None:
    """With a gradient in what they add."""
    distill, specialise = PARTS[part]
    length = getattr(METHODS[name].make(), "frames", 0) or 2
    task = task_of(base, distill, name, specialise).train()
    total = sum(losses_of(task, length).values())
    assert total.isfinite()
    total.backward()
    if task.specialise is not None:
        assert task.specialise.linear_b.weight.grad.abs().max() > 0


def test_a_teacher_that_follows_with_beta_1_is_frozen(base: Recognizer) -> None:
    student = task_of(base, Distill("none")).student
    teacher = follower(student)
    start = {name: x.clone() for name, x in teacher.state_dict().items()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1)
    follow(teacher, student, 1.0)
    assert all(torch.equal(x, start[name]) for name, x in teacher.state_dict().items())
    follow(teacher, student, 0.75)
    for name, parameter in student.named_parameters():
        expected = 0.75 * start[name] + 0.25 * parameter
        close(teacher.state_dict()[name], expected if parameter.requires_grad else start[name])


def test_a_following_teacher_is_in_checkpoints_and_never_in_training_mode(base: Recognizer) -> None:
    task = task_of(base, TACO, specialise=True)
    assert task.checkpoint_modules().keys() == {"student", "distill", "specialise", "teacher"}
    assert task.checkpoint_modules()["teacher"] is task.teacher is not task.student
    task.train()
    assert task.student.training and not any(m.training for m in task.teacher.modules())  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in task.teacher.parameters())  # type: ignore[union-attr]
    frozen = task_of(base, Distill())
    assert frozen.checkpoint_modules().keys() == {"student", "distill"}


def test_a_killed_run_with_a_following_teacher_goes_on_bit_for_bit(tmp_path: Path) -> None:
    options = ("--distill", "taco", "--specialise", "--epochs", 2)
    assert run(tmp_path / "one", *options).returncode == 0
    killed = tmp_path / "two"
    assert run(killed, *options, "--kill-at", 5).returncode == -signal.SIGKILL
    assert run(killed, *options).returncode == 0
    assert steps(killed) == steps(tmp_path / "one")
    teachers = [
        load_file(out / "checkpoints" / "epoch-0002" / "teacher.safetensors")
        for out in (killed, tmp_path / "one")
    ]
    last = weights(killed)["last"]
    for name, tensor in teachers[0].items():
        assert torch.equal(tensor, teachers[1][name]), name
    assert any(not torch.equal(teachers[0][name], last[name]) for name in last)


@pytest.mark.parametrize("distill", ["taco", "similarity"])
def test_two_processes_are_one(distill: str, tmp_path: Path) -> None:
    options = ("--distill", distill, "--specialise", "--epochs", 1)
    for processes in (1, 2):
        done = run(tmp_path / f"{processes}", *options, processes=processes)
        assert done.returncode == 0, done.stderr[-2000:]
    for a, b in zip(steps(tmp_path / "1"), steps(tmp_path / "2"), strict=True):
        for key in a.keys() & {"loss", "ce", "distill", "distill_v", "distill_t", "grad_norm"}:
            assert abs(a[key] - b[key]) <= 2e-3 * abs(a[key]) + 1e-4, (a["step"], key)


AXES = {
    "target": ("features", "logits", "similarities", "anchors", "rkd", "pkt"),
    "kind": ("plain", "residual", "mlp", "linear"),
    "teacher": ("frozen", "ema"),
    "side": ("vision", "text", "both"),
    "level": ("frame", "video"),
}


def cells() -> list[dict[str, str]]:
    return [dict(zip(AXES, cell, strict=True)) for cell in itertools.product(*AXES.values())]


def covered(cell: dict[str, str]) -> bool:
    """A cover of the grid: every two values of it that can meet do, in 39 of the 99 cells."""
    if cell["target"] == "rkd":
        return cell["level"] == "video"
    at = {name: values.index(cell[name]) for name, values in AXES.items()}
    if cell["kind"] != "plain":
        return (at["target"] + at["kind"]) % 2 == at["level"]
    even = (at["target"] + at["side"]) % 2
    return even == at["level"] and (at["target"] // 2 + at["side"]) % 2 == at["teacher"]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_cell_of_the_grid_trains_or_is_refused(base: Recognizer, every: bool) -> None:
    """A step of each, of which only triples of frames are refused."""
    refused = set()
    for cell in cells():
        try:
            distill = Distill(**cell)  # type: ignore[arg-type]
        except UsageError:
            refused.add((cell["target"], cell["level"]))
            continue
        if cell["kind"] != "plain" and (cell["teacher"], cell["side"]) != ("frozen", "both"):
            continue  # what the features go through knows neither teacher nor side
        if not every and not covered(cell):
            continue
        task = task_of(base, distill)
        losses = losses_of(task)
        assert all(loss.isfinite() for loss in losses.values()), cell
        sum(losses.values()).backward()
        for name, parameter in task.named_parameters():
            if name.startswith("distill."):
                assert parameter.grad is not None and parameter.grad.isfinite().all(), (cell, name)
    assert refused == {("rkd", "frame")}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ({"target": "rkd"}, "too many of frames: use --level video"),
        ({"target": "pkt", "distance": "l2"}, "a distance .l2. is between features, and pkt have"),
        ({"target": "logits", "unit": False}, "made of cosines"),
        ({"target": "anchors", "reduction": "sum"}, "are a mean"),
        ({"temperature": 2.0}, "of the soft-max of logits, not of features"),
        ({"anchors": 50}, "for the target anchors, not for features"),
        ({"ema_beta": 0.9}, "use --teacher ema"),
    ],
)
def test_a_cell_without_meaning_is_refused_with_its_reason(cell: dict, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        Distill(**cell)
    assert "\n" not in str(refused.value)


def test_a_side_that_is_frozen_cannot_be_held_alone(base: Recognizer) -> None:
    student = student_of(base, METHODS["vclip"].make()).model
    freeze(student, METHODS["vclip"].make(), "image")
    assert attach(student, Distill(side="vision")) == (True, False, [])
    with pytest.raises(UsageError, match=r"nothing on the text side .* use --side vision"):
        attach(student, Distill(side="text"), "vclip")


def test_settings_of_a_distillation_that_is_none_are_refused(base: Recognizer) -> None:
    changes = TrainOptions(
        preset="froster", distill="none", loss={"target": "anchors", "anchors": 10}
    )
    with pytest.raises(UsageError, match="so anchors, target would change nothing"):
        make_plan(base, METHODS["vclip"].make(), LABELS, changes)


def test_options_are_the_fields_and_the_presets() -> None:
    assert set(get_args(Distillations)) == PRESETS.keys()
    names = {field.name for field in fields(Distill)}
    assert not names & {field.name for field in fields(TrainOptions)}
    asked = TrainOptions.of(epochs=2, alpha=0.5, target="anchors", side=None)
    assert asked.loss == {"alpha": 0.5, "target": "anchors"} and asked.epochs == 2


def test_the_projection_is_new_and_has_the_rate_of_new_weights(base: Recognizer) -> None:
    task = task_of(base, TACO, specialise=True)

    optimizer = optimizer_of(task, Recipe(lr=1e-3, new_scale=10.0, specialise=True))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(task.specialise.linear_a.weight)] == pytest.approx(1e-2)  # type: ignore[union-attr]
    assert rates[id(task.student.clip.visual.proj)] == pytest.approx(1e-3)


def test_later_trainings_are_presets_of_any_method(base: Recognizer) -> None:
    plan = make_plan(base, METHODS["finetuned"].make(), LABELS, TrainOptions(preset="taco"))
    assert plan.distill == TACO and plan.preset.recipe.specialise and plan.has_new
    assert "28 templates" in TRAININGS["taco"].note
    official = TRAININGS["taco"].recipe
    assert official.lr * official.new_scale == pytest.approx(5e-5)
    plan = make_plan(base, METHODS["vclip"].make(), LABELS, TrainOptions(preset="open-mede"))
    recipe = plan.preset.recipe
    assert (plan.distill.kind, recipe.meta, recipe.averaging) == ("none", 0.5, "gaussian")
    with pytest.raises(UsageError, match="preset must be"):
        make_plan(base, METHODS["vclip"].make(), LABELS, TrainOptions(preset="taxo"))


def test_a_following_teacher_looks_back_over_a_quarter_of_the_run() -> None:
    assert ema_beta_of(18_750) == pytest.approx(0.9998, abs=2e-5)
    assert ema_beta_of(150) == pytest.approx(1 - 4 / 150) and ema_beta_of(1) == 0.5


def test_a_closed_head_has_no_classes_to_compare_with(base: Recognizer) -> None:
    method = METHODS["dualpath"].make()
    with pytest.raises(UsageError, match="a head of its own classes"):
        make_plan(base, method, LABELS, TrainOptions(distill="anchors"))
    with pytest.raises(UsageError, match="--specialise would change nothing"):
        make_plan(base, method, LABELS, TrainOptions(specialise=True))
    open_ = METHODS["dualpath"].make("open")
    assert make_plan(base, open_, LABELS, TrainOptions(distill="taco", specialise=True))
