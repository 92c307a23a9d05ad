"""What a video file is before its frames are read: how it is opened, whether it keeps still, how
its pictures are turned, and which of its packets may be left out."""

from __future__ import annotations

import multiprocessing
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from froster.errors import VideoError
from froster.utils.address import Address, as_path
from froster.utils.ranges import RemoteData, RemoteFile
from froster.utils.remote import state_of, version_number
from froster.video import tar_shards

_SUFFIXES = (
    ".3g2 .3gp .asf .avi .dv .f4v .flv .gif .m2t .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts"
    " .mxf .ogv .qt .ts .vob .webm .wmv"
)
VIDEO_SUFFIXES = frozenset(_SUFFIXES.split())

_NO_VIDEOS = {"concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "tty"}
FORMATS = ",".join(sorted(av.formats_available - _NO_VIDEOS))
"""What files may be. FFmpeg takes the others for videos though they are text, or a text that makes
it open other files and addresses, and wait."""
# A small file can hold pictures of any size. More pixels than this are no video (8K has half as
# many). Pictures in the middle of a video may have a few times the pixels that its header states,
# where broadcasts change over to high definition.
_MOST_PIXELS, _GROWTH, _LEAST_PIXELS = 8192 * 8192, 4, 4096 * 2304
# Starting threads costs more than they save in converting a frame.
THREADS = 1


class _VideoBytes(RemoteFile):
    """What FFmpeg reads of a file at an address."""

    def read(self, count: int) -> bytes:
        with _as_video_error(self.data.address):
            return super().read(count)


@contextmanager
def _as_video_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror or error}") from error


def remote_data(path: Path) -> RemoteData | None:
    """What is read of a file at an address, which several openings share; None of a local file and
    of a member of a shard. Raises VideoError."""
    if not isinstance(path, Address) or tar_shards.member(path) is not None:
        return None
    with _as_video_error(path):
        return RemoteData(path)


def open_file(
    path: Path, data: RemoteData | None = None
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """A file, or a member of a tar shard, and its video stream; `data` where it is at an address
    and was opened before. Raises VideoError, which names the file and the cause."""
    if (data := data or remote_data(path)) is not None:
        container = _opened(path, _VideoBytes(data), data.size)
        return container, video_stream(container, str(path))
    if (place := tar_shards.member(path)) is not None:
        container = _opened(path, tar_shards.Section(str(path), place), place.size)
        return container, video_stream(container, str(path))
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if not path.is_file():  # a pipe would be waited for
        kind = "a directory, not a file" if path.is_dir() else "not a regular file"
        raise VideoError(f"{path}: {kind}")
    with _as_video_error(path):
        size = path.stat().st_size
    # Absolute, so that no name is taken for a protocol.
    container = _opened(path, str(path.absolute()), size)
    return container, video_stream(container, str(path))


def open_hollow(
    path: Path, data: RemoteData
) -> tuple[av.container.InputContainer, av.VideoStream] | None:
    """An mp4 at an address, whose packets are to be listed and not to be decoded: what they hold is
    not read. None of files that cannot be read so."""
    with _as_video_error(path):
        samples = data.samples
    if not samples:
        return None
    file = _VideoBytes(data)
    container = _opened(path, file, data.size, {"fflags": "noparse+nofillin"})
    if not container.format.name.startswith("mov,"):
        container.close()
        return None
    file.hollow = samples
    return container, video_stream(container, str(path))


def _opened(
    path: Path,
    file: str | _VideoBytes | tar_shards.Section,
    size: int,
    more: Mapping[str, str] = MappingProxyType({}),
) -> av.container.InputContainer:
    if size == 0:
        raise VideoError(f"{path}: empty file")
    options = {
        "format_whitelist": FORMATS,
        # What leads from a file at an address to another one leads nowhere.
        "protocol_whitelist": "file" if isinstance(file, str) else "none",
        "max_pixels": str(_MOST_PIXELS),
        **more,
    }
    try:
        return av.open(file, "r", metadata_errors="replace", options=options)
    except av.ArgumentError as error:
        raise VideoError(f"{path}: a text or a play list, not a video") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: not a readable video ({error.strerror})") from error


def video_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    """The stream to decode: the first that the file marks as default, or else the first; never a
    cover picture. Closes the container and raises VideoError where there is none."""
    marks = av.stream.Disposition
    streams = [
        stream for stream in container.streams.video if not stream.disposition & marks.attached_pic
    ]
    streams.sort(key=lambda stream: not stream.disposition & marks.default)
    if not streams:
        cause = "audio only" if container.streams.audio else "no video stream"
        container.close()
        raise VideoError(f"{name}: {cause}")
    stream = streams[0]
    if stream.codec_context is None:
        container.close()
        raise VideoError(f"{name}: FFmpeg has no decoder for this video")
    stated = stream.width * stream.height or _MOST_PIXELS
    most = min(_MOST_PIXELS, max(_LEAST_PIXELS, _GROWTH * stated))
    stream.codec_context.options = {"max_pixels": str(most)}
    # Frame threads can dead-lock when the file is damaged; slice threads never have.
    stream.thread_type = "SLICE"
    if multiprocessing.parent_process() is not None:  # the other cores have workers of their own
        stream.codec_context.thread_count = 1
    return stream


class FileState(NamedTuple):
    """By which a file is known again."""

    size: int
    mtime: int
    "nanoseconds; of a file at an address a number that changes with it"


def file_state(path: str | Path) -> FileState:
    """Raises OSError where there is no such file, VideoError where a shard has no such member."""
    path = as_path(path)
    if (place := tar_shards.member(path)) is not None:
        return FileState(place.size, place.state)
    if isinstance(path, Address):
        state = state_of(path)
        return FileState(state.size or 0, version_number(state))
    status = os.stat(path)
    return FileState(status.st_size, status.st_mtime_ns)


@contextmanager
def unchanged(path: str | Path) -> Iterator[FileState]:
    """Raises VideoError at the end where the file is no longer the one it was: a recording or a
    download goes on."""
    try:
        before = file_state(path)
    except OSError as error:
        raise VideoError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    yield before
    with suppress(OSError):
        if file_state(path) == before:
            return
    raise VideoError(f"{path}: the file changed while it was read; do it again when it is complete")


# An axis may be off by about half a degree: writers compute their matrices.
_OFF = 0.01


class Orientation(NamedTuple):
    """How a picture is shown: rows and columns change places or not, and then either axis may run
    backwards."""

    transposed: bool = False
    left_right: bool = False
    top_bottom: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether it is more than a turn."""
        return self.transposed ^ self.left_right ^ self.top_bottom

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise, after a mirroring from left to right if it is `mirrored`."""
        if self.transposed:
            return 90 if self.top_bottom != self.mirrored else 270
        return 180 if self.top_bottom else 0

    def stored(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as stored of a picture that is shown as `width` x `height`; and the
        other way round."""
        return (height, width) if self.transposed else (width, height)

    def applied(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, …) as stored -> the same as shown, (W, H, …) where it is transposed; a view."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        if self.left_right:
            picture = picture[:, ::-1]
        return picture[::-1] if self.top_bottom else picture

    @classmethod
    def of_matrix(cls, a: int, b: int, c: int, d: int) -> Orientation:
        """Of a display matrix: x' = a x + c y, y' = b x + d y, y downwards. Its scale is ignored;
        one that is singular or not along the axes means upright, as in FFmpeg."""
        if a and d and max(abs(b), abs(c)) < _OFF * min(abs(a), abs(d)):
            return cls(False, a < 0, d < 0)
        if b and c and max(abs(a), abs(d)) < _OFF * min(abs(b), abs(c)):
            return cls(True, c < 0, b < 0)
        return UPRIGHT


UPRIGHT = Orientation()
# By the degrees that PyAV states.
_TURNS = {90: Orientation(True, False, True), -90: Orientation(True, True, False)}
_TURNS |= dict.fromkeys((180, -180), Orientation(False, True, True))


class Orientations:
    """The orientation of the frames of one decoding, one after the other as they are shown.

    FFmpeg states with every frame what the file asks for. What the stream asks for by a message it
    states with every following frame of HEVC, but in H.264 only with the frame of the message.
    There it holds until another message comes or a key frame begins a sequence anew.
    """

    def __init__(self) -> None:
        self._held = UPRIGHT

    def of(self, frame: av.VideoFrame) -> Orientation:
        stated = _stated(frame)
        if stated is not None:
            self._held = stated
        elif frame.key_frame:
            self._held = UPRIGHT
        return self._held


def _stated(frame: av.VideoFrame) -> Orientation | None:
    try:
        data: Any = frame.side_data
    except ValueError:  # holds something that PyAV does not know
        return _TURNS.get(frame.rotation)
    if not len(data):  # almost always, and asked of every frame
        return None
    matrix = next((item for item in data if item.type is Type.DISPLAYMATRIX), None)
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return Orientation.of_matrix(a, b, c, d)


def upright(
    frame: av.VideoFrame, size: tuple[int, int], orientation: Orientation, by: VideoReformatter
) -> np.ndarray:
    """(height, width, 3) uint8 RGB, as shown: fitted to `size` (width, height), mirrored and
    turned; a view. One converter for all frames, as setting one up costs as much as a picture."""
    picture = by.reformat(frame, *orientation.stored(*size), format="rgb24", threads=THREADS)
    return orientation.applied(picture.to_ndarray())
