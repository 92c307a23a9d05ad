"""Time stamps as files have them (missing, jumping, repeated) made into seconds that only go
forward."""

from __future__ import annotations

from collections import deque

import av

# Steps back by less than this may be disorder; by more, the clock was set anew.
_DISORDER = 1.0
_LEAST_STEP = 0.001
# A longer pause between two frames is a fault of the clock: in formats that are broadcast, and in
# files.
_BROADCAST_PAUSE, _PAUSE = 10.0, 3600.0
_TS_DISCONT = 0x0200  # FFmpeg's AVFMT_TS_DISCONT
# Of a period: a stamp that is farther than this from all others fills a place that was left free.
_FREE = 0.75


class Clock:
    """Seconds since the start of a video, from the stamps of its frames in the order in which they
    are shown.

    A frame without a stamp comes `period` after the one before. Where the stamps begin anew, or
    jump ahead by more than `pause`, the source's clock was set anew: the video goes on `period`
    later.

    Stamps that go back by less than a second may be disorder too; such frames come a thousandth of
    a second apart. A frame in disorder fills a place that an earlier one left free. Where a place
    is named that is taken, and it is the first one or a key frame's, the stamps begin anew, unless
    they then leap ahead to where they would have been without that.
    """

    def __init__(
        self,
        tick: float,
        period: float,
        pause: float,
        start: float | None = None,
        stamped: bool = True,
    ):
        """`tick`: seconds a unit of the stamps; `start`: the time in seconds that counts as zero,
        if it is known; `stamped`: whether stamps are those of showing."""
        self.tick, self.period, self.pause = tick, period, pause
        self._start = start
        self._stamped = stamped
        self._last: float | None = None
        self._first = 0.0
        "stamp, in seconds, with which the present run of stamps began"
        self._recent: deque[float] = deque()
        "stamps of the last second of that run"
        self._before: tuple[float, float] | None = None
        "start and highest stamp of the run before, until it is clear that another one has begun"
        self._key = False

    @classmethod
    def of(cls, container: av.container.InputContainer, stream: av.VideoStream) -> Clock:
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        pause = _BROADCAST_PAUSE if container.format.flags & _TS_DISCONT else _PAUSE
        # Avi has the times of decoding only, and frames may be decoded in another order than shown.
        stamped = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        tick = float(stream.time_base or 1 / 90_000)
        return cls(
            tick, 1 / min(max(rate, 1.0), 240.0), pause, seconds(container.start_time), stamped
        )

    def time(self, stamp: int | None, key: bool = False) -> float:
        """Of the next frame; `key`: whether it is a key frame."""
        begins, self._key = key and not self._key, key
        last = self._last
        if stamp is None or not self._stamped:
            self._last = 0.0 if last is None else last + self.period
            return self._last
        shown = stamp * self.tick
        if last is None or self._start is None:
            if last is not None:
                self._start = shown - last - self.period
            elif self._start is None or not -_DISORDER <= shown - self._start <= self.pause:
                self._start = shown
            self._first = shown
        else:
            self._confirm(shown)
            ahead = shown - self._start - last
            if ahead > self.pause or (ahead < 0 and self._anew(shown, -ahead, begins)):
                self._start = shown - last - self.period
                self._first = shown
                self._recent.clear()
        self._remember(shown)
        self._last = (
            shown - self._start if last is None else max(shown - self._start, last + _LEAST_STEP)
        )
        return self._last

    def end(self, time: float, duration: int | None) -> float:
        """When a frame that is shown from `time` on, for `duration` ticks if that is known, is no
        longer shown."""
        length = (duration or 0) * self.tick
        return time + (length if 0 < length <= self.pause else self.period)

    def _anew(self, shown: float, back: float, begins: bool) -> bool:
        if back > _DISORDER:
            return True
        taken = any(abs(shown - other) < _FREE * self.period for other in self._recent)
        if (begins and (taken or shown < self._first)) or (
            taken and abs(shown - self._first) < self.period / 2
        ):
            self._before = self._start or 0.0, max(self._recent)
            return True
        return False

    def _confirm(self, shown: float) -> None:
        """Takes a new beginning back where the stamps leap ahead of all that there were."""
        if self._before is not None and shown > self._before[1]:
            if shown - self._recent[-1] > 1.5 * self.period:
                self._start = self._before[0]
            self._before = None

    def _remember(self, shown: float) -> None:
        self._recent.append(shown)
        while self._recent[-1] - self._recent[0] > _DISORDER:
            self._recent.popleft()


def seconds(stamp: int | None) -> float | None:
    """FFmpeg's microseconds, where it knows them."""
    return None if stamp is None or abs(stamp) >= 1 << 62 else stamp / 1_000_000
