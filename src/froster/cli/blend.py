"""`froster blend`: mix a run's weights with CLIP's, at a ratio that held-out base videos choose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import announce, load_model, spare_cores
from froster.cli.options import option
from froster.cli.output import print_table
from froster.errors import CheckpointError, UsageError
from froster.utils import strict_json as json
from froster.utils.files import claim_folder, sole_writer, write_text
from froster.utils.progress import attempt, console, progress

if TYPE_CHECKING:
    from froster.training.blend import Line, Rule
    from froster.training.held_out import HeldOut
    from froster.training.run_folder import Run


def blend(
    folder: Annotated[Path, option("Output folder of froster train.", metavar="RUN")],
    /,
    *,
    data: Annotated[Path | None, option("The run's data, if it lies elsewhere now.")] = None,
    root: options.Root = None,
    out: Annotated[
        Path | None, option("Folder of model, numbers and picture; default: RUN/blend.")
    ] = None,
    epochs: Annotated[
        str | None,
        option("A-B: tuned is the mean of these epochs' checkpoints; default: the run's own mean."),
    ] = None,
    points: Annotated[int, option("Ratios measured, evenly from 0 (tuned) to 1 (CLIP).")] = 11,
    rule: Annotated[
        Literal["one-se", "best"],
        option(
            "On held-out base videos, never on novel ones: the largest ratio within one standard"
            " error of the best accuracy, or the best."
        ),
    ] = "one-se",
    ratio: Annotated[
        float | None, option("Take this share of CLIP; measure and choose nothing.")
    ] = None,
    model: Annotated[
        options.Model, option("The CLIP of the run, if it lies elsewhere now.")
    ] = None,
    workers: options.Workers = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Mix a run's weights with CLIP's: base, novel and HM over the ratio; a ratio chosen on
    held-out base videos.

    Example: froster blend runs/first --epochs 2-6
    """
    from froster.evaluation.calibration import Calibration
    from froster.inference.fingerprint import weights_fingerprint
    from froster.inference.seen import inherited
    from froster.report.plots import draw_blend
    from froster.training.blend import Line
    from froster.training.fine_tune import use_of_weights
    from froster.training.held_out import of_run
    from froster.training.run_folder import read_run

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
    classes = own.source.class_file
    base = load_model(model or own.source.model, device, precision, classes=classes)
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
    student = load_model(str(folder / "model"), device, precision, classes=classes)
    student.calibration = Calibration()  # the run's own is of other weights
    tuned, words = own.tuned(student, wanted)
    line = Line(base, student, tuned)
    claim_folder(out, "blend.json", "choose another --out")
    report: dict[str, Any] = {"run": str(folder), "tuned": words, "ratio": ratio}
    with sole_writer(out):
        if held is not None:
            announce(base, model or own.source.model)
            workers = spare_cores() if workers is None else workers
            report |= measured(own, line, held, points, rule, workers)
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
    from froster.text.sentences import read_descriptions
    from froster.training.blend import curve
    from froster.training.measure import Measuring, eval_sets
    from froster.training.reporter import Drawn

    source = own.source
    sentences = read_descriptions(source.descriptions) if source.descriptions else {}
    sets = eval_sets(line.student, line.student.config, held.parts, sentences)
    with progress() as bars:
        how = Measuring(workers, source.truncate, Drawn(bars))
        return curve(line, held, sets, how, points, rule)


def show(report: dict[str, Any]) -> None:
    rows, styles = [], []
    for name, values in (
        ("frozen CLIP", report["frozen"]),
        *((f"{point['ratio']:.3g}", point) for point in report["points"]),
    ):
        chosen = values.get("ratio") == report["ratio"]
        cells = (values[key] for key in ("choosing", "base", "novel", "hm"))
        numbers = ("–" if value is None else f"{value:.1f}" for value in cells)
        rows.append((f"{name} <" if chosen else name, *numbers))
        styles.append("bold" if chosen else None)
    print_table(("ratio", "choosing", "base", "novel", "HM"), rows, styles)
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
