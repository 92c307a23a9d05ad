"""`froster doctor`: what is wrong with videos, or with the installation."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from froster.cli import options
from froster.cli.common import engine_of, show_result, show_shard, start_torch
from froster.cli.options import number, option, seconds
from froster.errors import DataError, UsageError
from froster.utils.files import sole_maker
from froster.utils.progress import console, output, print_table, progress

if TYPE_CHECKING:
    from froster.data.diagnose import Finding
    from froster.data.inspect import Inspection
    from froster.data.listing import Listing
    from froster.inference.recognizer import Recognizer

SHOWN = 20
"""Problems printed where they are not written to a file."""


def doctor(
    videos: options.Videos = None,
    /,
    *,
    files_from: options.FilesFrom = None,
    root: options.ListRoot = None,
    out: Annotated[
        Path | None, option("Manifest of usable videos (.csv), findings beside it; can go on.")
    ] = None,
    drop: Annotated[
        list[str] | None, option("Kinds left out, or none; default: duplicate.")
    ] = None,
    min_seconds: Annotated[
        float, seconds("Shorter ones are too short; default: 4.27.", 0, show_default=False)
    ] = 8 * 16 / 30,
    min_frames: Annotated[int, number("Videos of fewer frames too.", 1)] = 8,
    shard: options.Shard = None,
    workers: options.Inspectors = None,
    time_limit: options.TimeLimit = 300,
    habits: Annotated[
        bool, option("How well scenes alone tell the classes, seen by --model.")
    ] = False,
    model: options.Model = None,
    env: Annotated[bool, option("Examine the installation in place of videos.")] = False,
    engine: options.EngineName = "local",
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Find broken, cut, frozen, short, uneven and duplicate videos: every frame is decoded. Or
    --env.

    Example: froster doctor videos/ --out clean.csv
    """
    if env:
        from froster.cli.environment import environment

        show_result(environment(), as_json, show_environment)
        return
    start_torch()
    from froster.data.diagnose import (
        KINDS,
        Needs,
        diagnose,
        labels_of,
        rows_of,
        write_findings,
        write_manifest,
    )
    from froster.data.inspect import beside, inspect_all
    from froster.data.listing import list_videos
    from froster.data.pack_folder import unpacked
    from froster.data.shards import parse_shard
    from froster.utils.pool import cores
    from froster.utils.work import Means

    drop = drop or ["duplicate"]
    for kind in drop:
        if kind not in (*KINDS, "none"):
            raise UsageError(f"--drop takes {', '.join(KINDS)} or none, not {kind!r}")
    part, by = parse_shard(shard), engine_of(engine, address, None)
    listing = list_videos(videos or [], files_from=files_from, root=root)
    columns = labels_of(listing)
    sources = [unpacked(source) for source in videos or []]
    rows = rows_of(listing, columns, sources, root) if out is not None or habits else []
    checks = check_out(out, [*(videos or []), *filter(None, [files_from])]) if out else None
    if model is not None and not habits:
        raise UsageError("--model is for --habits; nothing else of this command needs a model")
    frozen = frozen_clip(model, rows) if habits else None
    if part.count > 1 and checks is None:
        raise UsageError("--shard is about the checks beside a manifest: give --out")
    lock = out if out is None or part.count == 1 else part.file(out)
    with sole_maker(lock) if lock else nullcontext():
        processes = cores() if workers is None else workers
        means = Means(by, processes if engine == "local" else workers, time_limit)
        with progress() as bars:
            files = inspect_all(listing, checks, means, bars, part)
        if part.count > 1:
            assert checks is not None
            broken = sum(bool(file.error) for file in files.values())
            report = {"part": str(part.file(checks)), "shard": str(part), "videos": len(files)}
            show_result({**report, "errors": broken}, as_json, show_shard)
            if broken:
                raise SystemExit(1)
            return
        inspections, needs = [files[video.key] for video in listing], Needs(min_seconds, min_frames)
        problems = diagnose(inspections, needs, columns)
        report = summary(listing, files, problems)
        if out is not None:
            findings, dropped = beside(out, "problems.csv"), {"broken", *drop}
            kept = write_manifest(out, listing, files, problems, rows, dropped)
            write_findings(findings, problems)
            report |= {"manifest": str(out), "problems_file": str(findings), "kept": kept}
        if frozen is not None:
            usable = {v.key: v.path for v in listing if not files[v.key].error}
            labelled = [(usable[key], fields) for key, fields in rows if key in usable]
            report["habits"] = habits_of(frozen, labelled, processes)
    show_result(report, as_json, show)
    if report["errors"]:
        raise SystemExit(1)


def frozen_clip(model: str | None, rows: Sequence[tuple[str, Mapping[str, str]]]) -> Recognizer:
    """Raises UsageError where videos have no labels, or the model is no frozen CLIP."""
    from froster.cli.common import load_model
    from froster.training.habits import check_model

    if not all(fields.get("label") for _, fields in rows):
        raise UsageError("--habits needs labels: a folder of class folders, or a column label")
    frozen = load_model(model, None, "auto")
    check_model(frozen)
    return frozen


def habits_of(
    model: Recognizer, rows: Sequence[tuple[Path, Mapping[str, str]]], workers: int
) -> dict[str, Any]:
    """What scene words tell of the classes, or one sentence on why that is not known. `rows`: of a
    manifest, or of a folder's videos; a row may be about a part of its video."""
    from froster.data.manifest import Item
    from froster.data.spans import span_of
    from froster.training.habits import measure_habits
    from froster.training.measure import Measuring
    from froster.training.reporter import Drawn

    try:
        items = [
            Item(path, row["label"], columns=row, span=span_of(row, str(path)))
            for path, row in rows
        ]
        with Drawn() as reporter:
            measured = measure_habits(model, items, Measuring(workers, reporter=reporter))
    except DataError as error:
        return {"kind": None, "sentence": f"habits of the classes are not known: {error}"}
    return measured.to_dict()


def check_out(out: Path, sources: Sequence[Path]) -> Path:
    """The file of checks beside `out`. Raises UsageError where `out` is no manifest that froster
    doctor may write."""
    from froster.data.inspect import beside
    from froster.utils.address import is_address

    checks = beside(out, "checks.jsonl")
    local = [source for source in sources if not is_address(source)]
    if any(source.exists() and out.exists() and source.samefile(out) for source in local):
        raise UsageError(f"{out} is what is examined: choose another --out")
    if out.is_dir() or (out.exists() and not checks.exists()):
        raise UsageError(f"{out} exists and is not from froster doctor: choose another --out")
    return checks


def summary(
    listing: Listing, files: dict[str, Inspection], problems: Sequence[Finding]
) -> dict[str, Any]:
    good = [file for file in files.values() if not file.error]
    return {
        "videos": len(listing),
        "ignored": listing.ignored,
        "passed_over": dict(listing.passed_over),
        "hours": round(sum(file.seconds for file in good) / 3600, 3),
        "bytes": sum(file.size for file in good),
        "errors": sum(problem.severity == "error" for problem in problems),
        "clean": len(listing) - len({problem.path for problem in problems}),
        "counts": Counter(kind for _, kind in {(p.path, p.kind) for p in problems}),
        "problems": [
            {**dataclasses.asdict(problem), "severity": problem.severity} for problem in problems
        ],
    }


def show(report: dict[str, Any]) -> None:
    from froster.data.diagnose import KINDS
    from froster.data.listing import passed_over

    counts, problems = report["counts"], report["problems"]
    if others := passed_over(report["passed_over"]):
        console.tell(others)
    output.print(
        f"{report['videos']} videos, {report['hours']:.2f} h, {report['bytes'] / 1e9:.2f} GB;"
        f" {report['clean']} without a finding"
    )
    severity = {problem["kind"]: problem["severity"] for problem in problems}
    kinds = [kind for kind in KINDS if kind in severity]
    rows = [(kind, counts[kind], severity[kind], KINDS[kind]) for kind in kinds]
    styles = ["red" if severity[kind] == "error" else None for kind in kinds]
    print_table(("", "files", "", "meaning"), rows, styles)
    if "habits" in report:
        output.print(report["habits"]["sentence"])
        if report["habits"]["kind"] == "habits":
            show_habits(report["habits"]["habits"])
    if "manifest" in report:
        output.print(
            f"{report['manifest']}: {report['kept']} videos; {report['problems_file']}:"
            f" {len(problems)} findings"
        )
        return
    for problem in problems[:SHOWN]:
        output.tell(f"{problem['path']}: {problem['kind']}: {problem['why']}")
    if len(problems) > SHOWN:
        output.print(f"and {len(problems) - SHOWN} more: --out writes them all, or --json")


def show_habits(habits: Sequence[dict[str, Any]]) -> None:
    rows = [
        (habit["label"], habit["word"], f"{habit['share']:.0f} %", f"{habit['elsewhere']:.0f} %")
        for habit in habits[:SHOWN]
    ]
    print_table(("class", "its scene", "of its clips", "of others"), rows)


def show_environment(facts: dict[str, Any]) -> None:
    rows = [(name, line_of(value)) for name, value in facts.items() if name != "problems"]
    print_table(("", ""), rows)
    for problem in facts["problems"]:
        output.print(f"note: {problem}")


def line_of(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {line_of(item) or '–'}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(line_of, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
