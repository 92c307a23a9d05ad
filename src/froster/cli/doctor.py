"""`froster doctor`: what is wrong with videos, or with the installation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from froster.cli import options
from froster.cli.options import MACHINE, number, option, seconds
from froster.cli.output import print_table
from froster.errors import UsageError
from froster.utils import strict_json as json
from froster.utils.files import sole_maker
from froster.utils.progress import console, output, progress

if TYPE_CHECKING:
    from froster.data.diagnose import Finding
    from froster.data.inspect import Inspection
    from froster.data.listing import Listing

SHOWN = 20
"""Problems printed where they are not written to a file."""


def doctor(
    videos: options.Videos = None,
    /,
    *,
    files_from: options.FilesFrom = None,
    root: options.ListRoot = None,
    out: Annotated[
        Path | None,
        option(
            "Manifest of what can be used (.csv), findings beside it; goes on where it was stopped."
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        option("Kinds of findings to leave out of it, or none; default: duplicate."),
    ] = None,
    min_seconds: Annotated[
        float,
        seconds(
            "Shorter videos are too short; default: 4.27, as 8 frames 16 apart are.",
            0,
            show_default=False,
        ),
    ] = 8 * 16 / 30,
    min_frames: Annotated[int, number("Videos of fewer frames too.", 1)] = 8,
    workers: Annotated[
        int | None, number("Processes that decode; default: one a core.", 0, group=MACHINE)
    ] = None,
    time_limit: options.TimeLimit = 300,
    env: Annotated[bool, option("Examine the installation in place of videos.")] = False,
    as_json: options.Json = False,
) -> None:
    """Find broken, cut, frozen, short, uneven and duplicate videos: every frame is decoded. Or
    --env.

    Example: froster doctor videos/ --out clean.csv
    """
    if env:
        show_environment(as_json)
        return
    from froster.data.diagnose import (
        KINDS,
        Needs,
        diagnose,
        labels_of,
        write_findings,
        write_manifest,
    )
    from froster.data.inspect import inspect_all
    from froster.data.listing import list_videos
    from froster.utils.pool import cores

    drop = drop or ["duplicate"]
    for kind in drop:
        if kind not in (*KINDS, "none"):
            raise UsageError(f"--drop takes {', '.join(KINDS)} or none, not {kind!r}")
    listing = list_videos(videos or [], files_from=files_from, root=root)
    columns = labels_of(listing)
    checks = (
        None
        if out is None
        else check_out(out, [*(videos or []), *([files_from] if files_from else [])])
    )
    with nullcontext() if out is None else sole_maker(out):
        processes = cores() if workers is None else workers
        with progress() as bars:
            files = inspect_all(listing, checks, processes, bars, time_limit)
        problems = diagnose(
            [files[video.key] for video in listing], Needs(min_seconds, min_frames), columns
        )
        report = summary(listing, files, problems)
        if out is not None:
            report["manifest"], report["problems_file"] = str(out), str(beside(out, "problems.csv"))
            report["kept"] = write_manifest(
                out, listing, files, problems, columns, {"broken", *drop}
            )
            write_findings(beside(out, "problems.csv"), problems)
    if as_json:
        listed = [
            {**dataclasses.asdict(problem), "severity": problem.severity} for problem in problems
        ]
        print(json.dumps({**report, "problems": listed}))
    else:
        show(report, problems)
    if report["errors"]:
        raise SystemExit(1)


def beside(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.stem}.{ending}")


def check_out(out: Path, sources: Sequence[Path]) -> Path:
    """The file of checks beside `out`. Raises UsageError where `out` is no manifest that froster
    doctor may write."""
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out must be a .csv file, not {out}")
    if any(source.exists() and out.exists() and source.samefile(out) for source in sources):
        raise UsageError(f"{out} is what is examined: choose another --out")
    checks = beside(out, "checks.jsonl")
    if out.is_dir() or (out.exists() and not checks.exists()):
        raise UsageError(f"{out} exists and is not from froster doctor: choose another --out")
    return checks


def summary(
    listing: Listing, files: dict[str, Inspection], problems: Sequence[Finding]
) -> dict[str, Any]:
    from froster.data.diagnose import counts

    good = [file for file in files.values() if not file.error]
    return {
        "videos": len(listing),
        "ignored": listing.ignored,
        "passed_over": dict(listing.passed_over),
        "hours": round(sum(file.seconds for file in good) / 3600, 3),
        "bytes": sum(file.size for file in good),
        "errors": sum(problem.severity == "error" for problem in problems),
        "clean": len(listing) - len({problem.path for problem in problems}),
        "counts": counts(problems),
    }


def show(report: dict[str, Any], problems: Sequence[Finding]) -> None:
    from froster.data.diagnose import KINDS
    from froster.data.listing import passed_over

    if others := passed_over(report["passed_over"]):
        console.tell(others)
    output.print(
        f"{report['videos']} videos, {report['hours']:.2f} h, {report['bytes'] / 1e9:.2f} GB;"
        f" {report['clean']} without a finding"
    )
    kinds = {kind: about for kind, about in KINDS.items() if report["counts"].get(kind)}
    rows = [(kind, report["counts"][kind], *about) for kind, about in kinds.items()]
    styles = ["red" if severity == "error" else None for severity, _ in kinds.values()]
    print_table(("", "files", "", "meaning"), rows, styles)
    if "manifest" in report:
        output.print(
            f"{report['manifest']}: {report['kept']} videos; {report['problems_file']}:"
            f" {len(problems)} findings"
        )
        return
    for problem in problems[:SHOWN]:
        output.print(f"{problem.path}: {problem.kind}: {problem.why}", soft_wrap=True)
    if len(problems) > SHOWN:
        output.print(f"and {len(problems) - SHOWN} more: --out writes them all, or --json")


def show_environment(as_json: bool) -> None:
    """`froster doctor --env`."""
    from froster.cli.environment import environment

    facts = environment()
    if as_json:
        print(json.dumps(facts))
        return
    rows = [(name, line_of(value)) for name, value in facts.items() if name != "problems"]
    print_table(("", ""), rows)
    for problem in facts["problems"]:
        output.print(f"note: {problem}")


def line_of(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {line_of(item) or '–'}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(line_of, value)) or "none"
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )
