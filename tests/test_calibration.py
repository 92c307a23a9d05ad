"""Scores that mean what they say: the fit, the rule for "none of these", the command, and what
reads the result."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

import froster
from froster.cli import main
from froster.evaluation.calibration import (
    NONE,
    Calibration,
    LabelScores,
    NoneRule,
    fit,
    fit_temperature,
    leave_out,
    logistic,
    read_calibration,
    sizes,
    with_none,
)
from froster.evaluation.reliability import auroc, calibration_error, coverage, measured
from froster.inference.recognizer import Classification, Recognizer, load
from froster.inference.scorer import columns
from froster.inference.segments import merged
from froster.inference.timeline import smoothed
from froster.inference.watch import WatchResult
from froster.methods import METHODS
from froster.training.fine_tune import student_of
from froster.video.windows import WindowPlan
from froster.world.sets import render_set
from shared_files import World


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
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
    return code, found.out, found.err


def complaint(capfd: pytest.CaptureFixture[str], code: int, words: str, *arguments: object) -> None:
    found, _, err = run(capfd, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("froster:")]
    assert (found, len(lines)) == (code, 1), err
    assert words in lines[0], lines[0]


def calibrated_nano() -> Recognizer:
    """With what `calibrate` fits to it on 240 validation videos of the rendered world
    (docs/none-of-these.md)."""
    model = load("nano", device="cpu")
    model.calibration = Calibration(
        1.0, NoneRule(12.1, 43.2, 0.88), {"to": "the validation split", "videos": 240}
    )
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of base videos, five for validation and two for the test of each."""
    folder, rows = tmp_path_factory.mktemp("data"), ["path,label,split"]
    for split, each in (("val", 5), ("test", 2)):
        videos = World("base", each, split)  # type: ignore[arg-type]
        for i in range(6 * each):
            path = videos.write(i, folder / f"{split}{i}.mp4")
            rows.append(f"{path.name},{videos.label(i)},{split}")
    (folder / "videos.csv").write_text("\n".join(rows) + "\n")
    return folder


def known(n: int = 400, K: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, 1, K), drawn so that their soft-max is the truth, and labels drawn from it."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, K, generator=rng, dtype=torch.float64)
    return logits[:, None], torch.multinomial(logits.softmax(-1), 1, generator=rng)[:, 0]


def test_the_temperature_undoes_a_scale() -> None:
    logits, labels = known(4000)
    assert fit_temperature(logits[:, 0], labels) == pytest.approx(1, abs=0.06)
    assert fit_temperature(3 * logits[:, 0], labels) == pytest.approx(3, abs=0.2)
    sharp = measured(fit(3 * logits, labels, 1.0), 3 * logits, labels, 1.0)
    assert sharp["after"]["ece"] < 3 < sharp["before"]["ece"]


def test_logistic_regression_finds_its_coefficients() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 2, generator=rng, dtype=torch.float64) + torch.tensor([5.0, -3.0])
    y = (
        (0.5 - 2 * (x[:, 0] - 5) + (x[:, 1] + 3)).sigmoid() > torch.rand(20_000, generator=rng)
    ).double()
    bias, first, second = logistic(x, y)
    assert (first, second) == (pytest.approx(-2, abs=0.1), pytest.approx(1, abs=0.1))
    assert bias == pytest.approx(0.5 + 10 + 3, abs=0.6)


def test_leaving_the_label_out_really_does() -> None:
    logits = torch.arange(24.0).view(3, 8)
    labels = torch.tensor([2, 0, 7])
    for count in sizes(8):
        own = logits[torch.arange(3), labels].repeat_interleave(4)[:, None]
        with_own, without = leave_out(logits, labels, count)
        assert with_own.shape == without.shape == (12, count)
        assert (with_own == own).sum(1).tolist() == [1] * 12
        assert not (without == own).any()
    assert sizes(3) == [1, 2]
    assert sizes(24) == [1, 2, 4, 8, 16, 23]


def test_scores_and_none_sum_to_one_and_unreadable_videos_stay_out() -> None:
    logits, labels = known(60)
    logits[7] = float("nan")
    calibration = fit(logits, labels, 1.0)
    judged = calibration.score(logits, 1.0)
    total = judged.probabilities.sum(1) + judged.none
    assert total.isnan().nonzero().tolist() == [[7]]
    torch.testing.assert_close(total[~total.isnan()], torch.ones(59, dtype=torch.float64))
    assert measured(calibration, logits, labels, 1.0)["videos"] == 59


def test_both_ways_to_join_views_are_judged_on_the_scale_of_one_view() -> None:
    logits, _ = known(5)
    for fusion in ("logits", "probs"):
        one = Calibration().score(logits, 1.0, fusion)  # type: ignore[arg-type]
        three = Calibration().score(logits.expand(-1, 3, -1), 1.0, fusion)  # type: ignore[arg-type]
        torch.testing.assert_close(one.scores, three.scores)
        torch.testing.assert_close(one.cosine, three.cosine)
        rule = Calibration(1.0, NoneRule(1.0, 2.0, 0.5), {})
        torch.testing.assert_close(
            rule.score(logits, 1.0, fusion).none,
            rule.score(logits.expand(-1, 3, -1), 1.0, fusion).none,
        )


def test_a_model_that_cannot_tell_has_no_rule(tmp_path: Path) -> None:
    """Neither by a fit, nor by the rule that an older fit wrote in its place: P(none) = 1/2
    whatever the video."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 6
    logits = torch.randn(60, 1, 6, generator=rng, dtype=torch.float64)
    logits[torch.arange(60), 0, labels] -= 3  # its own label is the one that fits least
    assert fit(logits, labels, 1.0).none is None
    older = {"intercept": 0.0, "slope": 0.0, "per_label": 0.0}
    (tmp_path / "calibration.json").write_text(
        json.dumps({"temperature": 2, "none": older, "fitted": {"videos": 60}})
    )
    read = read_calibration(tmp_path)
    assert (
        read
        == Calibration(2.0, None, {"videos": 60})
        == Calibration(2.0, NoneRule(0.0, 0.0, 0.0), {"videos": 60})
    )
    assert read.rule == {"temperature": 2.0, "none": None}
    judged = read.score(logits, 1.0)
    assert judged.none is None and judged.probabilities is judged.scores
    report = measured(read, logits, labels, 1.0)
    assert report["none"] == [] and report["after"]["called_none"] is None


def test_without_a_fit_there_is_no_verdict() -> None:
    """The logits that openai/clip-vit-base-patch32 is published to give to its own example, two
    cats on a sofa."""
    assert Calibration() == Calibration(1.0, None, None)
    judged = Calibration().score(torch.tensor([[[24.5701, 19.3049]]]), 100.0)
    assert judged.none is None
    found = Classification(
        ["a photo of a cat", "a photo of a dog"],
        judged.scores[0].tolist(),
        None,
        float(judged.cosine),
    )
    assert (found.answer, found.none, found.probabilities) == (
        "a photo of a cat",
        None,
        found.scores,
    )
    assert found.scores[0] == pytest.approx(0.9949, abs=1e-4)
    assert found.cosine == pytest.approx(0.245701)


@pytest.mark.parametrize(
    ("scores", "none", "answer"),
    [
        ([0.6, 0.4], 0.45, "surfing"),
        ([0.6, 0.4], 0.5, "surfing"),
        ([0.6, 0.4], 0.51, NONE),
        ([0.25] * 4, 0.5, "surfing"),
        ([0.25] * 4, 0.500001, NONE),
        ([1.0], 0.49, "surfing"),
        ([0.9, 0.1], None, "surfing"),
    ],
)
def test_one_rule_for_the_answer(scores: list[float], none: float | None, answer: str) -> None:
    """`classify`, `timeline` and `watch` answer alike, and nothing but P(none) decides whether it
    is none."""
    labels = ["surfing", "skiing", "sailing", "sitting"][: len(scores)]
    judged = LabelScores(torch.tensor([scores]), None if none is None else torch.tensor([none]))
    probabilities = columns(judged)
    asked = labels if none is None else [*labels, NONE]
    assert (Classification(labels, scores, none).answer or NONE) == answer
    assert [s.label for s in merged(probabilities, [0.0, 1.0], asked)] == [answer]
    seen = WatchResult(0.0, asked, probabilities[0].tolist(), 0.0, 0, 0)
    assert (seen.label, seen.answer, seen.none) == (
        answer,
        None if answer == NONE else answer,
        pytest.approx(none),
    )
    assert seen.score == pytest.approx(none if answer == NONE else scores[0] * (1 - (none or 0)))


def test_rows_are_sorted_by_what_is_shown() -> None:
    assert with_none([("a", 0.5), ("b", 0.1)], 0.4) == [("a", 0.5), (NONE, 0.4), ("b", 0.1)]
    assert with_none([("a", 0.33), ("b", 0.22)], 0.45) == [(NONE, 0.45), ("a", 0.33), ("b", 0.22)]
    assert with_none([("a", 0.9), ("b", 0.1)], None) == [("a", 0.9), ("b", 0.1)]


UNLIKE_COSINES = {
    "actionclip": None,
    "bdc-clip": None,
    "dualpath": None,
    "efficient-prompt": 1 / 0.07,
    "ost": None,
}


@pytest.mark.usefixtures("few_templates")
@pytest.mark.parametrize("name", METHODS)
def test_no_method_gives_a_verdict_without_a_fit(name: str) -> None:
    """And the best cosine is one, where the logits are cosines at all."""
    method = METHODS[name]
    options = {"frames": 8} if "frames" in method.__dataclass_fields__ else {}
    nano, videos = load("nano", device="cpu"), render_set("base", 1, split="test")
    labels = videos.classes[:4]
    made = method.make(next(iter(method.variants), None), **options).for_classes(labels)
    model = student_of(nano, made)
    clips = videos.frames[:2, torch.arange(8) * 2][:, None]
    classes = model.class_embeddings(labels)
    judged = model.score_clips(clips, classes)
    assert judged.none is None
    assert model.logit_scale == pytest.approx(UNLIKE_COSINES.get(name, nano.logit_scale))
    if model.logit_scale is None:
        assert judged.cosine is None
        return
    seen = model.encode_clips(clips.flatten(0, 1))
    logits = model.model.logits(seen.video, classes, seen.context)
    torch.testing.assert_close(judged.cosine, logits.amax(1) / model.logit_scale)
    assert judged.cosine.abs().max() <= 1
    if classes.shape == (4, nano.clip.config.embed_dim) and seen.context is None:
        torch.testing.assert_close(judged.cosine, (seen.video @ classes.T).amax(1))


def test_logits_that_are_no_cosines_are_fitted_as_they_are() -> None:
    """Their energies at scale 1. Log-probabilities have lost theirs: every set of labels has the
    energy 0."""
    logits, labels = known(120)
    logits = logits + 4 * torch.nn.functional.one_hot(labels, 8)[:, None]
    free, scaled = fit(logits, labels, None), fit(logits, labels, 50.0)
    assert free.none is not None and scaled.none is not None
    assert free.none.slope == pytest.approx(scaled.none.slope / 50)
    one, other = free.score(logits, None), scaled.score(logits, 50.0)
    torch.testing.assert_close(one.none, other.none)
    assert one.cosine is None and other.cosine is not None
    assert fit(logits.log_softmax(-1), labels, None).none is None


def test_the_measures() -> None:
    assert auroc(torch.tensor([2.0, 3]), torch.tensor([0.0, 1])) == 100
    assert auroc(torch.tensor([1.0, 1]), torch.tensor([1.0, 1, 1])) == 50
    assert auroc(torch.tensor([0.0, 2]), torch.tensor([1.0])) == 50
    hit = torch.tensor([True, True, False, False])
    assert calibration_error(torch.tensor([0.5, 0.5, 0.5, 0.5]), hit) == 0
    assert calibration_error(torch.tensor([1.0, 1, 1, 1]), hit) == 50
    assert coverage(torch.tensor([0.9, 0.8, 0.7, 0.6]), hit, 2) == [
        {"coverage": 50, "accuracy": 100},
        {"coverage": 100, "accuracy": 50},
    ]


def test_nano_knows_when_none_of_the_labels_fits() -> None:
    """Its own fit, on videos of classes that it was not fitted to."""
    model, videos = calibrated_nano(), render_set("far", 1)
    steps = torch.arange(8) * 2
    right = wrong = 0
    for i in range(24):
        own, others = (
            videos.classes[i],
            [videos.classes[(i + 7) % 24], videos.classes[(i + 12) % 24]],
        )
        right += (
            model.classify(videos.frames[i, steps].permute(0, 2, 3, 1), [own, *others]).answer
            == own
        )
        wrong += model.classify(videos.frames[i, steps].permute(0, 2, 3, 1), others).answer is None
    assert right >= 18
    assert wrong >= 18


def test_the_table_shows_no_verdict_without_a_fit(data: Path, tmp_path: Path, capfd) -> None:
    sure = calibrated_nano().save(tmp_path / "sure")
    ask = ("classify", data / "val0.mp4", "--labels", "cat spinning, key pacing, moon glowing")
    code, text, err = run(capfd, *ask, "--model", "nano")
    assert code == 0 and NONE not in text and "probability" not in text
    assert "froster calibrate nano --data YOUR_VIDEOS --out FOLDER" in err
    found = json.loads(run(capfd, *ask, "--model", "nano", "--json")[1])
    (video,) = found["results"]
    assert found["calibrated"] is False and video["none"] is None
    assert video["answer"] == video["label"] == video["scores"][0]["label"]
    assert all(entry["probability"] == entry["score"] for entry in video["scores"])
    assert f"{video['cosine']:.3f}" in text and -1 < video["cosine"] < 1

    code, text, err = run(capfd, *ask, "--model", sure)
    assert code == 0 and "calibrate" not in err and "cosine" not in text
    (video,) = json.loads(run(capfd, *ask, "--model", sure, "--json")[1])["results"]
    shares = [float(line.rpartition(" %")[0].split()[-1]) for line in text.splitlines()[1:]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 4
    assert (
        f"{100 * video['none']:.1f}"
        == f"{shares[[NONE in line for line in text.splitlines()[1:]].index(True)]:.1f}"
    )


@pytest.mark.parametrize("fusion", ["logits", "probs"])
def test_a_timeline_and_classify_judge_alike(data: Path, fusion: str) -> None:
    """A video of one window, of which both moments see all."""
    model = calibrated_nano()
    model.config = dataclasses.replace(model.config, fusion=fusion, views=1)
    for labels in (["cat spinning", "key pacing"], ["moon glowing", "clock circling"]):
        found, line = (
            model.classify(data / "val2.mp4", labels),
            froster.timeline(model, data / "val2.mp4", labels),
        )
        assert line.calibrated and len(line.scores) == 2
        assert line.none.tolist() == pytest.approx([found.none] * 2, abs=1e-4)
        assert line.cosine.tolist() == pytest.approx([found.cosine] * 2, abs=1e-5)
        assert [s.label for s in line.segments] == [found.answer or NONE]
        said = line.to_dict()
        assert said["calibrated"] and said["labels"][-1] == NONE
        assert said["none"] == pytest.approx([found.none] * 2, abs=1e-4)


@pytest.mark.parametrize("fusion", ["logits", "probs"])
def test_the_windows_of_a_moment_are_judged_as_views(fusion: str) -> None:
    windows, plan = (
        10 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
        WindowPlan(2.0, 1.0, 8),
    )
    calibration = Calibration(1.5, NoneRule(1.0, 2.0, 0.5), {})
    joined, mean = (smoothed(windows, plan, 5.0, how) for how in (fusion, "logits"))
    found = calibration.score_fused(joined, mean, 10.0)
    for moment, covering in enumerate(
        (windows[:1], windows[:2], windows[1:3], windows[2:4], windows[3:])
    ):
        right = calibration.score(covering[None], 10.0, fusion)
        for name in ("scores", "none", "cosine"):
            torch.testing.assert_close(getattr(found, name)[moment], getattr(right, name)[0])


def test_calibrate_writes_what_classify_and_evaluate_read(
    data: Path, tmp_path: Path, capfd
) -> None:
    out, manifest = tmp_path / "model", data / "videos.csv"
    code, text, err = run(
        capfd, "calibrate", "nano", "--data", manifest, "--out", out, "--workers", 0, "--json"
    )
    assert code == 0, err
    found = json.loads(text)
    assert found["fitted"]["videos"] == 30, "the validation videos alone"
    assert {"before", "after", "none", "videos"} <= found["fitted"]["measured"].keys()
    assert found == json.loads((out / "calibration.json").read_text())
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert str(data) not in (out / "calibration.json").read_text()
    model = load(out, device="cpu")
    assert model.calibration.temperature == found["temperature"] != 1
    assert load(model.save(tmp_path / "again"), device="cpu").calibration == model.calibration

    ask = ("classify", data / "val0.mp4", "--labels", "cat spinning, key pacing", "--model", out)
    result = json.loads(run(capfd, *ask, "--json")[1])
    (video,) = result["results"]
    assert result["calibrated"]
    assert sum(entry["score"] for entry in video["scores"]) == pytest.approx(1)
    assert sum(entry["probability"] for entry in video["scores"]) + video["none"] == pytest.approx(
        1
    )
    assert "none of these" in run(capfd, *ask)[1]
    rows = tmp_path / "rows.jsonl"
    assert run(capfd, *ask, "--out", rows)[0] == 0
    (row,) = map(json.loads, rows.read_text().splitlines())
    assert (row["none"], row["score"]) == pytest.approx(
        (video["none"], video["scores"][0]["score"])
    )
    assert row["answer"] == video["answer"]
    complaint(
        capfd, 2, "calibration", *ask[:-1], "nano", "--out", rows
    )  # the same weights, other answers

    options = ("--data", manifest, "--workers", 0, "--out", tmp_path / "eval", "--json")
    report = json.loads(run(capfd, "evaluate", "--model", out, *options)[1])
    test = report["splits"]["test"]["reliability"]
    assert report["calibrated"] and test["videos"] == 12 and test["coverage"][-1]["coverage"] == 100
    assert test["coverage"][-1]["accuracy"] == report["splits"]["test"]["top1"]
    assert (tmp_path / "eval" / "coverage.png").is_file()


def test_one_label_alone_can_be_refused(data: Path) -> None:
    model = calibrated_nano()
    names = {
        row.split(",")[0]: row.split(",")[1]
        for row in (data / "videos.csv").read_text().splitlines()[1:]
    }
    own = model.classify(data / "val2.mp4", [names["val2.mp4"]])
    other = model.classify(data / "val2.mp4", ["red moon glowing"])
    assert own.scores == other.scores == [1.0]
    assert own.none < 0.5 < other.none
    assert other.answer is None


def test_a_timeline_of_a_calibrated_model_knows_none_of_these(data: Path) -> None:
    model = froster.load("nano", device="cpu")
    row = (data / "videos.csv").read_text().splitlines()[1]
    video, own = row.split(",")[:2]
    said = lambda label: {s.label for s in froster.timeline(model, data / video, [label]).segments}  # noqa: E731
    assert said("red moon glowing") == {"red moon glowing"}
    plain = froster.timeline(model, data / video, [own]).to_dict()
    assert (plain["calibrated"], plain["none"], plain["labels"]) == (False, None, [own])
    model = calibrated_nano()
    assert said("red moon glowing") == {"none of these"}
    assert said(own) == {own}
    scores = froster.timeline(model, data / video, [own]).scores
    torch.testing.assert_close(scores.sum(1), torch.ones(len(scores)))


def test_mistakes_are_one_line(data: Path, tmp_path: Path, capfd) -> None:
    manifest = data / "videos.csv"
    complaint(capfd, 2, "give --out FOLDER", "calibrate", "nano", "--data", manifest)
    folder = load("nano", device="cpu").save(tmp_path / "m")
    complaint(capfd, 2, "give --data", "calibrate", folder)
    unknown = ("--data", manifest, "--split", "dev")
    complaint(
        capfd, 1, "no video has the split 'dev'; there is test, val", "calibrate", folder, *unknown
    )
    rows = manifest.read_text().splitlines()
    (data / "few.csv").write_text("\n".join(rows[:19]) + "\n")
    few = ("--data", data / "few.csv", "--workers", 0)
    _, _, err = run(capfd, "calibrate", folder, *few)
    assert err.rstrip().endswith("too few to calibrate with: it takes 20 of 3"), (
        "it has --data already"
    )
    for missing in ("not_there", "not/there", tmp_path / "not there"):
        complaint(
            capfd, 2, f"no such file or folder: {missing}", "calibrate", missing, "--data", manifest
        )
    complaint(capfd, 2, "is no froster model folder", "calibrate", data, "--data", manifest)
    (data / "tests.csv").write_text("\n".join(row for row in rows if ",val" not in row) + "\n")
    complaint(capfd, 1, "cannot be tested there", "calibrate", folder, "--data", data / "tests.csv")
    for text in (
        "{",
        "{}",
        '{"temperature": 0, "none": {}, "fitted": {}}',
        '{"temperature": 1, "none": {"x": 1}, "fitted": {}}',
    ):
        (folder / "calibration.json").write_text(text)
        complaint(
            capfd,
            1,
            "calibration.json",
            "classify",
            data / "val0.mp4",
            "--labels",
            "a, b",
            "--model",
            folder,
        )
