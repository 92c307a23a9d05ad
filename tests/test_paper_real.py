"""The programme on the real data sets, on a handful of real clips and the nano CLIP: cost, runs,
reports, refusals."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from froster.cli import main
from froster.data.public import partition, readable
from froster.encoders.config import ARCHITECTURES
from froster.encoders.preprocessing import Preprocessing
from froster.errors import UsageError
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.recognizer import load
from froster.paper.cells import Cell, PaperTable, TableRow, froster_cell
from froster.paper.cost import frame_flops, hours, prompt_flops
from froster.paper.figures import draw
from froster.paper.programme import PaperRun, carry_out
from froster.paper.protocols import Options
from froster.paper.published import TABLE_1
from froster.paper.real_data import RealData
from froster.paper.real_runs import NOVEL_RECIPE, RealProgramme, setting
from froster.paper.tables import PICTURED, TABLES
from froster.training.fine_tune import student_of
from froster.utils.progress import progress
from golden import shared
from tiny_rehearsal import write_parts

FIXTURE = Path(__file__).with_name("fixtures") / "reproduce-real-0.1"

PLAIN = Cell("finetuned", preset="froster", tune="image")
SMALL = PaperTable(
    "Base-to-novel",
    "base-to-novel",
    (
        TableRow("Frozen CLIP (*)", None, TABLE_1["Frozen CLIP (*)"], "frozen"),
        TableRow("FROSTER", PLAIN, TABLE_1["FROSTER"]),
        TableRow("FROSTER + frozen CLIP", PLAIN, weights="ensemble"),
        TableRow("Text4Vis", None, {"UCF HM": 1.0}, "final"),
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
    """A training and a test video of each UCF101 class that there is, in one prepared
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
            for n, path in enumerate(paths[:2]):
                split = "train" if n < 1 else "test"
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
    cross = setting(PaperRun(froster_cell(), "cross-dataset", "k400", 1), base, Options())[1].recipe
    assert (cross.epochs, cross.batch_size, cross.tune) == (22, 64, "both")
    ucf = setting(PaperRun(froster_cell(), "base-to-novel", "ucf101", 2), base, Options())[1].recipe
    assert (ucf.batch_size, ucf.seed) == (64, 2)
    ssv2 = setting(
        PaperRun(froster_cell(), "base-to-novel", "ssv2", 1),
        base,
        Options(ssv2_flip=False, sampling="uniform"),
    )[1]
    assert (ssv2.recipe.average_from, ssv2.augment.flip, ssv2.sampling.kind) == (
        None,
        False,
        "uniform",
    )


@pytest.mark.usefixtures("few_templates")
def test_rows_train_test_and_resume(
    ucf: Path, froster: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TABLES, "table1", SMALL)
    monkeypatch.setitem(NOVEL_RECIPE, "ucf101", {"epochs": 1, "batch_size": 4})
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
    assert code == 0 and "froster prepare k400" in " ".join(said.split())
    assert "hours on one a100" in " ".join(printed.split())


def test_frozen_clip_across_data_sets_needs_no_training_data(ucf: Path) -> None:
    data = RealData(ucf, Options())
    (run,) = RealProgramme(load("nano", device="cpu"), data, ucf, 1).runs(TABLES["table2"])
    assert run.cell is None
    tests, _ = data.tests_of(run)
    assert [test.name for test in tests] == ["UCF*", "UCF 1", "UCF 2", "UCF 3"]
    assert len(tests[0].classes) == 101 and len(tests[1].items) == len(tests[0].items) / 2


FROZEN = PaperRun(None, "cross-dataset", "k400", 1)


@pytest.mark.usefixtures("few_templates")
def test_figures_of_the_runs_that_are_there(ucf: Path) -> None:
    data, base = RealData(ucf, Options()), load("nano", device="cpu")
    source = RealProgramme(base, data, ucf / "out", seeds=1)
    for name in ("UCF 1", "UCF 2", "UCF 3"):  # one of the tests is enough
        data.cross_tests.remove(next(test for test in data.cross_tests if test.name == name))

    def pictures() -> list[str]:
        draw(source, ["fig1", "fig4", "fig5"], bars, train=False)
        return sorted(path.name for path in source.out.glob("*.png"))

    with progress(quiet=True) as bars:
        assert carry_out(source, [FROZEN], bars) == []
        assert pictures() == ["fig1.png"]  # nothing is trained yet
        (run,) = source.runs_of(PICTURED["FROSTER"], "cross-dataset")
        assert run.cell is not None
        student_of(base, run.cell.setting(base)[0]).save(source.out / "models" / run.key)
        record = json.loads(source.path(FROZEN).read_text())
        record["tests"] |= {
            f"final, {labels}": record["tests"][f"frozen, {labels}"]
            for labels in ("plain", "described")
        }
        source.path(run).write_text(json.dumps(record))
        assert pictures() == ["fig1.png", "fig4_ucf101.png", "fig5_FROSTER.png"]
        assert all(Image.open(path).size[0] > 300 for path in source.out.glob("*.png"))
        assert len(source.class_scores(FROZEN, "frozen, plain")["UCF*"]) == 8
        # Nothing to do, whatever is broken in the meantime.
        assert carry_out(source, [FROZEN], bars) == []


def test_stored_runs_make_the_same_tables(
    ucf: Path, froster: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that froster 0.1 wrote, and the tables that it made of them (`fixtures/README.md`). The
    nano they were made with is not there any more: this one stands in for it."""
    cross = PaperTable(
        "Cross-dataset",
        "cross-dataset",
        (TableRow("Frozen CLIP", None, {"UCF*": 74.2, "UCF": 73.8}, "frozen"),),
    )
    monkeypatch.setitem(TABLES, "table1", SMALL)
    monkeypatch.setitem(TABLES, "table2", cross)
    out = shutil.copytree(FIXTURE, ucf / "out")
    settings, nano = out / "runs" / "settings.json", load("nano", device="cpu")
    stored = json.loads(settings.read_text())
    stored["clip"] = weights_fingerprint(nano)
    stored["architecture"]["text"]["vocab"] = nano.clip.config.text.vocab
    settings.write_text(json.dumps(stored))
    then = json.loads((out / "tables.json").read_text())
    page = (out / "tables.md").read_text()
    sizes = ("--model", "nano", "--shots", "2", "--base-sets", "2")
    where = ("--data-root", str(ucf), "--out", str(out))
    code, printed, _ = froster(
        "reproduce", "table1", "table2", *where, *sizes, "--report", "--json"
    )
    now = json.loads(printed)
    assert code == 0 and now["tables"] == then["tables"] and now["notes"] == then["notes"]
    without_versions = slice(3, None)
    assert (out / "tables.md").read_text().split("\n")[without_versions] == page.split("\n")[
        without_versions
    ]


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


def test_the_plan_of_the_miniature_is_json_too(froster: Callable, tmp_path: Path) -> None:
    out = str(tmp_path / "results")
    code, printed, said = froster(
        "reproduce", "table6", "--world", "--out", out, "--dry-run", "--json"
    )
    plan = json.loads(printed)
    assert code == 0 and plan["runs"]["all"] == plan["runs"]["to do"] > 0
    assert f"{plan['runs']['to do']} of them missing" in " ".join(said.split())


def test_er_zasr_says_what_it_needs_and_runs(
    ucf: Path, froster: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tiny files under the names that are asked for; it is scored between all classes, though
    eight have videos."""
    monkeypatch.setitem(
        TABLES, "table2", dataclasses.replace(TABLES["table2"], rows=TABLES["table2"].rows[:1])
    )
    (row,) = TABLES["table2"].rows
    assert row.name == "ER-ZASR" and row.cell is not None
    with (ucf / "ucf101.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file) if row["split"] == "train"]
    lines = [f"{path},{('archery', 'bowling')[i % 2]},train" for i, path in enumerate(paths)]
    (ucf / "k400.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    where = ("reproduce", "table2", "--data-root", str(ucf), "--out", str(ucf / "out"))
    command = (*where, "--model", "nano", "--workers", "0")
    plan = json.loads(froster(*command, "--dry-run", "--json")[1])
    lacking = ["tsm.pth", "bit.npz or bit.pth or bit", "bert", "concepts.txt or concepts"]
    assert plan["er-zasr"] == lacking
    assert plan["runs"]["possible"] == 0 and plan["tables"]["table2"]["flops"] > 1e16
    said = " ".join(froster(*command, "--dry-run")[2].split())
    assert "for the row ER-ZASR: tsm.pth" in said and "froster rehearse --features" in said
    (ucf / "er-zasr").mkdir()
    write_parts(ucf / "er-zasr", {})
    code, printed, _ = froster(*command, "--json")
    found = json.loads(printed)
    assert code == 0 and not found["failed"]
    (row,) = found["tables"]["table2"]
    assert set(row["ours"]) == {"UCF*", "UCF"} and row["difference"]["UCF"] == pytest.approx(
        row["ours"]["UCF"] - 51.8
    )
    (record,) = (json.loads(p.read_text()) for p in (ucf / "out" / "runs").glob("er-zasr*"))
    assert record["tests"]["final, described"]["UCF*"]["classes"] == 101
    assert any("our sentences as definitions" in note for note in found["notes"])
    assert froster(*command)[0] == 0  # nothing to do


@pytest.mark.usefixtures("few_templates")
def test_a_lost_mount_is_no_result(ucf: Path) -> None:
    rows = (ucf / "ucf101.csv").read_text().splitlines()
    empty = ucf / "empty.avi"
    empty.touch()
    (ucf / "ucf101.csv").write_text(
        "\n".join([rows[0], *(f"{empty},{row.split(',', 1)[1]}" for row in rows[1:])])
    )
    base = load("nano", device="cpu")
    source = RealProgramme(base, RealData(ucf, Options()), ucf / "out", seeds=1)
    with progress(quiet=True) as bars:
        failed = carry_out(source, [FROZEN], bars)
    assert "none of its" in failed[0] and not source.path(FROZEN).exists()


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
        (["table1", "--world", "--model", "ViT-B/32"], "--model: for --data-root"),
        (["table1", "--world", "--lists", ".", "--no-ssv2-flip"], "--lists, --ssv2-flip: for"),
        (["table1", "--data-root", ".", "--videos", "24"], "--videos: for --world"),
        (["table1", "--data-root", ".", "--rate", "1e-3"], "--rate: for --world"),
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
    base, other = load("nano", device="cpu"), load("nano", device="cpu")
    other.clip.config = dataclasses.replace(
        other.clip.config, preprocessing=Preprocessing(resize="squash")
    )
    data = RealData(tmp_path, Options())
    same, changed = (RealProgramme(model, data, tmp_path, seeds=1) for model in (base, other))
    same.check()
    same.check()
    with pytest.raises(UsageError, match="made with another preprocessing: go on"):
        changed.check()
    path = tmp_path / "runs" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            {k: v for k, v in settings.items() if k not in ("preprocessing", "architecture")}
        )
    )
    same.check()
    with pytest.raises(UsageError, match="made with another preprocessing: go on"):
        changed.check()
