"""How a training run ends: the weights that it leaves, all of them measured, calibrated, saved and
reported.

Rank 0 does it. The other ranks read and score their share of the videos meanwhile (`assist`): what
is measured here on several ranks, must be measured there in the same order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from froster.data.splits import Split, evenly
from froster.evaluation.calibration import FEWEST_CLASSES, FEWEST_VIDEOS, NO_RULE, Calibration, fit
from froster.evaluation.metrics import Predictions, Space
from froster.evaluation.reliability import measured
from froster.inference.recognizer import Recognizer
from froster.training.blend import Known, Line, curve
from froster.training.distributed import from_rank_0, weights_from_rank_0
from froster.training.held_out import held_out
from froster.training.importance import FILE
from froster.training.kept import KeptTower
from froster.training.measure import (
    EvalRow,
    Measuring,
    changes_of,
    eval_sets,
    measure,
    measure_many,
)
from froster.training.plan import TrainPlan
from froster.training.run_folder import RunInputs
from froster.training.trainer import Trained
from froster.training.weights import halfway, with_weights
from froster.utils.files import write_json
from froster.utils.progress import attempt
from froster.utils.tensors import StateDict, save_tensors

CURVE_VIDEOS = 200
"""Test videos of a set that the curve of the report is measured on; `froster blend` takes all."""


@dataclass(frozen=True)
class TrainingRun:
    """What is known of a run before its first step."""

    out: Path
    base: Recognizer
    plan: TrainPlan
    parts: Split
    sentences: dict[str, str]
    how: Measuring
    chosen: list[str] = field(default_factory=list)
    """The defaults that were chosen, and why."""
    warnings: list[str] = field(default_factory=list)
    habits: dict[str, Any] = field(default_factory=dict)
    """What scene words tell of the training classes, if that was looked at (`Habits.to_dict`)."""
    importance: StateDict = field(default_factory=dict)
    """What the run that it goes on from has recorded of its weights."""
    kept: KeptTower | None = None
    """Of a run that computes a frozen image tower once."""


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves. All of it but `predictions_*.csv` is in `folder/report.json` and
    `folder/model` too."""

    folder: Path
    model: Recognizer
    rows: list[EvalRow]
    """Frozen CLIP, the model, and other weights of the run."""
    report: dict[str, Any]
    parts: Split
    trained: Trained


def finish(
    run: TrainingRun, student: Recognizer, trained: Trained, source: RunInputs, blend_points: int
) -> TrainingResult:
    """The weights are saved before all else; what cannot be done afterwards is left out."""
    out = run.out
    left_out: list[str] = []

    def leave_out(line: str) -> None:
        left_out.append(line)
        run.how.reporter.warn(f"left out: {line}")

    states = final_weights(run, student, trained)
    from_rank_0(len(states))
    best = with_weights(student, next(iter(states.values())))
    rows = table_of(student, states, [{} for _ in range(1 + len(states))])
    about = {**about_run(run, trained, source), "blend": None, "left_out": left_out}
    report = about | about_rows(rows)
    best.save(out / "model", report)
    with_weights(student, trained.last).save(out / "last", report)
    if trained.importance:
        save_tensors(trained.importance, out / FILE)
    write_json(out / "report.json", report)

    networks = [best, *(with_weights(student, state) for state in list(states.values())[1:])]
    for network in networks:
        weights_from_rank_0(network.model)
    test = lambda: measure_all(run, networks, states)  # noqa: E731
    rows = attempt("the accuracy on the test videos", test, leave_out) or rows
    calibration = attempt("calibration", lambda: calibrate(run, best), leave_out)
    if calibration is not None:
        best.calibration = calibration
        calibration.save(out / "model")
    for name, predictions in rows[1].predictions.items():
        predictions.save(out / f"predictions_{name}.csv")
    report = about | about_rows(rows)
    report["reliability"] = attempt(
        "how far a score can be trusted", lambda: reliability_of(best, rows), leave_out
    )
    del networks[1:]
    student.model.load_state_dict(trained.average)  # whose own weights are saved
    weights_from_rank_0(student.model)
    report["blend"] = attempt(
        "the curve between CLIP and the model",
        lambda: blend_curve(run, student, (source.split_seed, blend_points), rows, states),
        leave_out,
    )
    for folder in (out / "model", out / "last", out):
        write_json(folder / "report.json", report)
    return TrainingResult(out, best, rows, report, run.parts, trained)


def assist(run: TrainingRun, student: Recognizer, seed: int, blend_points: int) -> None:
    """The part of the other ranks in `finish`. They get the weights network by network, so that
    there is no copy of them in their host's memory. What they measure counts on rank 0, which also
    says what failed."""
    networks = [with_weights(student, None) for _ in range(from_rank_0(None))]
    for network in networks:
        weights_from_rank_0(network.model)
    silent = lambda line: None  # noqa: E731
    attempt("", lambda: scores_of(run, networks), silent)
    attempt("", lambda: score_validation(run, networks[0]), silent)
    average = with_weights(student, None)
    weights_from_rank_0(average.model)
    attempt("", lambda: blend_curve(run, average, (seed, blend_points), [], {}), silent)


def about_run(run: TrainingRun, trained: Trained, source: RunInputs) -> dict[str, Any]:
    """What the report says of the training."""
    parts, preset = run.parts, run.plan.preset
    return {
        "base_classes": parts.base,
        "novel_classes": parts.novel,
        "training_videos": len(parts.train),
        "watched_videos": len(parts.validation),
        "epochs": trained.epochs,
        "history": trained.history,
        "unreadable_in_training": trained.unreadable,
        "notes": parts.notes,
        "chosen": run.chosen,
        "warnings": run.warnings,
        "habits": run.habits or None,
        "recipe": dataclasses.asdict(preset.recipe),
        "distill": dataclasses.asdict(run.plan.distill),
        "augment": dataclasses.asdict(preset.augment),
        "trained_weights": run.plan.trained,
        "source": dataclasses.asdict(source),
    }


def about_rows(rows: list[EvalRow]) -> dict[str, Any]:
    """What it says of the test, as far as that has been done."""
    tested = rows[1].predictions
    return {
        "rows": [row.to_dict() for row in rows],
        "changes": changes_of(rows[0], rows[1]),
        "test": {name: p.summary() for name, p in tested.items()},
        "unreadable_in_test": [message for p in tested.values() for _, message in p.errors],
        "reliability": None,
    }


def final_weights(run: TrainingRun, student: Recognizer, trained: Trained) -> dict[str, StateDict]:
    """Words -> weights. The first are the method's own result: the mean of the epochs, in
    Open-VCLIP half CLIP's."""
    base = run.base
    kind = "Gaussian mean" if run.plan.preset.recipe.averaging == "gaussian" else "mean"
    mean = f"{kind} of {trained.averaged} epochs" if trained.averaged > 1 else "last epoch"
    states = {mean: trained.average}
    states.setdefault("last epoch", trained.last)
    patch = student.config.method.patch
    if not patch:
        return {**states, f"{mean}, half start": halfway(base, student, trained.average)}
    return {f"{mean}, {patch:g} start": halfway(base, student, trained.average, patch), **states}


def measure_all(
    run: TrainingRun, networks: list[Recognizer], states: dict[str, StateDict]
) -> list[EvalRow]:
    """Frozen CLIP, each of the final weights, and the first of them together with frozen CLIP."""
    rows = table_of(networks[0], states, scores_of(run, networks))
    frozen, tuned = rows[0].predictions, rows[1].predictions
    for space in get_args(Space):
        both = {name: frozen[name].ensemble(tuned[name], space) for name in frozen}
        rows.append(EvalRow(f"{rows[1].method} + frozen", f"mean of {space}s", both))
    return rows


def scores_of(run: TrainingRun, networks: list[Recognizer]) -> list[dict[str, Predictions]]:
    """Of frozen CLIP and these networks, on the test videos."""
    sets = eval_sets(run.base, run.plan.preset, run.parts, run.sentences)
    if run.kept is not None:
        sets = run.kept.sets(sets)
    return measure_many([run.base, *networks], sets, run.how, "before and after")


def table_of(
    student: Recognizer, states: dict[str, StateDict], measured: list[dict[str, Predictions]]
) -> list[EvalRow]:
    """A row for frozen CLIP and one for each of the weights, with their predictions."""
    name = student.config.method.name
    rows = [EvalRow(name, *row) for row in zip(states, measured[1:], strict=True)]
    return [EvalRow("frozen", "start", measured[0]), *rows]


def score_validation(run: TrainingRun, model: Recognizer) -> Predictions | None:
    """Of the validation videos, for the calibration; None where the run has too few."""
    validation = run.parts.validation
    if len(validation) < FEWEST_VIDEOS or len({i.label for i in validation}) < FEWEST_CLASSES:
        return None
    parts = dataclasses.replace(run.parts, base_test=validation, novel_test=[])
    sets = eval_sets(model, run.plan.preset, parts, run.sentences)
    return measure(model, sets, run.how, "validation")["base"]


def calibrate(run: TrainingRun, model: Recognizer) -> Calibration | None:
    """Fitted to the validation videos, never to the test; None where the run has too few. Raises
    DataError where too few of them can be read."""
    predictions = score_validation(run, model)
    if predictions is None:
        return None
    assert predictions.views is not None
    calibration = fit(predictions.views, predictions.labels, model.logit_scale, model.config.fusion)
    if calibration.none is None:
        run.how.reporter.say(NO_RULE)
    fitted = {
        "to": "the validation videos",
        "videos": len(predictions.labels) - len(predictions.errors),
        "classes": len(run.parts.base),
    }
    return dataclasses.replace(calibration, fitted=fitted)


def reliability_of(model: Recognizer, rows: list[EvalRow]) -> dict[str, Any] | None:
    """Of the scores on the base test videos, at temperature 1 and calibrated."""
    base = rows[1].predictions.get("base")
    if base is None or base.views is None or len(base.errors) == len(base.labels):
        return None
    return measured(
        model.calibration, base.views, base.labels, model.logit_scale, model.config.fusion
    )


def blend_curve(
    run: TrainingRun,
    average: Recognizer,
    asked: tuple[int, int],
    rows: Sequence[EvalRow],
    states: Mapping[str, StateDict],
) -> dict[str, Any] | None:
    """The line to CLIP at a few ratios, on some test videos; None with too few of these. What the
    table of `rows` has of frozen CLIP and of the tuned weights is not measured again. `asked`: the
    seed that draws the videos, and the number of ratios. Other ranks have no `rows`."""
    parts, (seed, points) = run.parts, asked
    if points < 2 or len(parts.base_test) < 2 or len(parts.base) < 2:
        return None
    few = dataclasses.replace(
        parts,
        base_test=evenly(parts.base_test, CURVE_VIDEOS, seed),
        novel_test=evenly(parts.novel_test, CURVE_VIDEOS, seed),
    )
    held = held_out(few, [])
    tuned = {name: tensor.clone() for name, tensor in average.model.state_dict().items()}
    line = Line(run.base, average, tuned)
    sets = eval_sets(run.base, run.plan.preset, held.parts, run.sentences)
    known = known_of(rows, states, parts, held.parts) if rows else Known({}, {})
    names = from_rank_0(list(known.frozen))
    if not rows:  # another rank, which leaves out what rank 0 knows
        blank: dict[str, Any] = dict.fromkeys(names)
        known = Known(blank, {0.0: blank})
    line.known = known
    return curve(line, held, sets, run.how, points)


def known_of(
    rows: Sequence[EvalRow], states: Mapping[str, StateDict], parts: Split, some: Split
) -> Known:
    """What the table has of frozen CLIP and of the mean weights, of the videos of `some` alone: of
    the sets whose videos are all in the table."""
    sets = {"base": (parts.base_test, some.base_test), "novel": (parts.novel_test, some.novel_test)}
    places = {}
    for name, (every, wanted) in sets.items():
        place = {(item.place, item.label): i for i, item in enumerate(every)}
        keys = [(item.place, item.label) for item in wanted]
        if all(key in place for key in keys):
            places[name] = [place[key] for key in keys]

    def known(row: EvalRow) -> dict[str, Predictions]:
        return {name: p.rows(places[name]) for name, p in row.predictions.items() if name in places}

    mean = next(i for i, name in enumerate(states, 1) if not name.endswith(" start"))
    return Known(known(rows[0]), {0.0: known(rows[mean])})
