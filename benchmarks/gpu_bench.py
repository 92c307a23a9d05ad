"""What the parts of `python -m benchmarks.gpu` share: the card, its clock and memory, and the table."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.pipeline import K400_CLIPS
from benchmarks.report import machine
from benchmarks.setup import FRAMES, Scene
from froster.encoders.precision import autocast
from froster.methods import VideoCLIP

EPOCHS = 22
"""Of the cross-dataset recipe."""
GOALS = {"forward": 0.6, "training": 0.5, "against (a)": 2.5}


@dataclass
class Bench:
    stage: Scene
    batch: int
    classes: int
    repeats: int
    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    ceiling: float = 0.0
    """FLOP/s of a large matrix product."""
    rows: list[dict] = field(default_factory=list)
    works: dict[int, int] = field(default_factory=dict)
    """Operations of a training step, by batch."""
    released: float = 0.0
    """Seconds of a step of baseline (a)."""
    out: Path = Path("docs/results")
    command: str = "python -m benchmarks.gpu"

    def add(self, what: str, **values: object) -> None:
        """A row more, on the screen and at once in the files, so that a run that is cut off leaves
        what it measured."""
        self.rows.append({"what": what, **values})
        print(json.dumps(self.rows[-1]), flush=True)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "gpu.json").write_text(
            json.dumps({"machine": machine(), "rows": self.rows}, indent=1) + "\n"
        )
        (self.out / "gpu.md").write_text(markdown(self))

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], repeats: int | None = None) -> float:
        """The median of several runs, after two that do not count."""
        times = []
        for turn in range(-2, repeats or self.repeats):
            self.sync()
            began = time.perf_counter()
            run()
            self.sync()
            if turn >= 0:
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def peak(self, run: Callable[[], object]) -> float:
        """GB of the device's memory, all that is allocated while it runs."""
        if self.device.type != "cuda":
            run()
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() / 1e9

    def free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def operations(network: VideoCLIP, frames: torch.Tensor, bench: Bench) -> int:
    with (
        torch.no_grad(),
        autocast(bench.device, bench.dtype),
        FlopCounterMode(display=False) as counter,
    ):
        network.encode(frames)
    return counter.get_total_flops()


def report(
    bench: Bench,
    what: str,
    seconds: float,
    work: int,
    peak: float,
    first: float,
    goal: str,
    batch: int | None = None,
    loss: float | None = None,
) -> None:
    batch = batch or bench.batch
    values: dict[str, object] = {
        "seconds": seconds,
        "clips_s": batch / seconds,
        "images_s": batch * FRAMES / seconds,
        "peak_gb": peak,
        "first_s": first,
    }
    if work:
        share = work / seconds / bench.ceiling
        values |= {
            "tflops": work / seconds / 1e12,
            "share": share,
            "goal": GOALS[goal],
            "reached": share >= GOALS[goal],
        }
    if goal == "training":
        epoch = K400_CLIPS / batch * seconds / 3600
        values |= {"k400_epoch_h": epoch, "k400_recipe_h": EPOCHS * epoch, "loss": loss}
    bench.add(what, **values)


def markdown(bench: Bench) -> str:
    columns = (
        "seconds",
        "images_s",
        "tflops",
        "share",
        "goal",
        "peak_gb",
        "first_s",
        "k400_epoch_h",
        "k400_recipe_h",
    )
    heads = (
        "s",
        "images/s",
        "TFLOP/s",
        "of the ceiling",
        "goal",
        "peak GB",
        "first call, s",
        "K400 epoch, h",
        "22 epochs, h",
    )
    lines = [
        "# A GPU",
        "",
        f"    {bench.command}",
        "",
        machine(),
        "",
        f"| what | {' | '.join(heads)} |",
        "|---" * 10 + "|",
    ]
    for row in bench.rows:
        cells = [
            f"{row[c]:.3g}" if isinstance(row.get(c), float) else str(row.get(c, ""))
            for c in columns
        ]
        note = "".join(
            f", {key} {row[key]:.5g}" if isinstance(row[key], (int, float)) else f", {row[key]}"
            for key in ("ratio", "batch", "loss", "here", "released", "apart", "steps", "note")
            if key in row
        )
        lines.append(f"| {row['what']}{note} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
