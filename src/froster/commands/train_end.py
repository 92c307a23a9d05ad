"""How a training run ends: the weights that it leaves, all of them measured, calibrated, saved and reported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

import froster.strict_json as json
from froster.blend import Line
from froster.calibration import FEWEST_CLASSES, FEWEST_VIDEOS, Calibration, fit
from froster.checkpoint import State
from froster.commands.blend_curve import curve, held_out
from froster.commands.train_data import eval_sets
from froster.commands.train_plan import Plan
from froster.commands.train_report import write_report
from froster.evaluation import Space
from froster.experiment import EvalSet, Row, halfway, measure, measure_many, with_weights
from froster.files import write_text
from froster.progress import console, output
from froster.recipe import Recipe
from froster.recognizer import Recognizer
from froster.reliability import measured
from froster.runs import Source
from froster.splits import Split, evenly
from froster.training import Trained

CURVE_VIDEOS = 200
"""Test videos of a set that the curve of the report is measured on; `froster blend` takes all."""


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


def finish(run: Finished, bars: Progress, as_json: bool) -> None:
    out, parts, trained, truncate = run.out, run.parts, run.trained, run.source.truncate
    states = final_weights(run.base, run.student, trained)
    sets = eval_sets(run.base, run.plan.preset, parts, run.sentences)
    rows = measure_all(run.base, run.student, states, sets, bars, run.workers, truncate)
    best = with_weights(run.student, next(iter(states.values())))
    best.calibration = calibrate(run, best, rows, bars)
    report = {
        "rows": [row.to_dict() for row in rows],
        "base_classes": parts.base,
        "novel_classes": parts.novel,
        "training_videos": len(parts.train),
        "watched_videos": len(parts.watch),
        "epochs": trained.epochs,
        "history": trained.history,
        "unreadable_in_training": trained.unreadable,
        "test": {name: p.summary() for name, p in rows[1].predictions.items()},
        "unreadable_in_test": [message for p in rows[1].predictions.values() for _, message in p.errors],
        "reliability": reliability_of(best, rows),
        "notes": parts.notes,
        **run.said,
        "recipe": dataclasses.asdict(run.recipe),
        "distill": dataclasses.asdict(run.plan.loss),
        "augment": dataclasses.asdict(run.plan.preset.augment),
        "trained_weights": run.plan.trained,
        "source": dataclasses.asdict(run.source),
        "blend": blend_curve(run, bars),
    }
    best.save(out / "model", report)
    with_weights(run.student, trained.last).save(out / "last", report)
    for name, predictions in rows[1].predictions.items():
        predictions.save(out / f"predictions_{name}.csv")
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    write_report(out, best, parts, rows, report)
    if as_json:
        print(json.dumps(report))
    else:
        show(out, rows, trained)


def final_weights(base: Recognizer, student: Recognizer, trained: Trained) -> dict[str, State]:
    """Words -> weights. The first are the method's own result: the mean of the epochs, in Open-VCLIP half CLIP's."""
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
    states: dict[str, State],
    sets: list[EvalSet],
    bars: Progress,
    workers: int,
    truncate: bool,
) -> list[Row]:
    """Frozen CLIP, each of the final weights, and the first of them together with frozen CLIP."""
    name = student.config.method.name
    models = [base, *(with_weights(student, state) for state in states.values())]
    found = measure_many(models, sets, bars, "before and after", workers, truncate)
    rows = [Row("frozen", "start", found[0])]
    rows += [Row(name, weights, p) for weights, p in zip(states, found[1:], strict=True)]
    spaces: tuple[Space, ...] = ("logit", "prob")
    frozen, tuned = rows[0].predictions, rows[1].predictions
    return rows + [
        Row(f"{name} + frozen", f"mean of {space}s", {key: frozen[key].joined(tuned[key], space) for key in frozen})
        for space in spaces
    ]


def calibrate(run: Finished, model: Recognizer, rows: list[Row], bars: Progress) -> Calibration:
    """Fitted to the watched videos, where these are enough: never to the test."""
    watched = run.parts.watch
    if len(watched) < FEWEST_VIDEOS or len({item.label for item in watched}) < FEWEST_CLASSES:
        return Calibration()
    parts = dataclasses.replace(run.parts, base_test=watched, novel_test=[])
    sets = eval_sets(model, run.plan.preset, parts, run.sentences)
    found = measure(model, sets, bars, "watched", run.workers, run.source.truncate)["base"]
    assert found.views is not None
    calibration = fit(found.views, found.labels, model.logit_scale, model.config.fusion)
    fitted = {"to": "the watched videos", "videos": len(watched), "classes": len(parts.base)}
    return dataclasses.replace(calibration, fitted=fitted)


def reliability_of(model: Recognizer, rows: list[Row]) -> dict[str, Any] | None:
    """Of the scores on the base test videos, at temperature 1 and calibrated."""
    found = rows[1].predictions.get("base")
    if found is None or found.views is None or len(found.errors) == len(found.labels):
        return None
    return measured(model.calibration, found.views, found.labels, model.logit_scale, model.config.fusion)


def blend_curve(run: Finished, bars: Progress) -> dict[str, Any] | None:
    """The line to CLIP at a few ratios, on some test videos; None where there is nothing to choose or report with."""
    parts, seed = run.parts, run.source.split_seed
    if run.blend_points < 2 or len(parts.base_test) < 2 or len(parts.base) < 2:
        return None
    few = dataclasses.replace(
        parts, base_test=evenly(parts.base_test, CURVE_VIDEOS, seed), novel_test=evenly(parts.novel_test, CURVE_VIDEOS, seed)
    )
    held = held_out(few, [])
    line = Line(run.base, with_weights(run.student, run.trained.average), run.trained.average)
    sets = eval_sets(run.base, run.plan.preset, held.parts, run.sentences)
    return curve(run.base, line, held, sets, run.blend_points, "one-se", bars, run.workers, run.source.truncate)


def show(out: Path, rows: list[Row], trained: Trained) -> None:
    table = Table("method", "weights", "base", "novel", "HM", box=None, pad_edge=False)
    cell = lambda value: "–" if value is None else f"{value:.1f}"  # noqa: E731
    for i, row in enumerate(rows):
        table.add_row(
            row.method, row.weights, cell(row.top1("base")), cell(row.top1("novel")), cell(row.hm),
            style="bold" if i == 1 else "",
        )  # fmt: skip
    output.print(table)
    for name, word in (("base", "gained on base classes"), ("novel", "kept on novel classes")):
        before, after = rows[0].top1(name), rows[1].top1(name)
        if before is not None and after is not None:
            console.print(f"{word}: {before:.1f} -> {after:.1f} ({after - before:+.1f})")
    for message, count in trained.unreadable.items():
        console.print(f"skipped in training, {count} times: {message}")
    for predictions in rows[1].predictions.values():
        for _, message in predictions.errors:
            console.print(f"unreadable, scored wrong: {message}")
    console.print(f"model: {out / 'model'}   report: {out / 'report.html'}")
