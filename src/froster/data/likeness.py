"""Whether two files show the same recording, after any re-encoding: what a few frames look like,
and what moves in them.

The look alone would not do: all clips of one fixed camera look alike. `docs/doctor.md` has how
often the two are right.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from froster.video.container import UPRIGHT, Orientation
from froster.video.reader import Video

FRAMES = 8
"""Compared, at the middles of as many equal parts of the video."""
_ROWS, _PATCHES = 8, 9
_MOTION = 16
GRADIENTS = 0.25
"""Largest share of the bits that differ: whether a frame gets brighter from each of 8 x 9 patches
to the next (dHash)."""
MOTION = 0.8
"""Smallest correlation of what differs, on a grid of 16 x 16, between the frames and their mean."""
LENGTH, SECONDS = 0.05, 0.25
"""Largest difference in length, as a share of the longer one or in seconds, whichever is more."""
FLAT = 2.0
"""Standard deviation, of 255 levels, of a picture without anything to see."""
_BLOCK = 1024


class Pair(NamedTuple):
    """Positions of two videos that are alike, the earlier one first."""

    first: int
    second: int
    gradients: float
    motion: float


@dataclass(frozen=True)
class Likeness:
    """What is compared of one video."""

    seconds: float
    gradients: bytes  # 8 bytes a frame
    motion: bytes  # int8 (8, 16, 16)

    def text(self) -> str:
        return base64.b85encode(self.gradients + self.motion).decode()

    @classmethod
    def from_text(cls, seconds: float, text: str) -> Likeness:
        """The inverse of `text`."""
        data = base64.b85decode(text)
        return cls(seconds, data[: FRAMES * _ROWS], data[FRAMES * _ROWS :])


class Sketch:
    """Takes the frames of a video that `positions` names, in that order; gives its likeness."""

    def __init__(self) -> None:
        self._pictures: list[np.ndarray] = []
        self._grids: list[np.ndarray] = []
        self._converter = VideoReformatter()

    def add(self, frame: av.VideoFrame, orientation: Orientation = UPRIGHT) -> None:
        self._pictures.append(self.grey(frame, orientation, _ROWS, _PATCHES))
        self._grids.append(self.grey(frame, orientation, _MOTION, _MOTION))

    def grey(
        self, frame: av.VideoFrame, orientation: Orientation, rows: int, columns: int
    ) -> np.ndarray:
        """(rows, columns) uint8: the mean brightness of the patches, upright."""
        width, height = orientation.stored(columns, rows)
        small = self._converter.reformat(frame, width, height, "gray", interpolation="AREA")
        return orientation.applied(small.to_ndarray())

    def likeness(self, seconds: float) -> Likeness | None:
        """None where frames are missing, or half of them or more show nothing."""
        flat = sum(picture.std() < FLAT for picture in self._pictures)
        if len(self._pictures) < FRAMES or flat * 2 >= FRAMES:
            return None
        pictures, grids = np.stack(self._pictures), np.stack(self._grids).astype(np.float32)
        gradients = np.packbits(pictures[:, :, 1:] > pictures[:, :, :-1])
        moving = np.rint(grids - grids.mean(axis=0)).clip(-127, 127).astype(np.int8)
        return Likeness(seconds, gradients.tobytes(), moving.tobytes())


def positions(num_frames: int) -> list[int]:
    """Which frames are compared; those of a very short video more than once."""
    return [int((part + 0.5) * num_frames / FRAMES) for part in range(FRAMES)]


def likeness_of(path: str | Path) -> Likeness | None:
    """Of a file. Raises VideoError where no frame can be had."""
    sketch = Sketch()
    with Video(path) as video:
        for picture in video.read(positions(video.num_frames)).numpy():
            sketch.add(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))
        return sketch.likeness(video.seconds)


def pairs(videos: Sequence[Likeness | None]) -> Iterator[Pair]:
    """All pairs that are alike. A hundred thousand videos take a minute or two where lengths are
    alike, else less."""
    known = sorted(
        ((video, place) for place, video in enumerate(videos) if video is not None),
        key=lambda known: known[0].seconds,
    )
    if not known:
        return
    likenesses, places = zip(*known, strict=True)
    lengths = np.array([likeness.seconds for likeness in likenesses])
    data = np.stack([np.frombuffer(likeness.gradients, np.uint8) for likeness in likenesses])
    signs = np.unpackbits(data, axis=1).astype(np.float32) * 2 - 1
    moving = np.stack([np.frombuffer(likeness.motion, np.int8) for likeness in likenesses])
    longest = np.maximum(lengths / (1 - LENGTH), lengths + SECONDS)
    for begin in range(0, len(known), _BLOCK):
        end = min(begin + _BLOCK, len(known))
        stop = int(np.searchsorted(lengths, longest[end - 1], "right"))
        differ = (signs.shape[1] - signs[begin:end] @ signs[begin:stop].T) / 2 / signs.shape[1]
        for row, column in np.argwhere(np.triu(differ <= GRADIENTS, 1)):
            if lengths[begin + column] > longest[begin + row]:
                continue
            motion = _correlation(moving[begin + row], moving[begin + column])
            if motion >= MOTION:
                first, second = sorted((places[begin + row], places[begin + column]))
                yield Pair(first, second, float(differ[row, column]), motion)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures of motion; two in which nothing moves are alike."""
    x, y = a.astype(np.float32), b.astype(np.float32)
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size else float(not x.any() and not y.any())
