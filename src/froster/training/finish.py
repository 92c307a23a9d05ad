"""How a training run ends: the weights that it leaves, all of them measured, calibrated, saved and
reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from froster.data.splits import Split, evenly
from froster.evaluation.calibration import FEWEST_CLASSES, FEWEST_VIDEOS, NO_RULE, Calibration, fit
from froster.evaluation.metrics import Predictions, Space
from froster.evaluation.reliability import measured
from froster.inference.recognizer import Recognizer
from froster.methods.recipe import Recipe
from froster.training.blend import Line, curve, held_out
from froster.training.change import changes_of, told
from froster.training.fine_tune import EvalSet, Row, halfway, measure, measure_many, with_weights
from froster.training.held_out import eval_sets
from froster.training.loop import Trained
from froster.training.plan import Plan
from froster.training.run_folder import Source
from froster.utils import strict_json as json
from froster.utils.files import write_text
from froster.utils.progress import attempt, console, leave_out, output
from froster.utils.tensors import StateDict

CURVE_VIDEOS = 200
"""Test videos of a set that the curve of the report is measured on; `froster blend` takes all."""


ReportWriter = Callable[
    [Path, Recognizer, Split, list[Row], dict[str, Any], Callable[[str], None]], None
]


@dataclass(frozen=True)
class Finished:
    """All that a run has to report."""

    out: Path
    base: Recognizer
    student: Recognizer
    trained: Trained
    parts: Split
    plan: Plan
    recipe: Recipe
    source: Source
    sentences: dict[str, str]
    said: dict[str, list[str]]
    """`chosen`: the defaults that were chosen and why; `warnings`."""
    blend_points: int
    workers: int


def finish(run: Finished, bars: Progress, write_report: ReportWriter, as_json: bool) -> None:
    """The weights are saved before all else. What of the rest cannot be done is said and left out,
    and the reports are written again with what there is."""
    out, trained, truncate = run.out, run.trained, run.source.truncate
    left_out: list[str] = []

    def say(line: str) -> None:
        left_out.append(line)
        leave_out(line)

    states = final_weights(run.base, run.student, trained)
    best = with_weights(run.student, next(iter(states.values())))
    rows = table_of(run.student, states, [{} for _ in range(1 + len(states))])
    report = {**facts(run, rows), "blend": None, "left_out": left_out}
    best.save(out / "model", report)
    with_weights(run.student, trained.last).save(out / "last", report)
    write_json(out / "report.json", report)

    sets = eval_sets(run.base, run.plan.preset, run.parts, run.sentences)

    def measured_rows():
        return measure_all(run.base, run.student, states, sets, bars, run.workers, truncate)

    rows = attempt("the accuracy on the test videos", measured_rows, say) or rows
    calibration = attempt("calibration", lambda: calibrate(run, best, bars), say)
    if calibration is not None:
        best.calibration = calibration
        calibration.save(out / "model")
    for name, predictions in rows[1].predictions.items():
        predictions.save(out / f"predictions_{name}.csv")
    report |= facts(run, rows)
    report["reliability"] = attempt(
        "how far a score can be trusted", lambda: reliability_of(best, rows), say
    )
    report["blend"] = attempt(
        "the curve between CLIP and the model", lambda: blend_curve(run, bars), say
    )
    for folder in (out / "model", out / "last", out):
        write_json(folder / "report.json", report)
    known = len(left_out)
    write_report(out, best, run.parts, rows, report, say)
    if len(left_out) > known:
        write_json(out / "report.json", report)
    if as_json:
        print(json.dumps(report))
    else:
        show(out, rows, trained)


def facts(run: Finished, rows: list[Row]) -> dict[str, Any]:
    """What the report says of the run, and of the test as far as it has been done."""
    parts, trained, tested = run.parts, run.trained, rows[1].predictions
    return {
        "rows": [row.to_dict() for row in rows],
        "changes": changes_of(rows[0], rows[1]),
        "base_classes": parts.base,
        "novel_classes": parts.novel,
        "training_videos": len(parts.train),
        "watched_videos": len(parts.watch),
        "epochs": trained.epochs,
        "history": trained.history,
        "unreadable_in_training": trained.unreadable,
        "test": {name: p.summary() for name, p in tested.items()},
        "unreadable_in_test": [message for p in tested.values() for _, message in p.errors],
        "reliability": None,
        "notes": parts.notes,
        **run.said,
        "recipe": dataclasses.asdict(run.recipe),
        "distill": dataclasses.asdict(run.plan.loss),
        "augment": dataclasses.asdict(run.plan.preset.augment),
        "trained_weights": run.plan.trained,
        "source": dataclasses.asdict(run.source),
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


def final_weights(base: Recognizer, student: Recognizer, trained: Trained) -> dict[str, StateDict]:
    """Words -> weights. The first are the method's own result: the mean of the epochs, in
    Open-VCLIP half CLIP's."""
    several = trained.averaged > 1
    mean = f"mean of {trained.averaged} epochs" if several else "last epoch"
    states = {mean: trained.average, **({"last epoch": trained.last} if several else {})}
    half = {f"{mean}, half start": halfway(base, student, trained.average)}
    patch = student.config.method.patch
    if not patch:
        return {**states, **half}
    return {f"{mean}, {patch:g} start": halfway(base, student, trained.average, patch), **states}


def measure_all(
    base: Recognizer,
    student: Recognizer,
    states: dict[str, StateDict],
    sets: list[EvalSet],
    bars: Progress,
    workers: int,
    truncate: bool,
) -> list[Row]:
    """Frozen CLIP, each of the final weights, and the first of them together with frozen CLIP."""
    name = student.config.method.name
    models = [base, *(with_weights(student, state) for state in states.values())]
    rows = table_of(
        student, states, measure_many(models, sets, bars, "before and after", workers, truncate)
    )
    spaces: tuple[Space, ...] = ("logit", "prob")
    frozen, tuned = rows[0].predictions, rows[1].predictions
    return rows + [
        Row(
            f"{name} + frozen",
            f"mean of {space}s",
            {key: frozen[key].ensemble(tuned[key], space) for key in frozen},
        )
        for space in spaces
    ]


def table_of(
    student: Recognizer, states: dict[str, StateDict], found: list[dict[str, Predictions]]
) -> list[Row]:
    """A row for frozen CLIP and one for each of the weights, with what was found for them in this
    order."""
    rows = [Row("frozen", "start", found[0])]
    return rows + [
        Row(student.config.method.name, weights, p)
        for weights, p in zip(states, found[1:], strict=True)
    ]


def calibrate(run: Finished, model: Recognizer, bars: Progress) -> Calibration | None:
    """Fitted to the watched videos, never to the test; None where the run has too few.

    Raises DataError where too few of them can be read.
    """
    watched = run.parts.watch
    if len(watched) < FEWEST_VIDEOS or len({item.label for item in watched}) < FEWEST_CLASSES:
        return None
    parts = dataclasses.replace(run.parts, base_test=watched, novel_test=[])
    sets = eval_sets(model, run.plan.preset, parts, run.sentences)
    found = measure(model, sets, bars, "watched", run.workers, run.source.truncate)["base"]
    assert found.views is not None
    calibration = fit(found.views, found.labels, model.logit_scale, model.config.fusion)
    if calibration.none is None:
        console.print(NO_RULE)
    fitted = {
        "to": "the watched videos",
        "videos": len(watched) - len(found.errors),
        "classes": len(parts.base),
    }
    return dataclasses.replace(calibration, fitted=fitted)


def reliability_of(model: Recognizer, rows: list[Row]) -> dict[str, Any] | None:
    """Of the scores on the base test videos, at temperature 1 and calibrated."""
    found = rows[1].predictions.get("base")
    if found is None or found.views is None or len(found.errors) == len(found.labels):
        return None
    return measured(
        model.calibration, found.views, found.labels, model.logit_scale, model.config.fusion
    )


def blend_curve(run: Finished, bars: Progress) -> dict[str, Any] | None:
    """The line to CLIP at a few ratios, on some test videos; None where there is nothing to choose
    or report with."""
    parts, seed = run.parts, run.source.split_seed
    if run.blend_points < 2 or len(parts.base_test) < 2 or len(parts.base) < 2:
        return None
    few = dataclasses.replace(
        parts,
        base_test=evenly(parts.base_test, CURVE_VIDEOS, seed),
        novel_test=evenly(parts.novel_test, CURVE_VIDEOS, seed),
    )
    held = held_out(few, [])
    line = Line(run.base, with_weights(run.student, run.trained.average), run.trained.average)
    sets = eval_sets(run.base, run.plan.preset, held.parts, run.sentences)
    return curve(
        run.base,
        line,
        held,
        sets,
        run.blend_points,
        "one-se",
        bars,
        run.workers,
        run.source.truncate,
    )


def show(out: Path, rows: list[Row], trained: Trained) -> None:
    together = [f"{name}*" for name in ("base", "novel", "HM") if rows[0].together]
    table = Table("method", "weights", "base", "novel", "HM", *together, box=None, pad_edge=False)
    cell = lambda value: "–" if value is None else f"{value:.1f}"  # noqa: E731
    for i, row in enumerate(rows):
        values = [*row.columns().values(), *row.generalised.values()]
        table.add_row(row.method, row.weights, *map(cell, values), style="bold" if i == 1 else "")
    output.print(table)
    if together:
        console.print(
            "* among base and novel labels together, as a user asks who does not know of which kind"
            " a video is"
        )
    for line in told(rows[0], rows[1]):
        console.print(line)
    for message, count in trained.unreadable.items():
        console.print(f"skipped in training, {count} times: {message}")
    for predictions in rows[1].predictions.values():
        for _, message in predictions.errors:
            console.print(f"unreadable, scored wrong: {message}")
    console.print(f"model: {out / 'model'}   report: {out / 'report.html'}")
