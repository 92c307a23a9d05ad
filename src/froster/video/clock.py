"""Time stamps as files have them (missing, jumping, repeated) made into seconds that only go forward."""

from __future__ import annotations

# Steps back by less than this are disorder, not a clock that was set anew.
_DISORDER = 1.0
_LEAST_STEP = 0.001


class Clock:
    """Seconds since the start of a video, from the stamps of its frames in the order in which they are shown.

    A frame without a stamp comes `period` after the one before. Where the stamps jump back, or ahead by more than
    `pause`, the source's clock was set anew: the video goes on `period` later.
    """

    def __init__(self, tick: float, period: float, pause: float, start: float | None = None):
        """`tick`: seconds a unit of the stamps; `start`: the time in seconds that counts as zero, if it is known."""
        self.tick, self.period, self.pause = tick, period, pause
        self._start = start
        self._last: float | None = None

    def time(self, stamp: int | None) -> float:
        last = self._last
        if stamp is None:
            time = 0.0 if last is None else last + self.period
        elif last is None:
            if self._start is None or not -_DISORDER <= stamp * self.tick - self._start <= self.pause:
                self._start = stamp * self.tick
            time = stamp * self.tick - self._start
        else:
            time = stamp * self.tick - (self._start or 0.0)
            if self._start is None or time < last - _DISORDER or time > last + self.pause:
                self._start = stamp * self.tick - last - self.period
                time = last + self.period
            elif time <= last:
                time = last + _LEAST_STEP
        self._last = time
        return time
