"""Which frames of a video a clip is made of: `dense`, as the reference samples, and `uniform`, as
the paper says.

Pure functions on numbers: a video is known here only by its `Timing`.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from froster.errors import UsageError, one_of

MOST_FRAMES = 4096
"""Of a clip: what a model folder may ask for."""

Start = Callable[[float], float]
"from the room for a clip's start, in frames, to the start that is taken"


@dataclass(frozen=True)
class Timing:
    """What sampling must know of a video. Ticks are the stream's own unit of time."""

    pts: Sequence[int]
    "presentation time in ticks of every decodable frame, in the order they are shown"
    fps: float
    "average rate in frames per second"
    header_frames: int = 0
    "frames the container claims to hold; 0 where it does not say"
    duration: int | None = None
    "length in ticks that the container states; None where it does not say (mkv, webm)"

    @property
    def num_frames(self) -> int:
        return len(self.pts)


@dataclass(frozen=True)
class Sampling:
    """How clips of `frames` frames are taken from a video. Every index is valid, however short the
    video.

    `dense` is what the released code of FROSTER does: one stretch of about `frames * rate /
    target_fps` seconds. It depends on the container: where the length is stated (mp4, avi) the
    stretch is cut out by time stamps before it is sampled, so that its last step is short and the
    end of the video is never seen in a test; elsewhere (mkv, webm) steps are even and the last view
    ends with the video. With `clamp` "even" every video is taken as the latter are, and one that is
    shorter than the stretch is spread over the clip in place of repeating its last frame.

    `uniform` is what the paper says: the whole video in `frames` equal segments and one frame of
    each.
    """

    kind: Literal["dense", "uniform"]
    "'dense': a stretch at a fixed rate; 'uniform': the whole video"
    frames: int = 8
    "frames in a clip"
    rate: int = 16
    "dense only: step between frames, counted at `target_fps`"
    target_fps: float = 30.0
    "dense only: the rate in frames per second that `rate` refers to"
    clamp: Literal["released", "even"] = "released"
    "dense only: 'released': as the released code does; 'even': even steps in every container"

    def __post_init__(self) -> None:
        if self.kind not in ("dense", "uniform"):
            raise UsageError(f"unknown sampling '{self.kind}': expected 'dense' or 'uniform'")
        frames, rate, fps = self.frames, self.rate, self.target_fps
        counts = type(frames) is type(rate) is int and type(fps) in (int, float)
        most = MOST_FRAMES, 10**6, 10**6
        if not (counts and 1 <= frames <= most[0] and 1 <= rate <= most[1] and 0 < fps <= most[2]):
            numbers = f"{frames!r:.50}, {rate!r:.50}, {fps!r:.50}"
            raise UsageError(
                f"sampling needs frames (at most {MOST_FRAMES}), rate and target_fps above zero (at"
                f" most a million), not {numbers}"
            )
        one_of("clamp", self.clamp, "released", "even")

    def changed(self, **changes: Any) -> Sampling:
        """The same with what was asked for. Raises UsageError where a clamp is asked for that would
        do nothing."""
        sampling = dataclasses.replace(self, **changes)
        if "clamp" in changes and sampling.kind != "dense":
            raise UsageError(
                "clamp belongs to dense sampling, and this is uniform: ask for dense too, or leave"
                " clamp out"
            )
        return sampling

    def train_indices(self, timing: Timing, rng: random.Random) -> list[int]:
        """A random clip: `frames` indices. `dense` draws one number, `uniform` one for each
        segment."""
        if self.kind == "dense":
            return self.dense_at(timing, rng.random())
        segment = timing.num_frames / self.frames
        return [
            _clamp(int((k + rng.random()) * segment), timing.num_frames) for k in range(self.frames)
        ]

    def view_indices(self, timing: Timing, views: int) -> list[list[int]]:
        """The `views` clips of a test, `frames` indices each; the same at every call. Dense views
        of a video shorter than the stretch are identical. View v of a uniform test takes every
        segment at (v + 1/2) / views of its length: a single view takes the centres."""
        if views < 1:
            raise UsageError(f"a video is seen in one view or more, not in {views}")
        if self.kind == "dense":
            return [self._dense_view(timing, view, views) for view in range(views)]
        segment = timing.num_frames / self.frames
        return [
            [
                _clamp(int((k + (view + 0.5) / views) * segment), timing.num_frames)
                for k in range(self.frames)
            ]
            for view in range(views)
        ]

    def dense_at(self, timing: Timing, u: float) -> list[int]:
        """The dense training clip that starts at the fraction u in [0, 1) of the room there is."""
        return self._dense(timing, lambda room: u * room, lambda room: u * room)

    def _dense_view(self, timing: Timing, view: int, views: int) -> list[int]:
        def start(room: float) -> float:
            return math.floor(room / 2) if views == 1 else view * math.floor(room / (views - 1))

        return self._dense(timing, lambda room: room * view / views, start)

    def _dense(self, timing: Timing, cut_start: Start, whole_start: Start) -> list[int]:
        """Indices of a dense clip, its start by the rule for a stated length or by the one for
        none. The reference's floating-point operations are kept in its order: their truncations
        decide indices."""
        length = self.rate * self.frames / self.target_fps * timing.fps
        if self.clamp == "even":
            length = min(length, timing.num_frames)
        kept = [] if self.clamp == "even" else self._cut(timing, cut_start)
        if kept:
            start = 0.0
        else:
            kept = list(range(timing.num_frames))
            start = whole_start(max(timing.num_frames - length, 0))
        # float32 on purpose: where a step ends in .5 or on a whole number, double precision
        # truncates differently.
        steps = torch.linspace(start, start + length - 1, self.frames)
        return [kept[i] for i in steps.clamp(0, len(kept) - 1).long().tolist()]

    def _cut(self, timing: Timing, cut_start: Start) -> list[int]:
        """The frames that lie in the stretch by their time stamps, and one beyond; none where no
        length is stated, or one that the file does not have (a truncated video): the reference
        fails there, the rule for videos without a stated length does not."""
        if timing.duration is None or timing.header_frames < 1:
            return []
        length = max(1.0, math.ceil(self.rate * (self.frames - 1) / self.target_fps * timing.fps))
        start = cut_start(max(timing.header_frames - length, 0))
        tick = timing.duration / timing.header_frames
        first, last = int(start * tick), int((start + length - 1) * tick)
        kept = {}
        for index, pts in enumerate(timing.pts):
            if pts >= first:
                kept[pts] = index
                if pts > last:
                    break
        # By time stamp, not as shown: in old avi files the two differ by a frame, and the reference
        # sorts.
        return [kept[pts] for pts in sorted(kept)]


def _clamp(index: int, count: int) -> int:
    return max(0, min(index, count - 1))
