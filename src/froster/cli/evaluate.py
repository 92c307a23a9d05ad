"""`froster evaluate`: accuracy of a model on labelled videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from froster.cli import options
from froster.cli.common import device_of, engine_of, show_result, show_shard, start_torch
from froster.cli.options import CHANGES, DATA, LABELLED, MACHINE, SPREAD, arranged, option, typed
from froster.training.options import EvaluateOptions
from froster.utils.files import sole_writer
from froster.utils.progress import attempt, console, print_table

Arranged = arranged(
    EvaluateOptions,
    {
        None: "labels_file split part views sampling clamp multi_label transport probe"
        " merge_tokens",
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
    shard: options.Shard = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Accuracy of a model on labelled videos: top-1, top-5, per class. Videos that it was trained
    on are not scored unasked.

    Example: froster evaluate --data videos/ --model runs/first
    """
    from froster.data.shards import parse_shard

    part = parse_shard(shard)
    start_torch()
    from froster.report.evaluation import write_evaluation
    from froster.training import evaluate as evaluating
    from froster.training.reporter import Drawn
    from froster.training.scoring import Scoring

    values, given = typed(asked), vars(asked)
    by = engine_of(engine, address, given["device"])
    if engine == "ray" and given["workers"] is None:
        values["workers"] = 1
    values["device"] = values["device"] or device_of(part)
    with Drawn() as reporter:
        evaluation = evaluating.evaluate(
            data, model, out, reporter=reporter, scoring=Scoring(None, part, by), **values
        )
    if not evaluation.report:  # of torchrun's processes the first speaks for all
        return
    if part.count > 1:
        show_result(evaluation.report, as_json, show_shard)
        return
    if out is not None:
        with sole_writer(out):
            attempt("the report page", lambda: write_evaluation(evaluation, out))
    show_result(evaluation.report, as_json, show)


def show_alone(name: str, result: dict[str, Any]) -> None:
    """Each label by itself."""
    precision = number(result["precision"], 1)
    console.print(
        f"{name}, each label by itself: mean average precision {result['map']:.1f}, F1"
        f" {result['f1']:.1f} (precision {precision}, recall {result['recall']:.1f}),"
        f" {result['labels_a_video']:.2g} labels a video"
    )
    cells = [
        (label, values["videos"], f"{values['ap']:.1f}", f"{values['f1']:.1f}")
        for label, values in result["per_class"].items()
    ]
    print_table(("label", "videos", "average precision", "F1"), cells)


def show(report: dict[str, Any]) -> None:
    from froster.training.probes import probe_lines

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
    for name, result in splits.items():
        for line in probe_lines(name, result.get("probes", {})):
            console.print(line)
    if any("multi_label" in result for result in splits.values()):
        for name, result in splits.items():
            show_alone(name, result["multi_label"])
        return
    first = next(iter(splits.values()))
    probes = {p: v for p, v in first.get("probes", {}).items() if not v["by_construction"]}
    cells = [
        (name, f"{value:.1f}", *(points(p["per_class"][name]) for p in probes.values()))
        for name, value in first["per_class"].items()
    ]
    print_table(("class", "top-1", *probes), cells)
    for result in splits.values():
        for message in result["errors"]:
            console.print(f"unreadable, scored wrong: {message}")


def row(name: str, result: dict[str, Any], labels: dict[str, Any]) -> tuple[object, ...]:
    """Accuracy among the `labels`' classes."""
    top1 = f"{result['top1']:.2f} ± {result['standard_error']:.2f}"
    return name, result["videos"], labels["classes"], f"{labels['chance']:.1f}", top1


def points(change: dict[str, Any]) -> str:
    """How far the accuracy with a probe is from the usual one."""
    return f"{change['gain']:+.0f} ± {change['error']:.0f}" if change["error"] else "="


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
