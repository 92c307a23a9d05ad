"""Folders as froster 0.1 wrote them (`fixtures/README.md`) are read, and give what they gave then."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import froster
from froster.cli import main

FIXTURES = Path(__file__).with_name("fixtures")
MADE_IN = "/tmp/froster-0.1"
"""Where the commands ran that made the folders."""
CPU = ("--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the fixtures. Tests run on one thread, as then: sums depend on how many share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield shutil.copytree(FIXTURES, tmp_path_factory.mktemp("old") / "folders")
    torch.set_num_threads(threads)


def command(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    capfd.readouterr()
    before, sys.argv = sys.argv, ["froster", *map(str, arguments)]
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = before
    out, err = capfd.readouterr()
    assert not code, err
    return out


def test_a_model_folder_answers_as_it_did(folder: Path) -> None:
    expected = json.loads((folder / "answers-0.1.json").read_text())
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (4, 6, 8, 3), dtype=torch.uint8, generator=generator)
    frames = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    model = froster.load(folder / "model-0.1", device="cpu", precision="float32")
    labels = expected["labels"]
    cosines = model.embed_text(labels) @ model.embed_video(frames)
    assert cosines.tolist() == pytest.approx(expected["cosines"], abs=1e-5)
    answer = model.classify(frames, labels)
    then = expected["classified"]
    assert answer.labels == then["labels"]
    assert answer.scores == pytest.approx(then["scores"], abs=1e-5)
    assert (answer.none, answer.cosine) == pytest.approx((then["none"], then["cosine"]), abs=1e-5)


def metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`, nested objects as dotted names."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [dict(numbers("", line)) for line in lines]


def numbers(name: str, value: dict | float) -> Iterator[tuple[str, float]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from numbers(f"{name}.{key}", inner)


@pytest.fixture
def resumed(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """The killed run, which this version has brought to its end."""
    run = shutil.copytree(folder / "run-0.1", tmp_path / "run")
    assert (run / "checkpoints" / "epoch-0001").is_dir() and not (run / "report.json").exists()
    data, model = folder / "data-0.1" / "videos.csv", folder / "model-0.1"
    options = ("--epochs", 3, "--batch-size", 2, "--patience", 9, "--blend-points", 0, "--no-look")
    command(
        capfd,
        "train",
        "--data",
        data,
        "--model",
        model,
        "--out",
        run,
        *options,
        *CPU,
        "--precision",
        "float32",
        "--resume",
    )
    return run


def test_a_killed_run_goes_on_as_if_nothing_had_been(folder: Path, resumed: Path, capfd) -> None:
    then, now = (
        metrics(folder / "finished-0.1" / "metrics.jsonl"),
        metrics(resumed / "metrics.jsonl"),
    )
    for old, new in zip(then, now, strict=True):
        assert new == pytest.approx(old, rel=1e-4, abs=1e-4)
    assert froster.load(resumed, device="cpu").config.method.name == "vclip"
    # Of the old finished run only the report is kept; the weights that it speaks of are the new ones.
    report = (folder / "finished-0.1" / "report.json").read_text()
    (resumed / "report.json").write_text(report.replace(MADE_IN, folder.as_posix()))
    found = json.loads(command(capfd, "blend", resumed, "--points", 2, *CPU, "--json"))
    assert found["choosing"]["of"] == "the validation split"


def test_an_index_is_converted_searched_and_grows(folder: Path, tmp_path: Path, capfd) -> None:
    index = shutil.copytree(folder / "index-0.1", tmp_path / "index")
    about = index / "index.json"
    about.write_text(about.read_text().replace(MADE_IN, folder.as_posix()))
    with pytest.raises(AssertionError, match="froster index --convert --out"):
        command(capfd, "search", index, "a cat", "--device", "cpu")
    converted = json.loads(command(capfd, "index", "--convert", "--out", index, "--json"))
    then = json.loads((folder / "found-0.1.json").read_text())
    assert (converted["videos"], converted["segments"]) == (then["videos"], then["segments"])
    assert sorted(path.name for path in index.iterdir()) == ["segments.lance"]
    now = json.loads(command(capfd, "search", index, then["query"], "--device", "cpu", "--json"))
    assert (now["videos"], now["segments"]) == (then["videos"], then["segments"])
    for old, new in zip(then["hits"], now["hits"], strict=True):
        assert Path(new["video"]) == folder / "data-0.1" / Path(old["video"]).name
        assert new["score"] == pytest.approx(old["score"], abs=1e-5)
        assert (new["start"], new["end"], new["best"]) == (old["start"], old["end"], old["best"])
    shutil.copy(folder / "data-0.1" / "val1.mp4", folder / "data-0.1" / "another.mp4")
    report = json.loads(
        command(capfd, "index", folder / "data-0.1", "--out", index, *CPU, "--json")
    )
    assert (report["videos"], report["new"], report["failed"]) == (9, 1, 0)


def test_runs_of_the_programme_make_the_same_table(folder: Path, tmp_path: Path, capfd) -> None:
    out = shutil.copytree(folder / "reproduce-0.1", tmp_path / "results")
    (out / "tables.json").unlink()
    sizes = ("--seeds", 1, "--shots", 1, "--videos", 24)
    command(capfd, "reproduce", "table6", "--world", *sizes, "--out", out, "--report")
    then = json.loads((folder / "reproduce-0.1" / "tables.json").read_text())
    now = json.loads((out / "tables.json").read_text())
    assert now["tables"] == then["tables"]
