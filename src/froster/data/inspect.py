"""One video file: all of it read and decoded once, and what was seen on the way."""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.progress import Progress

from froster.data.likeness import Sketch, positions
from froster.data.listing import ListedVideo
from froster.data.shards import Shard, shard_files
from froster.errors import UsageError, VideoError
from froster.utils.address import as_path, is_address
from froster.utils.engine import run
from froster.utils.files import journal, read_entries
from froster.utils.work import End, Means, Work
from froster.video.container import UPRIGHT, file_state, remote_data, unchanged
from froster.video.reader import Video
from froster.video.stream import Frame, Stream
from froster.video.tar_shards import is_file, open_bytes

_PART = 1 << 22
_SIGN_OF_LIFE = 100
"""Frames after which a process says that it is still at work."""
_COMPARED = 4.0
"""Pictures a second, of which some may be black or frozen."""
_BLACK, _SAME = 32.0, 1.0
"""Of 255 levels: the brightest of 16 x 16 patches of a black picture; the largest change of one in
a frozen picture."""
_HIGH_RANGE = {18: "arib-std-b67", 16: "smpte2084"}
"""FFmpeg's AVCOL_TRC_… -> its name."""
_UNEVEN = 0.1
"""An interval between frames differs from the usual one if by more than this share of it, and by
more than 2 ms."""


@dataclass(frozen=True)
class Inspection:
    """What one file is. `size` and `mtime` tell later whether it is still the same file."""

    path: str  # its key in the listing
    size: int = 0
    mtime: int = 0  # nanoseconds
    sha256: str = ""
    codec: str = ""
    width: int = 0
    height: int = 0
    mirrored: bool = False
    """Whether the file asks to be mirrored, from left to right and before it is turned."""
    turned: int = 0
    """Degrees counter-clockwise that the file asks to be turned by; width and height are those
    after it."""
    pixel_aspect: float = 1.0  # width of a pixel by its height as shown; they are read as square
    transfer: str = ""
    """That of a high dynamic range, arib-std-b67 (HLG) or smpte2084 (PQ); empty for others."""
    interlaced: float = 0.0  # share of the frames that hold two fields
    fps: float = 0.0
    frames: int = 0  # decoded
    seconds: float = 0.0
    stated_frames: int = 0
    stated_seconds: float = 0.0
    damaged: int = 0  # packets that do not decode, and frames that the decoder marks as corrupt
    uneven: float = 0.0  # share of the intervals between frames that are not the usual one
    frozen: float = 0.0  # seconds in which the picture does not change
    black: float = 0.0  # seconds in which there is none
    likeness: str = ""
    error: str = ""  # why it cannot be used


def beside(out: Path, ending: str) -> Path:
    """`clean.csv` -> `clean.checks.jsonl`. Raises UsageError where `out` is no CSV."""
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out must be a .csv file, not {out}")
    return out.with_name(f"{out.stem}.{ending}")


def inspect(path: str) -> Iterator[Inspection | None]:
    """The inspection of a file, with `path` for its key; None before it is a sign of life. Raises
    VideoError, OSError."""
    if is_address(path):
        yield from _inspect_copy(as_path(path))
        return
    if not is_file(path):  # a pipe would be waited for
        cause = "not a regular file" if os.path.exists(path) else "no such file"
        raise VideoError(f"{path}: {cause}")
    with unchanged(path) as file:
        digest = sha256()
        with open_bytes(path) as data:
            while block := data.read(1 << 24):
                digest.update(block)
                yield None
        # Counts the frames, so that it is known beforehand which ones are compared.
        with Video(path) as video:
            measured = _Measured(video)
        with Stream.of_file(path) as stream:
            for number, frame in enumerate(stream):
                measured.take(number, frame)
                if number % _SIGN_OF_LIFE == 0:
                    yield None
            values: dict[str, Any] = measured.values(stream)
            inspection = Inspection(path, *file, digest.hexdigest(), **values)
    yield inspection


class Inspect(Work[ListedVideo, Inspection]):
    """From a video to its inspection."""

    def __init__(self) -> None:
        super().__init__(inspect)

    def finish(self, row: ListedVideo, kept: list[Inspection]) -> Inspection | None:
        return dataclasses.replace(kept[-1], path=row.key) if kept else None


class _Checks:
    """The store of inspections: a file beside the manifest, or only memory."""

    def __init__(
        self, path: Path | None, earlier: Sequence[Path], videos: Sequence[ListedVideo]
    ) -> None:
        paths = {video.key: video.path for video in videos}

        def is_current(entry: Inspection) -> bool:
            return state_of(paths.get(entry.path)) == (entry.size, entry.mtime)

        self.files: dict[str, Inspection] = {}
        for file in (*earlier, *filter(None, [path])):
            self.files |= read_entries(file, Inspection, is_current)
        self._open = ExitStack()
        self._keep: Callable[[Inspection], None] = lambda _: None
        if path is not None:
            self._keep = self._open.enter_context(journal(path, self.files.values()))

    def has(self, row: ListedVideo) -> bool:
        return row.key in self.files

    def has_failed(self, row: ListedVideo) -> bool:
        return bool(self.files[row.key].error)

    def add(self, ends: Sequence[End[ListedVideo, Inspection]]) -> None:
        for end in ends:
            state = (0, 0) if end.result else state_of(end.row.path) or (0, 0)
            file = end.result or Inspection(end.row.key, *state, error=end.error)
            self.files[end.row.key] = file
            self._keep(file)

    def close(self) -> None:
        self._open.close()


def _inspect_copy(address: Path) -> Iterator[Inspection | None]:
    """Of a file at an address, all of which is decoded."""
    with (
        unchanged(address) as file,
        tempfile.TemporaryDirectory(prefix="froster-", ignore_cleanup_errors=True) as folder,
    ):
        copy = os.path.join(folder, "video")
        with open(copy, "wb") as out:
            for block in blocks(address):
                out.write(block)
                yield None
        try:
            for inspection in inspect(copy):
                if inspection is not None:
                    inspection = dataclasses.replace(
                        inspection, path=str(address), size=file.size, mtime=file.mtime
                    )
                yield inspection
        except VideoError as error:
            raise VideoError(str(error).replace(copy, str(address))) from error


def blocks(address: Path) -> Iterator[bytes]:
    """All bytes of a file at an address, or of a member of a shard there. Raises VideoError."""
    if (data := remote_data(address)) is None:
        with open_bytes(address) as file:
            while block := file.read(_PART):
                yield block
        return
    with data:
        for start in range(0, data.size, _PART):
            try:
                yield data.between(start, start + _PART)
            except OSError as error:
                raise VideoError(f"{address}: {error.strerror or error}") from error


def inspect_all(
    videos: Sequence[ListedVideo],
    checks: Path | None,
    means: Means,
    bars: Progress,
    shard: Shard = Shard(),  # noqa: B008
) -> dict[str, Inspection]:
    """The inspection of every video of the shard, by its key, made by processes that may crash.

    Each is appended to the file `checks` (`Shard.file`) as soon as it is made; what that file says
    of videos that have not changed since is not done again, nor, without a shard, what the files of
    shards say. A video over which a process dies, or is silent for too long, has an error.
    """
    mine, earlier = shard.of(videos) if shard.count > 1 else videos, list[Path]()
    if checks is not None:
        earlier = shard_files(checks) if shard.count == 1 else []
        checks = shard.file(checks)
    bar = bars.add_task("check", total=len(mine), note="")

    def on_progress(done: int, total: int, broken: int) -> None:
        bars.update(bar, completed=done, note=f"{broken} broken" if broken else "")

    store = _Checks(checks, earlier, mine)
    run(Inspect(), mine, store, means, on_progress)
    return store.files


def state_of(path: Path | None) -> tuple[int, int] | None:
    """Size and time of a file, if there is one."""
    with suppress(OSError, VideoError):
        return file_state(path) if path else None
    return None


class _Measured:
    """What is kept of the frames: numbers, and a few small pictures."""

    def __init__(self, video: Video) -> None:
        self._size, self._fps = (video.width, video.height), video.fps
        self._times: list[float] = []
        self._end = 0.0
        self._sketch = Sketch()
        self._compared = positions(video.num_frames)
        self._stride = max(1, round(video.fps / _COMPARED))
        self._before: np.ndarray | None = None
        self._orientation = UPRIGHT
        self._pictures = self._frozen = self._black = self._broken = self._interlaced = 0

    def take(self, number: int, frame: Frame) -> None:
        picture = frame.picture
        if number == 0:
            self._orientation = frame.orientation
        self._interlaced += picture.interlaced_frame
        self._times.append(frame.time)
        self._end = frame.end
        try:
            while self._compared and number >= self._compared[0]:
                self._compared.pop(0)
                self._sketch.add(picture, frame.orientation)
            if number % self._stride == 0:
                self._compare(self._sketch.grid(picture, frame.orientation))
        except (av.FFmpegError, ValueError):  # a broken frame may not convert
            self._broken += not picture.is_corrupt

    def _compare(self, picture: np.ndarray) -> None:
        grey = picture.astype(np.float32)
        self._pictures += 1
        if float(grey.max()) < _BLACK:
            self._black += 1
        elif self._before is not None and float(np.abs(grey - self._before).max()) <= _SAME:
            self._frozen += 1
        self._before = grey

    def values(self, stream: Stream) -> dict[str, object]:
        seconds = self._end - self._times[0]
        likeness = self._sketch.likeness(seconds)
        header, orientation = stream.stream, self._orientation
        # The container's length is that of its longest stream, which may be the sound.
        stated = (header.duration or 0) * (header.time_base or 0) or stream.duration or 0
        aspect = float(header.sample_aspect_ratio or 1)
        return {
            "codec": header.codec_context.name,
            "width": self._size[0],
            "height": self._size[1],
            "mirrored": orientation.mirrored,
            "turned": orientation.rotation,
            "pixel_aspect": round(1 / aspect if orientation.transposed else aspect, 4),
            "transfer": _HIGH_RANGE.get(header.codec_context.color_trc, ""),
            "interlaced": round(self._interlaced / len(self._times), 4),
            "fps": round(self._fps, 3),
            "frames": len(self._times),
            "seconds": round(seconds, 3),
            "stated_frames": header.frames,
            "stated_seconds": round(float(stated), 3),
            "damaged": stream.damaged + self._broken,
            "uneven": round(self._uneven(), 4),
            "frozen": round(seconds * self._frozen / max(1, self._pictures - 1), 2),
            "black": round(seconds * self._black / max(1, self._pictures), 2),
            "likeness": likeness.text() if likeness is not None else "",
        }

    def _uneven(self) -> float:
        intervals = np.diff(self._times)
        if len(intervals) < 2:
            return 0.0
        usual = float(np.median(intervals))
        return float((np.abs(intervals - usual) > max(_UNEVEN * usual, 0.002)).mean())
