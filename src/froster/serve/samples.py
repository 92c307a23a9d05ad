"""Videos to begin with: those of a folder, or a few of the rendered world, for which the nano model
was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from froster.errors import FrosterError, UsageError
from froster.serve.limits import Limits, nameless
from froster.serve.preview import jpeg
from froster.utils.progress import console
from froster.video.container import VIDEO_SUFFIXES
from froster.video.reader import Video
from froster.video.transforms import inference_transform
from froster.world.files import write_video
from froster.world.sets import SETS, record

MOST_SAMPLES = 12
_THUMBNAIL = 160
# Classes of the world, by set and index: the scenes of a sample, of a few recordings of two seconds
# each.
_SCENES = (
    (("base", 0), ("base", 3), ("base", 7)),
    (("novel", 1), ("novel", 5), ("novel", 9)),
    (("base", 9), ("novel", 12)),
)
_RECORDINGS = 3
_SEED = 7
_ENLARGED = 4
"""The world has 60 x 60 pixels, which is little in a player."""


@dataclass(frozen=True)
class Sample:
    path: Path
    name: str
    thumbnail: str
    """A JPEG as a data: address."""
    labels: tuple[str, ...] = ()
    """What is seen in it, where that is known."""

    @classmethod
    def of(cls, path: Path, name: str, labels: tuple[str, ...] = ()) -> Sample:
        with Video(path) as video:
            middle = video.read([video.num_frames // 2])
        return cls(path, name, jpeg(inference_transform(middle, _THUMBNAIL)[0]), labels)


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
    for path in files[:MOST_SAMPLES]:
        try:
            limits.measure(path)
            samples.append(Sample.of(path, path.stem))
        except FrosterError as error:
            console.print(f"sample left out: {path.name}: {nameless(error, path)}")
    if not samples:
        raise UsageError(f"--samples {folder}: it holds no videos")
    return samples


def of_world(folder: Path) -> list[Sample]:
    """A few scenes one after the other, rendered and written to `folder`."""
    samples = []
    for number, scenes in enumerate(_SCENES, start=1):
        labels = tuple(SETS[name].classes[index] for name, index in scenes)
        rng = np.random.default_rng([_SEED, number])
        recordings = [
            record(SETS[name], index, rng) for name, index in scenes for _ in range(_RECORDINGS)
        ]
        frames = torch.cat(recordings)  # (T, 3, 60, 60)
        frames = frames.repeat_interleave(_ENLARGED, -1).repeat_interleave(_ENLARGED, -2)
        path = write_video(folder / f"sample-{number}.mp4", frames)
        samples.append(Sample.of(path, ", ".join(labels), labels))
    return samples
