"""Sliding windows over a stream of frames, and a whole video as clips of a few seconds each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import UsageError
from froster.video.container import FileState, unchanged
from froster.video.sampling import Sampling
from froster.video.stream import Frame, Stream

UNIFORM_WINDOW = 4.0
"""Seconds seen at once by a model that samples whole videos, whatever their length: about a clip of
UCF101 or HMDB51."""
MOST_OPEN = 32
"""Windows that may overlap at a moment: each holds frames."""
_EARLY = 1e-4  # a frame that is due by less than this is shown: times are rounded


@dataclass(frozen=True)
class WindowPlan:
    """Windows of `window` seconds, one every `stride` seconds. A window is `frames` equal parts, of
    each of which the frame is taken that is shown in its middle."""

    window: float
    stride: float
    frames: int

    def __post_init__(self) -> None:
        if not (0 < self.window < math.inf and 0 < self.stride < math.inf):
            raise UsageError(
                f"window and stride are seconds above zero, not {self.window:g} and {self.stride:g}"
            )
        if self.stride > self.window * (1 + 1e-9):
            gaps = f"gaps between windows of {self.window:g} s"
            raise UsageError(f"a stride of {self.stride:g} s would leave {gaps}")
        if self.window > self.stride * MOST_OPEN * (1 + 1e-9):
            least = f"a stride of {self.window / MOST_OPEN:g} s or more, not {self.stride:g}"
            raise UsageError(f"a window of {self.window:g} s needs {least}")

    @property
    def step(self) -> float:
        """Seconds between the frames of a window."""
        return self.window / self.frames

    @classmethod
    def of(
        cls, sampling: Sampling, window: float | None = None, stride: float | None = None
    ) -> WindowPlan:
        """What the model's own sampling suggests: the step of its dense clips, and a stride of a
        quarter of the window or less that is a whole number of steps, so that overlapping windows
        see the same frames."""
        T = sampling.frames
        if window is None:
            # Of a dense clip, first to last frame.
            length = (sampling.rate * T - 1) / sampling.target_fps
            window = T * length / max(1, T - 1) if sampling.kind == "dense" else UNIFORM_WINDOW
        steps = max(m for m in range(1, max(1, T // 4) + 1) if T % m == 0)
        return cls(window, stride if stride is not None else window * steps / T, T)


@dataclass(eq=False)
class HeldFrame:
    """A frame's pixels, or what a network that sees frames one by one has made of them."""

    time: float
    pixels: UInt8[Tensor, "3 size size"] | None
    embedding: Float[Tensor, " embed"] | None = None
    """Raw."""


class Window(NamedTuple):
    start: float
    """Seconds from the start of the video."""
    samples: list[HeldFrame]
    """As many as the plan has frames; in the last window of a video, and only there, some may be
    one sample."""


Keep = Callable[[Frame], HeldFrame]


class Squares:
    """Frames as the network's squares of `size` pixels; for a broken one the one before it."""

    def __init__(self, size: int, how: Preprocessing = CLIP_PREPROCESSING):
        self.size, self.how = size, how
        self.broken = 0
        "pictures that could not be converted"
        self._shown = torch.zeros(3, size, size, dtype=torch.uint8)

    def keep(self, frame: Frame) -> HeldFrame:
        try:
            self._shown = frame.square(self.size, self.how)
        except (av.FFmpegError, ValueError, MemoryError):
            self.broken += 1
        return HeldFrame(frame.time, self._shown)


class SlidingWindows:
    """The windows of a stream, in order: iterate once, or give it the frames one by one and then
    `finish`.

    `start` and `end` tell how far the stream has been read. A frame that no window wants is neither
    converted nor kept. The first window starts with the first frame; the last one is the first that
    reaches the end of the video, and what it lacks is made up by repeating its frames evenly.
    """

    def __init__(self, frames: Iterable[Frame], plan: WindowPlan, keep: Keep):
        self.frames, self.plan, self.keep = frames, plan, keep
        self.start = 0.0
        self.end = 0.0
        self.held: list[tuple[float, list[HeldFrame]]] = []
        """Open windows: their start, and their samples so far."""
        self._opened = 0
        self._shown: Frame | None = None

    def __iter__(self) -> Iterator[Window]:
        for frame in self.frames:
            yield from self.take(frame)
        yield from self.finish()

    def take(self, frame: Frame) -> Iterator[Window]:
        """The windows that the next frame completes."""
        if self._shown is None:
            self.start = frame.time
        else:
            yield from self._show(self._shown, frame.time)
        self._shown, self.end = frame, frame.end

    def finish(self) -> Iterator[Window]:
        """The windows that the end of the video completes."""
        if self._shown is not None:
            yield from self._show(self._shown, self.end)
            yield from self._last(self._shown)

    def _show(self, frame: Frame, until: float) -> Iterator[Window]:
        """`frame` is what windows see of the time up to `until`."""
        plan = self.plan
        sample: HeldFrame | None = None
        while True:
            start = self.start + self._opened * plan.stride
            opens = start + plan.step / 2 < until - _EARLY
            if opens:
                self.held.append((start, []))
                self._opened += 1
            for begin, samples in self.held:
                while (
                    len(samples) < plan.frames
                    and begin + (len(samples) + 0.5) * plan.step < until - _EARLY
                ):
                    sample = sample or self.keep(frame)
                    samples.append(sample)
            while self.held and len(self.held[0][1]) == plan.frames:
                yield Window(*self.held.pop(0))
            if not opens:
                return

    def _last(self, frame: Frame) -> Iterator[Window]:
        """The window that is open at the end, if the one before it left something out."""
        complete = self._opened - len(self.held)
        covered = self.start + (complete - 1) * self.plan.stride + self.plan.window
        if complete and covered > self.end - self.plan.step / 2:
            return
        following = self.start + complete * self.plan.stride
        start, samples = self.held[0] if self.held else (following, [])
        yield Window(start, spread(samples or [self.keep(frame)], self.plan.frames))


def spread(samples: list[HeldFrame], count: int) -> list[HeldFrame]:
    """`count` of fewer samples, in order, each repeated about as often as the others."""
    return [samples[i * len(samples) // count] for i in range(count)]


_SIGN_OF_LIFE = 250
"""Frames after which a process says that it is still at work."""
_SHORTEST = 0.125
"""Of the wanted length, what a segment has at least: a file that states next to no length may be
long."""


@dataclass(frozen=True)
class VideoSegment:
    """`clip` is what is shown at T evenly spaced moments between `start` and `end`, in seconds as
    players show them."""

    start: float
    end: float
    clip: np.ndarray
    "uint8 (T, 3, S, S)"


@dataclass(frozen=True)
class VideoSummary:
    """What is known of the video after its last segment."""

    seconds: float
    frames: int
    damaged: int
    "packets and frames that could not be read or decoded"
    state: FileState


@dataclass(frozen=True)
class ReadSegments:
    """From a path to its segments and then its `VideoSummary`; None between them is a sign of life.

    A video has segments of equal length, as near to `seconds` as that allows, by the length that it
    states. Where nothing new is shown for more than a segment (slides, a gap in the recording) the
    one before goes on, so that it is longer.
    """

    frames: int
    size: int
    seconds: float
    how: Preprocessing = CLIP_PREPROCESSING

    def __call__(self, path: str) -> Iterator[VideoSegment | VideoSummary | None]:
        """Raises VideoError, also where the file changes while it is read."""
        with unchanged(path) as file, Stream.of_file(path) as stream:
            squares, frames = Squares(self.size, self.how), 0
            windows = SlidingWindows(stream, self._plan(stream.duration), squares.keep)
            joined = _Joined(windows.plan.window)
            for frames, frame in enumerate(stream, 1):
                if frames % _SIGN_OF_LIFE == 0:
                    yield None
                yield from joined.take(windows.take(frame))
            yield from joined.take(windows.finish())
            yield from joined.finish(windows.end)
            damaged = stream.damaged + squares.broken
            summary = VideoSummary(windows.end - windows.start, frames, damaged, file)
        yield summary

    def _plan(self, stated: float | None) -> WindowPlan:
        length = max(stated or self.seconds, _SHORTEST * self.seconds)
        step = length / max(1, round(length / self.seconds))
        return WindowPlan(step, step, self.frames)


class _Joined:
    """Windows to segments. One that shows only what the one before showed last prolongs that."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._before: tuple[float, float, list[HeldFrame]] | None = None

    def take(self, windows: Iterable[Window]) -> Iterator[VideoSegment]:
        for start, samples in windows:
            end, before = start + self._length, self._before
            if before is not None and all(sample is before[2][-1] for sample in samples):
                start, samples = before[0], before[2]
            else:
                yield from self.finish(end)
            self._before = start, end, samples

    def finish(self, limit: float) -> Iterator[VideoSegment]:
        """The last one, which ends at `limit` at the latest."""
        if self._before is not None:
            start, end, samples = self._before
            clip = torch.stack([sample.pixels for sample in samples if sample.pixels is not None])
            yield VideoSegment(start, min(end, limit), clip.numpy())
