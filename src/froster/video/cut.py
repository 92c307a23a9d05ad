"""Stretches of a video as files of their own, without sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from froster.errors import FrosterError
from froster.utils.files import atomic_file
from froster.utils.interrupt import check
from froster.video.container import THREADS, UPRIGHT, upright
from froster.video.stream import Frame, Stream

_TICKS = 1000
"""Ticks of a second: frames keep their own times."""
CODECS = {
    "libx264": (".mp4", {"preset": "veryfast", "crf": "20"}),
    "libvpx-vp9": (".webm", {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"}),
}


def clip_codec() -> tuple[str, str, dict[str, str]]:
    """Codec, ending and options of the first that the installed FFmpeg can write. Raises
    FrosterError where it can write none."""
    for codec, (ending, options) in CODECS.items():
        if codec in av.codecs_available:
            return codec, ending, options
    raise FrosterError("clips cannot be cut: this FFmpeg writes neither H.264 nor VP9")


def cut(source: Path, stretches: Sequence[tuple[float, float, Path]]) -> list[Path]:
    """Writes each stretch (start and end in seconds from the start of the video, and the file
    without its ending), all from one decode; they may overlap. Returns the files: those of which
    a frame could be shown. Raises VideoError where the video cannot be read."""
    waiting = sorted(stretches, key=lambda stretch: stretch[:2])
    last, written = max(end for _, end, _ in waiting), []
    with ExitStack() as stack:
        stream = stack.enter_context(Stream.of_file(source))
        open_clips: list[tuple[float, float, _Clip, ExitStack]] = []
        for frame in stream:
            check()
            while waiting and waiting[0][0] < frame.end:
                start, end, target = waiting.pop(0)
                closing_stack = stack.enter_context(ExitStack())
                clip = closing_stack.enter_context(_clip(target, frame))
                written.append(clip.path)
                open_clips.append((start, end, clip, closing_stack))
            for start, end, clip, _ in open_clips:
                if frame.time < end:
                    clip.add(frame, start)
            for done in [entry for entry in open_clips if entry[1] <= frame.end]:
                open_clips.remove(done)
                done[3].close()
            if frame.end >= last and not open_clips:
                break
    return written


class _Clip:
    """A file that is being written."""

    def __init__(
        self,
        path: Path,
        container: av.container.OutputContainer,
        codec: str,
        options: dict[str, str],
    ) -> None:
        self.path, self._container = path, container
        added = container.add_stream(codec, 30, options=options)
        self._stream = cast(av.VideoStream, added)
        self._last = -1

    def begin(self, frame: Frame) -> None:
        picture = frame.picture
        width, height = frame.orientation.stored(picture.width, picture.height)
        stream = self._stream
        stream.width, stream.height = max(2, width // 2 * 2), max(2, height // 2 * 2)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, _TICKS)

    def add(self, frame: Frame, start: float) -> None:
        stamp = max(0, round((frame.time - start) * _TICKS))
        if stamp <= self._last:
            return
        try:
            picture = fitted(frame, self._stream.width, self._stream.height)
        except (ValueError, av.FFmpegError):  # a broken frame: the one before it stays
            return
        picture.pts, picture.time_base = stamp, Fraction(1, _TICKS)
        picture.duration = max(1, round((frame.end - frame.time) * _TICKS))
        self._container.mux(self._stream.encode(picture))
        self._last = stamp

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))


@contextmanager
def _clip(target: Path, first: Frame) -> Iterator[_Clip]:
    codec, ending, options = clip_codec()
    path = target.with_name(target.name + ending)
    with (
        atomic_file(path) as part,
        av.open(str(part), "w", format=ending.removeprefix(".")) as container,
    ):
        clip = _Clip(path, container, codec, options)
        clip.begin(first)
        yield clip
        clip.finish()


def fitted(frame: Frame, width: int, height: int) -> av.VideoFrame:
    """Of that size, mirrored and turned as the file asks."""
    if frame.orientation == UPRIGHT:  # without a detour by RGB
        return frame.converter.reformat(
            frame.picture, width, height, format="yuv420p", threads=THREADS
        )
    pixels = upright(frame.picture, (width, height), frame.orientation, frame.converter)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def clip_name(start: float, end: float, label: str) -> str:
    """`"00012.400-00015.000 surfing"`: sorts by time, and is a name on every system."""
    kept = "".join(c if c.isalnum() or c in " -_.,()" else "_" for c in label)
    short = kept.encode()[:120].decode(errors="ignore").strip(" .")
    return f"{start:09.3f}-{end:09.3f} {short}".strip()
