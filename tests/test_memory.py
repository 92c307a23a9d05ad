"""`froster train --memory` says within 15 % what the run then needs, whatever is trained."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import quick
import templates
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.errors import UsageError
from froster.inference.recognizer import Recognizer, load
from froster.methods import VCLIP, Frozen
from froster.methods.recipe import Recipe
from froster.methods.tc_clip import group_means, merged_groups
from froster.methods.text4vis import Text4Vis
from froster.training.distill import Distill
from froster.training.fine_tune import FineTuning, student_of
from froster.training.memory import Counter, Sizes, memory_of
from froster.training.reporter import Reporter
from froster.training.train import train
from froster.utils.tensors import return_freed
from shared_files import World
from test_methods import EVERY

RUN = """
import json, resource, sys
from froster.cli import main
sys.argv = ["froster", *json.loads(sys.argv[1])]
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
WIDE = VisionConfig(32, 16, 1024, 6, 16), TextConfig(77, 954, 512, 4, 8)
"""Weights are what it needs memory for."""
FINE = VisionConfig(48, 4, 256, 3, 4), TextConfig(77, 954, 128, 2, 2)
"""Activations are."""
RUNS = {
    "wide": (WIDE, ["--batch-size", 4]),
    "wide, adapters, bfloat16": (
        WIDE,
        ["--batch-size", 4, "--method", "lora", "--precision", "bf16"],
    ),
    "wide, no teacher": (WIDE, ["--batch-size", 4, "--distill", "none"]),
    "fine": (FINE, ["--batch-size", 12]),
    "fine, bfloat16": (FINE, ["--batch-size", 16, "--precision", "bf16"]),
    "fine, checkpointing": (FINE, ["--batch-size", 16, "--checkpointing"]),
    "fine, other method": (FINE, ["--batch-size", 8, "--method", "st-adapter"]),
    "wide, a frozen tower": (
        WIDE,
        ["--batch-size", 4, "--method", "text4vis", "--tune", "head", "--kept-views", 2],
    ),
    "wide, remembers": (WIDE, ["--batch-size", 4, "--remember"]),
    "wide, holds what was remembered": (WIDE, ["--batch-size", 4, "--hold", "si"]),
}


def written(root: Path, batch: int) -> Path:
    """Two batches an epoch: the second epoch adds the average, more steps add nothing."""
    world = World("base", batch // 2)
    for i in range(2 * batch):
        world.write(i, root / world.label(i) / f"{i}.mp4")
    return root


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return written(tmp_path / "videos", 4)


def typed_alone(*words: object) -> str:
    """What a process of its own says, and its peak in KiB."""
    done = quick.run(
        [sys.executable, "-c", RUN, json.dumps([str(word) for word in words])],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", templates.VARIABLE: "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="sizes are in other units elsewhere")
@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_what_is_said_is_what_is_needed(name: str, tmp_path: Path) -> None:
    """About 20 s each: a process that counts, and one that trains."""
    (vision, text), asked = RUNS[name]
    videos = written(tmp_path / "videos", asked[1])
    nano = load("nano", device="cpu")
    torch.manual_seed(0)
    text = dataclasses.replace(text, vocab=nano.tokenizer.vocab_size)
    clip = CLIP(CLIPConfig(vision, text, 128))
    Recognizer(Frozen().build(clip), nano.tokenizer, nano.config).save(tmp_path / "model")
    how = ["train", "--data", videos, "--epochs", 2, "--workers", 0, "--no-look"]
    how += ["--blend-points", 2]
    how += ["--precision", "fp32"] if "--precision" not in asked else []
    start = tmp_path / "model"
    if "--hold" in asked:
        start = tmp_path / "earlier"
        before = [*how, "--batch-size", 4, "--remember", "--model", tmp_path / "model"]
        typed_alone(*before, "--out", start)
    how += [*asked, "--model", start]
    said = typed_alone(*how, "--out", tmp_path / "no", "--memory")
    assert not (tmp_path / "no").exists()
    counted = float(re.findall(r"about ([\d.]+) GB in this process", said)[0])
    trained = typed_alone(*how, "--out", tmp_path / "run")
    needed = int(re.findall(r"peak (\d+)", trained)[0]) * 1024 / 1e9
    print(f"{name}: counted {counted:.2f} GB, needed {needed:.2f} GB, {counted / needed:.2f}")
    assert counted == pytest.approx(needed, rel=0.15)


PARTS = ("path", "change")
QUICKLY = ["vclip", "actionclip", "ewc"]
"""Of the kinds of objective, and one that looks at the training clips first."""
METHODS_TRAINED = {name: None for name, _ in EVERY if name != "frozen"}


def lines_of(videos: Path, tmp_path: Path, start: str = "nano", **options: Any) -> list[str]:
    lines: list[str] = []
    reporter = Reporter()
    reporter.say = lines.append  # type: ignore[method-assign]
    options = {"memory": True, "look": False, "batch_size": 4, "device": "cpu", **options}
    assert train(videos, tmp_path / "no", start, reporter=reporter, **options) is None
    return lines


@pytest.mark.parametrize(
    "name",
    [n if n in QUICKLY else pytest.param(n, marks=pytest.mark.slow) for n in METHODS_TRAINED],
)
def test_every_method_is_counted(
    name: str, videos: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """A few seconds each. No weight and no video is looked at, so nothing may hang on a number."""
    lines = lines_of(videos, tmp_path, method=name)
    assert re.fullmatch(r"about 0\.\d\d GB in this process, counted", lines[-1])
    assert not recwarn.list


def test_the_count_is_one_json_object_too(run, videos: Path, tmp_path: Path) -> None:
    how = ("--data", videos, "--model", "nano", "--out", tmp_path / "no", "--device", "cpu")
    answer = run("train", *how, "--memory", "--json")
    counted = json.loads(answer.out)
    assert counted["device"] == "cpu" and counted["weights"] > 0
    assert f"about {counted['on_host'] / 1e9:.2f} GB in this process, counted" in answer.err


def test_what_a_run_holds_of_an_earlier_one_is_counted(nano: Recognizer, videos: Path) -> None:
    """The record itself, and on the device the weights that are held and their importance."""
    recipe = Recipe(batch_size=4, epochs=2)
    how = FineTuning(VCLIP(), Distill(), recipe)
    classes = ["a star", "a bus", "a fish"]
    trained = dict(student_of(nano, VCLIP()).model.named_parameters())
    record = {f"{of}/{n}": torch.zeros_like(p) for n, p in trained.items() for of in PARTS}
    held = dataclasses.replace(
        how, recipe=dataclasses.replace(recipe, hold="si"), importance=record
    )
    one, other = (memory_of(nano, x, classes, Sizes(8)) for x in (how, held))
    size = sum(p.nbytes for p in trained.values())
    assert other.recorded - one.recorded == 2 * size
    assert other.weights - one.weights == 2 * size
    other_run = {f"{of}/none": torch.zeros(2) for of in PARTS}
    with pytest.raises(UsageError, match="another network"):
        memory_of(nano, dataclasses.replace(held, importance=other_run), classes, Sizes(8))


@pytest.mark.usefixtures("few_templates")
def test_a_frozen_tower_is_counted_once(nano: Recognizer) -> None:
    """Its activations before an epoch, and none of them in a step; of a test what there is."""
    recipe = Recipe(batch_size=8, epochs=2, tune="head")
    how = FineTuning(Text4Vis(layers=1), Distill(kind="none"), recipe)
    classes = ["a star", "a bus", "a fish"]
    plain = memory_of(nano, how, classes, Sizes(16))
    kept = memory_of(nano, how, classes, Sizes(8, tested=2, kept=True))
    assert plain.features == 0 < kept.features
    assert plain.step > 1.5 * kept.step and plain.frames > 5 * kept.frames
    assert kept.finish < plain.finish


def test_tokens_that_are_merged_by_what_they_are_can_be_counted(monkeypatch) -> None:
    """TC-CLIP's rounds: nothing is read of a tensor without memory, whatever lies in its place."""
    monkeypatch.setattr("froster.methods.tc_clip.MERGED_A_ROUND", 3)
    with Counter(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = torch.empty(2, 20, 8)
    with Counter():
        group = merged_groups(x, 5)
        assert isinstance(group, FakeTensor) and group.fake_mode is mode
        assert group_means(x, group, 5).shape == (2, 5, 8)


def test_weights_that_are_shared_out_are_not_counted(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave one of them out"):
        lines_of(videos, tmp_path, shard_weights=True)


@pytest.mark.parametrize("error", [TypeError, OSError])
def test_where_freed_memory_cannot_be_given_back_a_run_goes_on(monkeypatch, error: type) -> None:
    """Windows' loader takes no None, and macOS has no such function: weights are saved after it."""

    def loader(name: str | None) -> None:
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", loader)
    return_freed()
