"""Whether two files show the same recording, after any re-encoding: what a few frames look like,
and what moves in them.

The look alone would not do: all clips of one fixed camera look alike. `docs/doctor.md` has how
often the two are right.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from froster.video.container import THREADS, UPRIGHT, Orientation
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
PROJECTED = 128
"""Random dimensions in which motion is first compared."""
NEAR = math.tanh(math.atanh(MOTION) - 5 / math.sqrt(PROJECTED))
"""Smallest correlation there of a pair that is compared in full: five standard errors below
`MOTION`, so that one pair in three million is lost at that very limit, and fewer above it."""
_BLOCK, _ACROSS = 1024, 8192
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint16)


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


class Grey:
    """Small pictures of one size: to set a converter up takes longer than many pictures, and to
    start threads longer than one."""

    def __init__(self, rows: int, columns: int) -> None:
        self._size = columns, rows
        self._converter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, orientation: Orientation) -> np.ndarray:
        """(rows, columns) uint8: the mean brightness of the patches, upright."""
        width, height = orientation.stored(*self._size)
        small = self._converter.reformat(
            frame, width, height, "gray", interpolation="AREA", threads=THREADS
        )
        return orientation.applied(small.to_ndarray())


class Sketch:
    """Takes the frames of a video that `positions` names, in that order; gives its likeness."""

    def __init__(self) -> None:
        self._pictures: list[np.ndarray] = []
        self._grids: list[np.ndarray] = []
        self._patches = Grey(_ROWS, _PATCHES)
        self.grid = Grey(_MOTION, _MOTION)

    def add(self, frame: av.VideoFrame, orientation: Orientation = UPRIGHT) -> None:
        self._pictures.append(self._patches(frame, orientation))
        self._grids.append(self.grid(frame, orientation))

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
    """All pairs that are alike.

    Motion is first compared in a projection to `PROJECTED` dimensions, by a product of blocks, and
    only pairs that come near there are compared in full. So it takes 128 multiplications for each
    two videos of about one length, and memory for the signatures and one block.
    """
    known = sorted(
        ((video, place) for place, video in enumerate(videos) if video is not None),
        key=lambda known: known[0].seconds,
    )
    if not known:
        return
    places = [place for _, place in known]
    lengths = np.array([video.seconds for video, _ in known])
    longest = np.maximum(lengths / (1 - LENGTH), lengths + SECONDS)
    bits = _rows([video.gradients for video, _ in known], np.uint8)
    moving = _rows([video.motion for video, _ in known], np.int8)
    projected = _projected(moving)
    for begin in range(0, len(known), _BLOCK):
        end = min(begin + _BLOCK, len(known))
        stop = int(np.searchsorted(lengths, longest[end - 1], "right"))
        for left in range(begin, stop, _ACROSS):
            right = min(left + _ACROSS, stop)
            near = projected[begin:end] @ projected[left:right].T >= NEAR
            rows, columns = np.divmod(np.flatnonzero(near), right - left)
            rows, columns = rows + begin, columns + left
            fits = (columns > rows) & (lengths[columns] <= longest[rows])
            rows, columns = rows[fits], columns[fits]
            for part in range(0, len(rows), _BLOCK):
                a, b = rows[part : part + _BLOCK], columns[part : part + _BLOCK]
                differ = _ONES[bits[a] ^ bits[b]].sum(axis=1) / (8 * bits.shape[1])
                a, b, differ = (x[differ <= GRADIENTS] for x in (a, b, differ))
                motion = _correlations(moving[a], moving[b])
                for i in np.flatnonzero(motion >= MOTION).tolist():
                    first, second = sorted((places[a[i]], places[b[i]]))
                    yield Pair(first, second, float(differ[i]), float(motion[i]))


def _rows(parts: Sequence[bytes], kind: type) -> np.ndarray:
    return np.frombuffer(b"".join(parts), kind).reshape(len(parts), -1)


def _projected(moving: np.ndarray) -> np.ndarray:
    """float32 (N, 129), of length 1: random projections, whose products vary about the correlations
    by a known error; in the last place whether nothing moves."""
    random = np.random.default_rng(0)
    axes = random.standard_normal((moving.shape[1], PROJECTED), np.float32)
    projected = np.zeros((len(moving), PROJECTED + 1), np.float32)
    for begin in range(0, len(moving), _BLOCK):
        block = moving[begin : begin + _BLOCK].astype(np.float32) @ axes
        norms = np.linalg.norm(block, axis=1)
        projected[begin : begin + _BLOCK, :-1] = block / np.maximum(norms, 1e-9)[:, None]
        projected[begin : begin + _BLOCK, -1] = norms == 0
    return projected


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of pictures of motion, row by row; two in which nothing moves are alike."""
    x, y = a.astype(np.float32), b.astype(np.float32)
    sizes = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    still = ~(x.any(axis=1) | y.any(axis=1))
    return np.where(still, 1.0, np.einsum("ij,ij->i", x, y) / np.maximum(sizes, 1e-9))
