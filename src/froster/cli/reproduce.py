"""`froster reproduce`: the paper's tables and figures, on the real data sets or in miniature on the
world."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table as Grid

from froster.cli.common import announce, load_model, spare_cores
from froster.errors import FrosterError, UsageError, one_of
from froster.inference.recognizer import load
from froster.paper.cost import GPUS, plan, weightless
from froster.paper.miniature import Miniature
from froster.paper.programme import parse_shard, runs_of_tables
from froster.paper.protocols import Options
from froster.paper.real import RealProgramme
from froster.paper.real_data import RealData
from froster.paper.results import reproduce
from froster.paper.tables import table_names
from froster.utils import strict_json as json
from froster.utils.progress import console, output, progress

MINUTES_A_RUN = {8: 0.5, 16: 0.9}
"""In miniature, on one core of a common machine, by shots."""


def run_world(
    tables: Sequence[str],
    *,
    out: Path,
    seeds: int,
    shots: int,
    videos: int,
    shard: str,
    dry_run: bool,
    report: bool,
    as_json: bool,
) -> None:
    """The miniature."""
    names, part = table_names(tables), parse_shard(shard)
    source = Miniature(load("nano", device="cpu"), out, seeds, shots, videos)
    runs = runs_of_tables(source, names)
    missing = sum(not source.is_done(run) for run in runs)
    longest = missing * MINUTES_A_RUN.get(shots, 0.06 * shots) / 60
    console.print(
        f"{len(runs) // seeds} runs x {seeds} seeds, {missing} of them missing: about"
        f" {longest:.1f} hours on one core"
    )
    if dry_run:
        return
    sizes = ["--seeds", str(seeds), "--shots", str(shots), "--videos", str(videos)]
    command = shlex.join(["froster", "reproduce", *tables, "--world", *sizes])
    title = f"# The programme in miniature\n\n    {command}"
    with progress() as bars:
        found = reproduce(source, names, title, bars, shard=part, report=report)
    finish(out, found, as_json)


def run_real(
    tables: Sequence[str],
    *,
    data_root: Path,
    out: Path,
    model: str | None,
    options: Options,
    lists: Path | None,
    seeds: int,
    gpu: str,
    workers: int | None,
    shard: str,
    dry_run: bool,
    report: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """The real data sets."""
    names, part = table_names(tables), parse_shard(shard)
    one_of("--gpu", gpu, *GPUS)
    data = RealData(data_root, options, lists)
    base = weightless() if dry_run and model is None else load_model(model, device, precision)
    source = RealProgramme(base, data, out, seeds, spare_cores() if workers is None else workers)
    planned = plan(source, names, gpu)
    if not as_json:
        show_plan(planned, data, gpu)
    if dry_run:
        if as_json:
            print(json.dumps(planned))
        return
    if not planned["runs"]["possible"] and not report:
        raise UsageError(
            f"none of the needed manifests is in {data_root}; it lacks"
            f" {', '.join(planned['missing'])}"
        )
    if not report:
        announce(base, model)
    with progress() as bars:
        found = reproduce(source, names, "# The programme", bars, shard=part, report=report)
    finish(out, found, as_json)


def show_plan(planned: dict[str, Any], data: RealData, gpu: str) -> None:
    grid = Grid("", "runs", "EFLOP", f"hours on one {gpu}", box=None, pad_edge=False)
    for name, row in planned["tables"].items():
        grid.add_row(name, str(row["runs"]), f"{row['flops'] / 1e18:,.2f}", f"{row['hours']:,.1f}")
    output.print(grid)
    for name in planned["missing"]:
        path = data.path(name)
        console.print(
            f"missing: {path}   make it: froster prepare {name} --videos … --annotations … --out"
            f" {path}"
        )
    runs = planned["runs"]
    console.print(
        f"{runs['possible']} of {runs['all']} runs are possible with what is there, {runs['to do']}"
        f" are to do: {planned['flops'] / 1e18:,.2f} EFLOP, {planned['hours']:,.1f} hours on one"
        f" {gpu} at {planned['utilisation']:.0%} of its peak"
    )


def finish(out: Path, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found))
    else:
        console.print(f"tables: {out / 'tables.md'}")
    for line in found["failed"]:
        console.print(f"not done: {line}")
    if found["failed"]:
        raise FrosterError(
            f"{len(found['failed'])} runs could not be done; the others are in the tables"
        )
