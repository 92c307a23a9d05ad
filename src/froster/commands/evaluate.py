"""`froster evaluate`: accuracy of a model on labelled videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

import froster.strict_json as json
from froster.commands.common import announce, load_model, parse_where, spare_cores
from froster.errors import DataError
from froster.evaluation import Predictions, Scorer, evaluate, over_splits
from froster.files import claim_folder, write_text
from froster.insight.distance import confusion_matrix, confusion_picture
from froster.insight.reliability import coverage_figure
from froster.progress import console, output, progress
from froster.recognizer import Recognizer
from froster.reliability import reliability
from froster.splits import TEST_WORDS, VALIDATION_WORDS
from froster.text.descriptions import describe, read_descriptions
from froster.text.prompts import check_labels, read_labels
from froster.video.dataset import Item, VideoDataset, read_items


def run(
    *,
    data: Path,
    model: str | None,
    labels_file: Path | None,
    split: Sequence[str] | None,
    views: int | None,
    sampling: str | None,
    clamp: str | None,
    batch_size: int,
    workers: int | None,
    out: Path | None,
    where: Sequence[str] | None,
    root: Path | None,
    labels_json: Path | None,
    descriptions: Path | None,
    truncate: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster evaluate` does; the options are described there."""
    workers = spare_cores() if workers is None else workers
    items = read_items(data, labels_json=labels_json, root=root, where=parse_where(where))
    sets = chosen_splits(items, split)
    classes = read_labels(labels_file) if labels_file else sorted({item.label for item in items})
    check_labels(classes)
    texts = describe(classes, read_descriptions(descriptions)) if descriptions else classes
    recognizer = load_model(model, device, precision, sampling=sampling, clamp=clamp, views=views)
    size, config = recognizer.clip.config.vision.image_size, recognizer.config
    datasets = {
        name: VideoDataset(part, classes, config.sampling, size, views=config.views, train=False)
        for name, part in sets.items()
    }
    if out is not None:
        claim_folder(out, "evaluation.json", "choose another --out")
    announce(recognizer, model)
    scorer = Scorer(recognizer.inference, recognizer.class_embeddings(texts, truncate), recognizer.dtype, config.fusion)
    results: dict[str, Predictions] = {}
    with progress() as bars:
        bar = bars.add_task("evaluate", total=sum(map(len, sets.values())), note="")
        for name, part in datasets.items():
            (results[name],) = evaluate(
                [scorer], part, classes, names=[str(item.path) for item in sets[name]], batch_size=batch_size,
                workers=workers, on_videos=lambda n: bars.update(bar, advance=n),
            )  # fmt: skip
    report = make_report(results, recognizer)
    if out is not None:
        curves = {name: result["reliability"]["coverage"] for name, result in report["splits"].items()}
        coverage_figure(curves, out / "coverage.png")
        for name, predictions in results.items():
            predictions.save(out / f"predictions_{name}.csv")
            confusion_picture(confusion_matrix(predictions), classes, out / f"confusion_{name}.png", name)
        write_text(out / "evaluation.json", json.dumps(report, indent=2) + "\n")
    if as_json:
        print(json.dumps(report))
    else:
        show(report)


def chosen_splits(items: Sequence[Item], names: Sequence[str] | None) -> dict[str, list[Item]]:
    """The named splits one by one; by default the test videos, or all where there is no split."""
    if names:
        found = {name: [item for item in items if item.split == name] for name in names}
        for name, part in found.items():
            if not part:
                there = ", ".join(sorted({item.split for item in items if item.split})) or "none"
                raise DataError(f"no video has the split {name!r}; there is {there}")
        return found
    said = {(item.split or "").lower() for item in items}
    words = TEST_WORDS if said & TEST_WORDS else VALIDATION_WORDS
    test = [item for item in items if (item.split or "").lower() in words]
    return {"test": test} if test else {"all": list(items)}


def make_report(results: dict[str, Predictions], recognizer: Recognizer) -> dict[str, Any]:
    splits = {name: predictions.summary() for name, predictions in results.items()}
    for name, predictions in results.items():
        assert predictions.views is not None
        splits[name]["reliability"] = reliability(recognizer.judge(predictions.views), predictions.labels)
        splits[name]["errors"] = [message for _, message in predictions.errors]
    report: dict[str, Any] = {"calibrated": recognizer.calibration.fitted is not None, "splits": splits}
    if len(results) > 1:
        report["over_splits"] = {key: over_splits([s[key] for s in splits.values()]) for key in ("top1", "top5")}
    return report


def show(report: dict[str, Any]) -> None:
    table = Table("split", "videos", "top-1", "top-5", "calibration error", "unreadable", box=None, pad_edge=False)
    for name, result in report["splits"].items():
        table.add_row(
            name, str(result["videos"]), f"{result['top1']:.2f} ± {result['standard_error']:.2f}",
            f"{result['top5']:.2f}", "–" if (ece := result["reliability"]["ece"]) is None else f"{ece:.1f}",
            str(result["unreadable"]),
        )  # fmt: skip
    output.print(table)
    if "over_splits" in report:
        top1 = report["over_splits"]["top1"]
        console.print(f"top-1 over {top1['splits']} splits: {top1['mean']:.2f} ± {top1['std']:.2f}")
    classes = Table("class", "top-1", box=None, pad_edge=False)
    for name, accuracy in next(iter(report["splits"].values()))["per_class"].items():
        classes.add_row(name, f"{accuracy:.1f}")
    output.print(classes)
    for result in report["splits"].values():
        for message in result["errors"]:
            console.print(f"unreadable, scored wrong: {message}")
