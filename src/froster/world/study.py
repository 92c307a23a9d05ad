"""The study behind the demo: methods x learning rates x seeds, on sets large enough to tell. `python -m froster.world.study`.

Every cell tunes the nano CLIP on its own draw of 16 videos a base class and is measured on over 1,000 videos a set. The
learning rate of a method is the one with the best mean accuracy on held-out *base* videos (a split of its own); no other
set has a say. The whole grid is reported beside it. Cells are written one by one, so that a stopped study goes on, and
`--shard 0/2`, `--shard 1/2` share them between processes.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before torch loads
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import dataclasses
import statistics
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TaskID

import froster.strict_json as json
from froster.distill import distill_preset
from froster.evaluation import harmonic_mean
from froster.experiment import EvalSet, default_recipe, fine_tune, measure, with_weights
from froster.files import write_text
from froster.methods import VCLIP, FineTuned, Method
from froster.progress import console, progress
from froster.recognizer import Recognizer, load
from froster.weights import ensemble
from froster.world.clips import WorldClips
from froster.world.sets import SETS, Split, render_set

ARMS: dict[str, tuple[Method, str]] = {
    "VCLIP": (VCLIP(), "none"),
    "FROSTER": (VCLIP(), "residual"),
    "plain": (VCLIP(), "plain"),
    "mlp": (VCLIP(), "mlp"),
    "per frame": (FineTuned(), "none"),
}
TEST_SETS = ("base", "novel", "near", "mid", "far", "order")
COLUMNS = ("val", "base", "novel", "hm", "near", "mid", "far", "order")
SHOTS = 16

Scores = dict[str, float]


def evaluation_sets(base: Recognizer, videos: int, bars: Progress) -> list[EvalSet]:
    """Held-out base videos (`val`) and the test sets, at least `videos` each."""
    sets = []
    drawn: list[tuple[str, str, Split]] = [("val", "base", "val"), *((name, name, "test") for name in TEST_SETS)]
    for name, source, split in drawn:
        classes = SETS[source].classes
        # Choosing a rate compares means over the seeds, for which half as many videos do.
        per_class = -(-(videos // 2 if name == "val" else videos) // len(classes))
        bar = bars.add_task(f"render {name}", total=per_class * len(classes), note="")
        rendered = render_set(source, per_class, split=split, progress=partial(show_done, bars, bar))
        sets.append(EvalSet(name, WorldClips(rendered, base.config.sampling, train=False), classes))
    return sets


def show_done(bars: Progress, bar: TaskID, done: int) -> None:
    bars.update(bar, completed=done)


def scores_of(logits: dict[str, torch.Tensor], sets: list[EvalSet]) -> Scores:
    """Top-1 in per cent on every set, and the harmonic mean of base and novel."""
    labels = {s.name: s.dataset.videos.labels for s in sets}  # type: ignore[attr-defined]
    top1 = {name: 100 * (x.argmax(1) == labels[name]).float().mean().item() for name, x in logits.items()}
    return {**top1, "hm": harmonic_mean(top1["base"], top1["novel"])}


def logits_of(model: Recognizer, sets: list[EvalSet], bars: Progress, name: str) -> dict[str, torch.Tensor]:
    return {key: found.logits for key, found in measure(model, sets, bars, name).items()}


def run_cell(
    base: Recognizer, arm: str, rate: float, seed: int, sets: list[EvalSet], frozen: dict[str, torch.Tensor],
    folder: Path, bars: Progress,
) -> dict[str, Scores]:  # fmt: skip
    """Tune once; measure the epoch average, the last epoch, and the sum of the average's outputs with the frozen ones."""
    method, distill = ARMS[arm]
    recipe = dataclasses.replace(default_recipe(base), lr=rate, seed=seed)
    train_set = WorldClips(render_set("base", SHOTS, seed, "train"), base.config.sampling, train=True, seed=seed)
    student, trained = fine_tune(
        base, method, distill_preset(distill), recipe, train_set, SETS["base"].classes, folder, bars, f"{arm} {rate:g} {seed}"
    )
    logits = {
        name: logits_of(with_weights(student, state), sets, bars, name)
        for name, state in (("average", trained.average), ("last", trained.last))
    }
    logits["ensemble"] = {key: ensemble(frozen[key], x) for key, x in logits["average"].items()}
    return {name: scores_of(x, sets) for name, x in logits.items()}


def run(out: Path, arms: list[str], rates: list[float], seeds: int, videos: int, shard: tuple[int, int]) -> None:
    base = load("nano")
    cells = list(product(range(seeds), rates, arms))[shard[0] :: shard[1]]
    with progress() as bars:
        sets = evaluation_sets(base, videos, bars)
        frozen = logits_of(base, sets, bars, "frozen")
        untrained = logits_of(Recognizer(VCLIP().build(load("nano").clip), base.tokenizer, base.config), sets, bars, "VCLIP")
        start = {"frozen": scores_of(frozen, sets), "frozen weights in VCLIP": scores_of(untrained, sets)}
        write_text(out / "start.json", json.dumps(start, indent=1) + "\n")
        bar = bars.add_task("study", total=len(cells), note="")
        for seed, rate, arm in cells:
            path = out / f"{arm.replace(' ', '-')}_{rate:g}_{seed}.json"
            if not path.exists():
                began = time.monotonic()
                cell = {"arm": arm, "rate": rate, "seed": seed}
                results = run_cell(base, arm, rate, seed, sets, frozen, out / "runs" / path.stem, bars)
                seconds = round(time.monotonic() - began, 1)
                write_text(path, json.dumps({**cell, "results": results, "seconds": seconds}) + "\n")
            bars.update(bar, advance=1)


def read_cells(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("*_*_*.json"))]


def chosen_rates(cells: list[dict[str, Any]]) -> dict[str, float]:
    """Each method's rate by the rule: the best mean over the seeds of the averaged weights on held-out base videos."""
    means: dict[str, dict[float, list[float]]] = {}
    for cell in cells:
        means.setdefault(cell["arm"], {}).setdefault(cell["rate"], []).append(cell["results"]["average"]["val"])
    return {arm: max(by_rate, key=lambda r: statistics.fmean(by_rate[r])) for arm, by_rate in means.items()}


def spread(values: list[float], signed: bool = False) -> str:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):{'+' if signed else ''}.1f} ± {sd:.1f}"


def tables(out: Path) -> str:
    """Markdown: the grid (every method and rate), the chosen rows, and paired differences between chosen methods."""
    cells = read_cells(out)
    start = json.loads((out / "start.json").read_text())
    head = f"| method | rate | weights | {' | '.join(COLUMNS)} |\n|---|---|---|{'---|' * len(COLUMNS)}\n"
    lines = [head.rstrip("\n")]
    lines += [f"| {name} | – | – | {' | '.join(f'{s[c]:.1f}' for c in COLUMNS)} |" for name, s in start.items()]
    best = chosen_rates(cells)
    for arm, rate in sorted({(cell["arm"], cell["rate"]) for cell in cells}):
        own = [cell for cell in cells if (cell["arm"], cell["rate"]) == (arm, rate)]
        for weights in ("average", "last", "ensemble"):
            values = [spread([cell["results"][weights][c] for cell in own]) for c in COLUMNS]
            mark = " (chosen)" if best[arm] == rate else ""
            lines.append(f"| {arm} | {rate:g}{mark} | {weights}, {len(own)} seeds | {' | '.join(values)} |")
    lines += ["", "Paired differences over the seeds:", "", head.rstrip("\n").replace("method | rate", "difference | rates")]
    pairs = [("FROSTER", best.get("FROSTER"), "VCLIP", best.get("VCLIP"))]
    pairs += [("FROSTER", rate, "VCLIP", rate) for rate in sorted({cell["rate"] for cell in cells})]
    for one, one_rate, other, other_rate in dict.fromkeys(pairs):
        for weights in ("average", "last"):
            found = {(cell["arm"], cell["rate"], cell["seed"]): cell["results"][weights] for cell in cells}
            seeds = sorted(s for a, r, s in found if (a, r) == (one, one_rate) and (other, other_rate, s) in found)
            if seeds:
                values = [
                    spread([found[one, one_rate, s][c] - found[other, other_rate, s][c] for s in seeds], signed=True)
                    for c in COLUMNS
                ]
                what = f"{one} - {other} | {one_rate:g}, {other_rate:g} | {weights}, {len(seeds)} seeds"
                lines.append(f"| {what} | {' | '.join(values)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m froster.world.study", description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=Path("study"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["VCLIP", "FROSTER"])
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--videos", type=int, default=1000, help="at least so many test videos a set")
    parser.add_argument("--shard", default="0/1", help="this process's share of the cells, for example 0/2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="print the tables of what --out holds, and stop")
    values = parser.parse_args()
    if not values.report:
        torch.set_num_threads(values.threads)
        part, of = map(int, values.shard.split("/"))
        run(values.out, values.arms, values.rates, values.seeds, values.videos, (part, of))
    console.print(f"rates chosen on held-out base videos: {chosen_rates(read_cells(values.out))}")
    print(tables(values.out))


if __name__ == "__main__":
    main()
