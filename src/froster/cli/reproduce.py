"""`froster reproduce`: the paper's tables and figures, on the real data sets or in miniature on the
world."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from froster import __version__
from froster.cli import options
from froster.cli.common import announce, load_model, spare_cores
from froster.cli.options import MACHINE, number, option, switch
from froster.cli.output import print_table
from froster.errors import CheckpointError, FrosterError, UsageError, one_of
from froster.utils import strict_json as json
from froster.utils.files import exclusive
from froster.utils.progress import attempt, console, progress

if TYPE_CHECKING:
    from froster.inference.recognizer import Recognizer
    from froster.paper.protocols import Options
    from froster.paper.real import Data, Job

MINUTES_A_RUN = {8: 0.5, 16: 0.9}
"""In miniature, on one core of a common machine, by shots."""


def reproduce(
    tables: Annotated[list[str], option("table1 … table7, fig1, fig4, fig5, or all.")],
    /,
    *,
    world: Annotated[
        bool, option("In miniature, on the rendered world and the nano CLIP.")
    ] = False,
    data_root: Annotated[
        Path | None, option("Folder of prepared manifests: k400.csv, ucf101.csv, …")
    ] = None,
    out: Annotated[
        Path, option("Folder of the runs and tables; what it holds is not run again.")
    ] = Path("results"),
    seeds: Annotated[
        int | None, number("Runs of a row; default: 5 in miniature, 1 on real data.", 1)
    ] = None,
    shots: Annotated[
        int, number("Training videos a class, in base-to-novel and in miniature.", 1)
    ] = 16,
    videos: Annotated[int, number("In miniature: test videos a set, at least.", 24)] = 500,
    base_sets: Annotated[int, number("Draws of the base-to-novel training videos.", 1)] = 3,
    lists: Annotated[
        Path | None, option("Training lists to take in their place: LISTS/ucf101/*train*.csv, …")
    ] = None,
    hmdb_labels: Annotated[
        Literal["released", "fixed"], option("released: two pairs of names are swapped.")
    ] = "released",
    hmdb_full: Annotated[
        Literal["released", "all"], option("HMDB*: 5,100 videos (released) or 6,766 (all).")
    ] = "released",
    ssv2_flip: Annotated[
        bool, switch("Mirror SSv2's training clips, as released.", "ssv2-flip")
    ] = True,
    sampling: Annotated[
        Literal["dense", "uniform"], option("As released (dense) or as the paper says (uniform).")
    ] = "dense",
    clamp: Annotated[Literal["released", "even"], option("Of dense sampling.")] = "released",
    gpu: Annotated[
        Literal["v100", "a100", "h100", "h200", "l40s", "rtx4090"],
        option("Whose hours to estimate."),
    ] = "a100",
    workers: Annotated[
        int | None,
        number("Processes that read videos; default: one a spare core.", 0, group=MACHINE),
    ] = None,
    shard: Annotated[str, option("This process's share of the runs, for example 0/2.")] = "0/1",
    dry_run: Annotated[
        bool, option("Only say what would run, what is missing and how long.")
    ] = False,
    report: Annotated[bool, option("Only write the tables from the runs that exist.")] = False,
    model: options.Model = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """The paper's tables and figures: every row trained and tested, its published value, ours, and
    the difference.

    Example: froster reproduce table2 --data-root DATA --dry-run
    """
    if world == (data_root is not None):
        raise UsageError(
            "pass --data-root DIR for the real data sets (froster prepare makes them), or --world"
            " for the miniature"
        )
    common: dict[str, Any] = {
        "out": out,
        "shard": shard,
        "dry_run": dry_run,
        "report": report,
        "as_json": as_json,
    }
    if data_root is None:
        run_world(tables, seeds=seeds or 5, shots=shots, videos=videos, **common)
        return
    from froster.paper.protocols import Options

    run_real(
        tables,
        data_root=data_root,
        options=Options(hmdb_labels, hmdb_full, ssv2_flip, sampling, clamp, shots, base_sets),
        lists=lists,
        seeds=seeds or 1,
        gpu=gpu,
        workers=workers,
        model=model,
        device=device,
        precision=precision,
        **common,
    )


def chosen(tables: Sequence[str]) -> list[str]:
    from froster.paper.tables import TABLES

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
    from froster.inference.recognizer import load
    from froster.paper.figures import figure_1, figure_4, figure_5
    from froster.paper.miniature import open_world, path_of, run_all
    from froster.paper.report import Records, write_report
    from froster.paper.tables import cells_of

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
    from froster.paper.cost import GPUS
    from froster.paper.real import Data, check_settings, jobs_of, run_jobs
    from froster.paper.real_figures import draw
    from froster.paper.real_report import write_report
    from froster.paper.tables import TABLES

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
    found = write_report(names, data, seeds, out, head, pictures)
    finish(out, {**found, "failed": failed}, as_json)
    for line in failed:
        console.print(f"not done: {line}")
    if failed:
        raise FrosterError(
            f"{len(failed)} of {len(possible)} runs could not be done; the others are in the tables"
        )


def sketch() -> Recognizer:
    """The default CLIP without its weights: enough to plan with, and there is nothing to download."""
    import torch

    from froster.encoders.model import ARCHITECTURES, CLIP, blank
    from froster.inference.model_folder import ModelConfig
    from froster.inference.recognizer import Recognizer
    from froster.methods import Frozen

    with blank():
        model = Frozen().build(CLIP(ARCHITECTURES["ViT-B/16"]))
    return Recognizer(
        model,
        CheckpointError("a sketch has no vocabulary"),
        ModelConfig(),
        device=torch.device("meta"),
        precision="float32",
    )


def unique(jobs: Iterable[Job]) -> list[Job]:
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
    from froster.paper.cost import UTILISATION, hours
    from froster.paper.real import flops_of, is_done, setting
    from froster.paper.tables import TABLES

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
    rows = [
        (name, row["runs"], f"{row['flops'] / 1e18:,.2f}", f"{row['hours']:,.1f}")
        for name, row in plan["tables"].items()
    ]
    print_table(("", "runs", "EFLOP", f"hours on one {gpu}"), rows)
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
    import torch

    return f"froster {__version__}, torch {torch.__version__}, Python {platform.python_version()}."


def finish(out: Path, data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(data))
    else:
        extra = f"   claims: {out / 'claims.md'}" if (out / "claims.md").exists() else ""
        console.print(f"tables: {out / 'tables.md'}{extra}")
