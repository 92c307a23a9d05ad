"""`froster.teach`: from labelled videos to a model in seconds, as what is frozen is computed
once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.data.splits import Split, split
from froster.errors import DataError, UsageError
from froster.evaluation.calibration import FEWEST_CLASSES, FEWEST_VIDEOS, NO_RULE
from froster.evaluation.multi_label import BACKGROUND
from froster.inference.model_report import report_of, reported_videos, written
from froster.inference.recognizer import Recognizer
from froster.text.sentences import read_descriptions, with_descriptions
from froster.training.calibrate import calibrate, knows_background
from froster.training.examples import Round, Videos, first_or_next
from froster.training.held_out import HeldOut
from froster.training.measure import (
    ClassSource,
    EvalRow,
    change_lines,
    changes_of,
    class_source,
    load_reported,
)
from froster.training.options import TeachOptions
from froster.training.plan import holdout_share
from froster.training.reporter import Reporter
from froster.training.taught import Lesson, TeachPlan, check_base, taught_model
from froster.training.teach_inputs import (
    Inputs,
    check_teachable,
    index_inputs,
    kept_inputs,
    predictions,
)
from froster.training.validation import agreement, labels_beside
from froster.utils.address import as_path
from froster.utils.files import absolute, write_json
from froster.utils.progress import attempt


@dataclass(frozen=True)
class TeachResult:
    """The model, and what was gained and kept."""

    model: Recognizer
    rows: list[EvalRow]
    """Before and after; without predictions where there was nothing to test on."""
    report: dict[str, Any]
    """What `report.json` holds."""
    lines: list[str]
    """Gained and kept, in words."""
    folder: Path | None
    """Where it was written."""


def teach(
    videos: Videos | None = None,
    out: str | Path | None = None,
    model: Recognizer | str | None = None,
    *,
    reporter: Reporter | None = None,
    **options: Any,
) -> TeachResult:
    """Teach `model` (what `froster.load` takes; CLIP B/16 if left out) the labelled `videos`: a
    folder of class folders, a manifest, an index of `froster.index`, or in Python label -> videos
    or pairs (video, label).

    `options` are the fields of `TeachOptions`. The folder `out` gets the model, the report, the
    examples and the features of their frames; without it nothing is written. Without `videos` the
    examples are those that `out` was taught, and `more`. Raises FrosterError."""
    asked, reporter = TeachOptions(**options), reporter or Reporter()
    out = None if out is None else Path(out)
    begun = time.monotonic()
    with ExitStack() as held:
        start = first_or_next(videos, out, model, asked, reporter, held)
        asked = start.asked
        base = (
            model if isinstance(model, Recognizer) else load_reported(start.model, asked, reporter)
        )
        check_base(base)
        parts = parts_of(start, asked)
        plan = TeachPlan.of(base, asked, len(parts.train), len(parts.base))
        texts = texts_of(parts, asked)
        reporter.say(base.summary(start.model))
        for line in (*lines_of(parts, start), plan.words()):
            reporter.say(line)
        also = {} if base.class_file else {BACKGROUND: BACKGROUND}
        source = class_source(base, {**also, **texts}, asked.truncate)
        inputs = inputs_of(base, plan, parts, start, reporter)
        reporter.say(inputs.note)
        train = check_teachable(inputs, parts.train, parts.base)
        with reporter.bar(f"teach {plan.method}", plan.steps, keep=plan.steps > 0) as bar:
            taught = taught_model(
                base,
                plan,
                inputs,
                Lesson(train, parts.base, source(parts.base)),
                lambda loss: bar(1, f"loss {loss:.3f}"),
            )
        taught.source = None if out is None else absolute(out)
        rows, lines, kept = measured(base, taught, inputs, parts, source)
        left_out: list[str] = []
        lines += fit_calibration(taught, inputs, parts, rows[1], source, left_out.append)
        for line in left_out:
            reporter.warn(f"left out: {line}")
        report = {
            **report_about(start, parts, plan, inputs, rows, kept),
            "calibrated": taught.calibration.fitted,
            "left_out": left_out,
            "seconds": round(time.monotonic() - begun, 2),
        }
        if out is not None:
            taught.save(out / "model", report)
            write_json(out / "report.json", report)
    return TeachResult(taught, rows, report, lines, out)


def parts_of(start: Round, asked: TeachOptions) -> Split:
    """The first round taken apart, whatever was corrected later; corrections all train. Raises
    DataError where one is of a class that is held out, or there are fewer than two classes."""
    first = [m.item for m in start.examples if m.example.round == 0]
    later = [m.item for m in start.examples if m.example.round]
    gone = {m.item.place for m in start.examples if m.corrected}
    share = holdout_share(first) if asked.holdout is None else asked.holdout
    parts = split(
        first,
        novel_fraction=asked.novel_fraction,
        holdout=share,
        shots=asked.shots,
        split_seed=asked.split_seed,
        validation=0.0,
    )
    for item in later:
        if item.label in parts.novel:
            raise DataError(
                f"{item.path}: {item.label!r} is held out to see what is kept, so it cannot be"
                " taught: --novel-fraction 0"
            )
    train, base_test, novel_test = (
        [item for item in some if item.place not in gone]
        for some in (parts.train, parts.base_test, parts.novel_test)
    )
    base = sorted({item.label for item in (*train, *later)})
    return dataclasses.replace(
        parts,
        base=base,
        train=[*train, *later],
        base_test=[item for item in base_test if item.label in base],
        novel_test=novel_test,
    )


def texts_of(parts: Split, asked: TeachOptions) -> dict[str, str]:
    """Class -> what the model is asked for."""
    sentences = read_descriptions(asked.descriptions) if asked.descriptions else {}
    names = [*parts.base, *parts.novel]
    return dict(zip(names, with_descriptions(names, sentences), strict=True))


def lines_of(parts: Split, start: Round) -> list[str]:
    """What is taught, for the user."""
    later = sum(m.example.round > 0 for m in start.examples)
    corrections = f", {later} of them corrections ({start.new} new)" if later else ""
    return [
        f"{len(parts.train)} videos of {len(parts.base)} classes{corrections}; test:"
        f" {len(parts.base_test)} of these classes, {len(parts.novel_test)} of"
        f" {len(parts.novel)} held-out classes",
        *parts.notes,
    ]


def inputs_of(
    base: Recognizer, plan: TeachPlan, parts: Split, start: Round, reporter: Reporter
) -> Inputs:
    """Raises UsageError where an index does not hold what the method trains."""
    test = [*parts.base_test, *parts.novel_test]
    if start.index is not None and plan.method != "prolip":
        return index_inputs(base, start.index, parts.train, test)
    marks = {as_path(m.example.path): m.video for m in start.examples}
    if start.index is not None and not any(marks.values()):
        raise UsageError(
            f"{start.index} holds embeddings behind the projection, which prolip trains, and its"
            " videos are not there any more: --method lp++, tip or tip-f are taught from it"
        )
    place = start.index or start.out
    folder = start.asked.features or (place and place / "features")
    asked = dataclasses.replace(start.asked, features=folder)
    return kept_inputs(base, parts.train, test, marks, asked, reporter)


def measured(
    base: Recognizer, taught: Recognizer, inputs: Inputs, parts: Split, source: ClassSource
) -> tuple[list[EvalRow], list[str], dict[str, Any]]:
    """Before and after on held-out videos, in words, and how often other labels are answered as
    before. `source` has the class embeddings, which a model that takes any label shares."""
    closed = taught.config.method.closed
    novel = parts.novel if len(parts.novel) > 1 and parts.novel_test and not closed else []
    rows = []
    for name, model in (("frozen", base), (taught.config.method.name, taught)):
        of_model = {}
        answers = taught.class_embeddings if closed and model is taught else source
        if parts.base_test:
            of_model["base"] = predictions(
                model, inputs, parts.base_test, parts.base, answers, novel
            )
        if novel:
            of_model["novel"] = predictions(
                model, inputs, parts.novel_test, novel, answers, parts.base
            )
        rows.append(EvalRow(name, "start" if model is base else "taught", of_model))
    lines = change_lines(*rows)
    if not parts.base_test:
        lines.append("gained: not measured, as no video is held out (--holdout)")
    if closed:
        lines.append(f"{taught.config.method.name} knows these classes alone: nothing else is kept")
        return rows, lines, {}
    foreign = labels_beside(base, parts.base)
    if not foreign:
        return rows, lines, {}
    items = [
        dataclasses.replace(item, label=foreign[0])
        for item in parts.base_test or parts.train
        if item.place in inputs.tested
    ]
    of_foreign = class_source(base, dict(zip(foreign, foreign, strict=True)), False)
    share = agreement(*(predictions(m, inputs, items, foreign, of_foreign) for m in (base, taught)))
    lines.append(
        f"kept on other labels: {share:.0f} % of {len(items)} videos are answered as before among"
        f" {len(foreign)} labels that were not taught"
    )
    return rows, lines, {"agreement": share, "labels": len(foreign), "videos": len(items)}


def fit_calibration(
    taught: Recognizer,
    inputs: Inputs,
    parts: Split,
    row: EvalRow,
    source: ClassSource,
    leave_out: Callable[[str], None],
) -> list[str]:
    """Calibrates the model to the held-out videos of its classes, and says so; leaves it as it is
    where these or the classes are too few. `leave_out` hears of what failed."""
    items, base = parts.base_test, row.predictions.get("base")
    if base is None or len(items) - len(base.errors) < FEWEST_VIDEOS:
        return []
    if len({item.label for item in items if item.place not in inputs.errors}) < FEWEST_CLASSES:
        return []
    if taught.config.method.closed:
        source = taught.class_embeddings
    novel = None
    if parts.novel_test:  # among the taught classes, so any of their labels will do
        others = [dataclasses.replace(i, label=parts.base[0]) for i in parts.novel_test]
        novel = predictions(taught, inputs, others, parts.base, source)
    if knows_background(taught, parts.base):
        also = predictions(taught, inputs, items, [*parts.base, BACKGROUND], source)
        base = dataclasses.replace(base, also={**base.also, BACKGROUND: also})
    held = HeldOut(parts, None, "the held-out videos")
    fit = lambda: calibrate(taught, held, base, novel, leave_out)  # noqa: E731
    result = attempt("calibration", fit, leave_out)
    if result is None:
        return []
    taught.calibration = result[0]
    if result[0].none is None:
        return [NO_RULE]
    return [
        f'calibrated to the {len(items) - len(base.errors)} held-out videos: "none of these" is an'
        " answer now"
    ]


def report_about(
    start: Round,
    parts: Split,
    plan: TeachPlan,
    inputs: Inputs,
    rows: list[EvalRow],
    kept: dict[str, Any],
) -> dict[str, Any]:
    """What `report.json` says."""
    marks = {as_path(m.example.path): m.video for m in start.examples}
    before = reported_videos(report_of(start.model)) if start.model else None
    trained = written(
        [*(marks[item.path] for item in parts.train), *(before.trained if before else ())]
    )
    return {
        "taught": plan.to_dict(),
        "base_classes": parts.base,
        "novel_classes": parts.novel,
        "training_videos": len(parts.train),
        "corrections": sum(m.example.round > 0 for m in start.examples),
        "notes": parts.notes,
        "features": inputs.store,
        "skipped": sorted(inputs.errors.values()),
        "rows": [row.to_dict() for row in rows],
        "changes": changes_of(*rows),
        "kept": kept,
        "test": {name: p.summary() for name, p in rows[1].predictions.items()},
        "source": {
            "model": start.model,
            "trained_on": trained,
            "watched_by": written(before.validated if before else frozenset()),
        },
    }
