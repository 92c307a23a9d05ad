"""Videos to begin with: those of a folder, or a few of the rendered world, for which the nano model
was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from froster.errors import FrosterError, UsageError
from froster.serve.limits import Limits, nameless
from froster.utils.progress import console
from froster.video.container import VIDEO_SUFFIXES
from froster.video.reader import Video
from froster.video.transforms import inference_transform
from froster.world.clips import FPS
from froster.world.sets import SETS, record

MOST = 12
_THUMBNAIL = 96
# Classes of the world, by set and index: the scenes of a sample, of a few recordings of two seconds
# each.
_WORLD = (
    (("base", 0), ("base", 3), ("base", 7)),
    (("novel", 1), ("novel", 5), ("novel", 9)),
    (("base", 9), ("novel", 12)),
)
_RECORDINGS = 3
_SEED = 7
_SIZE = 240


@dataclass(frozen=True)
class Sample:
    path: Path
    name: str
    thumbnail: Tensor
    """(3, S, S) uint8"""
    labels: tuple[str, ...] = ()
    """What is seen in it, where that is known."""


def from_folder(folder: Path, limits: Limits) -> list[Sample]:
    """The first videos of a folder; what cannot be served is named and left out."""
    if not folder.is_dir():
        raise UsageError(f"--samples {folder}: no such folder")
    files = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    )
    samples = []
    for path in files[:MOST]:
        try:
            limits.measure(path)
            samples.append(Sample(path, path.stem, thumbnail(path)))
        except FrosterError as error:
            console.print(f"sample left out: {path.name}: {nameless(error, path)}")
    if not samples:
        raise UsageError(f"--samples {folder}: it holds no videos")
    return samples


def thumbnail(path: Path) -> Tensor:
    with Video(path) as video:
        return inference_transform(video.read([video.num_frames // 2]), _THUMBNAIL)[0]


def of_world(folder: Path) -> list[Sample]:
    """A few scenes one after the other, rendered and written to `folder`: small, and in what every
    browser plays."""
    samples = []
    for number, scenes in enumerate(_WORLD, start=1):
        names = tuple(SETS[name].classes[index] for name, index in scenes)
        rng = np.random.default_rng([_SEED, number])
        shown = [scene for scene in scenes for _ in range(_RECORDINGS)]
        frames = torch.cat(
            [record(SETS[name], index, rng) for name, index in shown]
        )  # (T, 3, 60, 60)
        path = write(folder / f"sample-{number}.mp4", frames)
        samples.append(Sample(path, ", ".join(names), thumbnail(path), names))
    return samples


def write(path: Path, frames: Tensor) -> Path:
    big = frames.repeat_interleave(_SIZE // frames.shape[-1], -1).repeat_interleave(
        _SIZE // frames.shape[-1], -2
    )
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=int(FPS), options={"crf": "14", "movflags": "+faststart"}
        )
        stream.height, stream.width, stream.pix_fmt = _SIZE, _SIZE, "yuv420p"
        for frame in big.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def all_labels(samples: Sequence[Sample]) -> str:
    """For the field of labels: all that the samples show, and a few that they do not."""
    shown = [label for sample in samples for label in sample.labels]
    return ", ".join(
        [*shown, "moon glowing", "clock circling"]
        if shown
        else ["walking", "running", "talking", "eating"]
    )
