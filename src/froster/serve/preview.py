"""What browsers show: a video again, small and without sound, as all of them play it; a frame as a
JPEG."""

import base64
import dataclasses
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, takewhile
from pathlib import Path
from typing import NamedTuple, cast

import av
from PIL import Image
from torch import Tensor

from froster.errors import VideoError
from froster.serve import Refusal
from froster.video.cut import fitted
from froster.video.stream import Frame, Stream

MOST_PIXELS = 854 * 480
MOST_FPS = 30
_TICKS = 1000
"""Ticks of a second: frames keep their own times, which are those of a timeline."""
_JUMP = 40.0
"""Seconds. A segment that starts later is jumped to, and a jump may land so far before it."""


class Format(NamedTuple):
    codec: str
    container: str
    media_type: str
    options: dict[str, str]


_H264 = {"preset": "veryfast", "crf": "28", "maxrate": "1M", "bufsize": "2M"}
_VP9 = {"deadline": "realtime", "cpu-used": "8", "crf": "36", "b": "1M"}
FORMATS = (
    Format("libx264", "mp4", "video/mp4", _H264),
    Format("libvpx-vp9", "webm", "video/webm", _VP9),
)
"""A million bits a second at most: 75 MB for ten minutes."""


def preview_format() -> Format:
    """The first that the installed FFmpeg can write. Raises Refusal where it can write none."""
    for form in FORMATS:
        if form.codec in av.codecs_available:
            return form
    raise Refusal(501, "this server cannot make previews: its FFmpeg writes neither H.264 nor VP9")


def write_preview(source: Path, target: Path) -> None:
    """Raises VideoError where no frame can be shown, and what `check` raises between packets."""
    with Stream.of_file(source) as stream:
        write_pictures(pictures(stream), target)


def write_segment(source: Path, start: float, end: float, target: Path) -> None:
    """The frames that are shown between two times, in seconds, alone. Raises VideoError."""
    with segment_stream(source, start) as stream:
        frames = (
            dataclasses.replace(frame, time=max(0.0, frame.time - start), end=frame.end - start)
            for frame in takewhile(lambda frame: frame.time < end, stream)
            if frame.end > start
        )
        write_pictures(pictures(frames), target)


@contextmanager
def segment_stream(source: Path, start: float) -> Iterator[Iterator[Frame]]:
    """Frames from `start` or before it; from the first one where the file is short, or its clock is
    such that a jump does not land where it should."""
    if start > _JUMP:
        with Stream.of_file(source) as stream:
            frames = jumped(stream, start)
            if frames is not None:
                yield frames
                return
    with Stream.of_file(source) as stream:
        yield iter(stream)


def jumped(stream: Stream, start: float) -> Iterator[Frame] | None:
    """From a little before `start`; None where the jump does not lead there."""
    container = stream.container
    try:
        container.seek(round(start * av.time_base) + (container.start_time or 0))
        frames = iter(stream)
        first = next(frames)
    except (av.FFmpegError, VideoError):
        return None
    return chain([first], frames) if start - _JUMP < first.time <= start else None


def write_pictures(frames: Iterator[av.VideoFrame], target: Path) -> None:
    form = preview_format()
    handle, name = tempfile.mkstemp(suffix=".part", dir=target.parent)  # several may write it
    os.close(handle)
    part = Path(name)
    try:
        with av.open(str(part), "w", format=form.container) as out:
            first = next(frames, None)
            if first is None:
                raise VideoError("video: no frame can be shown")
            added = out.add_stream(form.codec, MOST_FPS, options=form.options)
            encoder = cast(av.VideoStream, added)
            encoder.width, encoder.height, encoder.pix_fmt = first.width, first.height, "yuv420p"
            encoder.codec_context.time_base = encoder.time_base = Fraction(1, _TICKS)
            for frame in chain([first], frames):
                out.mux(encoder.encode(frame))
            out.mux(encoder.encode(None))
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def pictures(stream: Iterable[Frame]) -> Iterator[av.VideoFrame]:
    """The frames of a stream as they are shown, all of one size, with their own times."""
    size: tuple[int, int] | None = None
    earliest = 0.0
    for frame in stream:
        if frame.time < earliest:
            continue
        stored = (frame.picture.width, frame.picture.height)
        size = size or preview_size(*frame.orientation.stored(*stored))
        try:
            picture = fitted(frame, *size)
        except (ValueError, av.FFmpegError):  # a broken frame: the one before it stays
            continue
        picture.pts, picture.time_base = round(frame.time * _TICKS), Fraction(1, _TICKS)
        picture.duration = max(1, round((frame.end - frame.time) * _TICKS))
        yield picture
        earliest = frame.time + 0.999 / MOST_FPS


def preview_size(width: int, height: int) -> tuple[int, int]:
    """Even, as codecs want them, and not larger than it was."""
    scale = min(1.0, (MOST_PIXELS / (width * height)) ** 0.5)
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)


def jpeg(frame: Tensor) -> str:
    """(3, H, W) uint8 as a data: address."""
    data = io.BytesIO()
    Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).save(data, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
