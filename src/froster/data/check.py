"""Whether files are videos that can be trained on: opened, hashed and decoded in places, by
processes that may crash."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path

from froster.errors import VideoError
from froster.utils import pool
from froster.video.reader import Video


@dataclass(frozen=True)
class Check:
    """What one file is. `size` and `mtime` tell later whether it is still the same file."""

    path: str
    """Below the folder of the videos."""
    size: int = 0
    mtime: int = 0
    """Nanoseconds."""
    frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    """By the times of the frames."""
    digest: str = ""
    damage: str = ""
    """What is wrong with a file that can be used all the same."""
    error: str = ""
    """Why it cannot be used."""

    def is_current(self, root: Path) -> bool:
        """Whether all of it is known (once there were no `seconds`), and the file has not changed
        since."""
        if not self.error and not self.seconds:
            return False
        try:
            status = (root / self.path).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime)


def check_file(root: Path, path: str) -> Check:
    """Reads the whole file, indexes its packets, and decodes the first frame, the middle one and
    the last."""
    file, size, mtime = root / path, 0, 0
    try:
        status = file.stat()
        size, mtime = status.st_size, status.st_mtime_ns
        digest = _digest(file) if stat.S_ISREG(status.st_mode) else ""  # a pipe would be waited for
        with Video(file) as video:
            claimed, frames = video.timing.header_frames, video.num_frames
            video.read([0, frames // 2, frames - 1])
            damage = f"{video.damaged} of 3 frames cannot be decoded" if video.damaged else ""
            if frames < 0.9 * claimed:
                damage = f"cut off: the header claims {claimed} frames, there are {frames}"
            return Check(
                path,
                size,
                mtime,
                video.num_frames,
                video.fps,
                round(video.seconds, 3),
                digest,
                damage,
            )
    except (VideoError, OSError, MemoryError, ValueError, IndexError) as error:
        return Check(
            path, size, mtime, error=str(error).removeprefix(f"{file}: ") or type(error).__name__
        )


def check_files(
    root: Path, paths: Sequence[str], workers: int, limit: float = pool.SECONDS_OF_SILENCE
) -> Iterator[Check]:
    """A Check of each file, in the order in which they are done. With `workers` 0 in this process.

    A file over which a process dies, or takes more than `limit` seconds, is broken and the work
    goes on in another one.
    """
    checked = set()
    for event in pool.run(partial(_checks, root), paths, workers, limit=limit):
        if event.part is not None:
            checked.add(event.task)
            yield event.part
        elif event.error and event.task not in checked:
            path = paths[event.task]
            try:
                status = (root / path).stat()
            except OSError:
                yield Check(path, error=event.error)
            else:
                yield Check(path, status.st_size, status.st_mtime_ns, error=event.error)


def _checks(root: Path, path: str) -> list[Check]:
    return [check_file(root, path)]


def _digest(file: Path) -> str:
    digest = blake2b(digest_size=16)
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
