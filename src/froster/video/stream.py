"""A video as a stream: decoded once and in order, whatever its length, holding nothing but the frame that is shown.

`reader.Video` knows every frame of a file by its index, for which it reads the whole file first; this knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from froster.address import refuse_address
from froster.errors import VideoError
from froster.interrupt import check
from froster.video.clock import Clock
from froster.video.opening import open_file, upright
from froster.video.transforms import inference_transform

# A damaged file may fail in many places, but not for ever.
_READ_ERRORS = 32
# A longer pause between two frames is a fault of the clock: in formats that are broadcast, and in files.
_BROADCAST_PAUSE, _PAUSE = 10.0, 3600.0
_TS_DISCONT = 0x0200  # FFmpeg's AVFMT_TS_DISCONT


@dataclass
class Frame:
    """A frame that is shown from `time` to `end`, in seconds from the start of the video."""

    time: float
    end: float
    picture: av.VideoFrame
    converter: VideoReformatter

    def square(self, size: int) -> Tensor:
        """The network's square, (3, size, size) uint8, upright. Raises ValueError or av.FFmpegError on a broken frame."""
        pixels = upright(self.picture, self.picture.width, self.picture.height, self.converter)
        return inference_transform(torch.from_numpy(pixels.copy())[None], size)[0]


class Stream:
    """The frames of an open container, in order. A context manager, or to be closed with `close`."""

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
        rate = float(stream.average_rate or stream.guessed_rate or 30)
        self.period = 1 / min(max(rate, 1.0), 240.0)
        tick = float(stream.time_base or 1 / 90_000)
        pause = _BROADCAST_PAUSE if container.format.flags & _TS_DISCONT else _PAUSE
        self.clock = Clock(tick, self.period, pause, _seconds(container.start_time))
        self._longest = pause / tick
        # Avi has the times of decoding only, and frames may be decoded in another order than shown.
        self._stamped = not (container.format.name == "avi" and stream.codec_context.has_b_frames)
        stated = _seconds(container.duration) or (stream.duration or 0) * tick
        self.duration = stated if stated > 0 else None

    @classmethod
    def of_file(cls, path: str | Path) -> Stream:
        """Raises VideoError, which names the file and the cause; UsageError on an address."""
        refuse_address(path)
        return cls(*open_file(Path(path)))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Frame]:
        """All frames. Damage is counted and passed over; raises VideoError where not one frame can be decoded."""
        found = False
        for packet in self.packets():
            for frame in self.decode(packet):
                found = True
                yield frame
        for frame in self.decode(None):
            found = True
            yield frame
        if not found:
            raise VideoError(f"{self.container.name}: no frame can be decoded")

    def packets(self) -> Iterator[av.Packet]:
        """Those of a file to its end, past errors of reading."""
        size = self.container.size
        for _ in range(_READ_ERRORS):
            try:
                for packet in self.container.demux(self.stream):
                    check()
                    if packet.size:  # an empty one would end the decoding
                        if size > 0 and packet.pos is not None and packet.pos >= 0:
                            self.share = min(1.0, packet.pos / size)
                        yield packet
                return
            except (av.FFmpegError, IndexError):  # PyAV's IndexError: a stream that the header did not announce
                self.damaged += 1

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
        time = self.clock.time(picture.pts if self._stamped else None)
        known = 0 < (picture.duration or 0) <= self._longest
        return Frame(time, time + (picture.duration * self.clock.tick if known else self.period), picture, self._converter)


def _seconds(stamp: int | None) -> float | None:
    """FFmpeg's microseconds, where it knows them."""
    return None if stamp is None or abs(stamp) >= 1 << 62 else stamp / 1_000_000


