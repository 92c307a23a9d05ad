"""What people hand over as a video (a file, an address, bytes, frames), and many of them read in
order."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from froster.data.dataset import ReadViews, Views
from froster.errors import UsageError, VideoError
from froster.utils import pool
from froster.utils.address import as_path
from froster.utils.interrupt import check
from froster.video.sampling import Timing
from froster.video.transforms import as_tensor, described, is_uint8

Frame = Image.Image | np.ndarray | Tensor
"""One picture: of PIL, or (H, W, 3) uint8."""
VideoFile = str | PathLike[str] | bytes | bytearray | BinaryIO
"""A path, an address, what a file holds, or an open file."""
VideoLike = VideoFile | np.ndarray | Tensor | Sequence[Frame]
"""One video: a file, frames (T, H, W, 3) uint8, or a list of T pictures."""
FPS = 30.0
"""Frames per second of frames whose rate nobody has stated."""
FORMS = (
    "a path, an address, bytes, a binary file object, uint8 frames (T, H, W, 3), or a list of"
    " pictures"
)
_CHUNK = 1 << 20


@dataclass(frozen=True)
class GivenFile:
    """A file in one of its forms; as a text, its name."""

    content: VideoFile

    @property
    def is_open(self) -> bool:
        """Whether it is a file object, which stays in its process."""
        return not isinstance(self.content, (str, PathLike, bytes, bytearray))

    def __str__(self) -> str:
        if isinstance(self.content, (str, PathLike)):
            return str(self.content)
        if isinstance(self.content, (bytes, bytearray)):
            return f"{len(self.content)} bytes"
        name = getattr(self.content, "name", None)
        return name if isinstance(name, str) else f"the {type(self.content).__name__}"


def as_videos(given: Any) -> tuple[list[GivenFile | Frames], bool]:
    """What was handed over, as videos that are known to be of a form that can be read, and whether
    it is one.

    A list whose every entry is one picture is one video; any other list is a list of videos.
    Raises UsageError on anything else.
    """
    if not _is_list(given):
        return [_as_video(given)], True
    pictures = [_is_picture(entry) for entry in given]
    if pictures and all(pictures):
        return [_as_video(given)], True
    if any(pictures):
        raise UsageError(
            "a list holds the pictures of one video, (H, W, 3) each, or videos, not both; entry"
            f" {pictures.index(True)} is a picture, entry {pictures.index(False)} is none"
        )
    return [_as_video(entry) for entry in given], False


def _is_list(given: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(given, Sequence) and not isinstance(
        given, (str, bytes, bytearray, memoryview)
    )


def _is_picture(entry: Any) -> bool:
    return isinstance(entry, Image.Image) or (
        isinstance(entry, (np.ndarray, Tensor)) and entry.ndim <= 3
    )


def _as_video(given: Any) -> GivenFile | Frames:
    if isinstance(given, (str, PathLike)):
        as_path(given)  # which refuses what cannot be read
    if isinstance(given, memoryview):
        given = given.tobytes()
    if isinstance(given, (str, PathLike, bytes, bytearray)) or hasattr(given, "read"):
        return GivenFile(given)
    if isinstance(given, (np.ndarray, Tensor)) or (_is_list(given) and len(given)):
        return Frames(given)
    raise UsageError(f"a video is {FORMS}, not {described(given)}")


class Frames:
    """Frames in memory, by index as those of a file. Raises UsageError unless they are
    uint8 (T, H, W, 3), or as many pictures of one size."""

    damaged = 0

    def __init__(self, frames: Sequence[Frame] | np.ndarray | Tensor) -> None:
        self.frames = frames
        if isinstance(frames, (np.ndarray, Tensor)):
            shape = tuple(frames.shape)
            if len(shape) != 4 or shape[-1] != 3 or 0 in shape or not is_uint8(frames):
                hint = ": a list of one picture is a video too" if len(shape) == 3 else ""
                hint = ": give several videos as a list" if len(shape) == 5 else hint
                raise UsageError(
                    f"expected uint8 frames (T, H, W, 3), got {described(frames)}{hint}"
                )
            return
        size = _size(frames[0])
        for number, frame in enumerate(frames):
            if not _is_picture(frame) or _size(frame) != size:
                raise UsageError(
                    "expected pictures of one size, uint8 (H, W, 3) or PIL's, as the frames"
                    f" (T, H, W, 3) of a video; got {_described(frame)} as frame {number}"
                )

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    def at(self, indices: Sequence[int]) -> Tensor:
        """uint8 (n, H, W, 3)"""
        if isinstance(self.frames, (np.ndarray, Tensor)):
            return as_tensor(self.frames[list(indices)]).cpu()
        return torch.stack([_pixels(self.frames[index]) for index in indices])


def _size(frame: Any) -> tuple[int, int] | None:
    """Height and width of a picture that is one; None of anything else."""
    if isinstance(frame, Image.Image):
        return frame.height, frame.width
    shape = tuple(frame.shape) if _is_picture(frame) else ()
    if len(shape) != 3 or shape[-1] != 3 or 0 in shape or not is_uint8(frame):
        raise UsageError(
            f"a frame (H, W, 3) of a video (T, H, W, 3) is uint8 or of PIL, not {_described(frame)}"
        )
    return shape[0], shape[1]


def _described(frame: Any) -> str:
    if isinstance(frame, Image.Image):
        return f"a picture of {frame.width} x {frame.height} pixels"
    return described(frame)


def _pixels(frame: Frame) -> Tensor:
    if isinstance(frame, Image.Image):
        return torch.from_numpy(np.array(frame.convert("RGB")))
    return as_tensor(frame).cpu()


def views_of_frames(frames: Frames, reader: ReadViews, fps: float = FPS) -> Views:
    """The views of frames in memory, sampled as those of a file of that rate. Fewer than a dense
    clip spans are spread over it, so that as many as the network reads are taken as they are."""
    if not 0 < fps < 1e6:
        raise UsageError(f"fps is frames per second, more than 0, not {fps!r:.50}")
    sampling = reader.sampling
    if sampling.kind == "dense":
        sampling = dataclasses.replace(sampling, clamp="even")
    timing = Timing(range(frames.num_frames), fps)
    views = sampling.view_indices(timing, reader.views)
    if all(view == views[0] for view in views):
        views = views[:1]
    return Views(
        reader.clips_of(frames.at, views),
        frames.num_frames / fps,
        frames.num_frames,
        frames.damaged,
    )


@contextmanager
def as_file(video: GivenFile) -> Iterator[Path]:
    """A path under which the video can be read; what is no file is copied to one that ends with the
    block. Errors of reading name what was given."""
    content = video.content
    if isinstance(content, (str, PathLike)):
        yield as_path(content)
        return
    with tempfile.TemporaryDirectory(prefix="froster-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "video")
        with path.open("wb") as copy:
            if isinstance(content, (bytes, bytearray)):
                copy.write(content)
            else:
                _copy(content, copy, str(video))
        try:
            yield path
        except VideoError as error:
            raise VideoError(str(error).replace(str(path), str(video))) from error


def _copy(source: Any, copy: BinaryIO, name: str) -> None:
    """An open file, from where it stands."""
    while chunk := source.read(_CHUNK):
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise UsageError(f'{name}: opened as text; a video is opened by open(path, "rb")')
        check()
        copy.write(chunk)
    if not copy.tell():
        raise VideoError(f"{name}: nothing left to read; an open file is read from where it stands")


def read_file(video: GivenFile, reader: ReadViews) -> Iterator[Views]:
    """The `Views` of a file, as a process reads it."""
    with as_file(video) as path:
        yield from reader(str(path))


@dataclass(frozen=True)
class VideoViews:
    """`views` is None exactly where `error` says why."""

    views: Views | None
    error: str = ""


def read_all(
    videos: Sequence[GivenFile | Frames], reader: ReadViews, workers: int, fps: float = FPS
) -> Iterator[VideoViews]:
    """The videos in their order. Files are read by processes, ahead of who takes them; frames, and
    files that are open, in this one."""
    files = [video for video in videos if isinstance(video, GivenFile) and not video.is_open]
    work, window = partial(read_file, reader=reader), workers + 2
    ends = pool.ends(pool.in_order(pool.run(work, files, workers, window=window)))
    with closing(pool.ahead(ends, window) if workers else ends) as following:
        for video in videos:
            check()
            if isinstance(video, Frames):
                yield VideoViews(views_of_frames(video, reader, fps))
            elif not video.is_open:
                _, views, error = next(following)
                yield VideoViews(views, f"{video}: {error}" if views is None else "")
            else:
                try:
                    (views,) = read_file(video, reader)
                    yield VideoViews(views)
                except VideoError as error:
                    yield VideoViews(None, str(error))
