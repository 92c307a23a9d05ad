"""Training on many processes: what a checkpoint within an epoch costs and saves, how the videos that
are measured are shared out, and whose memory holds the mean of the epochs.

Before is what the code of commit 89bc652 does: rank 0 scored all videos, every rank held the mean
and the newest weights in its host's memory, and a checkpoint was a whole epoch. Networks have
random weights, of CLIP B/16's size (the nano's as a toy); two processes of gloo.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.scale import Line
from froster.encoders.config import ARCHITECTURES
from froster.encoders.model import CLIP
from froster.evaluation.metrics import Scorer, evaluate
from froster.evaluation.spread import ALONE
from froster.inference.recognizer import load
from froster.methods import METHODS
from froster.methods.recipe import Recipe
from froster.training.checkpoint import Checkpoints, EpochPart, RunState
from froster.training.distill_options import distill_preset
from froster.training.distributed import ranks, spread_over_ranks
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.trainer import Trainer
from froster.training.weights import RunningMean
from froster.utils.tensors import cpu_state, return_freed
from froster.world.clips import WorldClips
from froster.world.sets import render_set

MINUTES = 10
BATCH = 4


def run(toy: bool) -> list[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [*checkpoints(folder, toy), *lost_work(folder, toy), *two_ranks(folder, toy)]


def network(toy: bool) -> nn.Module:
    return load("nano", device="cpu").clip if toy else CLIP(ARCHITECTURES["ViT-B/16"])


def checkpoints(folder: Path, toy: bool) -> list[Line]:
    """Written and read in this process, on whatever disk lies under TMPDIR."""
    model = network(toy)
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-5, fused=True)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    state = RunState({"student": model}, optimizer, {}, part=EpochPart(step=1, counted=1))
    kept = Checkpoints(folder / "one")
    begun, wall = time.process_time(), time.monotonic()
    kept.save(0, state)
    cpu, wall = time.process_time() - begun, time.monotonic() - wall
    size = sum(weight.numel() for weight in weights)
    what = f"a checkpoint within an epoch, {size / 1e6:.0f} M weights"
    note = f"one in {MINUTES} minutes; {cpu:.1f} s of processor"
    share = 100 * wall / (60 * MINUTES)
    return [Line(f"{what}: share of the time", "%", None, share, 2.0, note=note)]


def lost_work(folder: Path, toy: bool) -> list[Line]:
    """A run that stops as its first epoch ends, and goes on."""
    base = load("nano", device="cpu")
    videos = render_set("base", 1 if toy else 4, seed=1)
    clips = WorldClips(videos, base.config.sampling, train=True)
    steps = len(clips) // BATCH
    again = {}
    for minutes in (0.0, 1e-9):
        recipe = Recipe(epochs=1, batch_size=BATCH, precision="float32", checkpoint_minutes=minutes)
        done: list[int] = []

        def on_step(step: int, _: dict[str, float], done: list[int] = done) -> None:
            if step == steps and len(done) < steps:
                done.append(step)
                raise StoppedError
            done.append(step)

        how = FineTuning(METHODS["finetuned"](), distill_preset("none"), recipe)
        out = folder / f"run-{minutes}"
        for _ in range(2):
            try:
                fine_tune(base, how, clips, videos.classes, out, Hooks(on_step=on_step))
            except StoppedError:
                continue
        again[minutes] = len(done) - steps
    what = f"steps done again by a run of {steps} steps an epoch that is killed at its last"
    note = "with a checkpoint after every step"
    return [Line(what, "steps", again[0.0], again[1e-9], 1.0, note=note)]


class StoppedError(Exception):
    """Stands for a kill."""


def two_ranks(folder: Path, toy: bool) -> list[Line]:
    command = [sys.executable, "-m", "benchmarks.scale_train", str(folder), str(int(toy))]
    started = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate()[0] for process in started]
    assert not any(process.returncode for process in started), said
    first, second = (json.loads(text.splitlines()[-1]) for text in said)
    share = max(first["shared"], second["shared"]) / first["alone"]
    return [
        Line(
            "evaluation on two ranks: processor time of the slower by that of one for all",
            "",
            1.0,
            share,
            0.6,
            note=f"{first['videos']} videos, same scores to the bit",
        ),
        Line(
            "host memory of the mean of the epochs on rank 1",
            "MB",
            second["before"],
            second["after"],
            1.0,
            note=f"{second['weights'] / 1e6:.0f} M weights",
        ),
    ]


def resident() -> float:
    """MB"""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def rank(folder: Path, toy: bool, number: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    base = load("nano", device="cpu")
    videos = render_set("base", 1 if toy else 12, seed=1)
    clips = WorldClips(videos, base.config.sampling, train=False)
    scorer = Scorer(base.inference, base.class_embeddings(videos.classes), base.dtype)
    seconds, scores = {}, {}
    for name, spread in (("warm", ALONE), ("alone", ALONE), ("shared", spread_over_ranks())):
        begun = time.process_time()
        (scores[name],) = evaluate([scorer], clips, videos.classes, batch_size=8, spread=spread)
        seconds[name] = time.process_time() - begun
    if number == 0:
        assert torch.equal(scores["alone"].logits, scores["shared"].logits)
    model = network(toy)
    memory = {}
    for name in ("after", "before"):
        return_freed()  # or the mean would lie where something else has lain
        mean, start = RunningMean(), resident()
        for _ in range(2):
            state = Trainer.cpu_state(Holder(model)) if name == "after" else cpu_state(model)  # type: ignore[arg-type]
            mean.add(state)
        memory[name] = max(0.0, resident() - start)
        assert ranks() == 2 and (number == 0 or name == "before" or not mean.mean)
    size = sum(weight.numel() for weight in model.parameters())
    print(json.dumps({**seconds, **memory, "videos": len(clips), "weights": size}))
    dist.barrier()
    dist.destroy_process_group()


class Holder:
    """What `Trainer.cpu_state` looks at, without the rest of a training."""

    def __init__(self, model: nn.Module):
        self.shards, self.rank = None, dist.get_rank()
        self.task = nn.Module()
        self.task.student = model


if __name__ == "__main__":
    rank(Path(sys.argv[1]), bool(int(sys.argv[2])), int(sys.argv[3]))
