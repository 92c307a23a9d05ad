"""How cost grows with clips, frames, classes, views and workers, and where each becomes what one
waits for."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.clips import UCF, write_clip
from benchmarks.setup import FRAMES, Scene, clips, labels, name_of, precisions, scene
from benchmarks.step import TEMPLATE, OurStep
from benchmarks.timing import Row, short
from froster.data.dataset import VideoDataset
from froster.data.loader import batches
from froster.data.manifest import Item
from froster.encoders.checkpoints import load_clip
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import VCLIP
from froster.video.sampling import Sampling

PICTURE = Path("docs/results/growth.png")
TURNS = 3


@dataclass
class Curve:
    what: str
    unit: str
    points: dict[int, float]
    """Size -> seconds."""
    words: str = ""

    def line(self) -> tuple[float, float]:
        """Seconds there are in any case, and seconds for one more, by least squares."""
        slope, start = statistics.linear_regression([*self.points], [*self.points.values()])
        return start, slope


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    stage, dtype = scene(toy), precisions(toy)[-1]
    of_clips = growth_of_clips(stage, dtype, toy)
    of_classes = growth_of_classes(stage, dtype, toy, clip=of_clips.line()[1])
    curves = [of_clips, of_classes, growth_of_frames(stage, dtype), *growth_of_views(stage, dtype)]
    notes = [f"ViT-B/16, VCLIP, {name_of(dtype)}; the medians of {TURNS} turns."]
    for curve in curves:
        sizes = " | ".join(str(size) for size in curve.points)
        seconds = " | ".join(short(value) for value in curve.points.values())
        start, slope = curve.line()
        notes += [
            (
                f"| {curve.what}: {curve.unit} | {sizes} |\n{'|---' * (len(curve.points) + 1)}|\n|"
                f" s | {seconds} |"
            ),
            f"About {short(max(0.0, start))} s, and {short(slope)} s for each more. {curve.words}",
        ]
    notes += growth_of_workers(stage, dtype, toy)
    if not toy:
        draw(curves)
        notes.append("![How cost grows](growth.png)")
    return [], notes


def median(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(TURNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def growth_of_clips(stage: Scene, dtype: torch.dtype, toy: bool) -> Curve:
    step = OurStep(stage, labels(10), FRAMES, dtype)
    points = {
        count: median(
            lambda c=count: step(clips(c, stage.image_size), torch.arange(c) % 10, TEMPLATE)
        )
        for count in ([1, 2] if toy else [1, 2, 4, 8])
    }
    curve = Curve("training step, 10 classes", "clips", points)
    start, slope = curve.line()
    curve.words = (
        f"What a step costs in any case (text, optimiser) is that of {max(0.0, start) / slope:.1f}"
        " clips: with more, the image tower is what one waits for."
    )
    return curve


def growth_of_classes(stage: Scene, dtype: torch.dtype, toy: bool, clip: float) -> Curve:
    """`clip`: seconds that one more clip takes."""
    seen, targets = clips(2, stage.image_size), torch.arange(2)
    points = {}
    for count in [2, 4] if toy else [10, 100, 400, 1000]:
        step = OurStep(stage, labels(count), FRAMES, dtype)
        points[count] = median(lambda step=step: step(seen, targets, TEMPLATE))
    curve = Curve("training step of 2 clips", "described classes", points)
    even = np.interp(min(points.values()) + clip, [*points.values()], [*points])
    curve.words = (
        f"A clip ({short(clip)} s) costs as much as about {even:.0f} classes: a batch of B clips"
        f" waits for text from {even:.0f} B classes on."
    )
    return curve


def growth_of_frames(stage: Scene, dtype: torch.dtype) -> Curve:
    points = {}
    for frames in (4, 8, 16, 32):
        model = recognizer(stage, dtype, Sampling("dense", frames))
        clip = torch.randint(
            0, 256, (frames, stage.image_size, stage.image_size, 3), dtype=torch.uint8
        )
        points[frames] = median(lambda model=model, clip=clip: model.embed_video(clip))
    words = (
        f"Twice the frames take {points[32] / points[16]:.2f} times as long at the end: attention"
        " reaches to the next frames only, so frames are what one waits for, and none costs more"
        " in a longer clip."
    )
    return Curve("embed one clip", "frames", points, words)


def growth_of_views(stage: Scene, dtype: torch.dtype) -> list[Curve]:
    model = recognizer(stage, dtype, Sampling("dense", FRAMES))
    with tempfile.TemporaryDirectory() as folder:
        file = write_clip(Path(folder) / f"clip.{UCF.suffix}", UCF, 0)
        whole = {
            views: median(lambda views=views: model.embed_video(file, views))
            for views in (1, 3, 10)
        }
        read = {
            views: median(lambda views=views: model.read_views(file, views)) for views in (1, 3, 10)
        }
    share = max(read[views] / whole[views] for views in whole)
    words = (
        f"Reading and resizing takes at most {100 * share:.0f} % of it: the network is what one"
        " waits for."
    )
    return [
        Curve("embed a video", "views", whole, words),
        Curve("only read it", "views", read, "One decode serves all views."),
    ]


def growth_of_workers(stage: Scene, dtype: torch.dtype, toy: bool) -> list[str]:
    """Clips a second that are read by 0 to 2 workers, beside what the network takes."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with tempfile.TemporaryDirectory() as folder:
        files = [
            write_clip(Path(folder) / f"{i}.{UCF.suffix}", UCF, i) for i in range(2 if toy else 6)
        ]
        items = [Item(file, str(i % 2)) for i, file in enumerate(files)] * (2 if toy else 40)
        dataset = VideoDataset(
            items, ["0", "1"], Sampling("dense", FRAMES), stage.image_size, train=True
        )
        rates = {}
        for workers in range(cores + 1):
            order = [range(first, min(first + 8, len(items))) for first in range(0, len(items), 8)]
            began = time.perf_counter()
            for _ in batches(dataset, order, workers):
                pass
            rates[workers] = len(items) / (time.perf_counter() - began)
        model = recognizer(stage, dtype, Sampling("dense", FRAMES))
        network = 1 / median(lambda: model.embed_video(files[0], 1))
    table = (
        f"| read training clips: workers | {' | '.join(map(str, rates))}"
        f" |\n{'|---' * (len(rates) + 1)}|\n| clips/s, start included |"
        f" {' | '.join(short(rate) for rate in rates.values())} |"
    )
    words = (
        f"The network embeds {short(network)} clips/s on this machine, so one process that reads"
        f" {short(rates[0])} is enough for it; a network that takes more than"
        f" {short(max(rates.values()))} clips/s, as on a GPU, waits for the readers."
    )
    return [table, words]


def recognizer(stage: Scene, dtype: torch.dtype, sampling: Sampling) -> Recognizer:
    network = VCLIP().build(load_clip(stage.folder)[0])
    config = ModelConfig(VCLIP(), sampling, 1)
    return Recognizer(network, stage.tokenizer, config, precision=name_of(dtype))  # type: ignore[arg-type]


def draw(curves: list[Curve]) -> None:
    figure = Figure((12, 2.6), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves)), curves, strict=True):
        axes.plot([*curve.points], [*curve.points.values()], "o-", color="tab:blue", markersize=4)
        axes.set(title=curve.what, xlabel=curve.unit, ylabel="s", xlim=(0, None), ylim=(0, None))
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=130)
