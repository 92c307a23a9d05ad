"""`froster reproduce`: the paper's tables, in miniature on the world."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from froster import __version__
from froster.errors import UsageError
from froster.paper.miniature import path_of, run_all
from froster.paper.report import Records, write_report
from froster.paper.tables import TABLES, cells_of
from froster.progress import console, progress
from froster.recognizer import load

MINUTES_A_RUN = 1.2
"""On one core of a common machine."""


def run(
    tables: Sequence[str], *, out: Path, seeds: int, shots: int, videos: int, shard: str, dry_run: bool,
    report: bool, as_json: bool,
) -> None:  # fmt: skip
    """Everything `froster reproduce` does; the options are described there."""
    names = list(TABLES) if "all" in tables else list(dict.fromkeys(tables))
    for name in names:
        if name not in TABLES:
            raise UsageError(f"there is no {name!r}; choose of all, {', '.join(TABLES)}")
    index, total = parse_shard(shard)
    cells = cells_of(names)
    missing = sum(not path_of(cell, seed, out).exists() for cell in cells for seed in range(seeds))
    hours = missing * MINUTES_A_RUN / 60
    console.print(f"{len(cells)} runs x {seeds} seeds, {missing} of them missing: about {hours:.1f} hours on one core")
    if dry_run:
        return
    if not report:
        base = load("nano", device="cpu")
        with progress() as bars:
            run_all(cells, seeds, shots, videos, base, out, bars, (index, total))
    records = Records(out, seeds)
    head = (
        f"# The programme in miniature\n\n"
        f"    froster reproduce {' '.join(tables)} --world --seeds {seeds} --shots {shots} --videos {videos}\n\n"
        f"froster {__version__}, torch {torch.__version__}, Python {platform.python_version()}. Accuracy in per cent, "
        "mean ± sample standard deviation over the seeds; every number is in `cells/`."
    )
    data = write_report(names, records, head)
    if as_json:
        print(json.dumps(data))
    else:
        console.print(f"tables: {out / 'tables.md'}   claims: {out / 'claims.md'}")


def parse_shard(text: str) -> tuple[int, int]:
    """`"0/2"` -> (0, 2): the first of two processes that share the runs out."""
    index, slash, total = text.partition("/")
    if not (slash and index.isdecimal() and total.isdecimal() and int(index) < int(total)):
        raise UsageError(f"--shard takes I/N with I < N, such as 0/2, not {text!r}")
    return int(index), int(total)
