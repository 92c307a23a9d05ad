"""`froster blend`: mix a run's weights with CLIP's, at a ratio that held-out base videos choose."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import decoders, show_result
from froster.cli.options import option
from froster.errors import UsageError
from froster.utils.files import sole_writer
from froster.utils.progress import attempt, console, print_table


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
    from froster.report.plots import draw_blend
    from froster.training import blend as blending
    from froster.training.reporter import Drawn

    asked = blending.BlendOptions(
        data=data,
        root=root,
        model=model,
        epochs=parse_epochs(epochs),
        points=points,
        rule=rule,
        ratio=ratio,
        workers=decoders(workers),
        device=device,
        precision=precision,
    )
    out = out or folder / "blend"
    picture, measured = out / "blend.png", ratio is None
    with Drawn() as reporter:
        report = blending.blend(folder, out, asked, reporter)
    with sole_writer(out):
        picture.unlink(missing_ok=True)
        if measured:
            attempt("the picture", lambda: draw_blend(report, picture))
    show_result(report, as_json, show if measured else lambda report: None)
    share, words = report["ratio"], report["tuned"]
    console.print(
        f"{share:.3g} CLIP + {1 - share:.3g} tuned ({words}){'' if measured else ', not measured'}:"
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
