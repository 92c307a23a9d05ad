"""Publishing a model: what goes out, what stays at home, and back again through a server that
speaks the hub's protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import froster
import quick
from froster.errors import CheckpointError
from froster.evaluation.calibration import Calibration
from froster.inference.hub import files
from froster.inference.recognizer import load
from hub_server import TOKEN, Hub
from shared_files import World

REPORT = {
    "rows": [
        {
            "method": "frozen",
            "base": 40.0,
            "novel": 50.0,
            "generalised": {"base": 30.0, "novel": 40.0, "hm": 34.3},
        },
        {
            "method": "vclip",
            "base": 60.0,
            "novel": 49.0,
            "generalised": {"base": 55.0, "novel": 20.0, "hm": 29.3},
        },
    ],
    "base_classes": ["waving", "juggling"],
    "novel_classes": ["bowing", "nodding"],
    "training_videos": 32,
    "epochs": 6,
    "test": {
        "base": {"top1": 60.0, "videos": 20, "classes": 2, "standard_error": 10.94},
        "novel": {"top1": 49.0, "videos": 30, "classes": 2, "standard_error": 9.1},
    },
    "recipe": {"batch_size": 8, "lr": 3e-4, "seed": 0},
    "distill": {"kind": "residual"},
    "reliability": {"videos": 20, "after": {"ece": 9.9}},
    "unreadable_in_training": {"/home/ada/secret/a.mp4: no video": 1},
    "warnings": ["a.mp4 = b.mp4"],
    "source": {
        "model": "openai/clip-vit-base-patch16",
        "data": "/home/ada/secret/videos",
        "root": None,
        "trained_on": "5ec2e70123ab",
        "watched_by": "",
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recognizer = load("nano", device="cpu")
    measured = {"videos": 40, "after": {"ece": 4.2}}
    recognizer.calibration = Calibration(1.5, fitted={"videos": 40, "measured": measured})
    return recognizer.save(tmp_path_factory.mktemp("run") / "model", REPORT)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


def command(
    hub: Hub | None, home: Path, *arguments: object, token: str | None = TOKEN
) -> subprocess.CompletedProcess:
    """`froster …` in a process of its own, as the hub's client reads its settings when it is
    imported."""
    settings = {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if hub is not None:
        settings |= {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    others = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
    }
    environment = {**others, **settings, **({"HF_TOKEN": token} if token else {})}
    done = quick.run(
        [sys.executable, "-m", "froster", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_model_goes_to_the_hub_and_comes_back(model: Path, hub: Hub, tmp_path: Path) -> None:
    done = command(
        hub,
        tmp_path / "ada",
        "push",
        model.parent,
        "ada/gestures",
        "--license",
        "cc-by-4.0",
        "--private",
    )
    assert done.returncode == 0, done.stderr
    sent = hub.repos["ada/gestures"]
    assert set(sent) == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "calibration.json",
        "report.json",
        "README.md",
    }
    assert hub.private == {"ada/gestures"}
    assert sent["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert any(line.startswith("PUT /objects/") for line in hub.requests), (
        "large files take the way of large files"
    )
    assert f"{hub.url}/ada/gestures" in done.stdout

    videos = World("base", 1)
    video = videos.write(0, tmp_path / "v.mp4")
    ask = ("classify", video, "--labels", "cat spinning, key pacing", "--json", "--model")
    there = command(hub, tmp_path / "bob", *ask, "ada/gestures")
    assert there.returncode == 0, there.stderr
    here = load(model, device="cpu").classify(video, ["cat spinning", "key pacing"])
    (found,) = json.loads(there.stdout)["results"]
    assert json.loads(there.stdout)["calibrated"]
    assert found["label"] == here.label and found["none"] == pytest.approx(here.none, abs=1e-5)

    again = command(hub, tmp_path / "ada", "push", model, "ada/gestures")
    assert again.returncode == 0, "a second push renews what is there"
    assert b"None was given" in hub.repos["ada/gestures"]["README.md"]


def test_the_first_use_of_a_model_of_the_hub_knows_its_report(
    model: Path, hub: Hub, tmp_path: Path
) -> None:
    assert command(hub, tmp_path / "ada", "push", model, "ada/gestures").returncode == 0
    data, videos = tmp_path / "data", World("base", 1)
    for number, label in enumerate(("waving", "bowing")):
        videos.write(number, data / label / "a.mp4")
    ask = ("evaluate", "--data", data, "--model", "ada/gestures", "--json", "--workers", 0)
    first, second = (command(hub, tmp_path / "bob", *ask) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert (
        "warning: this model was trained on 32 videos of 2 classes, 1 of them in this data"
        in " ".join(first.stderr.split())
    )
    assert json.loads(first.stdout) == json.loads(second.stdout)
    (told,) = json.loads(first.stdout)["splits"].values()
    assert told["base"]["classes"] == told["novel"]["classes"] == 1


def test_a_folder_called_nano_can_be_pushed(
    tmp_path: Path, nano, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano.save(tmp_path / "nano")
    monkeypatch.chdir(tmp_path)
    done = command(
        None, tmp_path / "home", "push", "nano", "ada/x", "--dry-run", "--json", token=None
    )
    assert done.returncode == 0 and "model.safetensors" in json.loads(done.stdout)["files"], (
        done.stderr
    )


def test_the_card_says_what_the_model_is_and_nothing_private(model: Path, tmp_path: Path) -> None:
    done = command(
        None,
        tmp_path,
        "push",
        model,
        "ada/gestures",
        "--license",
        "cc-by-4.0",
        "--dry-run",
        "--json",
        token=None,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    card = found["card"]
    head = card.split("---")[1]
    for line in (
        "license: cc-by-4.0",
        "library_name: froster",
        "pipeline_tag: video-classification",
        "- zero-shot",
        "base_model: openai/clip-vit-base-patch16",
        "value: 60.0",
        "value: 49.0",
    ):
        assert line in head, line
    assert 'froster.load("ada/gestures")' in card and "pip install froster-video" in card
    assert "32 videos of 2 classes: waving, juggling." in card
    assert "| 20 of 2 training classes | 40.0 | 60.0 | 10.9 |" in card
    assert "names of both together: base 30.0 → 55.0, novel 40.0 → 20.0." in card
    assert "error of the scores: 4.2 points on 40 videos" in card, (
        "that of the calibration which is sent"
    )
    assert head.count("type: accuracy") == 2 == head.count("task:"), (
        "base and novel are different data sets"
    )
    assert found["files"].keys() >= {"model.safetensors", "README.md", "report.json"}
    assert "url" not in found


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        (
            2.0,
            (
                "`found.none` is how likely it is that none of the labels fits, fitted to held-out"
                " videos."
            ),
        ),
        (
            0.0,
            "`found.none` is None: the scores do not tell whether a label fits.",
        ),  # as older fits wrote it
        (None, "`found.none` is None: the model is not calibrated."),
    ],
)
def test_the_card_says_of_none_what_the_model_does(
    nano, tmp_path: Path, slope: float | None, words: str
) -> None:
    folder = nano.save(tmp_path / "model", {})
    if slope is not None:
        rule = {"intercept": 0.5, "slope": slope, "per_label": 0.1}
        (folder / "calibration.json").write_text(
            json.dumps({"temperature": 1.5, "none": rule, "fitted": {"videos": 40}})
        )
    card = files(folder, "ada/gestures", None)["README.md"]
    assert isinstance(card, bytes) and words in card.decode()
    assert (load(folder, device="cpu").calibration.none is None) == (slope != 2.0)


def test_a_damaged_calibration_is_named_and_not_sent(nano, tmp_path: Path) -> None:
    folder = nano.save(tmp_path / "model", {})
    (folder / "calibration.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"calibration\.json: not a calibration that froster calibrate wrote"
    ):
        files(folder, "ada/gestures", None)


def test_nothing_private_goes_out(model: Path) -> None:
    for name, content in files(model, "ada/gestures", None).items():
        text = content if isinstance(content, bytes) else content.read_bytes()
        for secret in (
            b"/home/ada",
            b"secret",
            b"a.mp4",
            b"5ec2e70123ab",
            str(model.parent).encode(),
        ):
            assert secret not in text, (name, secret)


def test_mistakes_are_one_line(model: Path, hub: Hub, tmp_path: Path) -> None:
    for arguments, code, words, token in (
        ((model, "gestures"), 2, "a repository is USER/NAME", TOKEN),
        ((model, "ada/x", "--license", "do what you want"), 2, "the hub's short name", TOKEN),
        ((tmp_path, "ada/x"), 2, "neither a model folder", TOKEN),
        (("~nobody/x", "ada/x"), 2, "~nobody/x is neither a model folder", TOKEN),
        ((model, "ada/x"), 2, "hf auth login", None),
        ((model, "ada/x"), 1, "could not be pushed to http://127.0.0.1", "hf_wrong"),
    ):
        done = command(hub, tmp_path / "home", "push", *arguments, token=token)
        lines = [line for line in done.stderr.splitlines() if line.startswith("froster:")]
        assert (done.returncode, len(lines)) == (code, 1), done.stderr
        assert words in lines[0], lines[0]
    assert not hub.repos


def test_a_repository_that_is_not_there_is_one_line(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()  # what is missing is named before a model is asked for
    done = command(
        hub,
        tmp_path / "home",
        "classify",
        tmp_path / "v.mp4",
        "--labels",
        "a, b",
        "--model",
        "ada/none",
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("froster:")]
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    assert "ada/none is no file or folder here" in lines[0]


def test_a_local_folder_wins_over_the_hub(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parents[1])
    found = froster.load(f"{model.parent.name}/model", device="cpu")
    assert torch.equal(found.clip.logit_scale, load(model, device="cpu").clip.logit_scale)
    assert found.calibration.temperature == 1.5
