"""A whole video as clips of a few seconds each, in one pass and in the memory of one clip, however
long it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.video.stream import Stream
from froster.video.views import State, unchanged
from froster.video.windows import Plan, Sample, Squares, Window, Windows

_SIGN_OF_LIFE = 250
"""Frames after which a process says that it is still at work."""
_SHORTEST = 0.125
"""Of the wanted length, what a segment has at least: a file that states next to no length may be
long."""


@dataclass(frozen=True)
class Segment:
    """`clip` is what is shown at T evenly spaced moments between `start` and `end`, in seconds as
    players show them."""

    start: float
    end: float
    clip: np.ndarray
    "uint8 (T, 3, S, S)"


@dataclass(frozen=True)
class Whole:
    """What is known of the video after its last segment."""

    seconds: float
    frames: int
    damaged: int
    "packets and frames that could not be read or decoded"
    state: State


@dataclass(frozen=True)
class ReadSegments:
    """From a path to its segments and then its `Whole`; None between them is a sign of life.

    A video has segments of equal length, as near to `seconds` as that allows, by the length that it
    states. Where nothing new is shown for more than a segment (slides, a gap in the recording) the
    one before goes on, so that it is longer.
    """

    frames: int
    size: int
    seconds: float
    how: Preprocessing = CLIP_PREPROCESSING

    def __call__(self, path: str) -> Iterator[Segment | Whole | None]:
        """Raises VideoError, also where the file changes while it is read."""
        with unchanged(path) as file, Stream.of_file(Path(path)) as stream:
            squares, frames = Squares(self.size, self.how), 0
            windows = Windows(stream, self._plan(stream.duration), squares.keep)
            joined = _Joined(windows.plan.window)
            for frames, frame in enumerate(stream, 1):
                if frames % _SIGN_OF_LIFE == 0:
                    yield None
                yield from joined.take(windows.take(frame))
            yield from joined.take(windows.finish())
            yield from joined.finish(windows.end)
            damaged = stream.damaged + squares.broken
            whole = Whole(windows.end - windows.start, frames, damaged, file)
        yield whole

    def _plan(self, stated: float | None) -> Plan:
        length = max(stated or self.seconds, _SHORTEST * self.seconds)
        step = length / max(1, round(length / self.seconds))
        return Plan(step, step, self.frames)


class _Joined:
    """Windows to segments. One that shows nothing but what the one before it showed last makes that
    one longer."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._before: tuple[float, float, list[Sample]] | None = None

    def take(self, windows: Iterable[Window]) -> Iterator[Segment]:
        for start, samples in windows:
            end, before = start + self._length, self._before
            if before is not None and all(sample is before[2][-1] for sample in samples):
                start, samples = before[0], before[2]
            else:
                yield from self.finish(end)
            self._before = start, end, samples

    def finish(self, limit: float) -> Iterator[Segment]:
        """The last one, which ends at `limit` at the latest."""
        if self._before is not None:
            start, end, samples = self._before
            clip = torch.stack([sample.pixels for sample in samples if sample.pixels is not None])
            yield Segment(start, min(end, limit), clip.numpy())
