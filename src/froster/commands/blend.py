"""`froster blend`: mix a run's weights with CLIP's, at a ratio that held-out base videos choose."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from froster.blend import Line, Rule, choose, choosing_half, measure_line, validation_videos
from froster.commands.common import announce, load_model, spare_cores
from froster.commands.train import eval_sets
from froster.errors import CheckpointError, DataError, UsageError, one_of
from froster.evaluation import Predictions, harmonic_mean, percent, standard_error
from froster.experiment import weights_digest
from froster.files import claim_folder, write_text
from froster.insight.line import line_figure
from froster.progress import console, output, progress
from froster.recognizer import Recognizer
from froster.runs import Run, read_run
from froster.splits import Split
from froster.text.descriptions import read_descriptions


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
        raise UsageError(f"--ratio lies between 0 (the tuned weights) and 1 (CLIP's), not {ratio:g}")
    if points < 2:
        raise UsageError(f"--points must be 2 or more (ratio 0 and ratio 1), not {points}")
    wanted = parse_epochs(epochs)
    own = read_run(folder)
    out = out or folder / "blend"
    held = held_out(own, data, root) if ratio is None else None
    base = load_model(model or own.source.model, device, precision)
    if weights_digest(base) != own.source.weights:
        hint = "which the run did not start from" if model else "which has changed since the run: pass --model"
        raise CheckpointError(f"{model or own.source.model} holds another CLIP, {hint}")
    student = load_model(str(folder / "model"), device, precision)
    tuned, words = own.tuned(student, wanted)
    line = Line(base, student, tuned)
    claim_folder(out, "blend.json", "choose another --out")
    report: dict[str, Any] = {"run": str(folder), "tuned": words, "ratio": ratio}
    if held is not None:
        announce(base, model or own.source.model)
        ratios = [i / (points - 1) for i in range(points)]
        report |= measured(own, base, line, held, ratios, rule, spare_cores() if workers is None else workers)  # type: ignore[arg-type]
    line.move_to(report["ratio"]).save(out / "model", report)
    if held is None:
        (out / "blend.png").unlink(missing_ok=True)
    else:
        draw(report, out / "blend.png")
    write_text(out / "blend.json", json.dumps(report, indent=2) + "\n")
    if as_json:
        print(json.dumps(report))
    elif held is not None:
        show(report)
    share = report["ratio"]
    console.print(f"{share:.3g} CLIP + {1 - share:.3g} tuned ({words}){'' if held else ', not measured'}: {out / 'model'}")


def parse_epochs(text: str | None) -> tuple[int, int] | None:
    """`"2-6"` -> (2, 6), `"4"` -> (4, 4)."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise UsageError(f"--epochs takes A-B with 1 <= A <= B, such as 2-6, or one epoch, not {text!r}")
    return first, last


@dataclass(frozen=True)
class HeldOut:
    """The run's test videos; those of base classes are taken apart into what chooses and what is reported."""

    parts: Split
    chooses: Tensor
    """(N,) bools, for `parts.base_test`."""
    origin: str


def held_out(own: Run, data: Path | None, root: Path | None) -> HeldOut:
    """Raises DataError when the data is not the run's, or holds too little to choose with."""
    items = own.source.items(data, root)
    parts = own.source.split(items, own.report["base_classes"], own.report["novel_classes"])
    validation = validation_videos(items, parts.base)
    if validation:
        parts = dataclasses.replace(parts, base_test=[*validation, *parts.base_test])
        return HeldOut(parts, torch.arange(len(parts.base_test)) < len(validation), "the validation split")
    if len(parts.base_test) < 2:
        raise DataError(
            f"{len(parts.base_test)} held-out videos of base classes: nothing to choose a ratio with; give one with --ratio"
        )
    return HeldOut(parts, choosing_half(parts.base_test), "half of the base test videos")


def measured(
    own: Run, base: Recognizer, line: Line, held: HeldOut, ratios: list[float], rule: Rule, workers: int
) -> dict[str, Any]:
    """All points of the line and the choice between them, for `blend.json`. Accuracies are in per cent."""
    source = own.source
    sentences = read_descriptions(source.descriptions) if source.descriptions else {}
    with progress() as bars:
        sets = eval_sets(line.student, line.student.config, held.parts, sentences)
        frozen, found = measure_line(base, line, ratios, sets, bars, workers, source.truncate)
    points = [{"ratio": r, **accuracies(p, held.chooses)} for r, p in zip(ratios, found, strict=True)]
    choosing, videos = [p["choosing"] for p in points], int(held.chooses.sum())
    chosen = choose(ratios, choosing, videos, rule)
    best = max(choosing)
    return {
        "ratio": chosen,
        "rule": rule,
        "choosing": {
            "videos": videos, "of": held.origin, "best": best, "standard_error": standard_error(best, videos),
        },
        "reported": {"base": len(held.chooses) - videos, "novel": len(held.parts.novel_test) if "novel" in frozen else 0},
        "frozen": accuracies(frozen, held.chooses),
        "points": points,
        "unreadable": [message for p in frozen.values() for _, message in p.errors],
    }  # fmt: skip


def accuracies(predictions: dict[str, Predictions], chooses: Tensor) -> dict[str, Any]:
    """On the choosing base videos, the other base videos and the novel ones; None where there are none."""
    hit = predictions["base"].ranks() < 1
    base = percent(hit[~chooses]) if (~chooses).any() else None
    novel = predictions["novel"].top(1) if "novel" in predictions else None
    hm = harmonic_mean(base, novel) if base is not None and novel is not None else None
    return {"choosing": percent(hit[chooses]), "base": base, "novel": novel, "hm": hm}


def draw(report: dict[str, Any], path: Path) -> None:
    points, choosing = report["points"], report["choosing"]
    keys = [(name, key) for name, key in (("base", "base"), ("novel", "novel"), ("HM", "hm")) if points[0][key] is not None]
    floor = choosing["best"] - (choosing["standard_error"] if report["rule"] == "one-se" else 0.0)
    line_figure(
        [p["ratio"] for p in points], {name: [p[key] for p in points] for name, key in keys}, report["ratio"],
        [p["choosing"] for p in points], floor, path,
    )  # fmt: skip


def show(report: dict[str, Any]) -> None:
    table = Table("ratio", "choosing", "base", "novel", "HM", box=None, pad_edge=False)
    cell = lambda value: "–" if value is None else f"{value:.1f}"  # noqa: E731
    rows = [("frozen CLIP", report["frozen"]), *((f"{p['ratio']:.3g}", p) for p in report["points"])]
    for name, values in rows:
        chosen = values.get("ratio") == report["ratio"]
        cells = [cell(values[key]) for key in ("choosing", "base", "novel", "hm")]
        table.add_row(f"{name} <" if chosen else name, *cells, style="bold" if chosen else "")
    output.print(table)
    choosing = report["choosing"]
    rule = "the largest ratio within one standard error of it" if report["rule"] == "one-se" else "the largest ratio with it"
    console.print(
        f"ratio {report['ratio']:.3g} chosen on {choosing['videos']} base videos ({choosing['of']}): "
        f"best {choosing['best']:.1f} ± {choosing['standard_error']:.1f}, {rule}"
    )
    for message in report["unreadable"]:
        console.print(f"unreadable, scored wrong: {message}")
