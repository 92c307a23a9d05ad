"""`froster teach`: from labelled videos to a model in seconds, and again after every correction."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from froster.cli import options
from froster.cli.common import show_result, start_torch
from froster.cli.options import CHANGES, DATA, MACHINE, SPREAD, arranged, bounds, option, typed
from froster.training.options import TeachOptions
from froster.utils.progress import console, output

if TYPE_CHECKING:
    from froster.training.teaching import TeachResult

VIDEOS = "A folder of class folders, a manifest (path,label), or an index; left out: as before."
Arranged = arranged(
    TeachOptions,
    {
        None: "labels more method hold strength lr steps",
        DATA: (
            "novel_fraction holdout shots split_seed views features root where labels_json"
            " descriptions truncate"
        ),
        MACHINE: "workers device precision",
    },
    {
        **CHANGES,
        "views": bounds(0),
        "novel_fraction": bounds(0, 0.9),
        "holdout": bounds(0, 0.9),
        **dict.fromkeys(("steps", "shots"), bounds(1)),
        "labels": Parameter(metavar="FILE"),
    },
)


def teach(
    videos: Annotated[Path | None, options.ADDRESS, option(VIDEOS)] = None,
    /,
    *,
    out: Annotated[Path, option("Folder of the model, its report, the examples and features.")],
    model: options.Model = None,
    asked: Annotated[Arranged, SPREAD] = Arranged(),  # type: ignore[valid-type]  # noqa: B008
    as_json: options.Json = False,
) -> None:
    """Teach a model labelled videos in seconds, and tell what was gained and kept. Corrections are
    added with --more.

    Example: froster teach videos/ --out taught
    """
    start_torch()
    from froster.training import teaching
    from froster.training.reporter import Drawn

    with Drawn() as reporter:
        result = teaching.teach(videos, out, model, reporter=reporter, **typed(asked))
    show_result(result.report, as_json, lambda _: show(result))


def show(result: TeachResult) -> None:
    skipped = result.report["skipped"]
    for message in skipped[:3]:
        console.tell(f"skipped: {message}")
    if skipped:
        console.print(f"{len(skipped)} videos were skipped, see {result.folder}/report.json")
    for line in result.lines:
        output.tell(line)
    assert result.folder is not None
    output.tell(f"{os.path.join(result.folder, 'model')}: taught in {result.report['seconds']} s")
