"""Makes the runs of the claims, the most important first: `python docs/results/run.py OUT` writes
`OUT/cells` (16 training videos a class), `OUT/long/cells` (60), `OUT/hot/cells` (a higher rate) and
`OUT/curve` (other strengths of the habits).

Any number of processes may do it at once, on one device or several: each takes the next run that
nobody has taken. What a stopped process had begun is begun anew once `OUT/taken` is removed.
"""

from __future__ import annotations

import argparse
import time
import traceback
from pathlib import Path

import torch
from claims import (
    CURVE,
    CURVE_SEEDS,
    LONG_RATE,
    LONG_SEEDS,
    SEEDS,
    STRENGTHS,
    cells_of,
    claims,
    core_claims,
    family_claims,
    habit_claims,
    hot,
    sources,
    successor_claims,
    with_habits,
)

from froster.paper.cells import Cell
from froster.paper.miniature import HABITS, RATE, Miniature
from froster.paper.programme import PaperRun
from froster.paper.tables import OFFICIAL, TABLES
from froster.utils.files import write_json
from froster.utils.progress import progress

Job = tuple[Miniature, PaperRun]


def jobs(short: Miniature, long: Miniature) -> list[Job]:
    """Every run once, of each part seed by seed: the question of habits, its core with more videos
    and at a higher rate; what came after FROSTER, Tables 1 and 2, the family; the other claims, and
    the rest of these tables; the curve over other habits; with more videos the ablation, then
    Tables 2 to 4 once; the rest of Table 3 with few; then those of more videos again."""
    habits = cells_of(habit_claims())
    core = cells_of(core_claims())
    parts = [(short, habits), (long, core), (hot(short), core)]
    parts += [
        (short, cells_of(successor_claims())),
        (short, list(OFFICIAL.values())),
        (short, cells_of(family_claims())),
    ]
    parts += [(short, cells_of(claims()))]
    rest = cells_in("table4", "table5", "table7", "family", "after")
    networks = [cell for cell, _ in CURVE if cell]
    curve = [(with_habits(short, strength), networks) for strength in STRENGTHS]
    ordered = [*of(parts, SEEDS), *of([(short, rest)], SEEDS), *of(curve, CURVE_SEEDS)]
    longer = [(long, cells_in("table2", "table4", "table3"))]
    ordered += [*of([(long, habits)], SEEDS), *of(longer, 1)]
    ordered += [*of([(short, cells_in("table3"))], SEEDS), *of(longer, LONG_SEEDS)]
    return list(dict.fromkeys(ordered))


def cells_in(*names: str) -> list[Cell]:
    """The networks of these tables, in their order."""
    rows = [row for name in names for row in TABLES[name].rows]
    return list(dict.fromkeys(row.cell for row in rows if row.cell is not None))


def of(parts: list[tuple[Miniature, list[Cell]]], seeds: int) -> list[Job]:
    return [
        (source, source.runs_of(cell, "cross-dataset")[seed])
        for source, cells in parts
        for seed in range(seeds)
        for cell in cells
        if cell.on_clip
    ]


def taken(source: Miniature, run: PaperRun, folder: Path) -> bool:
    """Has another process taken it? If none has, this one does."""
    sizes = "-".join(str(size) for size in source.sizes.values())
    mark = folder / f"{sizes}_{source.path(run).stem}"
    try:
        mark.open("x").close()
    except FileExistsError:
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--habits", type=float, default=HABITS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--long-rate", type=float, default=LONG_RATE)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after")
    how = parser.parse_args()
    torch.set_num_threads(1)
    began, marks = time.monotonic(), how.out / "taken"
    marks.mkdir(parents=True, exist_ok=True)
    short, long = sources(
        how.out, device=how.device, habits=how.habits, rate=how.rate, long_rate=how.long_rate
    )
    with progress(quiet=True) as bars:
        short.open(bars)
        for source, run in jobs(short, long):
            if time.monotonic() - began > how.seconds:
                break
            if source.is_done(run) or taken(source, run, marks):
                continue
            start = time.monotonic()
            try:
                record = source.make(run, bars)
            except Exception:  # one run's failure does not stop the others
                print(f"not done: {run.key}\n{traceback.format_exc()}", flush=True)
                continue
            record["seconds"] = round(time.monotonic() - start, 1)
            write_json(source.path(run), record, indent=None)
            print(f"{record['seconds']} s: {source.sizes} {run.key}", flush=True)


if __name__ == "__main__":
    main()
