"""A video of the world put together from clips of which the nano CLIP knows every frame: the right
segments are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from froster.encoders.model import unit
from froster.encoders.preprocessing import normalise
from froster.inference.recognizer import Recognizer
from froster.world.files import write_video
from froster.world.sets import SETS, record

LABELS = ["cat", "tree", "umbrella", "boat", "clock"]
PARTS = [("cat", 3), ("boat", 5), ("tree", 2), ("umbrella", 3), ("clock", 4)]
"""What it shows: a label, and how many clips of two seconds."""


@dataclass
class Known:
    path: Path
    segments: list[tuple[float, float, str]]


def known_video(nano: Recognizer, path: Path) -> Known:
    frames, segments, time = [], [], 0.0
    for label, count in PARTS:
        clips = recognised(nano, label)
        frames += [clips[i % len(clips)] for i in range(count)]
        segments.append((time, time + 2 * count, label))
        time += 2 * count
    return Known(write_video(path, torch.cat(frames)), segments)


@torch.no_grad()
def recognised(nano: Recognizer, label: str, wanted: int = 3) -> list[Tensor]:
    """Clips (16, 3, 60, 60) of a label, every frame of which is surely taken for it."""
    own = [i for i, action in enumerate(SETS["base"].actions) if action.noun == label]
    classes, found = nano.class_embeddings(LABELS), []
    for take in range(100):
        clip = record(SETS["base"], own[take % len(own)], np.random.default_rng([take, own[0]]))
        frames = unit(nano.model.encode_frames(normalise(clip[None]))[0])
        shares = (nano.clip.logit_scale.exp() * frames @ classes.T).softmax(-1)
        if (shares[:, LABELS.index(label)] > 0.9).all():
            found.append(clip)
        if len(found) == wanted:
            return found
    raise AssertionError(f"no three clips of {label} that the nano CLIP knows")
