"""Scores that mean what they say: the fit, the rule for "none of these", the command, and what reads the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import froster
from froster.calibration import Calibration, NoneRule, fit, fit_temperature, leave_out, logistic, sizes
from froster.cli import main
from froster.recognizer import load
from froster.reliability import auroc, calibration_error, coverage, measured
from froster.world.files import write_video
from froster.world.sets import render_set


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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of base videos, five for validation and two for the test of each."""
    folder, rows = tmp_path_factory.mktemp("data"), ["path,label,split"]
    for split, each in (("val", 5), ("test", 2)):
        videos = render_set("base", each, split=split)  # type: ignore[arg-type]
        for i in range(6 * each):
            path = write_video(folder / f"{split}{i}.mp4", videos.frames[i])
            rows.append(f"{path.name},{videos.classes[int(videos.labels[i])]},{split}")
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
    y = ((0.5 - 2 * (x[:, 0] - 5) + (x[:, 1] + 3)).sigmoid() > torch.rand(20_000, generator=rng)).double()
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
    judged = calibration.judge(logits, 1.0)
    total = judged.probabilities.sum(1) + judged.none
    assert total.isnan().nonzero().tolist() == [[7]]
    torch.testing.assert_close(total[~total.isnan()], torch.ones(59, dtype=torch.float64))
    assert measured(calibration, logits, labels, 1.0)["videos"] == 59


def test_both_ways_to_join_views_are_judged_on_the_scale_of_one_view() -> None:
    logits, _ = known(5)
    for fusion in ("logits", "probs"):
        one = Calibration().judge(logits, 1.0, fusion)  # type: ignore[arg-type]
        three = Calibration().judge(logits.expand(-1, 3, -1), 1.0, fusion)  # type: ignore[arg-type]
        torch.testing.assert_close(one.scores, three.scores)
        torch.testing.assert_close(one.none, three.none)


def test_a_model_that_cannot_tell_says_one_half() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 6
    logits = torch.randn(60, 1, 6, generator=rng, dtype=torch.float64)
    logits[torch.arange(60), 0, labels] -= 3  # its own label is the one that fits least
    rule = fit(logits, labels, 1.0).none
    assert rule == NoneRule(0.0, 0.0, 0.0)
    assert rule(torch.tensor([0.1, 9.0]), 6).tolist() == [0.5, 0.5]


def test_the_measures() -> None:
    assert auroc(torch.tensor([2.0, 3]), torch.tensor([0.0, 1])) == 100
    assert auroc(torch.tensor([1.0, 1]), torch.tensor([1.0, 1, 1])) == 50
    assert auroc(torch.tensor([0.0, 2]), torch.tensor([1.0])) == 50
    hit = torch.tensor([True, True, False, False])
    assert calibration_error(torch.tensor([0.5, 0.5, 0.5, 0.5]), hit) == 0
    assert calibration_error(torch.tensor([1.0, 1, 1, 1]), hit) == 50
    assert coverage(torch.tensor([0.9, 0.8, 0.7, 0.6]), hit, 2) == [
        {"coverage": 50, "accuracy": 100}, {"coverage": 100, "accuracy": 50},
    ]  # fmt: skip


def test_nano_knows_when_none_of_the_labels_fits() -> None:
    """The default rule, on videos of classes that it was not fitted to."""
    model, videos = load("nano", device="cpu"), render_set("far", 1)
    steps = torch.arange(8) * 2
    right = wrong = 0
    for i in range(24):
        own, others = videos.classes[i], [videos.classes[(i + 7) % 24], videos.classes[(i + 12) % 24]]
        right += model.classify(videos.frames[i, steps].permute(0, 2, 3, 1), [own, *others]).answer == own
        wrong += model.classify(videos.frames[i, steps].permute(0, 2, 3, 1), others).answer is None
    assert right >= 18
    assert wrong >= 18


def test_calibrate_writes_what_classify_and_evaluate_read(data: Path, tmp_path: Path, capfd) -> None:
    out, manifest = tmp_path / "model", data / "videos.csv"
    code, text, err = run(capfd, "calibrate", "nano", "--data", manifest, "--out", out, "--workers", 0, "--json")
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
    assert sum(entry["probability"] for entry in video["scores"]) + video["none"] == pytest.approx(1)
    assert "none of these" in run(capfd, *ask)[1]
    rows = tmp_path / "rows.jsonl"
    assert run(capfd, *ask, "--out", rows)[0] == 0
    (row,) = map(json.loads, rows.read_text().splitlines())
    assert (row["none"], row["score"]) == pytest.approx((video["none"], video["scores"][0]["score"]))
    complaint(capfd, 2, "calibration", *ask[:-1], "nano", "--out", rows)  # the same weights, other answers
    assert "not calibrated" in run(capfd, *ask[:-1], "nano")[2]

    options = ("--data", manifest, "--workers", 0, "--out", tmp_path / "eval", "--json")
    report = json.loads(run(capfd, "evaluate", "--model", out, *options)[1])
    test = report["splits"]["test"]["reliability"]
    assert report["calibrated"] and test["videos"] == 12 and test["coverage"][-1]["coverage"] == 100
    assert test["coverage"][-1]["accuracy"] == report["splits"]["test"]["top1"]
    assert (tmp_path / "eval" / "coverage.png").is_file()


def test_one_label_alone_can_be_refused(data: Path) -> None:
    model = froster.load("nano", device="cpu")
    names = {row.split(",")[0]: row.split(",")[1] for row in (data / "videos.csv").read_text().splitlines()[1:]}
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
    model.calibration = Calibration(fitted={})
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
    complaint(capfd, 1, "no video has the split 'dev'; there is test, val", "calibrate", folder, *unknown)
    rows = manifest.read_text().splitlines()
    (data / "few.csv").write_text("\n".join(rows[:19]) + "\n")
    complaint(capfd, 1, "too few to calibrate with", "calibrate", folder, "--data", data / "few.csv", "--workers", 0)
    (data / "tests.csv").write_text("\n".join(row for row in rows if ",val" not in row) + "\n")
    complaint(capfd, 1, "cannot be tested there", "calibrate", folder, "--data", data / "tests.csv")
    for text in ("{", "{}", '{"temperature": 0, "none": {}, "fitted": {}}', '{"temperature": 1, "none": {"x": 1}, "fitted": {}}'):
        (folder / "calibration.json").write_text(text)
        complaint(capfd, 1, "calibration.json", "classify", data / "val0.mp4", "--labels", "a, b", "--model", folder)
