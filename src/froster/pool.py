"""Work on files by processes that may crash or hang: a process has one file at a time, and its loss costs that file alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import torch

from froster import interrupt
from froster.errors import FrosterError, VideoError

SECONDS_OF_SILENCE = 300.0
"""After this, without a part or a sign of life, a decoder hangs."""

Work = Callable[[str], Iterable[Any]]
"""From a path to the parts of what is found there; a None among them is a sign of life and goes no further. It is sent to
processes, so it is a function of a module, a `partial` of one, or a small dataclass."""
T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """A part of what a file gave, or its end: then `error` says what failed, if anything did."""

    task: int
    """Position of the file."""
    part: Any = None
    done: bool = False
    error: str = ""


def run(
    work: Work, paths: Sequence[str], workers: int, *, limit: float = SECONDS_OF_SILENCE, window: int | None = None
) -> Iterator[Event]:
    """The parts of every file and its end, as they come. With `workers` 0 in this process, in order and without a limit.

    A file over which a process dies, or is silent for `limit` seconds, ends with an error, and the work goes on in
    another process. No file is begun that lies `window` or more places after the oldest one that has not ended.
    """
    if workers == 0:
        for task, path in enumerate(paths):
            interrupt.check()
            yield from (Event(task, *message) for message in _messages(work, path) if message[0] is not None or message[1])
        return
    context = _context(work)
    pool = [_Worker(context, work) for _ in range(min(workers, len(paths)))]
    begun, ended = 0, [False] * len(paths)
    oldest = 0
    try:
        while oldest < len(paths):
            for worker in pool:
                if worker.task is None and begun < len(paths) and (window is None or begun < oldest + window):
                    worker.give(begun, paths[begun])
                    begun += 1
            interrupt.check()
            busy = [worker for worker in pool if worker.task is not None]
            began = time.monotonic()
            ready = wait([worker.connection for worker in busy], timeout=1.0)
            # Not by the clock alone: while a machine sleeps, or the caller computes, nobody is silent.
            waited = min(time.monotonic() - began, 2.0)
            for worker in busy:
                event = worker.event(worker.connection in ready, waited, limit)
                if event is not None and event.done:
                    ended[event.task] = True
                    while oldest < len(paths) and ended[oldest]:
                        oldest += 1
                    if not worker.process.is_alive():
                        worker.close()
                        pool[pool.index(worker)] = _Worker(context, work)
                if event is not None:
                    yield event
    finally:
        for worker in pool:
            worker.close()


def in_order(events: Iterable[Event]) -> Iterator[Event]:
    """The same events file by file. What comes early is kept, so `run` needs a window."""
    turn = 0
    early: dict[int, list[Event]] = {}
    for event in events:
        early.setdefault(event.task, []).append(event)
        while ready := early.pop(turn, None):
            yield from ready
            turn += ready[-1].done


def ahead(items: Generator[T, None, None], size: int) -> Generator[T, None, None]:
    """The same items, taken by a thread while the caller computes; at most `size` of them wait."""
    box: queue.Queue[tuple[list[T], BaseException | None]] = queue.Queue(size)
    stop = threading.Event()

    def put(item: list[T], error: BaseException | None = None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                box.put((item, error), timeout=0.1)
                return

    def take() -> None:
        try:
            with contextlib.closing(items):
                for item in items:
                    put([item])
                    if stop.is_set():
                        return
            put([])
        except BaseException as error:
            put([], error)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        while True:
            item, error = box.get()
            if error is not None:
                raise error
            if not item:
                return
            yield item[0]
    finally:
        stop.set()
        thread.join()


class _Worker:
    """A process that has one file at a time. It ends by itself when this process does."""

    connection: Connection

    def __init__(self, context: BaseContext, work: Work) -> None:
        self.task: int | None = None
        self.silent = 0.0
        self.started = False
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, work), daemon=True)  # type: ignore[attr-defined]
        self.process.start()
        other.close()

    def give(self, task: int, path: str) -> None:
        self.task, self.silent = task, 0.0
        with contextlib.suppress(OSError):  # where it has died, the next event will say so
            self.connection.send(path)

    def event(self, ready: bool, waited: float, limit: float) -> Event | None:
        """What it has sent, or what became of it; None where there is nothing to hand on."""
        assert self.task is not None
        task = self.task
        if ready:
            with contextlib.suppress(EOFError, OSError):
                part, done, error = self.connection.recv()
                self.started, self.silent = True, 0.0
                if done:
                    self.task = None
                return None if part is None and not done else Event(task, part, done, error)
            if not self.started:
                raise FrosterError("no process that reads videos can be started; --workers 0 does without")
        else:
            self.silent += waited
            if self.silent <= (limit if self.started else max(limit, SECONDS_OF_SILENCE)):
                return None
        self.task = None
        self.process.kill()
        self.process.join()
        crashed = f"the decoder crashed (exit code {self.process.exitcode})"
        return Event(task, None, True, crashed if ready else f"not done after {limit:.0f} s without a sign of life")

    def close(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, work: Work) -> None:
    interrupt.ignore()
    torch.set_num_threads(1)
    try:
        connection.send((None, False, ""))
        while True:
            for message in _messages(work, connection.recv()):
                connection.send(message)
    except (EOFError, OSError):  # the other end is gone
        os._exit(0)


def _messages(work: Work, path: str) -> Iterator[tuple[Any, bool, str]]:
    try:
        for part in work(path):
            yield part, False, ""
    except (VideoError, OSError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield None, True, cause.removeprefix(f"{path}: ")
    except FrosterError:
        raise
    except Exception as error:
        yield None, True, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    else:
        yield None, True, ""


def _context(work: Work) -> BaseContext:
    """Never by fork: a forked process would keep the pipes of its siblings open, and the threads' locks closed."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    home = getattr(work.func if isinstance(work, partial) else work, "__module__", __name__)
    context.set_forkserver_preload([__name__, home])  # what cannot be imported there is passed over
    return context
