"""Parts of `python -m benchmarks.gpu` beside images and steps: text towers, one clip as a CUDA graph,
and training from packed shards."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_bench import Bench
from benchmarks.gpu_ways import Way
from benchmarks.pipeline import GOAL, K400_CLIPS, KINETICS, SMALL, measure, packed
from benchmarks.setup import FRAMES, clips, labels
from benchmarks.step import OurStep
from froster.encoders.checkpoints import load_clip
from froster.encoders.config import TextConfig
from froster.encoders.precision import autocast, with_cast_weights
from froster.encoders.preprocessing import normalise
from froster.encoders.text import TextTower
from froster.methods import VCLIP
from froster.utils.pool import spare_cores

PROMPTS = 400
SIGLIP = {"causal": False, "pool": "last", "projection_bias": True}
TOWERS = {
    "clip-b16": (TextConfig(), 512, "quick_gelu"),
    "pe-core-b16": (TextConfig(32, width=1024, layers=24, heads=16), 1024, "gelu"),
    "siglip-b16": (TextConfig(64, 32000, 768, heads=12, **SIGLIP), 768, "gelu_tanh"),  # type: ignore[arg-type]
}
VIDEOS = 8
"""That are packed: what a clip costs is that of these."""


def measure_text(bench: Bench, toy: bool) -> None:
    """Prompts of a class each, as `froster classify` encodes them."""
    for name, (config, width, activation) in TOWERS.items():
        if toy:
            config = TextConfig(8, 99, 64, 2, 2, causal=config.causal, pool=config.pool)
        torch.manual_seed(0)
        tower = TextTower(config, width, activation).eval().requires_grad_(False)
        for weights in tower.parameters():
            torch.nn.init.normal_(weights, std=0.02)
        tower = with_cast_weights(tower.to(bench.device), bench.dtype)
        tokens = torch.randint(1, config.vocab, (PROMPTS, config.context))
        tokens[:, -1] = config.vocab - 1  # the end: every place counts

        def run(tower: TextTower = tower, tokens: Tensor = tokens) -> Tensor:
            with torch.no_grad(), autocast(bench.device, bench.dtype):
                return tower(tokens)

        with FlopCounterMode(display=False) as counter:
            run()
        seconds = bench.seconds(run)
        done = counter.get_total_flops() / seconds
        what = f"text tower, {name}, {PROMPTS} prompts of {config.context} tokens"
        bench.add(what, seconds=seconds, tflops=done / 1e12, share=done / bench.ceiling)


class Replayed:
    """A pass over clips of one shape as a CUDA graph: all its kernels are started as one. What it
    returns is overwritten by the next call."""

    def __init__(self, run: Callable[[Tensor], Tensor], x: Tensor):
        self.x, stream = x.clone(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what is allocated at first calls is not captured
            for _ in range(3):
                run(self.x)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.y = run(self.x)

    def __call__(self, x: Tensor) -> Tensor:
        self.x.copy_(x)
        self.graph.replay()
        return self.y


def measure_small(bench: Bench) -> None:
    """Few clips: a GPU waits for its kernels to be started. For a GPU alone."""
    network = VCLIP().build(load_clip(bench.stage.folder)[0]).eval().to(bench.device)
    network = with_cast_weights(network, bench.dtype)

    def run(frames: Tensor) -> Tensor:
        with torch.no_grad(), autocast(bench.device, bench.dtype):
            return network.encode(frames).video

    for count in (1, 4):
        frames = clips(2 * count, bench.stage.image_size).to(bench.device)
        first, other = normalise(frames, network.clip.config.preprocessing).chunk(2)
        replayed, plain = Replayed(run, first), run(other)
        if not (replayed(other) - plain).norm() <= 1e-3 * plain.norm():
            raise SystemExit("the embeddings of a CUDA graph differ: something is wrong")
        seconds = {
            "eager": bench.seconds(partial(run, other)),
            "CUDA graph": bench.seconds(partial(replayed, other)),
        }
        for name, taken in seconds.items():
            what = f"forward, vclip, {name}, batch {count}"
            bench.add(what, seconds=taken, clips_s=count / taken, ratio=seconds["eager"] / taken)


def measure_pipeline(bench: Bench, toy: bool, way: Way) -> None:
    """The whole training from packed shards against its step alone, at K400's number of rows."""
    with tempfile.TemporaryDirectory() as name, way.taken(bench.device):
        folder = packed(Path(name), SMALL if toy else KINETICS, 2 if toy else VIDEOS)
        step = OurStep(
            bench.stage,
            labels(bench.classes),
            FRAMES,
            bench.dtype,
            str(bench.device),
            compile=way.compiled,
        )
        before, steps = (2, 2) if toy else (10, 40)
        rows, workers = 1000 if toy else K400_CLIPS, spare_cores()
        found = measure(step, folder, bench.batch, before, steps, rows=rows, workers=workers)
    bench.add(
        f"training from packed shards, {way.name}: loader and step against the step alone",
        seconds=bench.batch / found.together,
        clips_s=found.together,
        images_s=FRAMES * found.together,
        ratio=found.ratio,
        goal=GOAL,
        reached=found.ratio >= GOAL,
        k400_epoch_h=K400_CLIPS / found.together / 3600,
        note=f"{found.note}; the epoch is extrapolated from these steps",
    )
