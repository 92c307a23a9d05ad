"""Sliding windows over a stream of frames: only what open windows still need is held, each frame
once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av
import torch
from torch import Tensor

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import UsageError
from froster.video.sampling import Sampling
from froster.video.stream import Frame

UNIFORM_WINDOW = 4.0
"""Seconds seen at once by a model that samples whole videos, whatever their length: about a clip of
UCF101 or HMDB51."""
MOST_OPEN = 32
"""Windows that may overlap at a moment: each holds frames."""
_EARLY = 1e-4  # a frame that is due by less than this is shown: times are rounded


@dataclass(frozen=True)
class Plan:
    """Windows of `window` seconds, one every `stride` seconds, seen through `frames` frames each.

    A window is `frames` equal parts, and the frame that is shown in the middle of each part is
    taken.
    """

    window: float
    stride: float
    frames: int

    def __post_init__(self) -> None:
        if not self.window > 0 or not self.stride > 0:
            raise UsageError(
                f"window and stride are seconds above zero, not {self.window:g} and {self.stride:g}"
            )
        if self.stride > self.window * (1 + 1e-9):
            raise UsageError(
                f"a stride of {self.stride:g} s would leave gaps between windows of"
                f" {self.window:g} s"
            )
        if self.window > self.stride * MOST_OPEN * (1 + 1e-9):
            least = self.window / MOST_OPEN
            raise UsageError(
                f"a window of {self.window:g} s needs a stride of {least:g} s or more, not"
                f" {self.stride:g}"
            )

    @property
    def step(self) -> float:
        """Seconds between the frames of a window."""
        return self.window / self.frames

    @classmethod
    def of(
        cls, sampling: Sampling, window: float | None = None, stride: float | None = None
    ) -> Plan:
        """What the model's own sampling suggests: the step of its dense clips, and a stride of a
        quarter of the window or less that is a whole number of steps, so that overlapping windows
        see the same frames."""
        T = sampling.frames
        if window is None:
            length = (
                sampling.rate * T - 1
            ) / sampling.target_fps  # of a dense clip, first to last frame
            window = T * length / max(1, T - 1) if sampling.kind == "dense" else UNIFORM_WINDOW
        steps = max(m for m in range(1, max(1, T // 4) + 1) if T % m == 0)
        return cls(window, stride if stride is not None else window * steps / T, T)


@dataclass(eq=False)
class Sample:
    """A frame as it is held: its pixels, or what a network that sees frames one by one has made of
    them."""

    time: float
    pixels: Tensor | None
    """(3, S, S) uint8."""
    embedding: Tensor | None = None
    """(E,), raw."""


class Window(NamedTuple):
    start: float
    """Seconds from the start of the video."""
    samples: list[Sample]
    """As many as the plan has frames; in the last window of a video, and only there, some may be
    one sample."""


Keep = Callable[[Frame], Sample]


class Squares:
    """Frames as the network's squares of `size` pixels. Where a picture is broken the one before it
    stands in."""

    def __init__(self, size: int, how: Preprocessing = CLIP_PREPROCESSING):
        self.size, self.how = size, how
        self.broken = 0
        "pictures that could not be converted"
        self._shown = torch.zeros(3, size, size, dtype=torch.uint8)

    def keep(self, frame: Frame) -> Sample:
        try:
            self._shown = frame.square(self.size, self.how)
        except (av.FFmpegError, ValueError, MemoryError):
            self.broken += 1
        return Sample(frame.time, self._shown)


class Windows:
    """The windows of a stream, in order: iterate once, or give it the frames one by one and then
    `finish`.

    `start` and `end` tell how far the stream has been read. A frame that no window wants is neither
    converted nor kept. The first window starts with the first frame; the last one is the first that
    reaches the end of the video, and what it lacks is made up by repeating its frames evenly.
    """

    def __init__(self, frames: Iterable[Frame], plan: Plan, keep: Keep):
        self.frames, self.plan, self.keep = frames, plan, keep
        self.start = 0.0
        self.end = 0.0
        self.held: list[tuple[float, list[Sample]]] = []
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
        sample: Sample | None = None
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
        whole = self._opened - len(self.held)
        covered = self.start + (whole - 1) * self.plan.stride + self.plan.window
        if whole and covered > self.end - self.plan.step / 2:
            return
        start, samples = self.held[0] if self.held else (self.start + whole * self.plan.stride, [])
        yield Window(start, spread(samples or [self.keep(frame)], self.plan.frames))


def spread(samples: list[Sample], count: int) -> list[Sample]:
    """`count` of fewer samples, in order, each repeated about as often as the others."""
    return [samples[i * len(samples) // count] for i in range(count)]
