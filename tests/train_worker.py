"""A small real training run as a process of its own, for tests that kill it or start several.

python train_worker.py OUT [--epochs 3] [--batch 4] [--keep 1] [--kill-at STEP | --kill-in-save
EPOCH] [--kill-rank-1-once STEP] [--limit BYTES] [--checkpoint-minutes 0]
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from froster.errors import FrosterError
from froster.inference.recognizer import load
from froster.methods import METHODS
from froster.methods.recipe import Preset, Recipe
from froster.text.prompts import Prompting
from froster.training.checkpoint import Checkpoints
from froster.training.distill_options import distill_preset
from froster.training.distributed import process_group
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.reporter import Reporter
from froster.training.trainer import Trainer
from froster.world.clips import WorldClips
from froster.world.sets import SETS, Videos


def small_world(base) -> WorldClips:
    """Noise with labels: learning it is not the point."""
    frames = torch.randint(
        0, 256, (12, 16, 3, 60, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    classes = SETS["base"].classes[:5]
    return WorldClips(
        Videos(frames, torch.arange(12) % 5, classes), base.config.sampling, train=True
    )


class Warnings(Reporter):
    def warn(self, line: str) -> None:
        print(line, file=sys.stderr)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_once(step: int, mark: Path) -> None:
    """This process dies as it starts the step, the first time that it comes so far."""
    real, started = Trainer.step, 0

    def counted(self, *inputs, **options):
        nonlocal started
        started += 1
        if started == step and not mark.exists():
            mark.touch()
            die()
        return real(self, *inputs, **options)

    Trainer.step = counted  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--keep", type=int, default=1)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--kill-rank-1-once", type=int)
    parser.add_argument("--checkpoint-minutes", type=float, default=0.0)
    parser.add_argument("--shard-weights", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--method", default="vclip")
    parser.add_argument("--distill", default="froster")
    parser.add_argument("--specialise", action="store_true")
    parser.add_argument("--remember", action="store_true")
    parser.add_argument("--meta", type=float, default=0.0)
    parser.add_argument("--averaging", default="uniform")
    parser.add_argument("--kill-in-save", type=int)
    parser.add_argument("--limit", type=int, help="largest file that may be written, in bytes")
    args = parser.parse_args()
    if args.limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.limit, args.limit))
    torch.set_num_threads(1)
    if args.kill_in_save:
        real = Checkpoints.save

        def save(self, epoch, run, weights=None):
            if epoch == args.kill_in_save:
                part = self.path(epoch).with_name(f".{self.path(epoch).name}.part")
                part.mkdir(parents=True)
                (part / "student.safetensors").write_bytes(b"half a file")
                die()
            real(self, epoch, run, weights)

        Checkpoints.save = save  # type: ignore[method-assign]
    base = load("nano", device="cpu")
    if args.method == "vclip":  # others are made for the frames of their recipe
        few = replace(base.config.sampling, frames=4)
        base.config = replace(base.config, sampling=few)
    method = METHODS[args.method]()
    recipe = Recipe(
        epochs=args.epochs,
        batch_size=args.batch,
        lr=1e-3,
        warmup_epochs=1,
        precision="float32",
        keep=args.keep,
        specialise=args.specialise,
        remember=args.remember,
        meta=args.meta,
        averaging=args.averaging,
        checkpoint_minutes=args.checkpoint_minutes,
        shard_weights=args.shard_weights,
        checkpointing=args.checkpointing,
    )
    # One prompt, as every process draws the templates of its own clips.
    preset = (
        Preset(recipe, Prompting(("{}",), "plain"), sampling=base.config.sampling)
        if args.method != "vclip"
        else None
    )

    def log(step: int, metrics: dict[str, float]) -> None:
        if step == args.kill_at:
            die()

    with process_group("cpu") as (rank, _):
        if args.kill_rank_1_once and rank == 1:
            kill_once(args.kill_rank_1_once, args.out.with_name("killed"))
        clips = small_world(base)
        _, trained = fine_tune(
            base,
            FineTuning(method, distill_preset(args.distill), recipe, preset),
            clips,
            clips.videos.classes,
            args.out,
            Hooks(Warnings(), on_step=log),
        )
        if rank == 0:
            torch.save({"last": trained.last, "average": trained.average}, args.out / "weights.pt")


if __name__ == "__main__":
    try:
        main()
    except FrosterError as error:
        sys.exit(f"froster: {error}")
