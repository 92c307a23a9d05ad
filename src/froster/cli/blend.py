"""`froster blend`: mix a run's weights with CLIP's, at a ratio that held-out base videos choose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.table import Table

from froster.cli.common import announce, load_model, spare_cores
from froster.errors import CheckpointError, UsageError, one_of
from froster.evaluation.calibration import Calibration
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.seen import inherited
from froster.report.plots import draw_blend
from froster.text.sentences import read_descriptions
from froster.training.blend import Line, Rule, curve
from froster.training.fine_tune import use_of_weights
from froster.training.held_out import HeldOut, of_run
from froster.training.measure import Measuring, eval_sets
from froster.training.reporter import Drawn
from froster.training.run_folder import Run, read_run
from froster.utils import strict_json as json
from froster.utils.files import claim_folder, sole_writer, write_text
from froster.utils.progress import attempt, console, output, progress


def run(
    *,
    folder: Path,
    data: Path | None,
    root: Path | None,
    out: Path | None,
    epochs: str | None,
    points: int,
    rule: str,
    ratio: float | None,
    model: str | None,
    workers: int | None,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster blend` does; the options are described there."""
    one_of("--rule", rule, "one-se", "best")
    if ratio is not None and not 0 <= ratio <= 1:
        raise UsageError(
            f"--ratio lies between 0 (the tuned weights) and 1 (CLIP's), not {ratio:g}"
        )
    if points < 2:
        raise UsageError(f"--points must be 2 or more (ratio 0 and ratio 1), not {points}")
    wanted = parse_epochs(epochs)
    own = read_run(folder)
    out = out or folder / "blend"
    held = of_run(own, data, root) if ratio is None else None
    base = load_model(model or own.source.model, device, precision)
    if weights_fingerprint(base) != own.source.weights:
        hint = (
            "which the run did not start from"
            if model
            else "which has changed since the run: pass --model"
        )
        raise CheckpointError(f"{model or own.source.model} holds another CLIP, {hint}")
    for name, value in use_of_weights(base).items():
        if getattr(own.source, name) not in (None, value):
            raise CheckpointError(
                f"{model or own.source.model} has another {name} than the CLIP that the run started"
                " from"
            )
    student = load_model(str(folder / "model"), device, precision)
    student.calibration = Calibration()  # the run's own is of other weights
    tuned, words = own.tuned(student, wanted)
    line = Line(base, student, tuned)
    claim_folder(out, "blend.json", "choose another --out")
    report: dict[str, Any] = {"run": str(folder), "tuned": words, "ratio": ratio}
    with sole_writer(out):
        if held is not None:
            announce(base, model or own.source.model)
            workers = spare_cores() if workers is None else workers
            report |= measured(own, line, held, points, rule, workers)  # type: ignore[arg-type]
        line.move_to(report["ratio"]).save(out / "model", {**inherited(own.report), **report})
        write_text(out / "blend.json", json.dumps(report, indent=2) + "\n")
        (out / "blend.png").unlink(missing_ok=True)
        if held is not None:
            attempt("the picture", lambda: draw_blend(report, out / "blend.png"))
    if as_json:
        print(json.dumps(report))
    elif held is not None:
        show(report)
    share = report["ratio"]
    console.print(
        f"{share:.3g} CLIP + {1 - share:.3g} tuned ({words}){'' if held else ', not measured'}:"
        f" {out / 'model'}"
    )


def parse_epochs(text: str | None) -> tuple[int, int] | None:
    """`"2-6"` -> (2, 6), `"4"` -> (4, 4)."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise UsageError(
            f"--epochs takes A-B with 1 <= A <= B, such as 2-6, or one epoch, not {text!r}"
        )
    return first, last


def measured(
    own: Run, line: Line, held: HeldOut, points: int, rule: Rule, workers: int
) -> dict[str, Any]:
    """All points of the line and the choice between them, for `blend.json`."""
    source = own.source
    sentences = read_descriptions(source.descriptions) if source.descriptions else {}
    sets = eval_sets(line.student, line.student.config, held.parts, sentences)
    with progress() as bars:
        how = Measuring(workers, source.truncate, Drawn(bars))
        return curve(line, held, sets, how, points, rule)


def show(report: dict[str, Any]) -> None:
    table = Table("ratio", "choosing", "base", "novel", "HM", box=None, pad_edge=False)
    cell = lambda value: "–" if value is None else f"{value:.1f}"  # noqa: E731
    rows = [
        ("frozen CLIP", report["frozen"]),
        *((f"{p['ratio']:.3g}", p) for p in report["points"]),
    ]
    for name, values in rows:
        chosen = values.get("ratio") == report["ratio"]
        cells = [cell(values[key]) for key in ("choosing", "base", "novel", "hm")]
        table.add_row(f"{name} <" if chosen else name, *cells, style="bold" if chosen else "")
    output.print(table)
    choosing = report["choosing"]
    rule = (
        "the largest ratio within one standard error of it"
        if report["rule"] == "one-se"
        else "the largest ratio with it"
    )
    console.print(
        f"ratio {report['ratio']:.3g} chosen on {choosing['videos']} base videos"
        f" ({choosing['of']}): best {choosing['best']:.1f} ± {choosing['standard_error']:.1f},"
        f" {rule}"
    )
    for message in report["unreadable"]:
        console.print(f"unreadable, scored wrong: {message}")
