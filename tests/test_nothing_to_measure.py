"""Statistics of nothing, of one, and of what is no number: said in words, and never at the cost of
a result."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from froster.cli.calibrate import calibrate
from froster.errors import DataError, WriteError
from froster.evaluation.calibration import Calibration, leave_out
from froster.evaluation.reliability import auroc, calibration_error, coverage, measured
from froster.paper.figures import rank_of_gain
from froster.report.distance import ClassGain, gain_scatter, rank_correlation
from froster.utils.interrupt import Interrupted
from froster.utils.progress import attempt
from results.claims import correlation_line, verdict
from shared_files import World

NAN = float("nan")


def test_measures_of_no_video() -> None:
    none = torch.zeros(0)
    for measure in (
        lambda: measured(Calibration(), torch.full((3, 1, 4), NAN), torch.tensor([0, 1, 2]), 60.0),
        lambda: measured(Calibration(), torch.zeros(0, 1, 4), none.long(), 60.0),
        lambda: leave_out(torch.zeros(0, 4), none.long(), 2),
        lambda: auroc(none, torch.ones(2)),
        lambda: auroc(torch.ones(2), none),
        lambda: calibration_error(none, none.bool()),
    ):
        with pytest.raises(DataError):
            measure()
    assert coverage(none, none.bool()) == []


def test_one_readable_video_can_be_measured() -> None:
    views = torch.full((3, 1, 4), NAN)
    views[1] = torch.tensor([0.0, 9.0, 0.0, 0.0])
    assert measured(Calibration(), views, torch.tensor([0, 1, 2]), 1.0)["videos"] == 1


def test_classes_that_all_gain_the_same_rank_nothing(tmp_path: Path) -> None:
    equal = [
        ClassGain("a", 0.1, 50.0, 50.0),
        ClassGain("b", 0.2, 60.0, 60.0),
        ClassGain("c", 0.3, 1.0, 1.0),
    ]
    rising = [
        ClassGain("a", 0.1, 50.0, 50.0),
        ClassGain("b", 0.2, 60.0, 70.0),
        ClassGain("c", 0.3, 1.0, 60.0),
    ]
    assert math.isnan(rank_correlation([0.1, 0.2], [0.0, 0.0])) and math.isnan(
        rank_correlation([], [])
    )
    assert rank_of_gain(equal) is None and rank_of_gain(rising) == pytest.approx(1)
    found = {"all": {"rank_correlation": [None, *map(rank_of_gain, [rising] * 5)]}}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "| +1.00 ± 0.00 | 5 | holds |" in correlation_line("VCLIP", found, "all")
    found["all"]["rank_correlation"] = [None] * 5
    assert "| – | 0 | too few seeds |" in correlation_line("VCLIP", found, "all")
    gain_scatter(equal, tmp_path / "equal.png")


def test_verdicts_leave_out_what_is_no_number() -> None:
    assert verdict([NAN, NAN]) == verdict([]) == verdict([None, 1.0]) == "too few seeds"
    assert verdict([1.0, NAN, 1.2, 0.9, None, 1.1, 1.0]) == "holds"
    assert verdict([math.inf, 2.0, -1.5, 0.5, -0.8, 1.0]) == "within noise"


def test_what_an_attempt_lets_through() -> None:
    said: list[str] = []

    def fail(error: Exception) -> None:
        raise error

    assert attempt("the sum", lambda: 3, said.append) == 3
    for error in (
        DataError("two\nlines"),
        ZeroDivisionError("by zero"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA\nfull"),
    ):
        assert attempt("the picture", lambda error=error: fail(error), said.append) is None
    assert said == [
        "the picture: two",
        "the picture: ZeroDivisionError: by zero",
        "the picture: MemoryError",
        "the picture: OutOfMemoryError: CUDA",
    ]
    for error in (
        WriteError("cannot write x: No space left on device"),
        Interrupted("stopped"),
        KeyboardInterrupt(),
    ):
        with pytest.raises(type(error)):
            attempt("the picture", lambda error=error: fail(error), said.append)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four readable videos of four classes, and as many that are not."""
    folder, rows = tmp_path_factory.mktemp("data"), ["path,label"]
    videos = World("base", 6)
    for i in range(24):
        label = videos.label(i)
        videos.write(i, folder / f"{i}.mp4")
        (folder / f"broken{i}.mp4").write_bytes(b"not a video")
        rows += [f"{i}.mp4,{label}", f"broken{i}.mp4,{label}"]
    (folder / "videos.csv").write_text("\n".join(rows) + "\n")
    return folder / "videos.csv"


def test_a_calibration_that_cannot_be_measured_is_written(
    manifest: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """The half that measures is the unreadable one."""
    readable = lambda items: torch.tensor(["broken" not in item.path.name for item in items])  # noqa: E731
    monkeypatch.setattr("froster.training.calibrate.choosing_half", readable)
    out = tmp_path / "calibrated"
    calibrate(
        "nano", data=manifest, out=out, workers=0, device="cpu", precision="float32", as_json=False
    )
    fitted = json.loads((out / "calibration.json").read_text())["fitted"]
    assert (fitted["videos"], fitted["measured"]) == (24, None), "readable videos are counted"
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "left out: how good the calibration is: none of the 24 videos to measure it by can be read"
        in said
    )
    assert "fitted to 24 videos of 4 classes" in said
    assert not (out / "calibration.png").exists()
