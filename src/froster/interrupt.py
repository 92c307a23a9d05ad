"""Ctrl-C: one clear line, and never swallowed by whatever happened to run when it came."""

from __future__ import annotations

import signal
from types import FrameType

from froster.errors import FrosterError

_requested = False


class Interrupted(FrosterError):
    exit_code = 130


def _message() -> Interrupted:
    return Interrupted("stopped; what was finished is kept (train goes on with --resume)")


def _handle(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = True
    raise _message()


def install() -> None:
    signal.signal(signal.SIGINT, _handle)


def check() -> None:
    """For long loops: an exception raised inside a finalizer or a fork hook is lost, the request is not."""
    if _requested:
        raise _message()


def ignore(worker: int = 0) -> None:
    """For loader workers, which get the terminal's Ctrl-C too: the parent ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
