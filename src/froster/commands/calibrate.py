"""`froster calibrate`: fit a temperature and the probability of "none of these" to held-out videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

import froster.strict_json as json
from froster.blend import choosing_half
from froster.calibration import FEWEST_VIDEOS, Calibration, Judgement, fit
from froster.commands import blend
from froster.commands.common import announce, load_model, parse_where, spare_cores
from froster.errors import DataError, UsageError
from froster.evaluation import Predictions, Scorer, evaluate
from froster.files import CALIBRATION
from froster.insight.reliability import coverage_figure
from froster.model_folder import is_model_folder
from froster.progress import console, output, progress
from froster.recognizer import Recognizer
from froster.reliability import auroc, measured
from froster.runs import read_run
from froster.splits import VALIDATION_WORDS
from froster.text.descriptions import describe, read_descriptions
from froster.video.dataset import Item, VideoDataset, read_items

PICTURE = "calibration.png"


@dataclass(frozen=True)
class HeldOut:
    """Videos that the model did not learn from: some are fitted to, the others say how good the fit is."""

    items: list[Item]
    classes: list[str]
    fits: Tensor | None
    """(N,) bools; None: all are fitted to, and what is measured is a fit to one half on the other."""
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
    target = out or model_folder(model)
    if target is None:
        raise UsageError(f"{model} is no froster model folder, so there is nowhere to write: give --out FOLDER for a copy of it")
    if data is None:
        held = of_run(Path(model), root)
    else:
        items = read_items(data, labels_json=labels_json, root=root, where=parse_where(where))
        held = of_data(items, split, descriptions, truncate)
    recognizer = load_model(model, device, precision, views=views)
    announce(recognizer, model)
    with progress() as bars:
        bar = bars.add_task("calibrate", total=len(held.items) + len(held.strangers), note="")
        ask = Asker(recognizer, held, spare_cores() if workers is None else workers, lambda n: bars.update(bar, advance=n))
        found = ask(held.items)
        others = [dataclasses.replace(item, label=held.classes[0]) for item in held.strangers]  # a label they do not have
        strangers = ask(others) if others else None
    calibration, report = calibrated(recognizer, found, held, strangers)
    recognizer.calibration = calibration
    if out is not None:
        recognizer.save(out, {"calibrated": str(model)})
    calibration.save(target)
    curves = {"before": report["before"]["coverage"], "after": report["after"]["coverage"]}
    coverage_figure(curves, target / PICTURE)
    if as_json:
        print(json.dumps(dataclasses.asdict(calibration)))
    else:
        show(calibration, report)
        for _, message in found.errors:
            console.print(f"unreadable, left out: {message}")
        console.print(f"written: {target / CALIBRATION}, {target / PICTURE}")


def model_folder(model: str) -> Path | None:
    """Where `froster.load` reads a calibration of this model from, or None."""
    return next((folder for folder in (Path(model), Path(model) / "model") if is_model_folder(folder)), None)


def of_run(folder: Path, root: Path | None) -> HeldOut:
    """What a run held out, taken apart as `froster blend` does. Raises UsageError where `folder` is no run."""
    if not (folder / "report.json").is_file() or is_model_folder(folder):
        raise UsageError(f"{folder} is no output folder of froster train, which knows its own videos: give --data")
    own = read_run(folder)
    held = blend.of_run(own, None, root)
    return HeldOut(
        held.parts.base_test, held.parts.base, held.chooses, held.origin, held.parts.novel_test,
        own.source.descriptions, own.source.truncate,
    )  # fmt: skip


def of_data(items: Sequence[Item], split: str | None, descriptions: Path | None, truncate: bool) -> HeldOut:
    """The named split, else the validation videos, or all of a data set without splits. Never the test by default."""
    said = sorted({item.split for item in items if item.split})
    if split is not None:
        chosen = [item for item in items if item.split == split]
    elif said:
        chosen = [item for item in items if (item.split or "").lower() in VALIDATION_WORDS]
    else:
        chosen = list(items)
    if not chosen:
        raise DataError(
            f"no video has the split {split or 'validation'!r}; there is {', '.join(said) or 'none'}. Name one with --split: "
            "on videos that were trained on a model is too sure, and what is fitted to the test cannot be tested there"
        )
    classes = sorted({item.label for item in chosen})
    origin = f"split {split}" if split else "the validation split" if said else "all videos"
    return HeldOut(chosen, classes, None, origin, descriptions=descriptions, truncate=truncate)


class Asker:
    """Scores videos among the held-out classes."""

    def __init__(self, recognizer: Recognizer, held: HeldOut, workers: int, on_videos: Any):
        texts = describe(held.classes, read_descriptions(held.descriptions)) if held.descriptions else held.classes
        self.recognizer, self.held, self.workers, self.on_videos = recognizer, held, workers, on_videos
        classes = recognizer.class_embeddings(texts, held.truncate)
        self.scorer = Scorer(recognizer.inference, classes, recognizer.dtype, recognizer.config.fusion)

    def __call__(self, items: Sequence[Item]) -> Predictions:
        config, size = self.recognizer.config, self.recognizer.clip.config.vision.image_size
        dataset = VideoDataset(items, self.held.classes, config.sampling, size, views=config.views, train=False)
        return evaluate([self.scorer], dataset, self.held.classes, workers=self.workers, on_videos=self.on_videos)[0]


def calibrated(
    recognizer: Recognizer, found: Predictions, held: HeldOut, strangers: Predictions | None
) -> tuple[Calibration, dict[str, Any]]:
    """The fit, and what videos that it was not fitted to say of it."""
    scale, fusion, views, labels = recognizer.logit_scale, recognizer.config.fusion, found.views, found.labels
    assert views is not None
    own = held.fits if held.fits is not None and not held.fits.all() else None
    half = choosing_half(held.items) if own is None else own
    calibration = fit(views, labels, scale, fusion) if own is None else fit(views[own], labels[own], scale, fusion)
    probe = fit(views[half], labels[half], scale, fusion, FEWEST_VIDEOS // 2) if own is None else calibration
    report = measured(probe, views[~half], labels[~half], scale, fusion)
    if strangers is not None and strangers.views is not None:
        report["strangers"] = told_apart(probe.judge(views[~half], scale, fusion), probe.judge(strangers.views, scale, fusion))
    fitted = {
        "to": held.origin, "videos": len(labels) if own is None else int(own.sum()), "classes": len(held.classes),
        "measured": report,
    }  # fmt: skip
    return dataclasses.replace(calibration, fitted=fitted), report


def told_apart(known: Judgement, strangers: Judgement) -> dict[str, float]:
    """Held-out videos of the classes against videos of classes that are really not among them."""
    a, b = (judged.none[~judged.none.isnan()] for judged in (known, strangers))
    share = lambda none: 100 * float((none > 0.5).double().mean())  # noqa: E731
    return {"videos": len(b), "auroc": auroc(b, a), "called_none": share(b), "known_called_none": share(a)}


def show(calibration: Calibration, report: dict[str, Any]) -> None:
    fitted, rule = calibration.fitted or {}, calibration.none
    before, after = report["before"], report["after"]
    output.print(
        f"temperature {calibration.temperature:.3f}: calibration error {before['ece']:.1f} -> {after['ece']:.1f} points "
        f"on {report['videos']} videos that were not fitted to"
    )
    table = Table("labels asked for", "none: AUROC", "told right", "error of P(none)", box=None, pad_edge=False)
    for row in report["none"]:
        table.add_row(str(row["labels"]), *(f"{row[key]:.1f}" for key in ("auroc", "right", "error")))
    output.print(table)
    if (found := report.get("strangers")) is not None:
        output.print(
            f"{found['videos']} videos of classes that were held out: {found['called_none']:.0f} % called none of these, "
            f"of the others {found['known_called_none']:.0f} % (AUROC {found['auroc']:.1f})"
        )
    if not rule.slope:
        console.print("this model's scores do not tell whether a label fits: none of these gets 1/2 whatever the video")
    console.print(f"fitted to {fitted['videos']} videos of {fitted['classes']} classes ({fitted['to']})")
