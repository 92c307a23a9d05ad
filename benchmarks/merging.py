"""What merged tokens save and cost: time and likeness on a ViT-B/16 of random weights, accuracy of
the nano CLIP and of two networks that `froster demo` tunes on the rendered world."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.setup import FRAMES, name_of, precisions, scene
from benchmarks.timing import Row, compare, interleave
from froster.encoders.checkpoints import load_clip
from froster.encoders.merging import with_merging
from froster.encoders.precision import autocast, with_cast_weights
from froster.inference.recognizer import Recognizer, load
from froster.methods import VCLIP, Frozen, Method
from froster.world.clips import WorldClips
from froster.world.sets import Videos, render_set

PICTURE = Path("docs/results/merging.png")
CPU = torch.device("cpu")
COUNTS = [0, 2, 4, 8, 13, 16]
"""Merged in each of the B/16's blocks; 16 leave 21 of its 197 tokens."""
OF_NANO = [0, 1, 2, 4, 6, 8, 12]
"""In each of the nano's three blocks, of 26 tokens."""
SETS = {"base": 20, "novel": 20}
"""Set of the world -> test videos of a class."""
METHODS: dict[str, Method] = {"CLIP": Frozen(), "VCLIP": VCLIP()}


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, notes, likeness = times(rounds or 7, toy)
    finally:
        torch.set_num_threads(threads)
    accuracy = on_the_world(toy)
    head = " | ".join(map(str, OF_NANO))
    lines = [
        f"| {name}, {of} | {' | '.join(f'{value:.1f}' for value in values)} |"
        for (name, of), values in accuracy.items()
    ]
    notes += [
        f"| top-1, merged in a block of the nano | {head} |\n{'|---' * (len(OF_NANO) + 1)}|\n"
        + "\n".join(lines)
    ]
    if not toy:
        draw(rows, likeness, accuracy)
        notes.append("![Merged tokens: time, likeness, accuracy](merging.png)")
    return rows, notes


@torch.no_grad()
def times(rounds: int, toy: bool) -> tuple[list[Row], list[str], dict[str, list[float]]]:
    """Rows of the B/16, and by network how like the frame embeddings are to those of all tokens."""
    stage, rows = scene(toy), []
    frames = torch.randn(1, FRAMES, 3, stage.image_size, stage.image_size)
    likeness: dict[str, list[float]] = {}
    work: list[str] = []
    for name, method in METHODS.items():
        network = method.build(load_clip(stage.folder)[0]).eval().requires_grad_(False)
        outputs = {r: encode(with_merging(network, r), frames, torch.float32) for r in COUNTS}
        likeness[name] = [
            float(F.cosine_similarity(outputs[r], outputs[0], dim=-1).mean()) for r in COUNTS
        ]
        counted = [operations(with_merging(network, r), frames) for r in COUNTS]
        work.append(f"{name} {', '.join(f'{counted[0] / c:.2f}' for c in counted[1:])}")
        for dtype in precisions(toy):
            kind = name_of(dtype)
            cast = network if dtype == torch.float32 else with_cast_weights(network, dtype)
            contenders = {
                of(r, kind): partial(encode, with_merging(cast, r), frames, dtype) for r in COUNTS
            }
            seconds = interleave(contenders, rounds, clock=time.process_time)
            what = f"image tower forward, {name}, {FRAMES} frames"
            rows += [compare(what, seconds, of(r, kind), of(0, kind)) for r in COUNTS[1:]]
    cosines = "; ".join(
        f"{name} {', '.join(f'{value:.4f}' for value in values[1:])}"
        for name, values in likeness.items()
    )
    merged = ", ".join(map(str, COUNTS[1:]))
    notes = [
        f"Processor time of one thread. Counted operations, attention's scores aside, would allow, for"
        f" {merged} merged tokens: {'; '.join(work)} times.",
        f"Mean cosine of the frame embeddings with those of all tokens, for {merged}: {cosines}."
        " The weights are random and the frames noise, so these say little of a trained network.",
    ]
    return rows, notes, likeness


def of(count: int, kind: str) -> str:
    return f"{count} merged a block, {kind}" if count else f"all tokens, {kind}"


def encode(network: nn.Module, frames: Tensor, dtype: torch.dtype) -> Tensor:
    with autocast(CPU, dtype):
        return network.encode_frames(frames).float()  # type: ignore[operator]


def operations(network: nn.Module, frames: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        encode(network, frames, torch.float32)
    return counter.get_total_flops()


def on_the_world(toy: bool) -> dict[tuple[str, str], list[float]]:
    """(Network, set) -> top-1 in per cent for each of `OF_NANO`."""
    tests = {name: render_set(name, 1 if toy else count) for name, count in SETS.items()}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        models = {"frozen nano": "nano"}
        if not toy:
            demo = [sys.executable, "-m", "froster", "demo", "--out", str(out)]
            subprocess.run(demo, check=True, capture_output=True)
            models |= {"VCLIP, tuned": out / "finetuned", "FROSTER": out / "froster"}
        accuracy: dict[tuple[str, str], list[float]] = {}
        for name, source in models.items():
            for count in OF_NANO:
                model = load(source, device="cpu", merge_tokens=count)
                for of, videos in tests.items():
                    accuracy.setdefault((name, of), []).append(top1(model, videos))
    return accuracy


@torch.no_grad()
def top1(model: Recognizer, videos: Videos) -> float:
    clips = WorldClips(videos, model.config.sampling, train=False).single_views()
    classes = model.class_embeddings(videos.classes)
    logits = torch.cat([model.logits_of_clips(part[:, None], classes) for part in clips.split(32)])
    right = logits.mean(1).argmax(1) == videos.labels
    return 100 * float(right.float().mean())


def draw(
    rows: list[Row], likeness: dict[str, list[float]], accuracy: dict[tuple[str, str], list[float]]
) -> None:
    figure = Figure((12, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for number, start in enumerate(range(0, len(rows), len(COUNTS) - 1)):
        some = rows[start : start + len(COUNTS) - 1]
        name = f"{some[0].what.split(', ')[1]}, {some[0].ours.split(', ')[1]}"
        left.plot(
            COUNTS,
            [1.0, *(row.ratio.median for row in some)],
            "o-",
            color=f"C{number}",
            markersize=4,
            label=name,
        )
    left.set(title="ViT-B/16: times as fast", xlabel="merged tokens a block", ylim=(0.8, None))
    for name, values in likeness.items():
        middle.plot(COUNTS, values, "o-", markersize=4, label=name)
    middle.set(title="ViT-B/16 (random weights): cosine", xlabel="merged tokens a block")
    for number, ((name, of), values) in enumerate(accuracy.items()):
        style = "o-" if of == "base" else "s--"
        right.plot(
            OF_NANO, values, style, color=f"C{number // 2}", markersize=4, label=f"{name}, {of}"
        )
    right.set(title="nano on the world: top-1, %", xlabel="merged tokens a block", ylim=(0, 100))
    for axes, counts in ((left, COUNTS), (middle, COUNTS), (right, OF_NANO)):
        axes.set_xticks(counts)
        axes.legend(fontsize=7, frameon=False)
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=130)
