"""Ctrl-C, and the time limits of requests: one clear line, never swallowed by whatever runs when it
comes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType, TracebackType

from froster.errors import FrosterError

STOPPED = "stopped"
"""All that is said; the command line adds how the command goes on."""
_requested = False
_limit: ContextVar[Callable[[], None] | None] = ContextVar("limit", default=None)


class Interrupted(FrosterError):
    exit_code = 130


def _message() -> Interrupted:
    return Interrupted(STOPPED)


def _handle(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = True
    raise _message()


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    if not isinstance(lost.exc_value, Interrupted):  # which `check` raises again
        sys.__unraisablehook__(lost)


def install() -> None:
    signal.signal(signal.SIGINT, _handle)
    sys.unraisablehook = _unraisable


@contextmanager
def requests_kept() -> Iterator[None]:
    """Within the block every error that follows Ctrl-C is `Interrupted`: a library that is being
    imported swallows what is raised in it, and fails for another reason a moment later."""
    try:
        yield
    except Exception as error:
        if not _requested or isinstance(error, Interrupted):
            raise
        raise _message() from error


def check() -> None:
    """For long loops: an exception raised inside a finalizer or a fork hook is lost, the request is
    not."""
    if _requested:
        raise _message()
    if (limit := _limit.get()) is not None:
        limit()


@contextmanager
def limited(limit: Callable[[], None]) -> Iterator[None]:
    """In this thread, every `check` calls `limit` too, which raises where the work is no longer
    wanted."""
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def ignore() -> None:
    """For reading processes, which get the terminal's Ctrl-C too: the parent ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _orphaned


def _orphaned(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, (BrokenPipeError, ConnectionResetError)):
        sys.__excepthook__(kind, error, trace)
