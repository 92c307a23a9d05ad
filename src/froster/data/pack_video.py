"""One video in its training form: small pictures, key frames close to one another, no sound; the
same frames at the same times, verified."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from froster.data.inspect import blocks
from froster.errors import VideoError
from froster.utils.address import as_path, is_address
from froster.utils.files import atomic_file
from froster.video.container import unchanged, upright
from froster.video.reader import Video
from froster.video.stream import Frame, Stream
from froster.video.tar_shards import open_bytes

SHORT_SIDE = 256
"""Pixels of the shorter side, at most: pictures are never enlarged."""
GOP = 8
"""Frames from one key frame to the next, at most."""
CODEC = "libx264"
_OPTIONS = {"preset": "veryfast", "crf": "23", "bf": "0", "g": str(GOP)}
FORM: dict[str, Any] = {"codec": CODEC, "short_side": SHORT_SIDE, **_OPTIONS}
LEAST_PSNR = 25.0
"""dB, the mean over the compared frames: below this the original is kept."""
LEAST_FRAME_PSNR = 20.0
"""dB, of each compared frame: a wrong frame has less."""
_COMPARED = 64
"""Frames of a video that are compared, spread over it."""
_SIGN_OF_LIFE = 100
_BLOCK = 1 << 24
# Seconds between two sums of the same floats.
_SAME_TIME = 1e-6
_MICROSECOND = Fraction(1, 1_000_000)
# Where the source states no number of frames or no length, neither does a fragmented mp4 or an mkv,
# so that dense clips are taken from both by the same rule (`Sampling`).
_STATED = "faststart"
_NOT_STATED = "frag_keyframe+empty_moov+default_base_moof"
_MATROSKA = (".mkv", ".webm")


def ending(source: str | Path) -> str:
    """Of the packed file, by that of its source: mkv counts in thousandths of a second, mp4 in any
    unit, and each stays what it is."""
    return ".mkv" if str(source).lower().endswith(_MATROSKA) else ".mp4"


@dataclass(frozen=True)
class PackedVideo:
    """What became of one video. `size` and `mtime` are of the source as it was read."""

    path: str
    "key of the source"
    size: int = 0
    mtime: int = 0
    sha256: str = ""
    "of the source"
    packed: str = ""
    "name in the pack"
    packed_size: int = 0
    packed_sha256: str = ""
    crc32: int = 0
    frames: int = 0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    psnr: float | None = None
    "dB, mean over the compared frames; None where the original was kept"
    shard: str = ""
    note: str = ""
    "why the original was kept"
    error: str = ""
    "why there is nothing in the pack"


class ToPack(NamedTuple):
    """A video and where it goes: as a packed file, or, if that cannot be, as it is."""

    source: str
    packed: str
    original: str
    earlier: PackedVideo | None = None
    """What is in the pack already, which holds where the source has the same bytes."""
    key: str = ""
    """Of the source in the listing."""

    def __str__(self) -> str:
        return self.source


class Sums(NamedTuple):
    """What is known of a file's bytes."""

    size: int
    sha256: str
    crc32: int


class _NotPacked(Exception):
    """Why the original is kept."""


def pack_video(job: ToPack) -> Iterator[PackedVideo | None]:
    """Packs a video, or copies it where the packed file would not be the same frames at the same
    times. None before the result is a sign of life; `path` and `packed` of the result are files.
    Raises VideoError where not one frame can be had, or the file changes; WriteError."""
    if is_address(job.source):
        yield from _pack_copy(job)
        return
    with unchanged(job.source) as state:
        source = yield from _sums(job.source)
        earlier = job.earlier
        if earlier is not None and not earlier.error and earlier.sha256 == source.sha256:
            yield dataclasses.replace(earlier, size=state.size, mtime=state.mtime)
            return
        try:
            with atomic_file(Path(job.packed)) as part:
                measured = yield from _packed(Path(job.source), part)
                packed = yield from _sums(part)
            target = job.packed
        except _NotPacked as reason:
            target, measured, packed = job.original, {"note": str(reason)}, source
            with (
                atomic_file(Path(job.original)) as part,
                open_bytes(job.source) as reading,
                part.open("wb") as writing,
            ):
                shutil.copyfileobj(reading, writing, _BLOCK)
    size, digest, crc = packed
    about = PackedVideo(job.source, *state, source.sha256, target, size, digest, crc)
    yield dataclasses.replace(about, **measured)


def _pack_copy(job: ToPack) -> Iterator[PackedVideo | None]:
    """Of a file at an address, all of which is decoded twice."""
    with (
        unchanged(job.source) as state,
        tempfile.TemporaryDirectory(prefix="froster-", ignore_cleanup_errors=True) as folder,
    ):
        copy = Path(folder, f"video{as_path(job.source).suffix}")
        with copy.open("wb") as file:
            for block in blocks(as_path(job.source)):
                file.write(block)
                yield None
        try:
            for row in pack_video(job._replace(source=str(copy))):
                yield row and dataclasses.replace(row, size=state.size, mtime=state.mtime)
        except VideoError as error:
            raise VideoError(str(error).replace(str(copy), job.source)) from error


def _sums(path: str | Path) -> Generator[None, None, Sums]:
    digest, crc, size = sha256(), 0, 0
    with open_bytes(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            crc, size = zlib.crc32(block, crc), size + len(block)
            yield None
    return Sums(size, digest.hexdigest(), crc)


@dataclass(frozen=True)
class _Plan:
    """What the packed file is to be."""

    times: Sequence[float]
    "seconds after the first frame"
    stamps: Sequence[int]
    "in ticks, of every frame; those of the source where they are sound"
    end: int
    "when the last frame is no longer shown"
    tick: Fraction
    fps: Fraction
    size: tuple[int, int]
    stated: bool
    "whether the source says how many frames it has and how long it is"
    matroska: bool

    @classmethod
    def of(cls, path: Path) -> _Plan:
        with Video(path) as video, Stream.of_file(path) as stream:
            timing, times, seconds = video.timing, video.times(), video.seconds
            size = fitted_size(video.width, video.height)
            header = stream.stream
            rate = Fraction(header.average_rate or header.guessed_rate or 30)
            base = header.time_base or _MICROSECOND
        pts, even = list(timing.pts), list(range(len(times)))
        # Of the source's own stamps, counted frames and microseconds the first that hold.
        for tick, stamps in ((Fraction(base), pts), (1 / rate, even)):
            if tick >= _MICROSECOND and _holds(stamps, tick, times):
                break
        else:
            tick, stamps = _MICROSECOND, [round(time / _MICROSECOND) for time in times]
        last = max(1, round((seconds - times[-1]) / tick))
        # In mp4 a tick is a whole fraction of a second.
        stamps = [stamp * tick.numerator for stamp in stamps]
        end, tick = stamps[-1] + last * tick.numerator, Fraction(1, tick.denominator)
        stated = timing.duration is not None and timing.header_frames > 0
        return cls(times, stamps, end, tick, rate, size, stated, ending(path) == ".mkv")


def _holds(stamps: Sequence[int], tick: Fraction, times: Sequence[float]) -> bool:
    """Whether the stamps go forward and give these times, in seconds after the first."""
    first = stamps[0]
    seconds = (float(tick) * (stamp - first) for stamp in stamps)
    return all(a < b for a, b in pairwise(stamps)) and all(
        abs(a - b) < _SAME_TIME for a, b in zip(seconds, times, strict=True)
    )


def fitted_size(width: int, height: int) -> tuple[int, int]:
    """The shorter side at most `SHORT_SIDE`, never enlarged; both even, as the coder needs."""
    scale = min(1.0, SHORT_SIDE / min(width, height))

    def even(side: int) -> int:
        return max(2, min(round(side * scale / 2), side // 2) * 2)

    return even(width), even(height)


def _packed(source: Path, target: Path) -> Generator[None, None, dict[str, Any]]:
    """Writes `target` and verifies it. Returns what was measured; None on the way is a sign of
    life. Raises _NotPacked, VideoError, OSError."""
    plan = _Plan.of(source)
    count = len(plan.stamps)
    compared = {round(i * (count - 1) / (_COMPARED - 1)) for i in range(_COMPARED)}
    kept: dict[int, np.ndarray] = {}
    to_rgb, to_yuv, number, start = VideoReformatter(), VideoReformatter(), -1, 0.0
    with Stream.of_file(source) as stream, _output(target, plan) as encode:
        for number, frame in enumerate(stream):
            start = frame.time if number == 0 else start
            if number >= count or abs(frame.time - start - plan.times[number]) > _SAME_TIME:
                raise _NotPacked("damaged: decoding gives other frames than its index has")
            pixels = _picture(frame, plan.size, to_rgb)
            if number in compared:
                kept[number] = pixels
            picture = to_yuv.reformat(
                av.VideoFrame.from_ndarray(pixels, format="rgb24"), format="yuv420p", threads=1
            )
            picture.pts, picture.time_base = plan.stamps[number], plan.tick
            encode(picture)
            if number % _SIGN_OF_LIFE == 0:
                yield None
        if number + 1 != count or stream.damaged:
            raise _NotPacked(f"damaged: {number + 1} of {count} frames can be decoded in order")
    try:
        return (yield from _verify(target, plan, kept))
    except VideoError as error:
        raise _NotPacked("the packed file cannot be read") from error


def _picture(frame: Frame, size: tuple[int, int], by: VideoReformatter) -> np.ndarray:
    """RGB as the reader shows it, of that size."""
    try:
        return np.ascontiguousarray(upright(frame.picture, size, frame.orientation, by))
    except (ValueError, av.FFmpegError) as error:
        raise _NotPacked("damaged: a frame does not convert") from error


@contextmanager
def _output(target: Path, plan: _Plan) -> Iterator[Callable[[av.VideoFrame | None], None]]:
    """Writes the pictures that it is given. Raises _NotPacked where the coder takes no such ones,
    OSError where the file cannot be written."""
    options = {
        "movflags": _STATED if plan.stated else _NOT_STATED,
        "video_track_timescale": str(plan.tick.denominator),
    }
    form, options = ("matroska", {}) if plan.matroska else ("mp4", options)
    try:
        with av.open(str(target), "w", format=form, options=options) as container:
            stream = cast(
                av.VideoStream, container.add_stream(CODEC, plan.fps, options=dict(_OPTIONS))
            )
            stream.width, stream.height = plan.size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1  # other files have the other cores
            stream.codec_context.time_base = stream.time_base = plan.tick
            lengths = (b - a for a, b in pairwise([*plan.stamps, plan.end]))

            def encode(picture: av.VideoFrame | None) -> None:
                for packet in stream.encode(picture):
                    packet.duration = next(lengths)  # x264 gives that of the average rate
                    container.mux(packet)

            yield encode
            encode(None)
    except av.FFmpegError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise OSError(error.errno, os.strerror(error.errno)) from error
        raise _NotPacked(f"it cannot be encoded ({error.strerror})") from error


def _verify(
    target: Path, plan: _Plan, kept: dict[int, np.ndarray]
) -> Generator[None, None, dict[str, Any]]:
    """Reads the file as training will: its index, and every frame. Raises _NotPacked where it is
    not what it should be."""
    count = len(plan.stamps)
    with Video(target) as video:
        times, size = video.times(), (video.width, video.height)
        same = video.num_frames == count and size == plan.size
        if not same or any(abs(a - b) > _SAME_TIME for a, b in zip(times, plan.times, strict=True)):
            raise _NotPacked("the packed file has other frames or times")
        seconds = video.seconds
    errors, by, number = [], VideoReformatter(), -1
    with Stream.of_file(target) as stream:
        for number, frame in enumerate(stream):
            if number in kept:
                difference = _picture(frame, size, by).astype(np.float32) - kept[number]
                errors.append(float(np.square(difference).mean()))
            if number % _SIGN_OF_LIFE == 0:
                yield None
        if number + 1 != count or stream.damaged:
            raise _NotPacked("the packed file does not decode to its end")
    psnr, worst = (_psnr(error) for error in (float(np.mean(errors)), max(errors)))
    if psnr < LEAST_PSNR or worst < LEAST_FRAME_PSNR:
        raise _NotPacked(f"too unlike the original: {psnr:.1f} dB, its worst frame {worst:.1f} dB")
    return {
        "frames": count,
        "seconds": round(seconds, 3),
        "width": size[0],
        "height": size[1],
        "psnr": round(psnr, 2),
    }


def _psnr(error: float) -> float:
    """dB of a mean squared error in levels of 255; at most 100."""
    return 100.0 if error < 1e-5 else min(100.0, 10 * math.log10(255**2 / error))
