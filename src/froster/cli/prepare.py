"""`froster prepare`: a manifest of a data set in its official layout, every file verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from froster.data.prepare import CATEGORIES, prepare
from froster.utils import strict_json as json
from froster.utils.pool import cores
from froster.utils.progress import console, output, progress


def run(
    name: str,
    videos: Path,
    annotations: Path | None,
    out: Path,
    *,
    workers: int | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Everything `froster prepare` does; the options are described there."""
    workers = cores() if workers is None else workers
    with progress() as bars:
        report = prepare(name, videos, annotations, out, workers=workers, resume=resume, bars=bars)
    if as_json:
        print(json.dumps(report))
    else:
        show(report)


def show(report: dict[str, Any]) -> None:
    splits = ", ".join(f"{count} {name}" for name, count in report["splits"].items())
    output.print(
        f"{report['manifest']}: {report['videos']} of {report['listed']} listed clips ({splits})"
    )
    table = Table("", "clips", "meaning", "list", box=None, pad_edge=False)
    for name, count in report["counts"].items():
        table.add_row(
            name, str(count), CATEGORIES[name], Path(report["reports"].get(name, "")).name
        )
    output.print(table)
    if report["missing_by_split"]:
        console.print(
            "missing: "
            + ", ".join(f"{count} {name}" for name, count in report["missing_by_split"].items())
        )
    if report["unlisted"]:
        console.print(f"{report['unlisted']} videos are not in the annotations and left out")
    if absent := report["classes_without_videos"]:
        console.print(
            f"{len(absent)} classes have no video:"
            f" {', '.join(absent[:5])}{' …' if len(absent) > 5 else ''}"
        )
    for note in report["notes"]:
        console.print(note)
