"""A video as a stream: decoded once and in order, whatever its length, holding nothing but the
frame that is shown.

`reader.Video` knows every frame of a file by its index, for which it reads the whole file first;
this knows none of them.
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

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import VideoError
from froster.utils.address import refuse_address
from froster.utils.interrupt import check
from froster.video.clock import Clock, seconds
from froster.video.opening import open_file, upright
from froster.video.orientation import UPRIGHT, Orientation, Orientations
from froster.video.transforms import inference_transform

# A damaged file may fail in many places, but not for ever.
_READ_ERRORS = 32


@dataclass
class Frame:
    """A frame that is shown from `time` to `end`, in seconds from the start of the video."""

    time: float
    end: float
    picture: av.VideoFrame
    converter: VideoReformatter
    orientation: Orientation = UPRIGHT

    def square(self, size: int, how: Preprocessing = CLIP_PREPROCESSING) -> Tensor:
        """The network's square, (3, size, size) uint8, upright. Raises ValueError or av.FFmpegError
        on a broken frame."""
        shown = self.orientation.stored(self.picture.width, self.picture.height)
        pixels = upright(self.picture, *shown, self.orientation, self.converter)
        return inference_transform(torch.from_numpy(pixels.copy())[None], size, how)[0]


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
        self._orientations = Orientations()
        self.clock = Clock.of(container, stream)
        stated = seconds(container.duration) or (stream.duration or 0) * self.clock.tick
        self.duration = stated if stated > 0 else None

    @classmethod
    def of_file(cls, path: str | Path) -> Stream:
        """Raises VideoError, which names the file and the cause; UsageError on an address."""
        refuse_address(path)
        return cls(*open_file(Path(path)))

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Frame]:
        """All frames. Damage is counted and passed over; raises VideoError where not one frame can
        be decoded."""
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
            except (
                av.FFmpegError,
                IndexError,
            ):  # PyAV's IndexError: a stream that the header did not announce
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
        time = self.clock.time(picture.pts, picture.key_frame)
        end = self.clock.end(time, picture.duration)
        return Frame(time, end, picture, self._converter, self._orientations.of(picture))
