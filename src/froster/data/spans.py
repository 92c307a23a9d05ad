"""Segments of a video as people and label tools have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from froster.errors import DataError

Rate = Callable[[str], float]
"""The frames per second of a video, by its name in a file of segments."""
T = TypeVar("T")


class LabelledSpan(NamedTuple):
    """From `start` to `end`, in seconds from the start of the video, `label` is to be seen."""

    start: float
    end: float
    label: str
    score: float | None = None

    def check(self, place: str) -> None:
        """Raises DataError where it is no stretch of time."""
        if not (math.isfinite(self.start) and math.isfinite(self.end)) or self.start < -1e-3:
            raise DataError(f"{place}: {self.start:g} to {self.end:g} s is no stretch of a video")
        if self.end <= self.start:
            raise DataError(
                f"{place}: a segment ends at {self.end:g} s, not after its start at"
                f" {self.start:g} s"
            )

    def exactly(self, seconds: Any, fps: float) -> LabelledSpan:
        """The same with its times in seconds, where such are known and lie on the same frames."""
        if not isinstance(seconds, Sequence) or len(seconds) != 2:
            return self
        try:
            start, end = (float(second) for second in seconds)
        except (TypeError, ValueError):
            return self
        near = max(abs(start - self.start), abs(end - self.end)) * fps <= 1.001
        return LabelledSpan(start, end, self.label, self.score) if near else self


@dataclass(frozen=True)
class SegmentedVideo:
    """A video with what was found in it, and what label tools want to know of it."""

    path: str
    spans: list[LabelledSpan]
    seconds: float
    fps: float
    frames: int
    width: int
    height: int
    url: str = ""
    """Of the file, from the top: its `path` starts at the folder of the label tool's file."""

    def frames_of(self, span: LabelledSpan) -> tuple[int, int]:
        """The first and the last frame of a segment, counted from 0."""
        last = max(0, self.frames - 1)
        first = min(round(span.start * self.fps), last)
        return first, min(max(first, round(span.end * self.fps) - 1), last)


@dataclass(frozen=True)
class ToolVideo:
    """What a file says of one video: its name there, its segments, and its part of the data."""

    name: str
    spans: list[LabelledSpan]
    subset: str | None = None


def span_of(fields: Mapping[str, str], place: str) -> tuple[float, float] | None:
    """The part of a video that a row of a manifest is about, by its columns start and end; None
    where it has neither. Raises DataError where they are no stretch of time."""
    texts = [fields.get(name, "") for name in ("start", "end")]
    if not any(texts):
        return None
    if not all(texts):
        raise DataError(f"{place}: a part of a video has both a start and an end, in seconds")
    try:
        start, end = map(float, texts)
    except ValueError:
        raise DataError(f"{place}: start and end are seconds, not {' and '.join(texts)}") from None
    LabelledSpan(start, end, "").check(place)
    return max(0.0, start), end


def needed(value: Any, kind: type[T], what: str) -> T:
    """The value. Raises DataError where the file has something else, or nothing, in its place."""
    if not isinstance(value, kind):
        words: dict[Any, str] = {dict: "an object", list: "a list", str: "a text"}
        state = "is missing" if value is None else f"is {value!r:.60}"
        raise DataError(f"{what} should be {words.get(kind, kind.__name__)} and {state}")
    return value


def seconds_of(pair: Any, place: str) -> tuple[float, float]:
    """Two numbers."""
    numbers = pair if isinstance(pair, (list, tuple)) else []
    if len(numbers) != 2 or not all(
        isinstance(x, (int, float)) and not isinstance(x, bool) for x in numbers
    ):
        raise DataError(f"{place}: a segment has no start and end, but {pair!r:.60}")
    return float(numbers[0]), float(numbers[1])
