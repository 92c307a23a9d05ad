"""The model sees pixels and the names of the classes. No label, path or file name reaches it:
proven by renaming."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import froster.training.evaluate
from froster.evaluation.metrics import Predictions
from golden import shared
from shared_files import World

pytestmark = pytest.mark.usefixtures("few_templates_throughout")

NAMINGS = ("true", "lying", "scrambled")


class Clip(NamedTuple):
    data: bytes
    label: str
    split: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Four rendered classes: three training videos and two test videos of each."""
    rendered = World("base", 5)
    clips = []
    for i in range(20):
        file = rendered.write(i, tmp_path_factory.mktemp("world") / "x.mp4")
        clips.append(Clip(file.read_bytes(), rendered.label(i), "test" if i % 5 > 2 else "train"))
    return clips


@pytest.fixture(scope="module")
def real() -> list[Clip]:
    """Six real videos of UCF101, two of each of three classes."""
    with shared("videos", "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("clips/ucf101")]
    names = sorted({row["label"] for row in rows})[:3]
    chosen = [row for name in names for row in [row for row in rows if row["label"] == name][:2]]
    return [
        Clip(shared("videos", row["path"]).read_bytes(), row["label"], "test") for row in chosen
    ]


def copies(folder: Path, clips: Sequence[Clip], naming: str) -> list[Path]:
    """A file of each clip, in a folder and under a name that tell its class, or another clip's
    class, or nothing."""
    labels = [clip.label for clip in clips]
    there = sorted(set(labels))
    paths = []
    for i, clip in enumerate(clips):
        told = (
            clip.label
            if naming == "true"
            else there[(there.index(clip.label) + 1 + i % (len(there) - 1)) % len(there)]
        )
        name = f"{told}/v_{told}_{i:02d}.mp4".replace(" ", "_")
        if (
            naming == "scrambled"
        ):  # the order of the names is then another too, and the suffix is wrong
            name = f"{sha256(clip.data).hexdigest()[:12]}.avi"
        assert naming != "lying" or told != clip.label
        paths.append(folder / naming / name)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(clip.data)
    return paths


def manifest(
    folder: Path, clips: Sequence[Clip], naming: str, labels: Sequence[str] | None = None
) -> Path:
    """The clips in the given order; only the label column tells the class."""
    rows = zip(
        copies(folder, clips, naming), labels or [clip.label for clip in clips], clips, strict=True
    )
    path = folder / f"{naming}-{sha256(repr(labels).encode()).hexdigest()[:4]}.csv"
    path.write_text(
        "path,label,split\n"
        + "".join(f"{file},{label},{clip.split}\n" for file, label, clip in rows)
    )
    return path


def other_labels(clips: Sequence[Clip]) -> list[str]:
    """The test clips get each other's labels, so that every one is wrong."""
    found = [clip.label for clip in clips]
    test = [i for i, clip in enumerate(clips) if clip.split == "test"]
    for i, j in zip(test, test[2:] + test[:2], strict=True):
        found[i] = clips[j].label
        assert found[i] != clips[i].label
    return found


@pytest.fixture
def predict(run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Predictions]:
    """`froster evaluate` with the nano CLIP; its predictions as they are before they are rounded
    for a file."""
    kept: list[Predictions] = []
    evaluate = froster.training.evaluate.evaluate

    def keep(*arguments, **options):
        evaluation = evaluate(*arguments, **options)
        kept.extend(evaluation.predictions.values())
        return evaluation

    monkeypatch.setattr("froster.training.evaluate.evaluate", keep)

    def call(data: Path, *options: object) -> Predictions:
        result = run(
            "evaluate", "--data", data, "--model", "nano", "--workers", 0, "--json", *options
        )
        assert result.code == 0, result.err
        assert not kept[-1].errors
        return kept[-1]

    return call


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)


@pytest.mark.parametrize("source", [pytest.param("world", marks=pytest.mark.slow), "real"])
def test_evaluate_does_not_see_names(source: str, request, predict, tmp_path: Path) -> None:
    clips = [clip for clip in request.getfixturevalue(source) if clip.split == "test"]
    options = ("--sampling", "dense", "--views", 2) if source == "real" else ()
    found = {naming: predict(manifest(tmp_path, clips, naming), *options) for naming in NAMINGS}
    for naming in NAMINGS[1:]:
        assert same(found[naming].views, found["true"].views), naming
        assert same(found[naming].logits, found["true"].logits) and same(
            found[naming].labels, found["true"].labels
        )
    # In another order; one video a batch, as sums may differ in the last bit with the size of a
    # batch.
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0)).tolist()
    alone = predict(manifest(tmp_path / "a", clips, "true"), "--batch-size", 1, *options)
    mixed = predict(
        manifest(tmp_path / "b", [clips[i] for i in order], "lying"), "--batch-size", 1, *options
    )
    assert same(mixed.logits, alone.logits[order])


@pytest.mark.parametrize("source", ["world", pytest.param("real", marks=pytest.mark.slow)])
def test_evaluate_scores_labels_but_does_not_see_them(
    source: str, request, predict, tmp_path: Path
) -> None:
    clips = [clip for clip in request.getfixturevalue(source) if clip.split == "test"]
    right = predict(manifest(tmp_path, clips, "true"))
    wrong = predict(manifest(tmp_path, clips, "true", other_labels(clips)))
    assert same(right.logits, wrong.logits)
    assert right.classes == wrong.classes and not (right.labels == wrong.labels).any()
    if source == "world":
        assert right.top(1) > 60 and wrong.top(1) < 30


def test_classify_does_not_see_names(
    run, world: list[Clip], real: list[Clip], tmp_path: Path
) -> None:
    clips = [*(clip for clip in world if clip.split == "test"), *real]
    (tmp_path / "labels.txt").write_text("\n".join(sorted({clip.label for clip in clips})))
    scores = []
    for naming in NAMINGS:
        files = copies(tmp_path, clips, naming)
        result = run(
            "classify",
            *files,
            "--labels-file",
            tmp_path / "labels.txt",
            "-m",
            "nano",
            "--top",
            99,
            "--json",
        )
        assert result.code == 0, result.err
        scores.append([entry["scores"] for entry in result.json["results"]])
    assert scores[0] == scores[1] == scores[2]


def trained(
    run, data: Path, out: Path
) -> tuple[str, dict[str, dict[str, Tensor]], list[list[str]], dict]:
    """Losses of all steps, the weights of both models, what was predicted of each test video, and
    the report."""
    result = run(
        "train",
        "--data",
        data,
        "--model",
        "nano",
        "--out",
        out,
        "--epochs",
        2,
        "--batch-size",
        4,
        "--frames",
        2,
        "--shots",
        2,
        "--workers",
        0,
        "--blend-points",
        0,
        "--json",
    )
    assert result.code == 0, result.err
    weights = {name: load_file(out / name / "model.safetensors") for name in ("model", "last")}
    with (out / "predictions_base.csv").open(newline="", encoding="utf-8") as file:
        logits = [row[4:] for row in csv.reader(file)]
    assert len(logits) == 1 + 8
    return (out / "metrics.jsonl").read_text(), weights, logits, json.loads(result.out)


@pytest.mark.usefixtures("no_page")
def test_training_does_not_see_names(run, world: list[Clip], tmp_path: Path) -> None:
    """Neither the names of any video nor the labels of the test videos change a loss, a weight or a
    logit."""
    losses, weights, logits, report = trained(
        run, manifest(tmp_path, world, "true"), tmp_path / "run-true"
    )
    assert losses.count('"loss"') == 2 * 2 + 2
    data = manifest(tmp_path, world, "lying", other_labels(world))
    again = trained(run, data, tmp_path / "run-other")
    assert again[0] == losses
    for name, state in weights.items():
        assert again[1][name].keys() == state.keys()
        assert all(same(again[1][name][key], tensor) for key, tensor in state.items()), name
    assert again[2] == logits
    assert again[3]["rows"] != report["rows"], "the accuracy alone follows the test labels"
