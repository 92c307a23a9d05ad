"""The programme on the real data sets, on a handful of real clips and the nano CLIP: cost, runs,
reports, refusals."""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from froster.cli import main
from froster.data.public import partition, readable
from froster.encoders.model import ARCHITECTURES
from froster.encoders.preprocessing import Preprocessing
from froster.errors import UsageError
from froster.inference.recognizer import load
from froster.paper.cells import Cell, froster_cell
from froster.paper.cost import frame_flops, hours, prompt_flops
from froster.paper.protocols import Options
from froster.paper.published import TABLE_1
from froster.paper.real import (
    NOVEL_RECIPE,
    Data,
    Job,
    check_settings,
    jobs_of,
    record_of,
    run_jobs,
    setting,
)
from froster.paper.real_figures import by_class, draw, first_run
from froster.paper.tables import PICTURED, TABLES, Row, Table
from froster.training.fine_tune import student_of
from froster.utils.progress import progress
from golden import shared

PLAIN = Cell("finetuned", preset="froster", tune="image")
SMALL = Table(
    "Base-to-novel",
    "base-to-novel",
    (
        Row("Frozen CLIP (*)", None, TABLE_1["Frozen CLIP (*)"], "frozen"),
        Row("FROSTER", PLAIN, TABLE_1["FROSTER"]),
        Row("FROSTER + frozen CLIP", PLAIN, weights="ensemble"),
        Row("Text4Vis", None, {"UCF HM": 1.0}, "final"),
    ),
)


@pytest.fixture
def froster(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process -> exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["froster", *arguments])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        found = capfd.readouterr()
        assert "Traceback" not in found.err
        return code, found.out, found.err

    return run


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Two training and two test videos of each UCF101 class that there is, in one prepared
    manifest."""
    with shared("videos", "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("clips/ucf101")]
    by_label: dict[str, list[str]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(str(shared("videos", row["path"])))
    with (tmp_path / "ucf101.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split", "split2", "split3"])
        for label, paths in by_label.items():
            for n, path in enumerate(paths[:4]):
                split = "train" if n < 2 else "test"
                table.writerow([path, label, split, split, split])
    base, novel = partition("ucf101")
    known = {readable(name) for name in (*base, *novel)}
    assert {readable(label) for label in by_label} <= known
    return tmp_path


def test_operations_are_those_of_the_reference_count() -> None:
    config = ARCHITECTURES["ViT-B/16"]
    assert frame_flops(config) / 1e9 == pytest.approx(35.1, abs=0.05)
    assert prompt_flops(config, 77) / 1e9 == pytest.approx(5.96, abs=0.005)
    assert hours(312e12 * 0.3 * 3600, "a100") == pytest.approx(1)


def test_the_released_settings_of_each_data_set() -> None:
    base = load("nano", device="cpu")
    cross = setting(Job(froster_cell(), "cross-dataset", "k400", 1), base, Options())[1].recipe
    assert (cross.epochs, cross.batch_size, cross.tune) == (22, 64, "both")
    ucf = setting(Job(froster_cell(), "base-to-novel", "ucf101", 2), base, Options())[1].recipe
    assert (ucf.batch_size, ucf.seed) == (64, 2)
    ssv2 = setting(
        Job(froster_cell(), "base-to-novel", "ssv2", 1),
        base,
        Options(ssv2_flip=False, sampling="uniform"),
    )[1]
    assert (ssv2.recipe.average_from, ssv2.augment.flip, ssv2.sampling.kind) == (
        None,
        False,
        "uniform",
    )


def test_rows_train_test_and_resume(
    ucf: Path, froster: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TABLES, "table1", SMALL)
    monkeypatch.setitem(NOVEL_RECIPE, "ucf101", {"epochs": 2, "batch_size": 4})
    out = ucf / "out"
    command = [
        "reproduce",
        "table1",
        "--data-root",
        str(ucf),
        "--out",
        str(out),
        "--model",
        "nano",
        "--shots",
        "1",
        "--base-sets",
        "2",
        "--workers",
        "0",
        "--json",
    ]
    code, printed, _ = froster(*command)
    found = json.loads(printed)
    assert code == 0
    rows = {row["row"]: row for row in found["tables"]["table1"]}
    tuned = rows["FROSTER"]
    records = [
        json.loads((out / "runs" / f"{PLAIN.key}_base-to-novel_ucf101_{n}.json").read_text())
        for n in (1, 2)
    ]
    base = [record["tests"]["final, plain"]["UCF base"]["top1"] for record in records]
    assert tuned["ours"]["UCF base"] == pytest.approx(statistics.fmean(base))
    assert tuned["difference"]["UCF base"] == pytest.approx(statistics.fmean(base) - 95.3)
    assert set(tuned["ours"]) == {"UCF base", "UCF novel", "UCF HM"}
    assert rows["FROSTER + frozen CLIP"]["ours"] and rows["Frozen CLIP (*)"]["ours"]
    assert rows["Text4Vis"]["ours"] == {}
    assert any("published 2088" in note for note in found["notes"])
    assert "95.3" in (out / "tables.md").read_text()
    assert (out / "models" / f"{PLAIN.key}_base-to-novel_ucf101_1" / "config.json").is_file()
    assert not any((out / "work").glob("*"))

    kept = {path: path.read_bytes() for path in (out / "runs").glob("*")}
    assert froster(*command)[0] == 0  # nothing to do
    assert {path: path.read_bytes() for path in (out / "runs").glob("*")} == kept
    for changed in (["--hmdb-labels", "fixed"], ["--hmdb-labels", "fixed", "--report"]):
        code, _, said = froster(*command, *changed)
        assert code == 2 and "hmdb_labels" in said


def test_what_is_missing_and_what_it_costs_is_said_first(ucf: Path, froster: Callable) -> None:
    out = ucf / "out"
    command = [
        "reproduce",
        "table1",
        "table2",
        "--data-root",
        str(ucf),
        "--model",
        "nano",
        "--out",
        str(out),
        "--dry-run",
    ]
    plan = json.loads(froster(*command, "--json")[1])
    assert plan["missing"] == ["k400", "hmdb51", "ssv2", "k600"]
    # Frozen CLIP and eight methods, three training sets each, and frozen CLIP on UCF101 across data
    # sets.
    assert plan["runs"]["to do"] == plan["runs"]["possible"] == 1 + 8 * 3 + 1
    assert plan["tables"]["table2"]["flops"] > plan["tables"]["table1"]["flops"] > 0
    assert not out.exists()
    code, printed, said = froster(*command)
    assert code == 0 and "froster prepare k400" in said and "hours on one a100" in printed


def test_frozen_clip_across_data_sets_needs_no_training_data(ucf: Path) -> None:
    data = Data(ucf, Options())
    jobs = jobs_of(TABLES["table2"], data, 1)
    assert [job.cell for job in jobs] == [None]
    tests = data.of(jobs[0])[2]
    assert [test.name for test in tests] == ["UCF*", "UCF 1", "UCF 2", "UCF 3"]
    assert len(tests[0].classes) == 101 and len(tests[1].items) == len(tests[0].items) / 2


def test_figures_of_the_runs_that_are_there(ucf: Path) -> None:
    data, out, base = Data(ucf, Options()), ucf / "out", load("nano", device="cpu")
    for name in ("UCF 1", "UCF 2", "UCF 3"):  # one of the tests is enough
        data.cross_tests.remove(next(test for test in data.cross_tests if test.name == name))
    with progress(quiet=True) as bars:
        assert run_jobs([first_run(None)], base, data, out, bars, 0) == []
    names = ["fig1", "fig4", "fig5"]
    assert [path.name for path in draw(names, data, base, 1, out)] == [
        "fig1.png"
    ]  # nothing is trained yet
    job = first_run(PICTURED["FROSTER"])
    assert job.cell is not None
    student_of(base, job.cell.setting(base)[0]).save(out / "models" / job.key)
    record = json.loads(record_of(first_run(None), out).read_text())
    record["tests"] |= {
        f"final, {labels}": record["tests"][f"frozen, {labels}"]
        for labels in ("plain", "described")
    }
    record_of(job, out).write_text(json.dumps(record))
    found = draw(names, data, base, 1, out)
    assert [path.name for path in found] == ["fig1.png", "fig4_ucf101.png", "fig5_FROSTER.png"]
    assert all(Image.open(path).size[0] > 300 for path in found)
    assert len(by_class(None, "frozen, plain", out)["UCF*"]) == 8
    with progress(quiet=True) as bars:  # nothing to do, whatever is broken in the meantime
        assert run_jobs([first_run(None)], base, data, out, bars, 0) == []


def test_the_plan_needs_no_weights(
    ucf: Path, froster: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("froster.cli.reproduce.load_model", None)
    code, printed, _ = froster(
        "reproduce", "table2", "--data-root", str(ucf), "--dry-run", "--json"
    )
    plan = json.loads(printed)
    assert code == 0 and plan["hours"] > 0 and "k400" in plan["missing"]
    assert plan["tables"]["table2"]["flops"] > 1e18


def test_a_lost_mount_is_no_result(ucf: Path) -> None:
    rows = (ucf / "ucf101.csv").read_text().splitlines()
    empty = ucf / "empty.avi"
    empty.touch()
    (ucf / "ucf101.csv").write_text(
        "\n".join([rows[0], *(f"{empty},{row.split(',', 1)[1]}" for row in rows[1:])])
    )
    data, out = Data(ucf, Options()), ucf / "out"
    with progress(quiet=True) as bars:
        failed = run_jobs([first_run(None)], load("nano", device="cpu"), data, out, bars, 0)
    assert "none of its" in failed[0] and not record_of(first_run(None), out).exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["table1"], "--data-root"),
        (["table1", "--world", "--data-root", "."], "--data-root"),
        (["table9", "--world"], "table9"),
        (["table1", "--data-root", "nowhere"], "nowhere"),
        (["table1", "--data-root", ".", "--model", "nano", "--gpu", "abacus"], "abacus"),
        (["table1", "--data-root", ".", "--clamp", "odd"], "odd"),
        (["table1", "--data-root", ".", "--model", "nano"], "froster prepare"),
        (["table1", "--world", "--shard", "2/2"], "--shard"),
    ],
)
def test_refusals(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, froster: Callable
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = froster("reproduce", *given)
    assert code == 2 and said in error


def test_runs_of_another_preprocessing_are_not_mixed(tmp_path: Path) -> None:
    """With equal weights; the settings of an older version are taken for CLIP's own preprocessing."""
    data, base, other = (
        Data(tmp_path, Options()),
        load("nano", device="cpu"),
        load("nano", device="cpu"),
    )
    other.clip.config = dataclasses.replace(
        other.clip.config, preprocessing=Preprocessing(resize="squash")
    )
    check_settings(base, data, tmp_path)
    check_settings(base, data, tmp_path)
    with pytest.raises(UsageError, match="made with another preprocessing: go on"):
        check_settings(other, data, tmp_path)
    path = tmp_path / "runs" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            {k: v for k, v in settings.items() if k not in ("preprocessing", "architecture")}
        )
    )
    check_settings(base, data, tmp_path)
    with pytest.raises(UsageError, match="made with another preprocessing: go on"):
        check_settings(other, data, tmp_path)
