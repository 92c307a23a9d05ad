"""What the doctor writes: a manifest of what can be used, with hashes, and a list of what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from froster.data.diagnose import Problem
from froster.data.inspect import Inspection
from froster.data.listing import Listing
from froster.data.manifest import class_label
from froster.utils.csvfile import write_csv

MEASURED = ("seconds", "fps", "frames", "width", "height", "codec", "size", "sha256")


def labels_of(listing: Listing) -> dict[str, dict[str, str]]:
    """The columns of every video: those of its manifest, or the folder's name as its label where
    every one lies in one."""
    inside = all(
        "/" in video.key and not video.columns and not Path(video.key).is_absolute()
        for video in listing
    )
    return {
        video.key: {"label": class_label(Path(video.key).parent)} if inside else dict(video.columns)
        for video in listing
    }


def write_manifest(
    out: Path,
    listing: Listing,
    files: Mapping[str, Inspection],
    problems: Sequence[Problem],
    columns: Mapping[str, Mapping[str, str]],
    drop: Collection[str],
) -> int:
    """CSV: path (whole), the columns of the input, what was measured, and the kinds of problems.
    Returns its rows."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.path, []).append(problem.kind)
    given = list(
        dict.fromkeys(
            name
            for row in columns.values()
            for name in row
            if name not in ("path", "problems", *MEASURED)
        )
    )
    rows: list[list[object]] = []
    for video in listing:
        found, own = files[video.key], kinds.get(video.key, [])
        if found.error or set(own) & set(drop):
            continue
        measured = [getattr(found, name) for name in MEASURED]
        row = [columns[video.key].get(name, "") for name in given]
        rows.append([os.path.abspath(video.path), *row, *measured, " ".join(own)])
    write_csv(out, [["path", *given, *MEASURED, "problems"], *rows])
    return len(rows)


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """CSV: path, severity, kind, why, other."""
    rows = [
        [problem.path, problem.severity, problem.kind, problem.why, problem.other]
        for problem in problems
    ]
    write_csv(path, [["path", "severity", "kind", "why", "other"], *rows])


def counts(problems: Sequence[Problem]) -> dict[str, int]:
    """Kind -> files."""
    return dict(Counter(kind for _, kind in {(problem.path, problem.kind) for problem in problems}))
