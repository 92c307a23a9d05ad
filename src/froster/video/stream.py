"""A video as a stream: decoded once and in order, whatever its length, holding nothing but the
frame that is shown. (`reader.Video` reads the whole file first and knows every frame by index.)"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from torch import Tensor

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import VideoError
from froster.utils.address import as_path
from froster.utils.interrupt import check
from froster.video.container import UPRIGHT, Orientation, Orientations, open_file, upright
from froster.video.transforms import inference_transform

# A damaged file may fail in many places, but not for ever.
_READ_ERRORS = 32
# Steps back by less than this many seconds may be disorder; by more, the clock was set anew.
_DISORDER = 1.0
_LEAST_STEP = 0.001
# Seconds. A longer pause between two frames is a fault of the clock: in formats that are broadcast,
# and in files.
_BROADCAST_PAUSE, _PAUSE = 10.0, 3600.0
_TS_DISCONT = 0x0200  # FFmpeg's AVFMT_TS_DISCONT
# Of a period: a stamp that is farther than this from all others fills a place that was left free.
_FREE = 0.75


def packets_past_errors(
    container: av.container.InputContainer, stream: av.VideoStream, on_error: Callable[[], None]
) -> Iterator[av.Packet]:
    """The packets of a file to its end; `on_error` is called for each error of reading."""
    for _ in range(_READ_ERRORS):
        try:
            for packet in container.demux(stream):
                check()
                if packet.size:  # an empty one would end the decoding
                    yield packet
            return
        except (av.FFmpegError, IndexError):
            # PyAV's IndexError: a stream that the header did not announce
            on_error()


class Clock:
    """Seconds since the start of a video, which only go forward, from the time stamps of its frames
    as files have them (missing, jumping, repeated), in the order in which the frames are shown.

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
        """`tick`: seconds a unit of the stamps; `period`, `pause`: seconds; `start`: the time in
        seconds that counts as zero, if it is known; `stamped`: whether stamps are those of showing.
        """
        self.tick, self.period, self.pause = tick, period, pause
        self._start, self._stamped = start, stamped
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
        period = 1 / min(max(rate, 1.0), 240.0)
        pause = _BROADCAST_PAUSE if container.format.flags & _TS_DISCONT else _PAUSE
        # Avi has the times of decoding only, and frames may be decoded in another order than shown.
        stamped = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        tick = float(stream.time_base or 1 / 90_000)
        return cls(tick, period, pause, _seconds(container.start_time), stamped)

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
        time = shown - self._start
        self._last = time if last is None else max(time, last + _LEAST_STEP)
        return self._last

    def end(self, time: float, duration: int | None) -> float:
        """When a frame that is shown from `time` on, for `duration` ticks if that is known, is no
        longer shown."""
        length = (duration or 0) * self.tick
        return time + (length if 0 < length <= self.pause else self.period)

    def _anew(self, shown: float, back: float, begins: bool) -> bool:
        if back > _DISORDER:
            return True
        filled = any(abs(shown - other) < _FREE * self.period for other in self._recent)
        first = abs(shown - self._first) < self.period / 2
        anew = (begins and (filled or shown < self._first)) or (filled and first)
        if anew:
            self._before = self._start or 0.0, max(self._recent)
        return anew

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


def _seconds(stamp: int | None) -> float | None:
    """FFmpeg's microseconds, where it knows them."""
    return None if stamp is None or abs(stamp) >= 1 << 62 else stamp / 1_000_000


@dataclass
class Frame:
    """A frame that is shown from `time` to `end`, in seconds from the start of the video."""

    time: float
    end: float
    picture: av.VideoFrame
    converter: VideoReformatter
    orientation: Orientation = UPRIGHT

    def square(
        self, side: int, how: Preprocessing = CLIP_PREPROCESSING
    ) -> UInt8[Tensor, "3 {side} {side}"]:
        """The network's square, upright. Raises ValueError or av.FFmpegError on a broken frame."""
        size = self.orientation.stored(self.picture.width, self.picture.height)
        pixels = upright(self.picture, size, self.orientation, self.converter)
        return inference_transform(torch.from_numpy(pixels.copy())[None], side, how)[0]


class Stream:
    """The frames of an open container, in order. A context manager, or to be `close`d."""

    damaged: int
    "packets that could not be read or decoded, and frames that the decoder says are corrupt"
    duration: float | None
    "seconds that the container states; None where it does not say"

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        self.container, self.stream = container, stream
        self.damaged = 0
        self.share: float | None = None
        "of the file's bytes, how much has been read; None where that is not known"
        self._converter = VideoReformatter()
        self._orientations = Orientations()
        self.clock = Clock.of(container, stream)
        stated = _seconds(container.duration) or (stream.duration or 0) * self.clock.tick
        self.duration = stated if stated > 0 else None

    @classmethod
    def of_file(cls, path: str | Path) -> Stream:
        """The path may be an address. Raises VideoError, which names the file and the cause."""
        return cls(*open_file(as_path(path)))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Frame]:
        """All frames. Damage is counted and passed over; raises VideoError where not one frame can
        be decoded."""
        empty = True
        for packet in itertools.chain(self.packets(), [None]):
            for frame in self.decode(packet):
                empty = False
                yield frame
        if empty:
            raise VideoError(f"{self.container.name}: no frame can be decoded")

    def packets(self) -> Iterator[av.Packet]:
        """Those of a file to its end, past errors of reading, which count as damage."""
        size = self.container.size

        def count() -> None:
            self.damaged += 1

        for packet in packets_past_errors(self.container, self.stream, count):
            if size > 0 and packet.pos is not None and packet.pos >= 0:
                self.share = min(1.0, packet.pos / size)
            yield packet

    def decode(self, packet: av.Packet | None) -> list[Frame]:
        """The frames that a packet completes; None: what the decoder still holds back."""
        frames: list[av.VideoFrame] = []
        try:
            frames = self.stream.decode(packet)
        except av.FFmpegError:
            self.damaged += packet is not None
        return [self._frame(frame) for frame in frames]

    def _frame(self, picture: av.VideoFrame) -> Frame:
        self.damaged += picture.is_corrupt
        time = self.clock.time(picture.pts, picture.key_frame)
        end = self.clock.end(time, picture.duration)
        return Frame(time, end, picture, self._converter, self._orientations.of(picture))
