"""The clips of a video that a network is to see, read from one decode, and from a file that keeps
still meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import VideoError
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform


@dataclass(frozen=True)
class Views:
    """What was read of a video."""

    clips: np.ndarray
    "uint8 (V, T, 3, S, S)"
    seconds: float
    "length of the whole video, by the times of its frames"
    frames: int
    "of the whole video"
    damaged: int
    "frames of the clips that could not be decoded, and for which a neighbour stands in"


@dataclass(frozen=True)
class ReadViews:
    """From a path to its `Views`: the work of a process that reads for a network."""

    sampling: Sampling
    views: int
    size: int
    how: Preprocessing = CLIP_PREPROCESSING

    def __call__(self, path: str) -> Iterator[Views]:
        """One `Views`. Raises VideoError, also where the file changes while it is read."""
        with unchanged(path), Video(path) as video:
            indices = self.sampling.view_indices(video.timing, self.views)
            frames = video.read([i for view in indices for i in view])
            clips = (
                inference_transform(frames, self.size, self.how)
                .unflatten(0, (len(indices), -1))
                .numpy()
            )
            found = Views(clips, video.seconds, video.num_frames, video.damaged)
        yield found


class State(NamedTuple):
    """By which a file is known again."""

    size: int
    mtime: int
    "nanoseconds"


def state(path: str | Path) -> State:
    """Raises OSError where there is no such file."""
    status = os.stat(path)
    return State(status.st_size, status.st_mtime_ns)


@contextmanager
def unchanged(path: str | Path) -> Iterator[State]:
    """Raises VideoError at the end where the file is no longer the one it was: a recording or a
    download goes on."""
    try:
        before = state(path)
    except OSError as error:
        raise VideoError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    yield before
    with suppress(OSError):
        if state(path) == before:
            return
    raise VideoError(f"{path}: the file changed while it was read; do it again when it is complete")
