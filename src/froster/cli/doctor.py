"""`froster doctor`: what is wrong with videos, or with the installation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from froster.data.diagnose import (
    KINDS,
    Finding,
    Needs,
    counts,
    diagnose,
    labels_of,
    write_findings,
    write_manifest,
)
from froster.data.inspect import Inspection, inspect
from froster.data.listing import ListedVideo, Listing, list_videos, passed_over
from froster.errors import UsageError
from froster.utils import pool
from froster.utils import strict_json as json
from froster.utils.files import journal, read_entries, sole_maker
from froster.utils.pool import cores
from froster.utils.progress import console, output, progress

SHOWN = 20
"""Problems printed where they are not written to a file."""


def run(
    videos: Sequence[Path],
    *,
    files_from: Path | None,
    root: Path | None,
    out: Path | None,
    drop: Sequence[str],
    needs: Needs,
    workers: int | None,
    limit: float,
    as_json: bool,
) -> None:
    """Everything `froster doctor` does; the options are described there. Exit code 1 where a file
    is broken."""
    for kind in drop:
        if kind not in (*KINDS, "none"):
            raise UsageError(f"--drop takes {', '.join(KINDS)} or none, not {kind!r}")
    listing = list_videos(videos, files_from=files_from, root=root)
    columns = labels_of(listing)
    checks = (
        None if out is None else check_out(out, [*videos, *([files_from] if files_from else [])])
    )
    with nullcontext() if out is None else sole_maker(out):
        files = inspected(listing, checks, cores() if workers is None else workers, limit)
        problems = diagnose([files[video.key] for video in listing], needs, columns)
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
        raise typer.Exit(1)


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


def inspected(
    listing: Listing, checks: Path | None, workers: int, limit: float
) -> dict[str, Inspection]:
    """Of every video, by its key. What `checks` says of files that have not changed since is not
    done again."""
    paths = {video.key: video.path for video in listing}

    def is_current(entry: Inspection) -> bool:
        return entry.path in paths and entry.is_current(paths[entry.path])

    files = read_entries(checks, Inspection, is_current) if checks is not None else {}
    todo = [video for video in listing if video.key not in files]
    with progress() as bars, keeping(checks, files) as add:
        bar = bars.add_task("doctor", total=len(listing), completed=len(files), note="")
        broken = sum(bool(file.error) for file in files.values())
        for event in pool.run(inspect, [str(video.path) for video in todo], workers, limit=limit):
            video = todo[event.task]
            if not event.done:
                found = dataclasses.replace(event.part, path=video.key)
            elif event.error and video.key not in files:
                found = failed(video, event.error)
            else:
                continue
            files[video.key] = found
            add(found)
            broken += bool(found.error)
            bars.update(bar, advance=1, note=f"{broken} broken" if broken else "")
    return files


@contextmanager
def keeping(checks: Path | None, files: dict[str, Inspection]) -> Any:
    if checks is None:
        yield lambda entry: None
        return
    with journal(checks, files.values()) as add:
        yield add


def failed(video: ListedVideo, error: str) -> Inspection:
    try:
        status = video.path.stat()
    except OSError:
        return Inspection(video.key, error=error)
    return Inspection(video.key, status.st_size, status.st_mtime_ns, error=error)


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
        "counts": counts(problems),
    }


def show(report: dict[str, Any], problems: Sequence[Finding]) -> None:
    if others := passed_over(report["passed_over"]):
        console.tell(others)
    size = report["bytes"] / 1e9
    output.print(
        f"{report['videos']} videos, {report['hours']:.2f} h, {size:.2f} GB; {report['clean']}"
        " without a finding"
    )
    table = Table("", "files", "", "meaning", box=None, pad_edge=False)
    for kind, (severity, meaning) in KINDS.items():
        if count := report["counts"].get(kind):
            table.add_row(
                kind, str(count), severity, meaning, style="red" if severity == "error" else None
            )
    if report["counts"]:
        output.print(table)
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


def run_env(as_json: bool) -> None:
    """`froster doctor --env`."""
    from froster.cli.environment import environment

    found = environment()
    if as_json:
        print(json.dumps(found))
        return
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for name, value in found.items():
        if name != "problems":
            table.add_row(name, line_of(value))
    output.print(table)
    for problem in found["problems"]:
        output.print(f"note: {problem}")


def line_of(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {line_of(item) or '–'}" for name, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(line_of, value)) or "none"
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )
