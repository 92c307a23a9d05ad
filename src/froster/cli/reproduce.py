"""`froster reproduce`: the paper's tables and figures, on the real data sets or in miniature on the
world."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from rich.table import Table as Grid

from froster import __version__
from froster.cli.common import announce, load_model, spare_cores
from froster.encoders.model import ARCHITECTURES, CLIP, blank
from froster.errors import CheckpointError, FrosterError, UsageError, one_of
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.methods import Frozen
from froster.paper.cost import GPUS, UTILISATION, hours
from froster.paper.figures import figure_1, figure_4, figure_5
from froster.paper.miniature import open_world, path_of, run_all
from froster.paper.protocols import Options
from froster.paper.real import (
    Data,
    Job,
    check_settings,
    flops_of,
    is_done,
    jobs_of,
    run_jobs,
    setting,
)
from froster.paper.real_figures import draw
from froster.paper.real_report import write_report as write_real_report
from froster.paper.report import Records, write_report
from froster.paper.tables import TABLES, cells_of
from froster.utils import strict_json as json
from froster.utils.files import exclusive
from froster.utils.progress import attempt, console, output, progress

MINUTES_A_RUN = {8: 0.5, 16: 0.9}
"""In miniature, on one core of a common machine, by shots."""


def chosen(tables: Sequence[str]) -> list[str]:
    names = list(TABLES) if "all" in tables else list(dict.fromkeys(tables))
    for name in names:
        one_of("a table or figure", name, "all", *TABLES)
    return names


def parse_shard(text: str) -> tuple[int, int]:
    """`"0/2"` -> (0, 2): the first of two processes that share the runs out."""
    index, slash, total = text.partition("/")
    if not (slash and index.isdecimal() and total.isdecimal() and int(index) < int(total)):
        raise UsageError(f"--shard takes I/N with I < N, such as 0/2, not {text!r}")
    return int(index), int(total)


def shard_lock(out: Path, part: tuple[int, int]) -> AbstractContextManager[None]:
    """Shards write into one folder at once; the same shard only once."""
    taken = (
        f"another froster reproduce does shard {part[0]}/{part[1]} of {out}: wait until it ends, or"
        " choose another --out"
    )
    return exclusive(out / f".{part[0]}-{part[1]}.lock", taken)


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
    names, part = chosen(tables), parse_shard(shard)
    cells = cells_of(names)
    missing = sum(not path_of(cell, seed, out).exists() for cell in cells for seed in range(seeds))
    longest = missing * MINUTES_A_RUN.get(shots, 0.06 * shots) / 60
    console.print(
        f"{len(cells)} runs x {seeds} seeds, {missing} of them missing: about {longest:.1f} hours"
        " on one core"
    )
    if dry_run:
        return
    base = load("nano", device="cpu")
    if not report:
        with shard_lock(out, part), progress() as bars:
            run_all(cells, seeds, shots, videos, base, out, bars, part)
            if "fig4" in names and not (out / "fig4_base.png").exists() and part[0] == 0:
                attempt("fig4", lambda: figure_4(open_world(base, shots, videos, bars), out, bars))
    records = Records(out, seeds)
    command = shlex.join(
        [
            "froster",
            "reproduce",
            *tables,
            "--world",
            "--seeds",
            str(seeds),
            "--shots",
            str(shots),
            "--videos",
            str(videos),
        ]
    )
    if "fig1" in names:
        attempt("fig1", lambda: figure_1(records, out / "fig1.png"))
    gains = (attempt("fig5", lambda: figure_5(records, base, out)) or {}) if "fig5" in names else {}
    head = f"# The programme in miniature\n\n    {command}\n\n{versions()} {records.effort()}"
    finish(out, write_report(names, records, gains, head), as_json)


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
    names, (index, total) = chosen(tables), parse_shard(shard)
    one_of("--gpu", gpu, *GPUS)
    data = Data(data_root, options, lists)
    base = sketch() if dry_run and model is None else load_model(model, device, precision)
    wanted = {name: jobs_of(TABLES[name], data, seeds, everything=True) for name in names}
    possible = unique(job for name in names for job in jobs_of(TABLES[name], data, seeds))
    plan = plan_of(wanted, possible, data, base, out, gpu)
    if not as_json:
        show_plan(plan, data, gpu)
    if dry_run:
        if as_json:
            print(json.dumps(plan))
        return
    if not possible and not report:
        raise UsageError(
            f"none of the needed manifests is in {data_root}; it lacks {', '.join(plan['missing'])}"
        )
    check_settings(base, data, out)
    failed = []
    if not report:
        announce(base, model)
        with shard_lock(out, (index, total)), progress() as bars:
            threads = spare_cores() if workers is None else workers
            failed = run_jobs(possible[index::total], base, data, out, bars, threads)
    head = f"# The programme\n\n{versions()}"
    pictures = draw(names, data, base, seeds, out)
    found = write_real_report(names, data, seeds, out, head, pictures)
    finish(out, {**found, "failed": failed}, as_json)
    for line in failed:
        console.print(f"not done: {line}")
    if failed:
        raise FrosterError(
            f"{len(failed)} of {len(possible)} runs could not be done; the others are in the tables"
        )


def sketch() -> Recognizer:
    """The default CLIP without its weights: enough to plan with, and there is nothing to download."""
    with blank():
        model = Frozen().build(CLIP(ARCHITECTURES["ViT-B/16"]))
    return Recognizer(
        model,
        CheckpointError("a sketch has no vocabulary"),
        ModelConfig(),
        device=torch.device("meta"),
        precision="float32",
    )


def unique(jobs: Any) -> list[Job]:
    return list(dict.fromkeys(jobs))


def plan_of(
    wanted: dict[str, list[Job]],
    possible: Sequence[Job],
    data: Data,
    base: Recognizer,
    out: Path,
    gpu: str,
) -> dict[str, Any]:
    """What is missing and what the runs cost: of each table by itself, and of all that are still to
    do."""
    config = base.clip.config
    every = unique(job for jobs in wanted.values() for job in jobs)
    cost = {
        job: flops_of(job, config, setting(job, base, data.options) if job.cell else None)
        for job in every
    }
    todo = [job for job in possible if not is_done(job, data, out)]
    tables = {}
    for name, jobs in wanted.items():
        flops = sum(cost[job] for job in jobs)
        tables[name] = {"runs": len(jobs), "flops": flops, "hours": hours(flops, gpu)}
    flops = sum(cost[job] for job in todo)
    return {
        "missing": data.missing({TABLES[name].protocol for name in wanted}),
        "tables": tables,
        "runs": {"all": len(every), "possible": len(possible), "to do": len(todo)},
        "flops": flops,
        "hours": hours(flops, gpu),
        "gpu": gpu,
        "utilisation": UTILISATION,
    }


def show_plan(plan: dict[str, Any], data: Data, gpu: str) -> None:
    grid = Grid("", "runs", "EFLOP", f"hours on one {gpu}", box=None, pad_edge=False)
    for name, row in plan["tables"].items():
        grid.add_row(name, str(row["runs"]), f"{row['flops'] / 1e18:,.2f}", f"{row['hours']:,.1f}")
    output.print(grid)
    for name in plan["missing"]:
        path = data.path(name)
        console.print(
            f"missing: {path}   make it: froster prepare {name} --videos … --annotations … --out"
            f" {path}"
        )
    runs = plan["runs"]
    console.print(
        f"{runs['possible']} of {runs['all']} runs are possible with what is there, {runs['to do']}"
        f" are to do: {plan['flops'] / 1e18:,.2f} EFLOP, {plan['hours']:,.1f} hours on one {gpu} at"
        f" {plan['utilisation']:.0%} of its peak"
    )


def versions() -> str:
    return f"froster {__version__}, torch {torch.__version__}, Python {platform.python_version()}."


def finish(out: Path, data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(data))
    else:
        extra = f"   claims: {out / 'claims.md'}" if (out / "claims.md").exists() else ""
        console.print(f"tables: {out / 'tables.md'}{extra}")
