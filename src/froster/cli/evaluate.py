"""`froster evaluate`: accuracy of a model on labelled videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from froster.cli.common import parse_where, spare_cores
from froster.report.distance import confusion_matrix, confusion_picture
from froster.report.plots import coverage_figure
from froster.training.evaluate import Evaluation, evaluate
from froster.training.reporter import Drawn
from froster.utils import strict_json as json
from froster.utils.files import sole_writer
from froster.utils.progress import attempt, console, output, progress


def run(*, data: Path, model: str | None, out: Path | None, as_json: bool, **options: Any) -> None:
    """`options` are the fields of `EvaluateOptions`, as they are typed."""
    options["where"] = parse_where(options["where"])
    if options["workers"] is None:
        options["workers"] = spare_cores()
    with progress() as bars:
        evaluation = evaluate(data, model, out, reporter=Drawn(bars), **options)
    if out is not None:
        with sole_writer(out):
            attempt("the pictures", lambda: draw(evaluation, out))
    if as_json:
        print(json.dumps(evaluation.report))
    else:
        show(evaluation.report)


def draw(evaluation: Evaluation, out: Path) -> None:
    curves = {
        name: result["reliability"]["coverage"]
        for name, result in evaluation.report["splits"].items()
    }
    coverage_figure(curves, out / "coverage.png")
    for name, predictions in evaluation.predictions.items():
        confusion_picture(
            confusion_matrix(predictions), predictions.classes, out / f"confusion_{name}.png", name
        )


def show(report: dict[str, Any]) -> None:
    top5 = [result["top5"] is not None for result in report["splits"].values()]
    columns = [
        "videos",
        "labels",
        "chance",
        "top-1",
        *(["top-5"] if any(top5) else []),
        "calibration error",
        "unreadable",
    ]
    table = Table("split", *columns, box=None, pad_edge=False)
    for name, result in report["splits"].items():
        best = [f"{result['top5']:.2f}" if result["top5"] is not None else "–"] if any(top5) else []
        table.add_row(
            name,
            str(result["videos"]),
            str(result["classes"]),
            f"{result['chance']:.1f}",
            with_error(result),
            *best,
            "–" if (ece := result["reliability"]["ece"]) is None else f"{ece:.1f}",
            str(result["unreadable"]),
        )
        for group in ("base", "novel") if "generalised" in result else ():
            own = result[group]
            if own["top1"] is not None:
                table.add_row(
                    f"{name}, {group}",
                    str(own["videos"]),
                    str(own["classes"]),
                    f"{own['chance']:.1f}",
                    with_error(own),
                )
            table.add_row(
                f"{name}, {group}",
                str(own["videos"]),
                str(result["classes"]),
                f"{result['chance']:.1f}",
                with_error(own["together"]),
            )
    output.print(table)
    for name, result in report["splits"].items():
        if "generalised" in result:
            own = "" if result["hm"] is None else f"{result['hm']:.1f} among their own labels, "
            console.print(
                f"{name}: harmonic mean of base (trained on) and novel classes"
                f" {own}{result['generalised']['hm']:.1f} among all {result['classes']} labels"
                " together"
            )
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


def with_error(result: dict[str, Any]) -> str:
    return f"{result['top1']:.2f} ± {result['standard_error']:.2f}"
