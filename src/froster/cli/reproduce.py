"""`froster reproduce`: the paper's tables and figures, on the real data sets or in miniature on the
world."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import announce, decoders, load_model, show_result, start_torch
from froster.cli.options import number, option, switch
from froster.errors import FrosterError, UsageError
from froster.utils import strict_json as json
from froster.utils.progress import console, print_table, progress

if TYPE_CHECKING:
    from froster.paper.programme import RunSource
    from froster.paper.real_data import RealData

REAL = ("base_sets", "lists", "hmdb_labels", "hmdb_full", "ssv2_flip", "sampling", "clamp", "model")
MINIATURE = ("videos", "habits", "rate")
"""Parameters that say how one of the two is done, and nothing of the other."""
MINUTES_A_RUN = {8: 0.5, 16: 0.9}
"""In miniature, on one core of a common machine, by shots."""


def reproduce(
    tables: Annotated[
        list[str], option("table1 … table7, fig1, fig4, fig5, family, after, or all.")
    ],
    /,
    *,
    world: Annotated[bool, option("In miniature, on the rendered world and the nano.")] = False,
    data_root: Annotated[Path | None, option("Manifests: k400.csv, ucf101.csv, …")] = None,
    out: Annotated[Path, option("Folder of runs and tables; runs go on there.")] = Path("results"),
    seeds: Annotated[int | None, number("Runs of a row; default: 1, miniature 5.", 1)] = None,
    shots: Annotated[int, number("Training videos a class, few-shot or in miniature.", 1)] = 16,
    videos: Annotated[int, number("In miniature: test videos a set, at least.", 24)] = 500,
    habits: Annotated[
        float | None, number("In miniature: how often a video keeps a habit of its class.", 0, 0.99)
    ] = None,
    rate: Annotated[float | None, number("In miniature: of CLIP's weights.", 1e-9)] = None,
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
    ssv2_flip: Annotated[bool, switch("Mirror SSv2's clips, as released.", "ssv2-flip")] = True,
    sampling: Annotated[
        Literal["dense", "uniform"], option("As released (dense) or as the paper says (uniform).")
    ] = "dense",
    clamp: Annotated[Literal["released", "even"], option("Of dense sampling.")] = "released",
    gpu: Annotated[
        Literal["v100", "a100", "h100", "h200", "l40s", "rtx4090"],
        option("Whose hours to estimate."),
    ] = "a100",
    workers: options.Workers = None,
    shard: Annotated[str, option("This process's share of the runs, for example 0/2.")] = "0/1",
    dry_run: Annotated[bool, option("Only say what would run, what lacks and how long.")] = False,
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
        raise UsageError("pass --data-root DIR (froster prepare makes it), or --world")
    check_given(locals(), REAL if world else MINIATURE, "--data-root" if world else "--world")
    start_torch()
    from froster.paper import results
    from froster.paper.programme import parse_shard, runs_of_tables
    from froster.paper.tables import table_names

    names, part = table_names(tables), parse_shard(shard)
    if data_root is None:
        from froster.inference.recognizer import load
        from froster.paper.miniature import HABITS, RATE, Miniature

        seeds, title = seeds or 5, "# The programme in miniature"
        # Runs are compared with one another: float32 wherever they are made.
        exact = "float32" if precision == "auto" else precision
        base = load("nano", device=device or "cpu", precision=exact)
        shares = HABITS if habits is None else habits
        source: RunSource = Miniature(base, out, seeds, shots, videos, shares, rate or RATE)
        runs = runs_of_tables(source, names)
        missing = sum(not source.is_done(run) for run in runs)
        hours = missing * MINUTES_A_RUN.get(shots, 0.06 * shots) / 60
        console.print(
            f"{len(runs) // seeds} runs x {seeds} seeds, {missing} of them missing: about"
            f" {hours:.1f} hours on one core"
        )
        notes = source.notes(names)
        for note in notes:
            console.print(note)
        if dry_run and as_json:
            counts = {"all": len(runs), "to do": missing}
            print(json.dumps({"runs": counts, "seeds": seeds, "hours": hours, "notes": notes}))
        sizes = ["--seeds", str(seeds), "--shots", str(shots), "--videos", str(videos)]
        sizes += [] if habits is None else ["--habits", str(habits)]
        sizes += [] if rate is None else ["--rate", str(rate)]
        title += f"\n\n    {shlex.join(['froster', 'reproduce', *tables, '--world', *sizes])}"
    else:
        from froster.paper.cost import plan, weightless
        from froster.paper.protocols import Options
        from froster.paper.real_data import RealData
        from froster.paper.real_runs import RealProgramme

        choices = Options(hmdb_labels, hmdb_full, ssv2_flip, sampling, clamp, shots, base_sets)
        data, title = RealData(data_root, choices, lists), "# The programme"
        base = weightless() if dry_run and model is None else load_model(model, device, precision)
        source = RealProgramme(base, data, out, seeds or 1, decoders(workers))
        planned = plan(source, names, gpu)
        if not as_json:
            show_plan(planned, data, gpu)
        elif dry_run:
            print(json.dumps(planned))
        if not (planned["runs"]["possible"] or report or dry_run):
            needed = ", ".join(planned["missing"])
            raise UsageError(f"{data_root} has none of the needed manifests: {needed}")
        if not (report or dry_run):
            announce(base, model)
    if dry_run:
        return
    with progress() as bars:
        result = results.reproduce(source, names, title, bars, shard=part, report=report)
    show_result(result, as_json, lambda _: console.print(f"tables: {out / 'tables.md'}"))
    for line in result["failed"]:
        console.print(f"not done: {line}")
    if result["failed"]:
        count = len(result["failed"])
        raise FrosterError(f"{count} runs could not be done; the others are in the tables")


def check_given(values: dict[str, Any], useless: Sequence[str], where: str) -> None:
    """Raises UsageError where one of these parameters is not as it is by default."""
    known = inspect.signature(reproduce).parameters
    # The miniature's model is the nano, and may be named.
    given = [name for name in useless if values[name] not in (known[name].default, "nano")]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{names}: for {where} alone")


def show_plan(planned: dict[str, Any], data: RealData, gpu: str) -> None:
    from froster.paper.cells import REHEARSED

    rows = [
        (name, row["runs"], f"{row['flops'] / 1e18:,.2f}", f"{row['hours']:,.1f}")
        for name, row in planned["tables"].items()
    ]
    print_table(("", "runs", "EFLOP", f"hours on one {gpu}"), rows)
    for name in planned["missing"]:
        path = data.path(name)
        console.print(
            f"missing: {path}   make it: froster prepare {name} --videos … --annotations … --out"
            f" {path}"
        )
    if planned["er-zasr"]:
        folder = data.root / REHEARSED
        console.print(
            f"missing: {folder} for the row ER-ZASR: {', '.join(planned['er-zasr'])}; it takes the"
            f" streams that froster rehearse --features {folder / 'features'} has kept, and"
            " computes the others"
        )
    runs = planned["runs"]
    console.print(
        f"{runs['possible']} of {runs['all']} runs are possible with what is there, {runs['to do']}"
        f" are to do: {planned['flops'] / 1e18:,.2f} EFLOP, {planned['hours']:,.1f} hours on one"
        f" {gpu} at {planned['utilisation']:.0%} of its peak"
    )
