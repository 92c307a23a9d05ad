"""The programme in miniature: its tables, its verdicts, and runs that go on where they stopped."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from froster.errors import DataError, FrosterWarning, UsageError
from froster.evaluation.metrics import harmonic_mean
from froster.inference.recognizer import Recognizer, load
from froster.methods import METHODS
from froster.paper import miniature
from froster.paper.cells import ALONE, FROSTER, Cell
from froster.paper.miniature import Miniature
from froster.paper.programme import PaperRun, carry_out
from froster.paper.published import TABLE_1, TABLE_3_ALONE, TABLE_4
from froster.paper.results import write_report
from froster.paper.tables import TABLES
from froster.text.sentences import with_descriptions
from froster.training import plan as experiment
from froster.training.distill_options import Distill
from froster.training.fine_tune import FineTuning, student_of
from froster.utils.files import write_text
from froster.utils.progress import progress
from froster.world.sets import SETS, sentences
from results.claims import SEEDS, claims, family_claims, paired, verdict

ROWS = (row for table in TABLES.values() for row in table.rows)
CELLS = list(dict.fromkeys(row.cell for row in ROWS if row.cell is not None))


def test_printed_harmonic_means_follow_from_base_and_novel() -> None:
    """All but VPT's, which the paper rounds otherwise."""
    for name, row in TABLE_1.items():
        for dataset in ("K400", "HMDB", "UCF", "SSv2"):
            base, novel, hm = (row[f"{dataset} {part}"] for part in ("base", "novel", "HM"))
            assert base and novel and hm
            assert abs(harmonic_mean(base, novel) - hm) < (0.12 if name == "VPT (*)" else 0.06), (
                name,
                dataset,
            )


def test_every_row_has_a_run_or_is_a_quotation() -> None:
    for table in TABLES.values():
        assert len({row.name for row in table.rows}) == len(table.rows)
        for row in table.rows:
            assert row.cell is not None or row.weights == "frozen" or row.published
    keys = [cell.key for cell in CELLS]
    assert len(set(keys)) == len(keys)
    printed = [row for row in TABLES["table3"].rows if row.published]
    assert len(TABLES["table3"].rows) == 48 and len(printed) == 2 * len(TABLE_3_ALONE)
    assert sum(bool(row.published) for row in TABLES["table4"].rows) == len(TABLE_4)


@pytest.mark.usefixtures("few_templates")
def test_every_network_of_the_tables_can_be_tested_on_new_classes() -> None:
    """With plain labels and with described ones: both are scored at the end of every run."""
    base, novel = load("nano", device="cpu"), SETS["far"].classes
    makes = {(cell.method, cell.variant): cell for cell in CELLS if cell.on_clip}
    with warnings.catch_warnings(
        action="ignore", category=FrosterWarning
    ):  # TC-CLIP's, of cut texts
        for cell in makes.values():
            student = student_of(base, cell.setting(base)[0])
            for described in (False, True):
                student.class_embeddings(miniature.texts(novel, described))


def test_er_zasr_is_left_out_of_the_miniature_and_said(tmp_path: Path) -> None:
    source = Miniature(load("nano", device="cpu"), tmp_path, 1, 8, 24)
    runs = source.runs(TABLES["table2"])
    assert runs and all(run.cell and run.cell.on_clip for run in runs)
    assert source.notes(["table2"]) == source.notes(["after"]) == [miniature.NOT_HERE]
    assert source.notes(["table1"]) == []


def test_claims_are_about_runs_of_the_tables() -> None:
    keys = {cell.key for cell in CELLS}
    for claim in [*claims(), *family_claims()]:
        for cell, _ in (claim.better, claim.worse):
            assert cell is None or cell.key in keys, claim.text


def test_verdicts() -> None:
    assert verdict([1.0, 1.2, 0.9, 1.1, 1.0]) == "holds"
    assert verdict([-1.0, -1.2, -0.9, -1.1, -1.0]) == "does not hold"
    assert verdict([2.0, -1.5, 0.5, -0.8, 1.0]) == "within noise"
    assert verdict([1.0]) == "too few seeds"


def test_every_class_of_the_world_has_a_sentence() -> None:
    for name, classes in SETS.items():
        labels = with_descriptions(classes.classes, sentences([name]))
        assert all(": the " in label for label in labels)


@pytest.mark.usefixtures("few_templates")
def test_runs_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SMALL_RECIPE",):
        monkeypatch.setattr(
            experiment, name, experiment.dataclasses.replace(experiment.SMALL_RECIPE, epochs=1)
        )
    cells = [Cell("aim", "froster", tune="image"), Cell("finetuned", preset="official")]
    source = Miniature(load("nano", device="cpu"), tmp_path, seeds=1, shots=1, videos=24)
    runs = [run for cell in cells for run in source.runs_of(cell, "base-to-novel")]
    with progress(quiet=True) as bars:
        assert carry_out(source, runs[:1], bars) == []
        first = source.path(runs[0]).read_text()
        assert carry_out(source, runs, bars) == []
    assert source.path(runs[0]).read_text() == first
    record = json.loads(source.path(runs[1]).read_text())
    assert record["results"].keys() == {
        "final, plain",
        "final, described",
        "ensemble, plain",
        "ensemble, described",
    }
    assert all(
        0 <= value <= 100 for scores in record["results"].values() for value in scores.values()
    )
    right = sum(record["correct"]["final, plain"]["base"])
    assert record["results"]["final, plain"]["base"] == pytest.approx(100 * right / 24)
    data = write_report(source, ["table1"], "# head", {})
    rows = {row["row"]: row["ours"]["base"] for row in data["tables"]["table1"]}
    assert len(rows["Frozen CLIP (*)"]) == len(rows["AIM"]) == 1 and rows["X-CLIP (*)"] == []
    assert "ViFi-CLIP" in (tmp_path / "tables.md").read_text()
    source.check()
    with pytest.raises(UsageError, match=r"have \{'shots': 1\}: go on with these"):
        Miniature(source.base, tmp_path, seeds=1, shots=2, videos=24).check()


@pytest.mark.parametrize("text", ["", '{"shots": 1', "[1]", "{}"])
def test_a_damaged_run_is_named(text: str, tmp_path: Path) -> None:
    """Where tables are made of it, and before more runs are."""
    source = Miniature(load("nano", device="cpu"), tmp_path, seeds=1, shots=1, videos=24)
    (run,) = source.runs(TABLES["table6"])[:1]
    write_text(source.path(run), text)
    for read in (source.check, source.effort, lambda: source.scores(run, "final, described")):
        with pytest.raises(DataError, match=f"{source.path(run).name}: damaged; remove it"):
            read()


def test_runs_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    """Whichever of them were stored, and of a CLIP in other numbers."""
    base, rounded = (load("nano", device="cpu", precision=p) for p in ("float32", "bfloat16"))
    sizes = {"seeds": 1, "shots": 1, "videos": 24}
    source = Miniature(base, tmp_path, **sizes)
    stored = {"shots": 1, "videos": 24, "results": {}, "correct": {}}
    path = source.path(source.runs(TABLES["table6"])[0])
    write_text(path, json.dumps(stored))
    source.check()
    for other in (
        Miniature(base, tmp_path, **{**sizes, "shots": 2}),
        Miniature(rounded, tmp_path, **sizes),
    ):
        with pytest.raises(UsageError, match="go on with these, or choose another --out"):
            other.check()
    write_text(path, json.dumps({**stored, "clip": "another"}))
    with pytest.raises(UsageError, match=r"have .*'clip': 'another'"):
        source.check()


def test_runs_are_compared_seed_by_seed() -> None:
    """Also where some of them were not made."""
    accuracies = {FROSTER: {0: 50, 2: 70, 3: 80}, ALONE: {0: 40, 1: 10, 3: 60}, None: {0: 30}}

    class Stored(Miniature):
        def __init__(self) -> None:
            self.seeds = SEEDS

        def scores(self, run: PaperRun, kind: str) -> dict[str, float]:
            seeds = accuracies[run.cell]
            return {"far": seeds[run.number]} if run.number in seeds else {}

    froster, alone, frozen = ((cell, "") for cell in accuracies)
    assert paired(Stored(), froster, alone, ["far"]) == [10, 20]
    assert paired(Stored(), alone, frozen, ["far"]) == [10, -20, 30]
    assert paired(Stored(), frozen, froster, ["far"]) == [-20, -40, -50]


def test_published_numbers_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    source = Miniature(load("nano", device="cpu"), tmp_path, seeds=1, shots=1, videos=24)
    rows = write_report(source, ["after", "family"], "# Later", {})["tables"]["after"]
    assert all(row["caveat"] for row in rows[1:]) and "caveat" not in rows[0]
    assert {row["row"]: row["run"] for row in rows}["TACO"].startswith("finetuned_both_taco")
    later, family = (tmp_path / "tables.md").read_text().split("## family")
    assert "| of the published numbers |" in later and "named by accuracies" in later
    assert "of the published numbers" not in family and "| anchors, EMA, projection |" in family


def test_the_family_is_every_target_with_both_teachers() -> None:
    cells = [row.cell for row in TABLES["family"].rows]
    losses = [cell.loss(METHODS["vclip"]()) for cell in cells if cell is not None]
    distilled = [loss for loss in losses if loss.kind != "none"]
    targets = {(loss.target, loss.kind, loss.distance) for loss in distilled}
    both = {(loss.target, loss.kind, loss.distance, loss.teacher) for loss in distilled}
    assert len(targets) == 9 and len(both) == 18
    assert {target for target, *_ in targets} == set(get_args(get_type_hints(Distill)["target"]))


def test_an_ema_teacher_is_fitted_to_the_steps_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its published decay it would not move in so few steps."""
    trained: list[Distill] = []

    def keep(base: Recognizer, how: FineTuning, *_: object) -> tuple[Recognizer, None]:
        trained.append(how.distill)
        return base, None

    monkeypatch.setattr(miniature, "tuned", keep)
    source = Miniature(load("nano", device="cpu"), tmp_path, seeds=1, shots=2, videos=24)
    with progress(quiet=True) as bars:
        for teacher in ("frozen", "ema"):
            cell = Cell("vclip", "step1", distill="residual", changes=(("teacher", teacher),))
            source.train(cell, 1, bars)
    frozen, ema = trained
    assert (frozen.teacher, ema.teacher) == ("frozen", "ema")
    assert frozen.ema_beta == Distill.ema_beta and ema.ema_beta < 0.99
