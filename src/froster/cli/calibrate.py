"""`froster calibrate`: fit a temperature and the probability of "none of these"."""

from __future__ import annotations

import dataclasses
import os
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from froster.cli import options
from froster.cli.common import announce, decoders, load_model, mention, start_torch
from froster.cli.options import CHANGES, DATA, LABELLED, SPREAD, arranged, option, typed
from froster.errors import DataError, UsageError
from froster.training.options import EvaluateOptions
from froster.utils import strict_json as json
from froster.utils.files import refuse_current, sole_maker, sole_writer
from froster.utils.progress import attempt, console, leave_out, output, print_table, progress

if TYPE_CHECKING:
    from froster.evaluation.calibration import Calibration
    from froster.training.run_folder import Run

PICTURE = "calibration.png"
Labelled = arranged(EvaluateOptions, {DATA: LABELLED}, CHANGES)


def calibrate(
    model: Annotated[
        str, option("Folder of froster train, or any model with --data.", name=("--model", "-m"))
    ],
    *,
    data: Annotated[
        Path | None, options.ADDRESS, option("Held-out videos; default: the run's.")
    ] = None,
    split: Annotated[str | None, option("Split to fit to; default: validation, else all.")] = None,
    out: Annotated[Path | None, option("Write a calibrated copy here; default: in place.")] = None,
    views: options.Views = None,
    labelled: Annotated[Labelled, SPREAD] = Labelled(),  # type: ignore[valid-type]  # noqa: B008
    workers: options.Workers = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Make scores mean what they say, and fit how likely "none of these" is, to held-out videos.

    Example: froster calibrate runs/first
    """
    start_torch()
    from froster.data.manifest import read_items
    from froster.evaluation.calibration import CALIBRATION
    from froster.inference.model_folder import folder_of
    from froster.inference.model_report import inherited, report_of
    from froster.text.sentences import read_descriptions
    from froster.training import calibrate as calibrating
    from froster.training.distributed import by_rank_0, process_group, spread_over_ranks
    from froster.training.held_out import of_data, of_run, untrained
    from froster.training.measure import Measuring
    from froster.training.reporter import Drawn

    if out is not None:
        refuse_current(out)
    target = out or folder_of(model)
    if target is None:
        raise nowhere_to_write(model)
    with process_group(device) as (rank, of_rank), ExitStack() as locks:
        console.quiet = rank > 0
        classes = None
        if data is None:
            run = run_of(model)
            held = of_run(run, root=labelled.root)  # type: ignore[attr-defined]
            truncate, descriptions = run.source.truncate, run.source.descriptions
            classes = run.source.class_file
        else:
            values = typed(labelled)
            truncate, descriptions = values.pop("truncate"), values.pop("descriptions")
            items = read_items(data, **values)
            mention(items)
            held = untrained(of_data(items, split), report_of(model), Drawn())
        sentences = read_descriptions(descriptions) if descriptions else {}
        place = device if of_rank is None else str(of_rank)
        recognizer = load_model(model, place, precision, classes=classes, views=views)
        announce(recognizer, model)
        by_rank_0(lambda: locks.enter_context(lock_of(target, new=out is not None)))
        with progress() as bars:
            how = Measuring(decoders(workers), truncate, Drawn(bars), spread=spread_over_ranks())
            base, novel = calibrating.predictions_for(recognizer, held, sentences, how)
        if rank > 0:
            return
        try:
            calibration, report = calibrating.calibrate(recognizer, held, base, novel, leave_out)
        except DataError as error:
            if data:
                raise
            message = f"{error} (froster calibrate --data FILE takes other videos)"
            raise DataError(message) from None
        recognizer.calibration = calibration
        if out is None:
            calibration.save(target)
        else:
            recognizer.save(out, {**inherited(report_of(model)), "calibrated": str(model)})
        pictured = attempt("the picture", lambda: draw(report, target / PICTURE))
    for _, message in base.errors:
        console.print(f"unreadable, left out: {message}")
    if as_json:
        print(json.dumps(dataclasses.asdict(calibration)))
        return
    show(calibration, report)
    console.print(f"written: {target / CALIBRATION}{f', {pictured}' if pictured else ''}")


def lock_of(target: Path, new: bool) -> AbstractContextManager[None]:
    """Of the folder that the model is a part of, where it is one of a run, a blend or the demo,
    which write it too; else of the model alone, or if it is `new` of its place."""
    place = Path(os.path.realpath(target))
    if any((place.parent / made).exists() for made in ("checkpoints", "blend.json", "demo.txt")):
        return sole_writer(place.parent)
    return sole_maker(place) if new else sole_writer(place)


def nowhere_to_write(model: str) -> UsageError:
    what = f"{model} is no froster model folder"
    if model != "nano" and not Path(model).expanduser().exists():
        what = f"no such file or folder: {model}"
    return UsageError(f"{what}, so there is nowhere to write: give --out FOLDER for a copy of it")


def draw(report: dict[str, Any] | None, path: Path) -> Path | None:
    """None, and no picture of an earlier fit, where nothing was measured."""
    if report is None:
        path.unlink(missing_ok=True)
        return None
    from froster.report.plots import coverage_figure

    return coverage_figure({name: report[name]["coverage"] for name in ("before", "after")}, path)


def run_of(model: str) -> Run:
    """Raises UsageError where `model` is no run, which knows its own videos."""
    from froster.inference.model_folder import is_model_folder
    from froster.training.run_folder import read_run

    folder = Path(os.path.expanduser(model))
    if model == "nano" or not (folder / "report.json").is_file() or is_model_folder(folder):
        raise UsageError(
            f"{model} is no output folder of froster train, which knows its own videos: give --data"
        )
    return read_run(folder)


def show(calibration: Calibration, report: dict[str, Any] | None) -> None:
    from froster.evaluation.calibration import NO_RULE

    if report is not None:
        show_measured(calibration.temperature, report)
    if calibration.none is None:
        console.print(NO_RULE)
    alone = calibration.multi_label
    if alone.thresholds or alone.threshold != 0.5:
        output.print(
            f"multi-label: a label fits from {100 * alone.threshold:.1f} % on;"
            f" {len(alone.thresholds)} labels have a threshold of their own"
        )
    fitted = calibration.fitted or {}
    console.print(
        f"fitted to {fitted['videos']} videos of {fitted['classes']} classes ({fitted['to']})"
    )


def show_measured(temperature: float, report: dict[str, Any]) -> None:
    output.print(
        f"temperature {temperature:.3f}: calibration error {report['before']['ece']:.1f} ->"
        f" {report['after']['ece']:.1f} points on {report['videos']} videos that were not fitted to"
    )
    rows = [
        (row["labels"], *(f"{row[key]:.1f}" for key in ("auroc", "right", "error")))
        for row in report["none"]
    ]
    print_table(("labels asked for", "none: AUROC", "told right", "error of P(none)"), rows)
    if (novel := report.get("strangers")) is not None:
        output.print(
            f"{novel['videos']} videos of classes that were held out: {novel['called_none']:.0f} %"
            f" called none of these, of the others {novel['known_called_none']:.0f} % (AUROC"
            f" {novel['auroc']:.1f})"
        )
