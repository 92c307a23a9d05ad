"""`froster train`: fine-tune on labelled videos, then report what was gained and what was kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.table import Table

from froster.cli.common import parse_options, parse_where, spare_cores
from froster.report.training import write_report
from froster.training.finish import write_json
from froster.training.measure import change_lines
from froster.training.reporter import Drawn
from froster.training.teach import TrainingResult, train
from froster.utils import strict_json as json
from froster.utils.files import sole_writer
from froster.utils.progress import console, leave_out, output, progress


def run(*, data: Path, out: Path, model: str | None, as_json: bool, **options: Any) -> None:
    """`options` are the fields of `TrainOptions`, as they are typed."""
    options["option"] = parse_options(options["option"])
    options["where"] = parse_where(options["where"])
    options["compile"] = options.pop("compile_towers")
    if options["workers"] is None:
        options["workers"] = spare_cores()
    with progress(quiet=os.environ.get("RANK", "0") != "0") as bars:
        result = train(data, out, model, reporter=Drawn(bars), **options)
    if result is None:
        return
    with sole_writer(out):
        write_page(result)
    if as_json:
        print(json.dumps(result.report))
    else:
        show(result)


def write_page(result: TrainingResult) -> None:
    """The report page, last of all: what of it cannot be made is left out and said."""
    out, left_out = result.folder, result.report["left_out"]
    known = len(left_out)

    def say(line: str) -> None:
        left_out.append(line)
        leave_out(line)

    write_report(out, result.model, result.parts, result.rows, result.report, say)
    if len(left_out) > known:
        write_json(out / "report.json", result.report)


def show(result: TrainingResult) -> None:
    out, rows, trained = result.folder, result.rows, result.trained
    together = [f"{name}*" for name in ("base", "novel", "HM") if rows[0].together]
    table = Table("method", "weights", "base", "novel", "HM", *together, box=None, pad_edge=False)
    cell = lambda value: "–" if value is None else f"{value:.1f}"  # noqa: E731
    for i, row in enumerate(rows):
        values = [*row.columns().values(), *row.generalised.values()]
        table.add_row(row.method, row.weights, *map(cell, values), style="bold" if i == 1 else "")
    output.print(table)
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
