"""A GPU in one unattended run: `python -m benchmarks.gpu`. The table is printed last, and written
as `docs/results/gpu.md`.

Forward pass and FROSTER's training step at batch 64 in bfloat16, compiled and not, as a share of
the card's own matrix product; memory; the largest batch; what an epoch of K400 and the whole recipe
cost; and baseline (a), the released recipe's work under autocast, on the same card at the largest
batch that it can hold.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baselines import ReleasedStep
from benchmarks.report import machine
from benchmarks.setup import FRAMES, Scene, clips, labels, scene
from benchmarks.step import TEMPLATE, OurStep
from froster.encoders.checkpoints import load_clip
from froster.encoders.precision import autocast, with_cast_weights
from froster.encoders.preprocessing import normalise
from froster.methods import VCLIP, Frozen, Method, VideoCLIP

K400_CLIPS, EPOCHS = 240_436, 22
"""Training videos of Kinetics-400 as its lists have them, and the epochs of the cross-dataset
recipe."""
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


def measure_ceiling(bench: Bench, size: int) -> None:
    a, b = (torch.randn(size, size, device=bench.device, dtype=bench.dtype) for _ in range(2))
    seconds = bench.seconds(lambda: a @ b, 3 * bench.repeats)
    bench.ceiling = 2 * size**3 / seconds
    bench.add(
        f"matrix product {size} x {size} x {size}", seconds=seconds, tflops=bench.ceiling / 1e12
    )


def measure_forward(bench: Bench, method: Method, compiled: bool) -> None:
    network = with_cast_weights(
        method.build(load_clip(bench.stage.folder)[0]).eval().to(bench.device), bench.dtype
    )
    frames = clips(bench.batch, bench.stage.image_size).to(bench.device)
    work = (
        operations(network, normalise(frames[:1], network.clip.config.preprocessing), bench)
        * bench.batch
    )
    if compiled:
        network.clip.visual.compile()

    @torch.no_grad()
    def run() -> None:
        with autocast(bench.device, bench.dtype):
            network.encode(normalise(frames, network.clip.config.preprocessing))

    began = time.perf_counter()
    run()
    bench.sync()
    first = time.perf_counter() - began
    seconds = bench.seconds(run)
    what = f"forward, {method.name}, {kind(compiled)}, batch {bench.batch}"
    report(bench, what, seconds, work, bench.peak(run), first, "forward")


def measure_fitting(bench: Bench, compiled: bool) -> tuple[int, float]:
    """A training step at the largest batch, halved until it fits: the batch and its seconds, or (0,
    0)."""
    batch = bench.batch
    while batch:
        try:
            return batch, measure_step(bench, compiled, batch)
        except torch.OutOfMemoryError:
            bench.add(f"training step, FROSTER, {kind(compiled)}, batch {batch}: out of memory")
        bench.free()
        batch //= 2
    return 0, 0.0


def measure_step(bench: Bench, compiled: bool, batch: int) -> float:
    """Seconds of a training step."""
    step = OurStep(
        bench.stage, labels(bench.classes), FRAMES, bench.dtype, str(bench.device), compile=compiled
    )
    seen, targets = batch_of(bench, batch)
    work = 0
    if not compiled:
        with FlopCounterMode(display=False) as counter:
            step(seen, targets, TEMPLATE)
        work = counter.get_total_flops()
        bench.works[batch] = work
    began = time.perf_counter()
    loss = step(seen, targets, TEMPLATE)
    first = time.perf_counter() - began
    step(seen, targets, TEMPLATE)
    seconds = series(bench, step, seen, targets)
    peak = bench.peak(lambda: step(seen, targets, TEMPLATE))
    what = f"training step, FROSTER, {kind(compiled)}, batch {batch}, {bench.classes} classes"
    report(
        bench,
        what,
        seconds,
        work or bench.works.get(batch, 0),
        peak,
        first,
        "training",
        batch,
        loss,
    )
    return seconds


def series(bench: Bench, step: OurStep, seen: torch.Tensor, targets: torch.Tensor) -> float:
    """Seconds of a step among others: as in training, a step's numbers are read once the next has
    been started."""
    bench.sync()
    began = time.perf_counter()
    waiting = step.start(seen, targets, TEMPLATE)
    for _ in range(2 * bench.repeats - 1):
        started = step.start(seen, targets, TEMPLATE)
        waiting.metrics()
        waiting = started
    bench.sync()
    return (time.perf_counter() - began) / (2 * bench.repeats)


def batch_of(bench: Bench, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    seen = clips(batch, bench.stage.image_size)
    return (seen.pin_memory() if bench.device.type == "cuda" else seen), torch.arange(
        batch
    ) % bench.classes


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


def check_loss(bench: Bench, batch: int = 2, classes: int = 8) -> None:
    """The same step on the CPU in float32, on the device, and by baseline (a): they do the same
    work."""
    seen, targets = clips(batch, bench.stage.image_size), torch.arange(batch)
    names, device = labels(classes), str(bench.device)
    cpu = OurStep(bench.stage, names, FRAMES)(seen, targets, TEMPLATE)
    here = OurStep(bench.stage, names, FRAMES, bench.dtype, device)(seen, targets, TEMPLATE)
    theirs = ReleasedStep(bench.stage, names, FRAMES, bench.dtype, device=device)
    other = theirs(seen.to(bench.device), targets.to(bench.device), TEMPLATE)
    bench.add("loss of a step: CPU in float32, here, (a) here", loss=cpu, here=here, released=other)
    if max(abs(here - cpu), abs(other - cpu)) > 0.02 * abs(cpu):
        raise SystemExit("the losses differ: something is wrong")


def measure_released(bench: Bench) -> int:
    """Baseline (a) at the largest batch, halved until it fits; the batch, or 0."""
    batch = bench.batch
    while batch:
        try:
            step = ReleasedStep(
                bench.stage, labels(bench.classes), FRAMES, bench.dtype, device=str(bench.device)
            )
            seen, targets = batch_of(bench, batch)

            def run(
                step: ReleasedStep = step,
                seen: torch.Tensor = seen,
                targets: torch.Tensor = targets,
            ) -> float:
                return step(seen.to(bench.device), targets.to(bench.device), TEMPLATE)

            loss = run()
            seconds = bench.seconds(run, max(2, bench.repeats // 2))
            peak = bench.peak(run)
            bench.add(
                f"training step, (a) with autocast, batch {batch}, {bench.classes} classes",
                seconds=seconds,
                clips_s=batch / seconds,
                images_s=batch * FRAMES / seconds,
                peak_gb=peak,
                loss=loss,
            )
            bench.released = seconds
            return batch
        except torch.OutOfMemoryError:
            bench.add(f"training step, (a) with autocast, batch {batch}: out of memory")
        step = run = None  # type: ignore[assignment]
        bench.free()
        batch //= 2
    return 0


def measure_largest(bench: Bench) -> None:
    """The largest batch of the step that is not compiled: doubled until memory is out, then tried
    half-way back."""
    step = OurStep(bench.stage, labels(bench.classes), FRAMES, bench.dtype, str(bench.device))
    fits, peak, batch, jump = 0, 0.0, bench.batch, bench.batch
    while batch and jump >= max(1, bench.batch // 4):
        try:
            bench.free()
            now = bench.peak(lambda batch=batch: step(*batch_of(bench, batch), TEMPLATE))
            fits, peak = batch, now
            batch += jump
        except torch.OutOfMemoryError:
            jump //= 2
            batch = fits + jump
    bench.add("largest batch of a training step, not compiled", batch=fits, peak_gb=peak)


def kind(compiled: bool) -> str:
    return "compiled" if compiled else "eager"


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
            f", {key} {row[key]:.5g}"
            for key in ("ratio", "batch", "loss", "here", "released")
            if key in row
        )
        lines.append(f"| {row['what']}{note} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--toy",
        action="store_true",
        help="a tiny network, on whatever is there, to try the script itself",
    )
    parser.add_argument("--batch", type=int, help="clips a step; default 64")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    parser.add_argument(
        "--parts", default="forward,step,released,largest", help="what to measure, between commas"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args(arguments)
    if not (args.toy or torch.cuda.is_available()):
        raise SystemExit("no GPU here: --toy tries the script on the CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(
        scene(args.toy),
        args.batch or (4 if args.toy else 64),
        8 if args.toy else 400,
        args.repeats,
        device,
        out=args.out,
        command=" ".join(
            ["python -m benchmarks.gpu", *(sys.argv[1:] if arguments is None else arguments)]
        ),
    )
    measure_ceiling(bench, 256 if args.toy else 8192)
    check_loss(bench)
    bench.free()
    parts, kinds = args.parts.split(","), (False,) if args.eager else (False, True)
    if "forward" in parts:
        for method in (VCLIP(), Frozen()):
            for compiled in kinds:
                measure_forward(bench, method, compiled)
                bench.free()
    ours: dict[tuple[bool, int], float] = {}
    if "step" in parts:
        for compiled in kinds:
            fits, seconds = measure_fitting(bench, compiled)
            ours[compiled, fits] = seconds
            bench.free()
    if "released" in parts and (batch := measure_released(bench)):
        bench.free()
        for compiled in kinds:
            seconds = ours.get((compiled, batch)) or measure_step(bench, compiled, batch)
            bench.free()
            ratio = bench.released / seconds
            bench.add(
                f"times as fast as (a), {kind(compiled)}, batch {batch}",
                ratio=ratio,
                goal=GOALS["against (a)"],
                reached=ratio >= GOALS["against (a)"],
            )
    if "largest" in parts and device.type == "cuda":
        measure_largest(bench)
    print(markdown(bench))


if __name__ == "__main__":
    main()
