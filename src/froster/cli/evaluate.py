"""`froster evaluate`: accuracy of a model on labelled videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from froster.cli import options
from froster.cli.common import print_table, show_result
from froster.cli.options import CHANGES, DATA, LABELLED, MACHINE, SPREAD, arranged, option, typed
from froster.training.options import EvaluateOptions
from froster.utils.files import sole_writer
from froster.utils.progress import attempt, console

if TYPE_CHECKING:
    from froster.training.evaluate import Evaluation

Arranged = arranged(
    EvaluateOptions,
    {
        None: "labels_file split part views sampling clamp transport",
        DATA: f"{LABELLED} classes",
        MACHINE: "batch_size workers device precision",
    },
    CHANGES,
)


def evaluate(
    *,
    data: options.Data,
    model: options.Model = None,
    asked: Annotated[Arranged, SPREAD] = Arranged(),  # type: ignore[valid-type]  # noqa: B008
    out: Annotated[Path | None, option("Folder for predictions, report and pictures.")] = None,
    as_json: options.Json = False,
) -> None:
    """Accuracy of a model on labelled videos: top-1, top-5, per class. Videos that it was trained
    on are not scored unasked.

    Example: froster evaluate --data videos/ --model runs/first
    """
    from froster.training import evaluate as evaluating
    from froster.training.reporter import Drawn

    with Drawn() as reporter:
        evaluation = evaluating.evaluate(data, model, out, reporter=reporter, **typed(asked))
    if out is not None:
        with sole_writer(out):
            attempt("the pictures", lambda: draw(evaluation, out))
    show_result(evaluation.report, as_json, show)


def draw(evaluation: Evaluation, out: Path) -> None:
    from froster.report.distance import confusion_matrix, confusion_picture
    from froster.report.plots import coverage_figure

    splits = evaluation.report["splits"].items()
    curves = {name: result["reliability"]["coverage"] for name, result in splits}
    coverage_figure(curves, out / "coverage.png")
    for name, predictions in evaluation.predictions.items():
        counts, path = confusion_matrix(predictions), out / f"confusion_{name}.png"
        confusion_picture(counts, predictions.classes, path, name)


def show(report: dict[str, Any]) -> None:
    splits = report["splits"]
    with_top5 = any(result["top5"] is not None for result in splits.values())
    rows: list[tuple[object, ...]] = []
    for name, result in splits.items():
        top5 = (number(result["top5"], 2),) if with_top5 else ()
        ece = number(result["reliability"]["ece"], 1)
        rows.append((*row(name, result, result), *top5, ece, result["unreadable"]))
        for kind in ("base", "novel") if "generalised" in result else ():
            alone = result[kind]
            if alone["top1"] is not None:
                rows.append(row(f"{name}, {kind}", alone, alone))
            together = {**alone["together"], "videos": alone["videos"]}
            rows.append(row(f"{name}, {kind}", together, result))
    columns = ["split", "videos", "labels", "chance", "top-1", *(["top-5"] if with_top5 else [])]
    print_table([*columns, "calibration error", "unreadable"], rows)
    for name, result in splits.items():
        if "generalised" in result:
            hm = result["hm"]
            alone = "" if hm is None else f"{hm:.1f} among their own labels, "
            console.print(
                f"{name}: harmonic mean of base (trained on) and novel classes"
                f" {alone}{result['generalised']['hm']:.1f} among all {result['classes']} labels"
                " together"
            )
    if "over_splits" in report:
        top1 = report["over_splits"]["top1"]
        console.print(f"top-1 over {top1['splits']} splits: {top1['mean']:.2f} ± {top1['std']:.2f}")
    accuracies = next(iter(splits.values()))["per_class"]
    print_table(("class", "top-1"), [(name, f"{value:.1f}") for name, value in accuracies.items()])
    for result in splits.values():
        for message in result["errors"]:
            console.print(f"unreadable, scored wrong: {message}")


def row(name: str, result: dict[str, Any], labels: dict[str, Any]) -> tuple[object, ...]:
    """Accuracy among the `labels`' classes."""
    top1 = f"{result['top1']:.2f} ± {result['standard_error']:.2f}"
    return name, result["videos"], labels["classes"], f"{labels['chance']:.1f}", top1


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
