"""Work on files by processes that may crash or hang: a process has one file at a time, and its loss
costs that file alone."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import torch

from froster.errors import FrosterError, UsageError, VideoError, out_of_memory
from froster.utils import interrupt
from froster.utils.channel import Channel, Feed

SECONDS_OF_SILENCE = 300.0
"""After this, without a part or a sign of life, a decoder hangs."""
FEW = 8
"""Videos for which it does not pay to start processes."""
PAUSES = (0.1, 0.5, 2.0)
"""Seconds between the tries to start a process: a system may be short of them, or of memory."""
STILLBORN = 3
"""Processes in a row that end before they read anything, after which no more are started."""

Work = Callable[[Any], Iterable[Any]]
"""From a path, or whatever else says what to read, to its parts; a None among them is a sign of
life. It is sent to processes: a function of a module, a `partial` of one, or a small dataclass."""
T = TypeVar("T")


def cores() -> int:
    """Of the machine, as far as this process may use them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spare_cores() -> int:
    """Processes that decode while the network computes: it keeps a core. Four are enough for a
    network on a CPU; one on a GPU takes more clips than they read. Processes of torchrun share."""
    most = 16 if torch.cuda.is_available() else 4
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(min(1, cores() - 1), min(most, share - 1))


def processes(workers: int | None, videos: int) -> int:
    """How many read: what was asked for, or none for a few videos, else by the cores."""
    if workers is not None and workers < 0:
        raise UsageError(f"workers are 0 or more, not {workers}")
    if workers is not None:
        return workers
    return 0 if videos <= FEW else spare_cores()


@dataclass(frozen=True)
class Event:
    """A part of what a file gave, or its end: then `error` says what failed, if anything did."""

    task: int
    """Position of the file."""
    part: Any = None
    done: bool = False
    error: str = ""


PAUSE = Event(-1)
"""Given by `run` before it waits for more tasks: all that it had have ended."""


def run(
    work: Work,
    paths: Sequence[Any] | Feed,
    workers: int,
    *,
    limit: float = SECONDS_OF_SILENCE,
    window: int | None = None,
) -> Iterator[Event]:
    """The parts of every file and its end, as they come. With `workers` 0 in this process, in order
    and without a limit.

    A process that dies is replaced, and has its file given once more, as the system may have been
    short of memory. A file over which a second one dies, or one is silent for `limit` seconds, ends
    with an error, and the work goes on. No file is begun that lies `window` or more places after
    the oldest one that has not ended.

    Raises the FrosterErrors of `work` that are no VideoErrors, and FrosterError where no process
    can be started.
    """
    feed = paths if isinstance(paths, Feed) else Feed(paths, closed=True)
    if workers == 0:
        yield from _run_here(work, feed)
        return
    context = _context(work)
    pool: list[_Worker] = []
    ended: set[int] = set()  # of those after the oldest one that has not
    begun = oldest = stillborn = 0
    try:
        while True:
            while window is None or begun < oldest + window:
                free = next((worker for worker in pool if worker.task is None), None)
                if (free is None and len(pool) == workers) or (following := feed.take()) is None:
                    break
                if free is None:
                    pool.append(free := _start(context, work))
                free.give(begun, *following)
                begun += 1
            interrupt.check()
            busy = [worker for worker in pool if worker.task is not None]
            if not busy and not feed.open:
                return
            if not busy:
                yield PAUSE
                feed.wait(1.0)
                continue
            began = time.monotonic()
            sockets = [worker.channel.socket for worker in busy]
            ready = wait(sockets, timeout=1.0 if len(busy) == workers or not feed.open else 0.05)
            # Not by the clock alone: while a machine sleeps, or the caller computes, nobody is
            # silent.
            waited = min(time.monotonic() - began, 2.0)
            for worker in busy:
                for event in worker.events(worker.channel.socket in ready, waited, limit):
                    if event.done:
                        ended.add(event.task)
                        while oldest in ended:
                            ended.remove(oldest)
                            oldest += 1
                    yield event
                stillborn = 0 if worker.started else stillborn + worker.dead
                if not worker.is_to_be_replaced():
                    continue
                worker.close()
                if stillborn == STILLBORN:
                    raise no_process("they end before they read anything")
                pool[pool.index(worker)] = heir = _start(context, work)
                if (rest := worker.task) is not None:
                    heir.give(rest, worker.path, skip=worker.parts, deaths=worker.deaths)
    finally:
        for worker in pool:
            worker.close()


def _run_here(work: Work, feed: Feed) -> Iterator[Event]:
    for task in itertools.count():
        while (following := feed.take()) is None:
            if not feed.open:
                return
            yield PAUSE
            feed.wait(1.0)
            interrupt.check()
        interrupt.check()
        for message in _messages(work, *following):
            if (event := _event(task, message)) is not None:
                yield event


def in_order(events: Iterable[Event]) -> Iterator[Event]:
    """The same events file by file. What comes early is kept, so `run` needs a window."""
    turn = 0
    early: dict[int, list[Event]] = {}
    for event in events:
        early.setdefault(event.task, []).append(event)
        while ready := early.pop(turn, None):
            yield from ready
            turn += ready[-1].done


def ends(events: Iterable[Event]) -> Generator[tuple[int, Any, str], None, None]:
    """For work that finds one part in a file: each file's position, its part or None, and what
    failed where there is none. A process that dies after it has handed its part on costs nothing.
    """
    parts: dict[int, Any] = {}
    for event in events:
        if not event.done:
            parts[event.task] = event.part
        elif event.task in parts:
            yield event.task, parts.pop(event.task), ""
        else:
            yield event.task, None, event.error


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
    """A process that has one file at a time, and ends when this process does."""

    def __init__(self, context: BaseContext, work: Work) -> None:
        self.task: int | None = None
        self.started = self.dead = False
        mine, other = socket.socketpair()
        self.channel = Channel(mine, blocking=False)
        make: Any = context.Process  # type: ignore[attr-defined]
        self.process = make(target=_serve, args=(other, work, dict(os.environ)), daemon=True)
        try:
            self.process.start()
        except BaseException:
            mine.close()
            raise
        finally:
            other.close()

    def give(self, task: int, path: Any, *, skip: int = 0, deaths: int = 0) -> None:
        """`skip`: parts that a process which died had handed on; `deaths`: processes that this file
        has cost."""
        self.task, self.path = task, path
        self.silent, self.parts, self.skip, self.deaths = 0.0, 0, skip, deaths
        with contextlib.suppress(OSError):  # where it has died, the next events will say so
            self.channel.send(path)

    def events(self, ready: bool, waited: float, limit: float) -> Iterator[Event]:
        """What it has sent, or what became of it. Where it is dead afterwards, another process is
        to do the task that it still has."""
        assert self.task is not None
        task = self.task
        if not ready:
            self.silent += waited
            if self.silent > (limit if self.started else max(limit, SECONDS_OF_SILENCE)):
                self.dead, self.task = True, None
                yield Event(task, None, True, silence(limit))
            return
        self.silent = 0.0
        try:
            while self.task is not None and (message := self.channel.poll()) is not None:
                self.started = True
                event = _event(task, message[0])
                if event is None:
                    continue
                if event.done:
                    self.task = None
                else:
                    self.parts += 1
                    if self.parts <= self.skip:
                        continue
                yield event
        except (EOFError, OSError):
            self.dead = True
            self.parts = max(self.parts, self.skip)
            self.deaths += self.started
            if self.deaths > 1:
                self.task = None
                self.close()
                crash = f"the decoder crashed (exit code {self.process.exitcode})"
                yield Event(task, None, True, crash)

    def is_to_be_replaced(self) -> bool:
        return self.dead or (self.task is None and not self.process.is_alive())

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.join()


def _start(context: BaseContext, work: Work) -> _Worker:
    """Tries again where the system has no process to give, or their server has been killed."""
    for pause in PAUSES:
        with contextlib.suppress(EOFError, OSError):
            return _Worker(context, work)
        time.sleep(pause)
    try:
        return _Worker(context, work)
    except (EOFError, OSError) as error:
        raise no_process(str(error) or type(error).__name__) from error


def no_process(cause: str) -> FrosterError:
    return FrosterError(
        f"no process that reads videos can be started ({cause}); what was finished is kept, and"
        " --workers 0 goes on without such processes"
    )


def silence(limit: float) -> str:
    """The error of a file over which a process was silent for longer than `limit` seconds."""
    return f"not done after {limit:.0f} s without a sign of life"


def _serve(end: socket.socket, work: Work, environment: dict[str, str]) -> None:
    os.environ.clear()  # a fork server has that of the moment in which it was started
    os.environ.update(environment)
    interrupt.ignore()
    torch.set_num_threads(1)
    channel = Channel(end)
    try:
        channel.send((None, False, ""))
        while True:
            for message in _messages(work, channel.receive()):
                try:
                    channel.send(message)
                except MemoryError as error:  # before a byte of it was sent
                    channel.send((None, True, _cause(error)))
                    break
    except (EOFError, OSError):  # the other end is gone
        os._exit(0)


Message = tuple[Any, bool, "str | FrosterError"]
"""A part, whether the file has ended, and what failed."""


def _messages(work: Work, path: Any) -> Iterator[Message]:
    try:
        for part in work(path):
            yield part, False, ""
    except (VideoError, OSError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield None, True, cause.removeprefix(f"{path}: ")
    except FrosterError as error:
        yield None, True, error
    except Exception as error:
        yield None, True, _cause(error)
    else:
        yield None, True, ""


def _cause(error: Exception) -> str:
    if out_of_memory(error):
        return "out of memory"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _event(task: int, message: Message) -> Event | None:
    """None for a sign of life. Raises what is no matter of this file alone."""
    part, done, error = message
    if isinstance(error, FrosterError):
        raise error
    return None if part is None and not done else Event(task, part, done, error)


def _context(work: Work) -> BaseContext:
    """Never by fork: a forked process would keep the pipes of its siblings open, and the threads'
    locks closed."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    home = getattr(work.func if isinstance(work, partial) else work, "__module__", __name__)
    # What cannot be imported there is passed over.
    context.set_forkserver_preload(["froster.utils.forkserver", __name__, home])
    return context
