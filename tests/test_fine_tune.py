"""Fine-tuning as people do it: a folder of class folders, watched, stopped early, and reported on
one page."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from froster.cli import main
from froster.data.items import Item
from froster.data.public import classes as classes_of
from froster.data.public import readable
from froster.data.splits import Split
from froster.inference.recognizer import Recognizer, load
from froster.methods import VCLIP
from froster.methods.recipe import Preset, Recipe
from froster.text.class_file import write_classes
from froster.training.distill_options import Distill
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.measure import EvalSet, Measuring, measure
from froster.training.reporter import Reporter
from froster.training.run_folder import read_run
from froster.training.trainer import Trained, stops_early
from froster.training.validation import Validator, foreign_labels, validation_sets
from froster.world.clips import WorldClips
from froster.world.sets import render_set
from shared_files import World
from train_worker import small_world

pytestmark = pytest.mark.usefixtures("few_templates_throughout")

SECTIONS = [
    "Accuracy before and after",
    "What was kept of CLIP",
    "Habits of the classes",
    "How far a score can be trusted",
    "What is taken for what: the classes it was trained on",
    "What is taken for what: classes it never saw in training",
    "The worst mistakes",
    "Between CLIP and the tuned model",
    "Data and settings",
    "Use the model",
]


def command(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    before, sys.argv = sys.argv, ["froster", *map(str, arguments)]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    found = capfd.readouterr()
    assert "Traceback" not in found.err + found.out
    return code, found.out, " ".join(found.err.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes of nine videos each."""
    root = tmp_path_factory.mktemp("data") / "videos"
    videos = World("base", 9)
    for i in range(45):
        name = videos.label(i).replace(" ", "_")
        videos.write(i, root / name / f"{i}.mp4")
    return root


def test_a_folder_becomes_a_model_and_a_report(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    out = tmp_path / "run"
    train = (
        "train",
        "--data",
        folder,
        "--model",
        "nano",
        "--out",
        out,
        "--novel-fraction",
        0.4,
        "--frames",
        2,
        "--workers",
        0,
    )
    few = ("--epochs", 2, "--holdout", 0.2, "--validation", 0.5)
    code, text, err = command(capfd, *train, *few, "--blend-points", 3, "--json")
    assert code == 0, err
    report = json.loads(text)
    assert (
        "9 training videos of 3 base classes; test: 6 base, 18 novel (2 classes); validation: 12"
        in err
    )
    assert "2 of 5 classes held out as novel: " in err
    assert (report["training_videos"], report["watched_videos"]) == (9, 12)
    assert "warning: 3 of 3 classes have fewer than 4 training videos" in err
    assert "all training videos are used, 3 to 3 a class" in err
    assert [values["epoch"] for values in report["history"]] == list(range(1, report["epochs"] + 1))
    change = r"[\d.]+ -> [\d.]+ \([+-][\d.]+ ± [\d.]+, [a-z ]+\)"
    together = r"asked together: base [\d.]+ -> [\d.]+, novel [\d.]+ -> [\d.]+, HM [\d.]+ -> [\d.]+"
    line = (
        rf"gained {change} on 12 base videos \(chance 33.3\); kept {change} on 18 novel videos"
        r" \(chance 50.0\), "
    )
    assert re.search(rf"epoch 1: {line}\d+ % as CLIP answers; {together}", err)
    assert report["history"][0].keys() >= {
        "base_error",
        "novel_error",
        "hm_together",
        "hm_together_frozen",
    }
    assert report["blend"]["choosing"]["of"] == "the validation videos"
    assert report["reliability"]["videos"] == 6
    page = (out / "report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == SECTIONS
    assert 'src="' not in re.sub(r'src="data:image/(png|jpeg);base64,', "", page), (
        "the page needs no other file"
    )
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert pictures and all(base64.b64decode(picture)[:2] == b"\xff\xd8" for picture in pictures)
    confusions = Counter(
        re.findall(r"<figcaption[^>]*>said: (.*?) \(\d+ %\), right: (.*?) \(", page)
    )
    assert confusions and max(confusions.values()) <= 3, "not the same confusion again and again"
    assert f"froster blend {out}" in page and f"froster push {out}" in page
    assert read_run(out).source.watch == 0.5
    monkeypatch.setattr("froster.cli.train.write_page", lambda result: None)
    code, text, err = command(capfd, "blend", out, "--points", 2, "--workers", 0, "--json")
    assert code == 0, err
    assert json.loads(text)["choosing"]["of"] == "the validation videos"
    resume = (*few, "--blend-points", 0, "--resume")
    again = json.loads(command(capfd, *train, *resume, "--json")[1])
    assert {**again, "blend": 0} == {**report, "blend": 0}
    assert "holds a run with patience" in command(capfd, *train, *resume, "--patience", 1)[2]


def test_without_novel_classes_it_asks_for_other_labels(
    folder: Path, tmp_path: Path, capfd
) -> None:
    train = (
        "train",
        "--data",
        folder,
        "--model",
        "nano",
        "--out",
        tmp_path / "run",
        "--frames",
        2,
        "--workers",
        0,
        "--batch-size",
        30,
    )
    code, text, err = command(
        capfd,
        *train,
        "--epochs",
        1,
        "--validation",
        0.6,
        "--blend-points",
        0,
        "--no-look",
        "--json",
    )
    assert code == 0, err
    report = json.loads(text)
    assert report["history"][0]["foreign"] == 40
    assert "% as CLIP answers among 40 other labels" in err
    assert report["blend"] is None
    assert "Between CLIP" not in (tmp_path / "run" / "report.html").read_text()
    fitted = json.loads((tmp_path / "run" / "model" / "calibration.json").read_text())["fitted"]
    assert (fitted["to"], fitted["videos"]) == ("the validation videos", 20)


def test_patience_needs_validation_videos(folder: Path, tmp_path: Path, capfd) -> None:
    train = (
        "train",
        "--data",
        folder,
        "--model",
        "nano",
        "--out",
        tmp_path / "run",
        "--validation",
        0,
        "--patience",
        2,
    )
    code, _, err = command(capfd, *train)
    assert (code, "--patience needs validation videos" in err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_when_a_run_stops_early() -> None:
    history = lambda *values: [{"base": value} for value in values]  # noqa: E731
    assert not stops_early(history(50, 40, 40), 3)
    assert stops_early(history(50, 40, 40, 40), 3)
    assert not stops_early(history(50, 40, 40, 50, 40, 40), 3), (
        "an epoch that equals the best is as good"
    )
    assert not stops_early(history(50, 40, 40, 40), None) and not stops_early(
        history(50, 40, 40, 40), 0
    )
    assert not stops_early([], 1)


class Killed(Exception):
    pass


Validate = Callable[[Recognizer, int], dict[str, float]]


def tuned(out: Path, validate: Validate | None, epochs: int = 5) -> Trained:
    """A run that stops after two epochs without a gain, if it is validated."""
    base = load("nano", device="cpu")
    clips = small_world(base)
    patience = None if validate is None else 2
    recipe = Recipe(
        epochs=epochs,
        batch_size=24,
        lr=1e-3,
        warmup_epochs=1,
        precision="float32",
        patience=patience,
    )
    how, hooks = FineTuning(VCLIP(), Distill(), recipe), Hooks(validate=validate)
    return fine_tune(base, how, clips, clips.videos.classes, out, hooks)[1]


def as_measured(accuracies: Sequence[float], kill_after: int | None = None) -> Validate:
    """As if these had been measured; the run dies while epoch `kill_after` is."""

    def validate(student: Recognizer, epoch: int) -> dict[str, float]:
        if epoch == kill_after:
            raise Killed
        return {"epoch": epoch, "base": accuracies[epoch - 1]}

    return validate


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_stops_early_and_so_does_a_resumed_one(tmp_path: Path) -> None:
    accuracies = [40.0, 60.0, 50.0, 50.0, 90.0]
    whole = tuned(tmp_path / "whole", as_measured(accuracies))
    assert (whole.epochs, whole.averaged) == (4, 3)
    assert [values["base"] for values in whole.history] == accuracies[:4]
    with pytest.raises(Killed):
        tuned(tmp_path / "killed", as_measured(accuracies, kill_after=4))
    resumed = tuned(tmp_path / "killed", as_measured(accuracies))
    assert (resumed.epochs, resumed.history) == (4, whole.history)
    assert equal(whole.last, resumed.last) and equal(whole.average, resumed.average)
    again = tuned(tmp_path / "whole", as_measured(accuracies))
    assert (again.epochs, again.history) == (4, whole.history), "a stopped run does not go on"
    assert equal(whole.average, again.average)


def test_validation_changes_no_weight(tmp_path: Path) -> None:
    base = load("nano", device="cpu")
    videos = render_set("base", 1, split="val")
    test = EvalSet(
        "base",
        WorldClips(videos, base.config.sampling, train=False),
        videos.classes,
        videos=videos.classes,
    )
    foreign = dataclasses.replace(test, name="foreign")
    measure = Validator(base, [test, foreign])

    def validate(student: Recognizer, epoch: int) -> dict[str, float]:
        torch.rand(7)  # nor does a measurement that draws random numbers
        return measure(student, epoch)

    watched = tuned(tmp_path / "a", validate, epochs=2)
    alone = tuned(tmp_path / "b", None, epochs=2)
    assert watched.epochs == alone.epochs == 2
    assert equal(watched.last, alone.last) and equal(watched.average, alone.average)
    assert watched.history[0]["base_frozen"] > 20 and watched.history[0]["agreement"] < 100


def test_other_labels_are_asked_of_the_same_features() -> None:
    """To the bit what a pass of their own says, with half of the passes."""
    base, videos = load("nano", device="cpu"), render_set("base", 1, split="val")
    clips = WorldClips(videos, base.config.sampling, train=False)
    classes = {"base": videos.classes, "foreign": foreign_labels(videos.classes)}
    sets = [EvalSet(name, clips, labels) for name, labels in classes.items()]
    passes: list[str] = []
    now = "apart"
    base.clip.visual.register_forward_hook(lambda *_: passes.append(now))
    apart = measure(base, sets)
    now = "together"
    together = Validator(base, sets).measure(base)
    assert passes.count("apart") == 2 * passes.count("together") > 0
    assert together.keys() == apart.keys()
    for name, predictions in together.items():
        assert torch.equal(predictions.logits, apart[name].logits)
    assert len(together["foreign"].labels) == len(clips)


def test_foreign_labels_are_not_the_training_s() -> None:
    names = foreign_labels(["Abseiling", "archery"])
    assert len(names) == len(set(names)) == 40
    assert not {"abseiling", "archery"} & {name.casefold() for name in names}
    every = list(map(readable, classes_of("k400")))
    assert foreign_labels([name.replace(" ", "_") for name in every]) == []
    assert foreign_labels(every[3:]) == every[:3]


def test_what_can_be_asked_for_no_other_labels_is_validated_without(tmp_path: Path) -> None:
    """A closed set knows its classes alone, a file of class embeddings those of the file."""
    nano = load("nano", device="cpu")
    names = ["key glowing", "boat pacing", "bird hopping", "cat spinning"]
    write_classes(tmp_path / "classes.safetensors", names, nano.class_embeddings(names))
    given = load("nano", device="cpu", classes=tmp_path / "classes.safetensors")
    items = [Item(Path(f"{i}.mp4"), name) for i, name in enumerate(names[:2])]
    parts = Split(names[:2], [], items, [], [], [], items)

    def sets(model: Recognizer, closed: bool) -> dict[str, list[str]]:
        every = validation_sets(model, Preset(), parts, {}, 0, closed)
        return {s.name: s.classes for s in every}

    assert len(sets(nano, False)["foreign"]) == 40
    assert sets(given, False) == {"base": names[:2], "foreign": names[2:]}
    assert sets(nano, True) == {"base": names[:2]}
    lines: list[str] = []
    reporter = Reporter()
    reporter.say = lines.append  # type: ignore[method-assign]
    measure = Validator(nano, [few(nano, "base")], Measuring(reporter=reporter))
    assert "agreement" not in measure(nano, 1) and "; kept" not in lines[0]


def few(model: Recognizer, name: str) -> EvalSet:
    """Four clips, among their own labels."""
    clips = WorldClips(render_set("base", 1, split="val"), model.config.sampling, train=False)
    some = Subset(clips, range(4))
    some.label, some.views = clips.label, 1  # type: ignore[attr-defined]
    return EvalSet(name, some, clips.videos.classes)
