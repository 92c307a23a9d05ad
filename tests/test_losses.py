"""The losses of the first three steps of every method, as they were when `losses.txt` was written.

A change of the code that is to change no result leaves that file alone. One that does is a line
of CHANGELOG.md, and

    python tests/test_losses.py --write

writes the file anew. Takes about 20 s.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from froster.inference.recognizer import Recognizer, load
from froster.methods import METHODS
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.options import TrainOptions
from froster.training.plan import make_plan
from froster.world.clips import WorldClips
from froster.world.sets import Videos

FILE = Path(__file__).with_name("losses.txt")
STEPS, BATCH, FRAMES = 3, 4, 4
LABELS = ["cat slides up", "boat spins", "clock grows", "tree fades out", "umbrella shakes"]
COLUMNS = {
    "total": "loss",
    "ce": "ce",
    "distill_vision": "distill_v",
    "distill_text": "distill_t",
    "regulariser": "regulariser",
}
"""Of the file -> what the training calls it."""
TOLERANCE = 2e-6
"""Absolute, and relative above 1. On one processor the losses come out the same to the last digit.
Another one adds in another order: with AVX2 or SSE4 in place of AVX-512 no number moved by more
than 1.2e-6."""


@dataclass(frozen=True)
class Case:
    method: str
    preset: str = "official"
    distill: str | None = None
    """None: the preset's."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the method; `loss` and `recipe`: single changes of the distillation and the recipe."""
    loss: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


def cases() -> dict[str, Case]:
    """Every method in its paper's setting and inside FROSTER's, and what neither reaches."""
    trainable = [name for name in METHODS if name != "frozen"]
    return {
        **{name: Case(name) for name in trainable},
        **{f"{name}+froster": Case(name, "froster") for name in trainable},
        # A projector that starts at zero leaves the norm of rounding errors, whose gradient is noise.
        "vclip+froster-paper": Case("vclip", "froster", "froster-paper", loss={"zero_init": False}),
        "vclip+mlp": Case("vclip", "froster", "mlp"),
        "vclip+plain": Case("vclip", "froster", "plain"),
        "actionclip+in-batch-froster": Case(
            "actionclip", "official", "froster", recipe={"tune": "both"}
        ),
        "openvclip+exact": Case("openvclip", options={"exact_factor": True}),
        "ewc+sampled": Case("ewc", options={"fisher": "sampled", "strength": 1e6}),
        "finetuned+mixing": Case(
            "finetuned", recipe={"label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0}
        ),
        "finetuned+sgd": Case("finetuned", recipe={"optimizer": "sgd", "decay": "all"}),
    }


def noise() -> Videos:
    """Frames of coarse noise: every frame is another picture."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(
        0, 256, (STEPS * BATCH, 8, 3, 5, 5), dtype=torch.uint8, generator=generator
    )
    frames = coarse.repeat_interleave(12, -1).repeat_interleave(12, -2)
    return Videos(frames, torch.arange(len(frames)) % len(LABELS), LABELS)


def train(base: Recognizer, case: Case, out: Path) -> list[dict[str, float]]:
    """What the training reports of each step: the one place here that calls the training."""
    same = {"epochs": 1, "batch_size": BATCH, "lr_ends": 0.1, "precision": "float32"}
    asked = TrainOptions(
        preset=case.preset,  # type: ignore[arg-type]
        distill=case.distill,  # type: ignore[arg-type]
        loss=case.loss,
        tune=case.recipe.get("tune"),
        frames=FRAMES,
        views=1,
        flip=False,
    )
    plan = make_plan(base, METHODS[case.method].make(**case.options), LABELS, asked)
    recipe = dataclasses.replace(plan.preset.recipe, **same, **case.recipe)
    preset = dataclasses.replace(plan.preset, recipe=recipe)
    clips = WorldClips(noise(), preset.sampling, train=True)
    steps: list[dict[str, float]] = []
    how = FineTuning(plan.method, plan.distill, recipe, preset)
    hooks = Hooks(on_step=lambda step, metrics: steps.append(metrics))
    fine_tune(base, how, clips, LABELS, out, hooks)
    return steps


def losses(base: Recognizer, case: Case) -> list[list[float]]:
    """One row a step, in the order of COLUMNS; NaN for what the case does not have."""
    with tempfile.TemporaryDirectory() as out:
        steps = train(base, case, Path(out))
    return [[step.get(name, math.nan) for name in COLUMNS.values()] for step in steps]


def recorded() -> dict[str, list[list[float]]]:
    rows: dict[str, list[list[float]]] = {}
    for line in FILE.read_text().splitlines()[1:]:
        name, _, *values = line.split()
        rows.setdefault(name, []).append([math.nan if v == "-" else float(v) for v in values])
    return rows


def write(base: Recognizer) -> None:
    lines = [f"case step {' '.join(COLUMNS)}"]
    for name, case in cases().items():
        for step, values in enumerate(losses(base, case), start=1):
            shown = [
                "-" if math.isnan(v) else f"{round(v, 6) + 0.0:.6f}" for v in values
            ]  # never -0
            lines.append(f"{name} {step} {' '.join(shown)}")
    FILE.write_text("\n".join(lines) + "\n")


def start() -> Recognizer:
    return load("nano", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def base() -> Iterator[Recognizer]:
    """The nano CLIP, on one thread: sums depend on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield start()
    torch.set_num_threads(threads)


def test_every_method_is_recorded() -> None:
    rows = recorded()
    assert rows.keys() == cases().keys()
    assert {case.method for case in cases().values()} == METHODS.keys() - {"frozen"}
    assert all(len(steps) == STEPS for steps in rows.values())


FROSTER_QUICKLY = ("vclip", "actionclip", "aim", "mote")
"""Inside FROSTER's setting: both towers trained, a head, adapters, experts. Of every other method the
quick case is its paper's setting."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name == f"{case.method}+froster" and case.method not in FROSTER_QUICKLY
        else name
        for name, case in cases().items()
    ],
)
def test_losses_are_what_they_were(name: str, base: Recognizer) -> None:
    expected, found = recorded()[name], losses(base, cases()[name])
    assert len(found) == STEPS
    for step, (old, new) in enumerate(zip(expected, found, strict=True), start=1):
        for column, a, b in zip(COLUMNS, old, new, strict=True):
            same = math.isnan(a) == math.isnan(b) and not abs(a - b) > TOLERANCE * max(1, abs(a))
            assert same, f"{name}, step {step}: {column} was {a}, is {b}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("python tests/test_losses.py --write")
    torch.set_num_threads(1)
    write(start())
