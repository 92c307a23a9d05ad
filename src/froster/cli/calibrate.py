"""`froster calibrate`: fit a temperature and the probability of "none of these" to held-out videos."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from froster.cli import blend
from froster.cli.common import announce, load_model, mention, parse_where, spare_cores
from froster.cli.evaluate_parts import unknown
from froster.data.dataset import VideoDataset
from froster.data.manifest import Item, read_items
from froster.data.splits import VALIDATION_WORDS
from froster.errors import DataError, UsageError
from froster.evaluation.calibration import FEWEST_VIDEOS, NO_RULE, Calibration, fit
from froster.evaluation.metrics import Predictions, Scorer, evaluate
from froster.evaluation.reliability import auroc, measured, share_called_none
from froster.inference.model_folder import folder_of, is_model_folder
from froster.inference.recognizer import Recognizer
from froster.inference.seen import inherited, report_of, seen_by
from froster.report.plots import coverage_figure
from froster.text.sentences import read_descriptions, with_descriptions
from froster.training.blend import choosing_half
from froster.training.run_folder import read_run
from froster.utils import strict_json as json
from froster.utils.files import CALIBRATION, refuse_current, sole_maker, sole_writer
from froster.utils.progress import attempt, console, output, progress, working

PICTURE = "calibration.png"


@dataclass(frozen=True)
class HeldOut:
    """Videos that the model did not learn from: some are fitted to, the others say how good the fit
    is."""

    items: list[Item]
    classes: list[str]
    fits: Tensor | None
    """(N,) bools; None: all are fitted to, and what is measured is a fit to one half on the other.
    """
    origin: str
    strangers: Sequence[Item] = ()
    """Videos of classes that are not among `classes`."""
    descriptions: str | Path | None = None
    truncate: bool = False


def run(
    *,
    model: str,
    data: Path | None,
    split: str | None,
    out: Path | None,
    views: int | None,
    workers: int | None,
    where: Sequence[str] | None,
    root: Path | None,
    labels_json: Path | None,
    descriptions: Path | None,
    truncate: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster calibrate` does; the options are described there."""
    if out is not None:
        refuse_current(out)
    target = out or folder_of(model)
    if target is None:
        raise nowhere_to_write(model)
    if data is None:
        held = of_run(model, root)
    else:
        items = read_items(data, labels_json=labels_json, root=root, where=parse_where(where))
        mention(items)
        held = untrained(of_data(items, split, descriptions, truncate), report_of(model))
    recognizer = load_model(model, device, precision, views=views)
    announce(recognizer, model)
    with lock_of(target, whole=out is not None):
        with progress() as bars:
            bar = bars.add_task("calibrate", total=len(held.items) + len(held.strangers), note="")
            ask = Asker(
                recognizer,
                held,
                spare_cores() if workers is None else workers,
                lambda n: bars.update(bar, advance=n),
            )
            found = ask(held.items)
            others = [
                dataclasses.replace(item, label=held.classes[0]) for item in held.strangers
            ]  # a label they do not have
            strangers = ask(others) if others else None
        try:
            calibration, report = calibrated(recognizer, found, held, strangers)
        except DataError as error:
            raise (
                error
                if data
                else DataError(f"{error} (froster calibrate --data FILE takes other videos)")
            ) from None
        recognizer.calibration = calibration
        if out is None:
            calibration.save(target)
        else:
            recognizer.save(out, {**inherited(report_of(model)), "calibrated": str(model)})
        pictured = attempt("the picture", lambda: draw(report, target / PICTURE))
    if as_json:
        print(json.dumps(dataclasses.asdict(calibration)))
    else:
        show(calibration, report)
        for _, message in found.errors:
            console.print(f"unreadable, left out: {message}")
        console.print(f"written: {target / CALIBRATION}{f', {pictured}' if pictured else ''}")


def lock_of(target: Path, whole: bool) -> AbstractContextManager[None]:
    """Of the folder that the model is a part of, where it is one of a run, a blend or the demo,
    which write it too.

    Else of the model alone: of what is written into it, or, if it is made as a `whole`, of what
    takes its place.
    """
    place = Path(os.path.realpath(target))
    if any((place.parent / made).exists() for made in ("checkpoints", "blend.json", "demo.txt")):
        return sole_writer(place.parent)
    return sole_maker(place) if whole else sole_writer(place)


def nowhere_to_write(model: str) -> UsageError:
    if model != "nano" and not Path(model).expanduser().exists():
        return UsageError(
            f"no such file or folder: {model} (a model of the hub is calibrated as a copy: give"
            " --out FOLDER)"
        )
    return UsageError(
        f"{model} is no froster model folder, so there is nowhere to write: give --out FOLDER for a"
        " copy of it"
    )


def draw(report: dict[str, Any] | None, path: Path) -> Path | None:
    """None, and no picture of an earlier fit, where nothing was measured."""
    if report is None:
        path.unlink(missing_ok=True)
        return None
    return coverage_figure({name: report[name]["coverage"] for name in ("before", "after")}, path)


def of_run(model: str, root: Path | None) -> HeldOut:
    """What a run held out, taken apart as `froster blend` does. Raises UsageError where `model` is
    no run."""
    folder = Path(os.path.expanduser(model))
    if model == "nano" or not (folder / "report.json").is_file() or is_model_folder(folder):
        raise UsageError(
            f"{model} is no output folder of froster train, which knows its own videos: give --data"
        )
    own = read_run(folder)
    held = blend.of_run(own, None, root)
    return HeldOut(
        held.parts.base_test,
        held.parts.base,
        held.chooses,
        held.origin,
        held.parts.novel_test,
        own.source.descriptions,
        own.source.truncate,
    )


def of_data(
    items: Sequence[Item], split: str | None, descriptions: Path | None, truncate: bool
) -> HeldOut:
    """The named split, else the validation videos, or all of a data set without splits. Never the
    test by default."""
    said = sorted({item.split for item in items if item.split})
    if split is not None:
        chosen = [item for item in items if item.split == split]
    elif said:
        chosen = [item for item in items if (item.split or "").lower() in VALIDATION_WORDS]
    else:
        chosen = list(items)
    if not chosen:
        raise DataError(
            f"no video has the split {split or 'validation'!r}; there is"
            f" {', '.join(said) or 'none'}. Name one with --split: on videos that were trained on a"
            " model is too sure, and what is fitted to the test cannot be tested there"
        )
    classes = sorted({item.label for item in chosen})
    origin = f"split {split}" if split else "the validation split" if said else "all videos"
    return HeldOut(chosen, classes, None, origin, descriptions=descriptions, truncate=truncate)


def untrained(held: HeldOut, report: dict[str, Any]) -> HeldOut:
    """Without the videos that the model was trained on, on which it is too sure; says how many
    these are.

    Raises DataError where all of them were.
    """
    seen = seen_by(report)
    if seen is None:
        for line in unknown(held.items, report):
            console.print(line, style="yellow")
        return held
    with working("looking for training videos", len(held.items)) as advance:
        parts = seen.parts(held.items, advance)
    kept = [item for item, part in zip(held.items, parts, strict=True) if part != "trained"]
    if not kept:
        raise DataError(
            f"the model was trained on all {len(held.items)} videos ({held.origin}), on which it is"
            " too sure"
        )
    if len(kept) < len(held.items):
        console.print(
            f"{len(held.items) - len(kept)} of {len(held.items)} videos were trained on and are"
            " left out"
        )
    return dataclasses.replace(held, items=kept, classes=sorted({item.label for item in kept}))


class Asker:
    """Scores videos among the held-out classes."""

    def __init__(self, recognizer: Recognizer, held: HeldOut, workers: int, on_videos: Any):
        texts = (
            with_descriptions(held.classes, read_descriptions(held.descriptions))
            if held.descriptions
            else held.classes
        )
        self.recognizer, self.held, self.workers, self.on_videos = (
            recognizer,
            held,
            workers,
            on_videos,
        )
        classes = recognizer.class_embeddings(texts, held.truncate)
        self.scorer = Scorer(
            recognizer.inference, classes, recognizer.dtype, recognizer.config.fusion
        )

    def __call__(self, items: Sequence[Item]) -> Predictions:
        model, config = self.recognizer, self.recognizer.config
        dataset = VideoDataset(
            items,
            self.held.classes,
            config.sampling,
            model.image_size,
            views=config.views,
            train=False,
            how=model.preprocessing,
        )
        return evaluate(
            [self.scorer],
            dataset,
            self.held.classes,
            workers=self.workers,
            on_videos=self.on_videos,
        )[0]


def calibrated(
    recognizer: Recognizer, found: Predictions, held: HeldOut, strangers: Predictions | None
) -> tuple[Calibration, dict[str, Any] | None]:
    """The fit, and what videos that it was not fitted to say of it; None where too few of these can
    be read."""
    scale, fusion, views, labels = (
        recognizer.logit_scale,
        recognizer.config.fusion,
        found.views,
        found.labels,
    )
    assert views is not None
    own = held.fits if held.fits is not None and not held.fits.all() else None
    half = choosing_half(held.items) if own is None else own
    calibration = (
        fit(views, labels, scale, fusion)
        if own is None
        else fit(views[own], labels[own], scale, fusion)
    )

    def judged() -> dict[str, Any]:
        probe = (
            fit(views[half], labels[half], scale, fusion, FEWEST_VIDEOS // 2)
            if own is None
            else calibration
        )
        report = measured(probe, views[~half], labels[~half], scale, fusion)
        if strangers is not None and strangers.views is not None:
            known, others = (
                probe.judge(each, scale, fusion).none for each in (views[~half], strangers.views)
            )
            if known is not None and others is not None:
                apart = attempt(
                    "videos of classes that were held out", lambda: told_apart(known, others)
                )
                report |= {} if apart is None else {"strangers": apart}
        return report

    report = attempt("how good the calibration is", judged)
    readable = ~views.isnan().flatten(1).any(1)
    fitted = {
        "to": held.origin,
        "videos": int((readable if own is None else readable[own]).sum()),
        "classes": len(held.classes),
        "measured": report,
    }
    return dataclasses.replace(calibration, fitted=fitted), report


def told_apart(known: Tensor, strangers: Tensor) -> dict[str, float]:
    """P(none) of held-out videos of the classes, against videos of classes that are really not
    among them."""
    a, b = (none[~none.isnan()] for none in (known, strangers))
    shares = {"called_none": share_called_none(b), "known_called_none": share_called_none(a)}
    return {"videos": len(b), "auroc": auroc(b, a), **shares}


def show(calibration: Calibration, report: dict[str, Any] | None) -> None:
    fitted = calibration.fitted or {}
    if report is not None:
        show_measured(calibration, report)
    if calibration.none is None:
        console.print(NO_RULE)
    console.print(
        f"fitted to {fitted['videos']} videos of {fitted['classes']} classes ({fitted['to']})"
    )


def show_measured(calibration: Calibration, report: dict[str, Any]) -> None:
    before, after = report["before"], report["after"]
    output.print(
        f"temperature {calibration.temperature:.3f}: calibration error {before['ece']:.1f} ->"
        f" {after['ece']:.1f} points on {report['videos']} videos that were not fitted to"
    )
    table = Table(
        "labels asked for",
        "none: AUROC",
        "told right",
        "error of P(none)",
        box=None,
        pad_edge=False,
    )
    for row in report["none"]:
        table.add_row(
            str(row["labels"]), *(f"{row[key]:.1f}" for key in ("auroc", "right", "error"))
        )
    if report["none"]:
        output.print(table)
    if (found := report.get("strangers")) is not None:
        output.print(
            f"{found['videos']} videos of classes that were held out: {found['called_none']:.0f} %"
            f" called none of these, of the others {found['known_called_none']:.0f} % (AUROC"
            f" {found['auroc']:.1f})"
        )
