"""Whether files are videos that can be trained on: opened, hashed and decoded in places, by processes that may crash."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path

import torch

from froster import interrupt
from froster.errors import FrosterError, VideoError
from froster.video.reader import Video

SECONDS_PER_FILE = 300.0
"""After this a decoder hangs."""


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
    digest: str = ""
    damage: str = ""
    """What is wrong with a file that can be used all the same."""
    error: str = ""
    """Why it cannot be used."""

    @property
    def seconds(self) -> float:
        return self.frames / self.fps if self.fps else 0.0

    def is_current(self, root: Path) -> bool:
        """Whether the file has not changed since."""
        try:
            status = (root / self.path).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime)


def check_file(root: Path, path: str) -> Check:
    """Reads the whole file, indexes its packets, and decodes the first frame, the middle one and the last."""
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
            return Check(path, size, mtime, video.num_frames, video.fps, digest, damage)
    except (VideoError, OSError, MemoryError, ValueError, IndexError) as error:
        return Check(path, size, mtime, error=str(error).removeprefix(f"{file}: ") or type(error).__name__)


def check_files(root: Path, paths: Sequence[str], workers: int, limit: float = SECONDS_PER_FILE) -> Iterator[Check]:
    """A Check of each file, in the order in which they are done. With `workers` 0 in this process.

    A file over which a process dies, or takes more than `limit` seconds, is broken and the work goes on in another one.
    """
    if workers == 0:
        for path in paths:
            interrupt.check()
            yield check_file(root, path)
        return
    context = _context()
    waiting = list(reversed(paths))
    pool = [_Worker(context, root) for _ in range(min(workers, len(paths)))]
    try:
        for worker in pool:
            worker.give(waiting.pop())
        while busy := [worker for worker in pool if worker.path is not None]:
            interrupt.check()
            ready = wait([worker.connection for worker in busy], timeout=1.0)
            for worker in busy:
                late = time.monotonic() - worker.since > limit
                if worker.connection not in ready and not late:
                    continue
                check = worker.result(late, limit)
                if check is None:
                    continue
                if not worker.process.is_alive():
                    worker.close()
                    pool[pool.index(worker)] = worker = _Worker(context, root)
                if waiting:
                    worker.give(waiting.pop())
                yield check
    finally:
        for worker in pool:
            worker.close()


class _Worker:
    """A process that checks one file at a time. It ends by itself when this process does."""

    connection: Connection

    def __init__(self, context: BaseContext, root: Path) -> None:
        self.root = root
        self.path: str | None = None
        self.since = 0.0
        self.started = False
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, root), daemon=True)  # type: ignore[attr-defined]
        self.process.start()
        other.close()

    def give(self, path: str) -> None:
        self.path, self.since = path, time.monotonic()
        with contextlib.suppress(OSError):  # where it has died, the result will say so
            self.connection.send(path)

    def result(self, late: bool, limit: float) -> Check | None:
        """What it has found, or what became of it; None where it only says that it has started."""
        if not late:
            with contextlib.suppress(EOFError, OSError):
                check = self.connection.recv()
                self.started = True
                if check is not None:
                    self.path = None
                return check
            if not self.started:
                raise FrosterError("no process that checks videos can be started; --workers 0 does without")
        path, self.path = self.path, None
        assert path is not None
        self.process.kill()
        self.process.join()
        error = f"not done after {limit:.0f} s" if late else f"the decoder crashed (exit code {self.process.exitcode})"
        try:
            status = (self.root / path).stat()
        except OSError:
            return Check(path, error=error)
        return Check(path, status.st_size, status.st_mtime_ns, error=error)

    def close(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def _work(connection: Connection, root: Path) -> None:
    interrupt.ignore()
    torch.set_num_threads(1)
    try:
        connection.send(None)
        while True:
            connection.send(check_file(root, connection.recv()))
    except (EOFError, OSError):  # the other end is gone
        os._exit(0)


def _context() -> BaseContext:
    """Never by fork: a forked process would keep the pipes of its siblings open, and the threads' locks closed."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["froster.paper.check"])
    return context


def _digest(file: Path) -> str:
    digest = blake2b(digest_size=16)
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
