"""ER-ZASR's first stage: what moves in a video and which objects it shows, computed once and kept.

What is kept of a video is a small file by the fingerprint of the video's file, in a folder by that
of both networks' weights: moved videos, and a run that was stopped, cost nothing again.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from froster.data.fingerprint import file_fingerprint
from froster.data.manifest import Item
from froster.encoders.checkpoints import unwrap
from froster.encoders.huggingface import read_hf_weights
from froster.encoders.preprocessing import Preprocessing, normalise
from froster.encoders.reading import State, read_file, read_safetensors
from froster.errors import CheckpointError, DataError
from froster.inference.features import part_key
from froster.methods.bit_resnet import BiTResNet, from_npz, top_concepts
from froster.methods.tsm_resnet import TSMResNet
from froster.utils import pool
from froster.utils.files import atomic_file
from froster.utils.progress import Working, silently
from froster.utils.tensors import file_digest, save_tensors
from froster.video.container import unchanged
from froster.video.part import VideoPart
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform

SEGMENTS = Sampling("uniform", 8)
POINTS = 8
SIZE = 224
VIDEO = Preprocessing(
    (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), interpolation="bilinear", scale=256 / 224
)
OBJECTS = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), interpolation="bilinear", scale=256 / 224)
"""Both resize alike, so that a frame is resized once."""
TOP = 20
"""Objects kept of a video; training reads fewer."""


class Stored(NamedTuple):
    """What the second stage knows of a video."""

    video: Tensor  # (F,): the mean of the segments' features
    objects: Tensor  # int64 (TOP,): concepts, the likeliest first


def even_points(num_frames: int) -> list[int]:
    """Frames of the object stream: evenly from the first to the last; all where there are few."""
    if num_frames <= POINTS:
        return list(range(num_frames))
    return [round(k * (num_frames - 1) / (POINTS - 1)) for k in range(POINTS)]


def read_streams(
    task: tuple[str, tuple[float, float] | None],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """From a path, and a part of the video in seconds or None, to the frames of both streams, uint8
    (T, 3, S, S): the work of a process that decodes."""
    path, span = task
    with unchanged(path), Video(path) as video:
        part = VideoPart(video, *(span or (0.0, math.inf)))
        segments = SEGMENTS.view_indices(part.timing if span else video.timing, 1)[0]
        points = even_points(part.num_frames)
        needed = sorted({*segments, *points})
        frames = inference_transform(part.at(needed), SIZE, VIDEO).numpy()
    row = {frame: number for number, frame in enumerate(needed)}
    yield frames[[row[i] for i in segments]], frames[[row[i] for i in points]]


@dataclass(frozen=True)
class Streams:
    """The files of both networks."""

    tsm: Path
    """A TSM-ResNet under its release's names."""
    bit: Path
    """A BiT ResNet: its authors' npz, or weights under their names or timm's, in a file or a
    folder."""

    @cached_property
    def fingerprint(self) -> str:
        """Of both files' content."""
        files = [self.tsm, self.bit]
        if self.bit.is_dir():
            files[1:] = sorted(file for file in self.bit.iterdir() if file.is_file())
        try:
            digests = " ".join(map(file_digest, files))
        except OSError as error:
            raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror})") from None
        return hashlib.sha256(digests.encode()).hexdigest()[:16]

    def load(self, device: torch.device) -> tuple[TSMResNet, BiTResNet]:
        """Raises CheckpointError naming the file."""
        try:
            tsm = TSMResNet.of(unwrap(read_file(self.tsm)[1]))
        except CheckpointError as error:
            raise CheckpointError(f"{self.tsm}: {error}") from None
        try:
            bit = BiTResNet.of(read_bit(self.bit))
        except CheckpointError as error:
            raise CheckpointError(f"{self.bit}: {error}") from None
        return tsm.float().to(device), bit.float().to(device)


def read_bit(path: Path) -> State:
    if path.is_dir():
        return read_hf_weights(path)
    if path.suffix != ".npz":
        return unwrap(read_file(path)[1])
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return from_npz(dict(arrays))
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"not a readable npz ({error})") from None


class Extracted(NamedTuple):
    stored: list[Stored | None]
    """Of each video; None where it cannot be read."""
    errors: list[tuple[int, str]]
    """Position and 'file: cause' of the others."""
    computed: int
    """Videos that were not kept from before."""


def extract(
    items: Sequence[Item],
    streams: Streams,
    folder: Path,
    device: torch.device,
    workers: int = 0,
    working: Working = silently,
) -> Extracted:
    """Both streams of every video, from `folder` where they are kept, else into it. A video that
    cannot be read is told and costs itself alone. Raises CheckpointError."""
    folder = folder / streams.fingerprint
    prints = [file_fingerprint(item.path) for item in items]
    names = [name and part_key(name, item.span) for name, item in zip(prints, items, strict=True)]
    stored = [kept(folder, name) for name in names]
    missing = [place for place, known in enumerate(stored) if known is None]
    errors: list[tuple[int, str]] = []
    if not missing:
        return Extracted(stored, errors, 0)
    tsm, bit = streams.load(device)
    tasks = [(str(items[place].path), items[place].span) for place in missing]
    events = pool.in_order(pool.run(read_streams, tasks, workers, window=workers + 2))
    with working(f"features of {len(missing)} videos", len(missing)) as advance:
        for task, frames, error in pool.ends(events):
            place = missing[task]
            if frames is None:
                path = tasks[task][0]
                errors.append((place, f"{path}: {error.removeprefix(f'{path}: ')}"))
            else:
                segments, points = (torch.from_numpy(part).to(device) for part in frames)
                stored[place] = known = through(tsm, bit, segments, points)
                keep(folder, names[place], known)
            advance(1)
    return Extracted(stored, errors, len(missing) - len(errors))


@torch.no_grad()
def through(tsm: TSMResNet, bit: BiTResNet, segments: Tensor, points: Tensor) -> Stored:
    """The uint8 frames of one video through both networks."""
    video = tsm(normalise(segments, VIDEO)[None])[0].mean(0)
    ids, _ = top_concepts(bit(normalise(points, OBJECTS)), TOP)
    return Stored(video.cpu(), ids.cpu())


def kept(folder: Path, name: str | None) -> Stored | None:
    """What is kept under a fingerprint; a damaged file counts as none."""
    file = folder / f"{name}.safetensors"
    if name is None or not file.is_file():
        return None
    try:
        state = read_safetensors(file)
        return Stored(state["video"], state["objects"])
    except (CheckpointError, KeyError):
        return None


def keep(folder: Path, name: str | None, stored: Stored) -> None:
    if name is not None:
        with atomic_file(folder / f"{name}.safetensors") as part:
            save_tensors(stored._asdict(), part)


def check_concepts(concepts: Sequence[str], stored: Sequence[Stored]) -> None:
    """Raises DataError where a video shows a concept that the table does not have."""
    largest = max((int(known.objects.max()) for known in stored), default=0)
    if largest >= len(concepts):
        raise DataError(
            f"the object network knows concept {largest}, and the table has {len(concepts)} texts:"
            " pass the table of that network"
        )
