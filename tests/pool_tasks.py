"""Work for the processes of `test_pool.py`, each of which imports this file and not pytest."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from froster.errors import UsageError, VideoError


def work(path: str) -> Iterator[object]:
    """What the name says."""
    if path.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.startswith("hang"):
        time.sleep(60)
    if path.startswith("fail"):
        raise VideoError(f"{path}: no frame can be decoded")
    if path.startswith("bug"):
        raise KeyError(path)
    if path.startswith("wrong"):
        raise UsageError(f"{path}: choose another")
    if path.startswith("large"):
        raise MemoryError
    if path.startswith("tensor"):
        torch.empty(1 << 50)
    if path.startswith("pause"):
        time.sleep(0.5)
    for number in range(3):
        if number == 2 and path.startswith("once"):
            die_once(path)
        yield None
        yield f"{path} {number}"


def die_once(path: str) -> None:
    marker = Path(path.removeprefix("once "))
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def large(path: str) -> Iterator[np.ndarray]:
    if path == "stop":  # once the socket is full: the parent reads on, and the rest does not come
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGSTOP)).start()
        for _ in range(10_000):
            yield np.ones(1 << 22, np.uint8)
    yield np.ones(1 << 22, np.uint8)


def threads_of(path: str) -> Iterator[int]:
    from froster.video.container import open_file

    with open_file(Path(path))[0] as container:
        yield container.streams.video[0].codec_context.thread_count
