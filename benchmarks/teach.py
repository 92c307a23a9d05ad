"""Processor seconds of `froster.teach` once features are kept: 20 classes of 20 videos.

The features are random numbers of the sizes of a real network's, and so are its weights: what is
timed does not depend on what they show. One thread, and its processor time.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import froster
from benchmarks.timing import Row, Spread, interleave
from froster.data.fingerprint import file_fingerprint
from froster.encoders.config import VisionConfig
from froster.encoders.model import CLIP
from froster.inference.features import FeatureStore, KeptViews, about_features, views_of
from froster.inference.recognizer import Recognizer, load
from froster.methods import VideoCLIP

METHODS = ("prolip", "lp++", "tip", "tip-f")
RANDOM, GOAL = 4, 10.0


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return measured(Path(folder), rounds or 3, toy)
    finally:
        torch.set_num_threads(threads)


def measured(folder: Path, rounds: int, toy: bool) -> tuple[list[Row], list[str]]:
    classes, videos = (3, 4) if toy else (20, 20)
    paths = [
        folder / "videos" / f"class {k}" / f"{i}.mp4" for k in range(classes) for i in range(videos)
    ]
    for path in paths:  # nothing of them is read but what tells one from the other
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode())
    nano = load("nano", device="cpu")
    networks = {"nano": nano} if toy else {"nano": nano, "B/16": base16(nano)}
    contenders: dict[str, Callable[[], object]] = {}
    for name, model in networks.items():
        keep_random(model, paths, folder / "features")
        for method in METHODS:
            contenders[f"{name}, {method}"] = lambda model=model, method=method: froster.teach(
                folder / "videos", model=model, method=method, features=folder / "features"
            )
    times = interleave(contenders, rounds, clock=time.process_time)
    rows = [
        Row(name, "froster", "the goal", Spread.of(spent), None, "s", Spread.of(spent), GOAL, True)
        for name, spent in times.items()
    ]
    shots = f"{classes} classes of {videos} videos, of which a share is held out"
    return rows, [f"{shots}; the labels' embeddings are kept too. Seconds of one core."]


def base16(nano: Recognizer) -> Recognizer:
    """A B/16's image tower of random weights, with the nano's labels and three test views."""
    torch.manual_seed(0)
    vision = VisionConfig(224, 16, 768, 12, 12)
    config = dataclasses.replace(nano.clip.config, vision=vision, embed_dim=512)
    return nano.with_network(VideoCLIP(CLIP(config)), dataclasses.replace(nano.config, views=3))


def keep_random(model: Recognizer, paths: list[Path], folder: Path) -> None:
    """Features of every video, around the centre of its class."""
    store = FeatureStore(
        folder, about_features(model, KeptViews(model.view_reader()).to_dict(), torch.float16)
    )
    width, frames = model.clip.config.vision.width, model.config.sampling.frames
    centres = {path.parent: torch.randn(width) for path in paths}
    store.add(
        {
            f"{file_fingerprint(path)}/{view}": (
                centres[path.parent] + torch.randn(frames, width)
            ).half()
            for path in paths
            for view in views_of(model.config.views, RANDOM)
        }
    )
