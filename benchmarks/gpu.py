"""A GPU in one unattended run: `python -m benchmarks.gpu`. The table is printed last, and written
as `docs/results/gpu.md`.

Forward pass and FROSTER's training step at batch 64 in bfloat16, compiled and not, with the kernels
of `encoders/kernels.py` and without, as a share of the card's own matrix product; memory; the
largest batch; what an epoch of K400 and the whole recipe cost; baseline (a), the released recipe's
work under autocast, on the same card at the largest batch that it can hold; text towers; one clip
as a CUDA graph; and the whole training from packed shards. Within eight minutes on one card.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baselines import ReleasedStep
from benchmarks.gpu_bench import GOALS, Bench, markdown, operations, report
from benchmarks.gpu_parts import measure_pipeline, measure_small, measure_text
from benchmarks.gpu_ways import COMPILED, COPIES, EAGER, PLAIN, Way
from benchmarks.setup import FRAMES, clips, labels, scene
from benchmarks.step import TEMPLATE, OurStep
from froster.encoders import kernels
from froster.encoders.checkpoints import load_clip
from froster.encoders.precision import autocast, with_cast_weights
from froster.encoders.preprocessing import normalise
from froster.methods import VCLIP, Frozen, Method


def measure_ceiling(bench: Bench, size: int) -> None:
    a, b = (torch.randn(size, size, device=bench.device, dtype=bench.dtype) for _ in range(2))
    seconds = bench.seconds(lambda: a @ b, 3 * bench.repeats)
    bench.ceiling = 2 * size**3 / seconds
    bench.add(
        f"matrix product {size} x {size} x {size}", seconds=seconds, tflops=bench.ceiling / 1e12
    )


def measure_forward(bench: Bench, method: Method, way: Way) -> torch.Tensor:
    """The embeddings, for another way to be held against."""
    network = with_cast_weights(
        method.build(load_clip(bench.stage.folder)[0]).eval().to(bench.device), bench.dtype
    )
    frames = clips(bench.batch, bench.stage.image_size).to(bench.device)
    work = (
        operations(network, normalise(frames[:1], network.clip.config.preprocessing), bench)
        * bench.batch
    )
    if way.compiled:
        network.clip.visual.compile()

    @torch.no_grad()
    def run() -> torch.Tensor:
        with autocast(bench.device, bench.dtype):
            return network.encode(normalise(frames, network.clip.config.preprocessing)).video

    with way.taken(bench.device):
        began = time.perf_counter()
        embeddings = run()
        bench.sync()
        first = time.perf_counter() - began
        seconds = bench.seconds(run)
        what = f"forward, {method.name}, {way.name}, batch {bench.batch}"
        report(bench, what, seconds, work, bench.peak(run), first, "forward")
    return embeddings.float()


def measure_fitting(bench: Bench, way: Way) -> tuple[int, float]:
    """A training step at the largest batch, halved until it fits: the batch and its seconds, or (0,
    0)."""
    batch = bench.batch
    while batch:
        try:
            return batch, measure_step(bench, way, batch)
        except torch.OutOfMemoryError:
            bench.add(f"training step, FROSTER, {way.name}, batch {batch}: out of memory")
        bench.free()
        batch //= 2
    return 0, 0.0


def measure_step(bench: Bench, way: Way, batch: int) -> float:
    """Seconds of a training step."""
    with way.taken(bench.device):
        return measure_step_so(bench, way, batch)


def measure_step_so(bench: Bench, way: Way, batch: int) -> float:
    names, device = labels(bench.classes), str(bench.device)
    step = OurStep(bench.stage, names, FRAMES, bench.dtype, device, compile=way.compiled)
    if not way.looked_up:
        kernels.WINDOW_DEVICES.clear()  # which the task has tried
    seen, targets = batch_of(bench, batch)
    work = 0
    if not way.compiled:
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
    what = f"training step, FROSTER, {way.name}, batch {batch}, {bench.classes} classes"
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


def check_same(bench: Bench, plain: torch.Tensor, other: torch.Tensor, way: Way) -> None:
    apart = float((plain - other).norm() / plain.norm())
    bench.add(f"distance of embeddings from those of {PLAIN.name}: {way.name}", apart=apart)
    if not apart < 0.02:
        raise SystemExit("the embeddings differ: something is wrong")


def add_worth(bench: Bench, seconds: dict[tuple[Way, int], float]) -> None:
    """Steps after which compiling has paid: what `training/compiling.py` goes by."""
    for batch in {batch for _, batch in seconds if batch}:
        saved = seconds.get((EAGER, batch), 0) - seconds.get((COMPILED, batch), math.inf)
        first = [row["first_s"] for row in bench.rows if f"FROSTER, {COMPILED.name}" in row["what"]]
        if saved > 0 and first:
            bench.add("steps after which compiling has paid", steps=first[0] / saved)


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
        "--parts",
        default="forward,step,released,largest,text,small,pipeline",
        help="what to measure, between commas",
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
    parts, toy = args.parts.split(","), args.toy
    ways = [PLAIN, EAGER] if args.eager else [PLAIN, EAGER, COMPILED, COPIES]
    if "forward" in parts:
        for method in (VCLIP(), Frozen()):
            plain: torch.Tensor | None = None
            for way in ways:
                if way is not COPIES or method.name == "vclip":
                    embeddings = measure_forward(bench, method, way)
                    if plain is not None:
                        check_same(bench, plain, embeddings, way)
                    plain = embeddings if way is PLAIN else plain
                    bench.free()
    ours: dict[tuple[Way, int], float] = {}
    if "step" in parts:
        for way in ways:
            fits, seconds = measure_fitting(bench, way)
            ours[way, fits] = seconds
            bench.free()
        add_worth(bench, ours)
    if "released" in parts and (batch := measure_released(bench)):
        bench.free()
        for way in [way for way in ways if way in (EAGER, COMPILED)]:
            seconds = ours.get((way, batch)) or measure_step(bench, way, batch)
            bench.free()
            ratio = bench.released / seconds
            bench.add(
                f"times as fast as (a), {way.name}, batch {batch}",
                ratio=ratio,
                goal=GOALS["against (a)"],
                reached=ratio >= GOALS["against (a)"],
            )
    if "largest" in parts and device.type == "cuda":
        measure_largest(bench)
        bench.free()
    if "text" in parts:
        measure_text(bench, toy)
    if "small" in parts and device.type == "cuda":
        measure_small(bench)
        bench.free()
    if "pipeline" in parts:
        measure_pipeline(bench, toy, EAGER if args.eager else COMPILED)
    print(markdown(bench))


if __name__ == "__main__":
    main()
