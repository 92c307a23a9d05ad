"""`froster train`: fine-tune on labelled videos, then report what was gained and what was kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from froster.cli import options
from froster.cli.common import parse_options, show_result, start_torch
from froster.cli.options import (
    CHANGES,
    DATA,
    LABELLED,
    MACHINE,
    SPREAD,
    arranged,
    bounds,
    option,
    typed,
)
from froster.training.distill_options import Distill
from froster.training.options import TrainOptions
from froster.utils.files import sole_writer, write_json
from froster.utils.progress import console, leave_out, print_table

if TYPE_CHECKING:
    from froster.training.finish import TrainingResult

Arranged = arranged(
    TrainOptions,
    {
        None: "method preset distill novel_fraction epochs batch_size lr",
        DATA: "novel_column novel_file split_seed shots holdout validation look"
        f" {LABELLED} classes",
        Group("Method", sort_key=2): "variant option tune",
        Group("Distillation", sort_key=3): (
            "kind target teacher ema_beta side level distance beta_v beta_t alpha zero_init"
            " temperature anchors reduction unit specialise"
        ),
        Group("Clips", sort_key=4): "frames sampling clamp views flip kept_views",
        Group("Optimisation", sort_key=5): (
            "new_scale average_from averaging average_mu average_sigma meta meta_rate patience seed"
        ),
        Group("Going on to another task", sort_key=6): "remember hold hold_strength",
        Group("Run", sort_key=7): "resume keep checkpoint_minutes blend_points logger",
        MACHINE: "workers device precision compile checkpointing shard_weights memory",
    },
    {
        **CHANGES,
        **dict.fromkeys(("epochs", "average_from", "shots", "frames", "kept_views"), bounds(1)),
        **dict.fromkeys(("patience", "keep", "blend_points"), bounds(0)),
        "checkpoint_minutes": bounds(0),
        **dict.fromkeys(("novel_fraction", "holdout", "validation"), bounds(0, 0.9)),
        "option": Annotated[list[str] | None, Parameter(name=("--option", "-O"))],
        "look": Parameter(negative="--no-look"),
        "flip": Parameter(negative="--no-flip"),
        "zero_init": Parameter(negative="--no-zero-init"),
        "unit": Parameter(negative="--no-unit"),
        "specialise": Parameter(negative="--no-specialise"),
    },
    also=Distill,
)


def train(
    *,
    data: options.Data,
    out: Annotated[Path, option("Folder of the run: models, checkpoints, metrics, report.")],
    model: options.Model = None,
    asked: Annotated[Arranged, SPREAD] = Arranged(),  # type: ignore[valid-type]  # noqa: B008
    as_json: options.Json = False,
) -> None:
    """Fine-tune on labelled videos and report what was gained on base classes and kept on held-out
    ones.

    Example: froster train --data videos/ --model nano --novel-fraction 0.3 --out runs/first
    """
    start_torch()
    from froster.training import train as training
    from froster.training.reporter import Drawn

    values = typed(asked)
    values["option"] = parse_options(values["option"])
    if os.environ.get("RANK", "0") != "0":  # of the processes of torchrun the first speaks for all
        result = training.train(data, out, model, **values)
    else:
        with Drawn() as reporter:
            result = training.train(data, out, model, reporter=reporter, **values)
        if reporter.memory is not None:
            show_result(reporter.memory.as_dict(), as_json, lambda _: None)  # its lines stand above
    if result is None:
        return
    with sole_writer(out):
        write_page(result)
    show_result(result.report, as_json, lambda _: show(result))


def write_page(result: TrainingResult) -> None:
    """The report page, last of all: what of it cannot be made is left out and said."""
    from froster.report.training import write_report

    out, left_out = result.folder, result.report["left_out"]
    known = len(left_out)

    def say(line: str) -> None:
        left_out.append(line)
        leave_out(line)

    write_report(out, result.model, result.parts, result.rows, result.report, say)
    if len(left_out) > known:
        write_json(out / "report.json", result.report)


def show(result: TrainingResult) -> None:
    from froster.training.measure import change_lines

    out, rows, trained = result.folder, result.rows, result.trained
    together = [f"{name}*" for name in ("base", "novel", "HM") if rows[0].together]
    cells = []
    for row in rows:
        values = [*row.columns().values(), *row.generalised.values()]
        numbers = ("–" if value is None else f"{value:.1f}" for value in values)
        cells.append((row.method, row.weights, *numbers))
    print_table(("method", "weights", "base", "novel", "HM", *together), cells, (None, "bold"))
    if together:
        console.print(
            "* among base and novel labels together, as a user asks who does not know of which kind"
            " a video is"
        )
    for line in change_lines(rows[0], rows[1]):
        console.print(line)
    for message, count in trained.unreadable.items():
        console.print(f"skipped in training, {count} times: {message}")
    for predictions in rows[1].predictions.values():
        for _, message in predictions.errors:
            console.print(f"unreadable, scored wrong: {message}")
    console.print(f"model: {out / 'model'}   report: {out / 'report.html'}")
