"""What is too much: bytes, seconds, pixels, labels. A video is measured by its packets, before more
than a frame is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av

from froster.errors import VideoError
from froster.serve import Refusal
from froster.text.labels import check_labels
from froster.utils.interrupt import check
from froster.video.container import open_file
from froster.video.sampling import Sampling
from froster.video.stream import Clock, Stream
from froster.video.windows import WindowPlan

MB = 1_000_000
# Twice what people film at: a video that has more frames for its length is no video.
_MOST_FPS = 120


@dataclass(frozen=True)
class Limits:
    upload: int = 200 * MB  # bytes of a request's body
    seconds: float = 600.0  # length of a video
    labels: int = 200  # labels of a request
    characters: int = 1000  # length of a label
    views: int = 10  # clips of a video
    waiting: int = 8  # requests that wait or are being uploaded while one is worked on
    timeout: float = 60.0  # seconds from the end of the upload to the answer
    uploading: float = 300.0  # seconds that an upload may take
    idle: float = 20.0  # seconds without a byte after which an upload is given up
    pixels: int = 4096 * 2304  # of a frame
    memory: int = 1000 * MB  # bytes of decoded frames that are held at a time
    cells: int = 1_000_000  # moments times labels of a timeline

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raises Refusal or UsageError."""
        if len(labels) > self.labels:
            raise Refusal(422, f"{len(labels)} labels: at most {self.labels} are taken")
        check_labels(labels)
        for position, label in enumerate(labels, start=1):
            if len(label) > self.characters:
                at_most = f"at most {self.characters} are taken"
                raise Refusal(422, f"label {position} has {len(label)} characters: {at_most}")

    def check_views(self, video: Measured, sampling: Sampling, views: int) -> None:
        """Raises Refusal where the frames of all views would not fit the memory."""
        if self.frame_bytes(video, sampling, views) > self.memory:
            size = f"{video.width} x {video.height} pixels"
            raise Refusal(422, f"{views} views of {size} are too much: ask for fewer views")

    def frame_bytes(self, video: Measured, sampling: Sampling, views: int) -> int:
        """What the frames of all views take as they are decoded."""
        return views * sampling.frames * video.width * video.height * 3

    def check_plan(self, video: Measured, plan: WindowPlan, labels: int) -> None:
        """Raises Refusal where a timeline would have too many moments."""
        moments = video.seconds / plan.stride
        if moments * labels > self.cells:
            much = f"{moments:.0f} moments of {labels} labels are too much"
            raise Refusal(422, f"{much}: ask for a longer stride")

    def measure(self, path: Path) -> Measured:
        """What a file holds, by its header and its packets. Raises Refusal where it is no video or
        too much of one."""
        try:
            container, stream = open_file(path)
        except VideoError as error:
            raise Refusal(415, nameless(error, path)) from None
        with container:
            width, height = stream.width, stream.height
            if not 0 < width * height <= self.pixels:
                at_most = f"at most {self.pixels} are taken, and not none"
                raise Refusal(422, f"the video has {width} x {height} pixels: {at_most}")
            seconds, packets = self._length(container, stream)
        # One without a frame is refused when it is read.
        with suppress(VideoError), Stream.of_file(path) as frames:
            width, height = next(iter(frames)).orientation.stored(width, height)
        return Measured(seconds, packets, width, height)

    def _length(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> tuple[float, int]:
        """Seconds and packets. A header may state anything, so it is believed in nothing."""
        clock = Clock.of(container, stream)
        start: float | None = None
        seconds, packets = 0.0, 0
        try:
            for packet in container.demux(stream):
                check()
                if not packet.size:
                    continue
                packets += 1
                in_order = packet.pts if packet.dts is None else packet.dts
                time = clock.time(in_order, packet.is_keyframe)
                if packet.pts is not None and packet.dts is not None:
                    time += (packet.pts - packet.dts) * clock.tick
                start = time if start is None else start
                seconds = max(seconds, clock.end(time, packet.duration) - start)
                too_long = ""
                if seconds > self.seconds + 1:
                    too_long = f"is longer than {self.seconds:g} s"
                elif packets > self.seconds * _MOST_FPS:
                    too_long = f"has more than {packets - 1} frames"
                if too_long:
                    raise Refusal(422, f"the video {too_long}, which is the most that is taken")
        except (av.FFmpegError, IndexError):  # damage; what comes before it is measured
            pass
        if not packets:
            raise Refusal(422, "the video has no frames")
        return seconds, packets


@dataclass(frozen=True)
class Measured:
    seconds: float
    packets: int
    width: int  # pixels, as shown: mirrored and turned as the file asks
    height: int


def nameless(error: Exception, path: Path) -> str:
    """What an error says, without the place where the server keeps the file."""
    return str(error).replace(str(path), "video")
