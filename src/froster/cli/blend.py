"""`froster blend`: mix a run's weights with CLIP's, at a ratio that held-out base videos choose."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import announce, decoders, load_model, print_table, show_result
from froster.cli.options import option
from froster.errors import CheckpointError, UsageError
from froster.utils import strict_json as json
from froster.utils.files import claim_folder, sole_writer, write_text
from froster.utils.progress import attempt, console, progress


def blend(
    folder: Annotated[Path, option("Output folder of froster train.", metavar="RUN")],
    /,
    *,
    data: Annotated[
        Path | None, options.ADDRESS, option("The run's data, if it lies elsewhere now.")
    ] = None,
    root: options.Root = None,
    out: Annotated[Path | None, option("Folder of the results; default: RUN/blend.")] = None,
    epochs: Annotated[
        str | None, option("A-B: checkpoints to average; default: the run's.")
    ] = None,
    points: Annotated[int, option("Ratios measured, evenly from 0 (tuned) to 1 (CLIP).")] = 11,
    rule: Annotated[
        Literal["one-se", "best"],
        option("Largest ratio within one standard error of the best on base videos, or the best."),
    ] = "one-se",
    ratio: Annotated[float | None, option("Take this share of CLIP; measure nothing.")] = None,
    model: Annotated[options.Model, option("The run's CLIP, if it lies elsewhere now.")] = None,
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
    from froster.inference.model_report import inherited
    from froster.report.plots import draw_blend
    from froster.text.sentences import read_descriptions
    from froster.training.blend import Line, curve
    from froster.training.fine_tune import use_of_weights
    from froster.training.held_out import of_run
    from froster.training.measure import Measuring, eval_sets
    from froster.training.reporter import Drawn
    from froster.training.run_folder import read_run

    if ratio is not None and not 0 <= ratio <= 1:
        raise UsageError(f"--ratio lies between 0 (tuned) and 1 (CLIP), not {ratio:g}")
    if points < 2:
        raise UsageError(f"--points must be 2 or more (ratio 0 and ratio 1), not {points}")
    wanted = parse_epochs(epochs)
    run = read_run(folder)
    out, source, clip = out or folder / "blend", run.source, model or run.source.model
    held = of_run(run, data, root) if ratio is None else None
    base = load_model(clip, device, precision, classes=source.class_file)
    if weights_fingerprint(base) != source.weights:
        hint = "the run did not start from" if model else "has changed since the run: pass --model"
        raise CheckpointError(f"{clip} holds another CLIP, which {hint}")
    for name, value in use_of_weights(base).items():
        if getattr(source, name) not in (None, value):
            raise CheckpointError(
                f"{clip} has another {name} than the CLIP that the run started from"
            )
    student = load_model(str(folder / "model"), device, precision, classes=source.class_file)
    student.calibration = Calibration()  # the run's is of other weights
    tuned, words = run.tuned(student, wanted)
    line = Line(base, student, tuned)
    claim_folder(out, "blend.json", "choose another --out")
    report: dict[str, Any] = {"run": str(folder), "tuned": words, "ratio": ratio}
    picture = out / "blend.png"
    with sole_writer(out):
        if held is not None:
            announce(base, clip)
            sentences = read_descriptions(source.descriptions) if source.descriptions else {}
            sets = eval_sets(student, student.config, held.parts, sentences)
            with progress() as bars:
                how = Measuring(decoders(workers), source.truncate, Drawn(bars))
                report |= curve(line, held, sets, how, points, rule)
        line.move_to(report["ratio"]).save(out / "model", {**inherited(run.report), **report})
        write_text(out / "blend.json", json.dumps(report, indent=2) + "\n")
        picture.unlink(missing_ok=True)
        if held is not None:
            attempt("the picture", lambda: draw_blend(report, picture))
    show_result(report, as_json, show if held else lambda report: None)
    share = report["ratio"]
    console.print(
        f"{share:.3g} CLIP + {1 - share:.3g} tuned ({words}){'' if held else ', not measured'}:"
        f" {out / 'model'}"
    )


def parse_epochs(text: str | None) -> tuple[int, int] | None:
    """`"2-6"` -> (2, 6), `"4"` -> (4, 4)."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise UsageError(
            f"--epochs takes A-B with 1 <= A <= B, such as 2-6, or one epoch, not {text!r}"
        )
    return first, last


def show(report: dict[str, Any]) -> None:
    rows, styles = [], []
    points = [(f"{point['ratio']:.3g}", point) for point in report["points"]]
    for name, values in [("frozen CLIP", report["frozen"]), *points]:
        chosen = values.get("ratio") == report["ratio"]
        cells = (values[key] for key in ("choosing", "base", "novel", "hm"))
        numbers = ("–" if value is None else f"{value:.1f}" for value in cells)
        rows.append((f"{name} <" if chosen else name, *numbers))
        styles.append("bold" if chosen else None)
    print_table(("ratio", "choosing", "base", "novel", "HM"), rows, styles)
    choosing = report["choosing"]
    within = "within one standard error of" if report["rule"] == "one-se" else "with"
    console.print(
        f"ratio {report['ratio']:.3g} chosen on {choosing['videos']} base videos"
        f" ({choosing['of']}): best {choosing['best']:.1f} ± {choosing['standard_error']:.1f},"
        f" the largest ratio {within} it"
    )
    for message in report["unreadable"]:
        console.print(f"unreadable, scored wrong: {message}")
