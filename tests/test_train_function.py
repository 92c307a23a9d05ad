"""`froster.train` and `froster.evaluate` as functions: silent, with what the commands write."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import froster
from froster.training.distill_options import Distill
from froster.training.options import EvaluateOptions
from froster.training.reporter import Reporter
from shared_files import World


class Kept(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of each of two classes."""
    root, world = tmp_path_factory.mktemp("videos"), World("base", 4)
    for i in range(8):
        world.write(i, root / world.label(i) / f"{i}.mp4")
    return root


def test_train_and_evaluate(videos: Path, tmp_path: Path, capfd) -> None:
    out = tmp_path / "run"
    options = {"epochs": 1, "blend_points": 0, "look": False, "device": "cpu"}
    result = froster.train(videos, out, "nano", **options)
    assert result is not None and result.folder == out
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(result.report))
    assert result.report["left_out"] == []
    assert not (out / "report.html").exists(), "the page is the command's"
    again = froster.evaluate(videos, str(out), tmp_path / "test", device="cpu")
    assert capfd.readouterr() == ("", "")
    assert again.report["part"] == "test"
    assert again.report["splits"]["test"]["top1"] == pytest.approx(
        result.report["test"]["base"]["top1"]
    )
    assert (tmp_path / "test" / "evaluation.json").is_file()

    kept = Kept()
    froster.evaluate(videos, "nano", reporter=kept, device="cpu")
    assert kept.lines[0].startswith("model nano (")


def test_options_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(froster.UsageError, match="by one of"):
        froster.train("nowhere", tmp_path, novel_fraction=0.5, novel_column="part")
    with pytest.raises(froster.UsageError, match="--frames"):
        froster.train("nowhere", tmp_path, option={"frames": 4})
    with pytest.raises(TypeError, match="epoch"):
        froster.train("nowhere", tmp_path, epoch=1)


WRONG: list[dict[str, object]] = [
    {"holdout": 1.5},
    {"novel_fraction": math.nan},
    {"validation": -0.1},
    {"shots": 0},
    {"shots": -1},
    {"views": -1},
    {"workers": -1},
    {"keep": -1},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_python_is_refused_what_the_command_is(tmp_path: Path, wrong: dict[str, object]) -> None:
    """-1 shots left a video of each class out, and a holdout of 1.5 all but one, without a word."""
    with pytest.raises(froster.UsageError, match=next(iter(wrong))):
        froster.train("nowhere", tmp_path, **wrong)


def test_one_split_is_no_list_of_letters() -> None:
    asked = EvaluateOptions(split="test", probe="static")  # type: ignore[arg-type]
    assert (asked.split, asked.probe) == (["test"], ["static"])


@pytest.mark.parametrize("name", ["alpha", "beta_v", "beta_t"])
def test_weights_of_a_distillation_are_numbers(name: str) -> None:
    for value in (math.nan, math.inf, *((-1.0,) if name != "alpha" else ())):
        with pytest.raises(froster.UsageError, match=name):
            Distill(**{name: value})  # type: ignore[arg-type]
