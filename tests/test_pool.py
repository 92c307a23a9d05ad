"""Processes that crash or hang cost one file each; nobody waits for a consumer that is slow."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from froster.errors import FrosterError, VideoError
from froster.pool import Event, ahead, in_order, run


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
    for number in range(3):
        yield None
        yield f"{path} {number}"


def parts(path: str) -> list[str]:
    return [f"{path} {number}" for number in range(3)]


def test_what_becomes_of_each_file() -> None:
    paths = ["a", "crash", "b", "fail", "hang", "c", "bug", "d"]
    events = list(run(work, paths, 2, limit=1.5))
    ends = {paths[event.task]: event.error for event in events if event.done}
    assert len(ends) == len([event for event in events if event.done]) == len(paths)
    assert ends.pop("crash") == f"the decoder crashed (exit code {-signal.SIGSEGV})"
    assert ends.pop("hang") == "not done after 2 s without a sign of life"
    assert ends.pop("fail") == "no frame can be decoded"
    assert ends.pop("bug") == "KeyError: 'bug'"
    for path in ends:
        assert [event.part for event in events if paths[event.task] == path and not event.done] == parts(path)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_in_order_and_ahead(workers: int) -> None:
    """Within a window nothing is lost, nothing is held back, and the order is that of the files."""
    paths = [f"{i}" for i in range(9)]
    events = in_order(run(work, paths, workers, window=3))
    found = [event.part for event in ahead(filtered(events), 2)]
    assert found == [part for path in paths for part in parts(path)]


def filtered(events: Iterator[Event]) -> Iterator[Event]:
    yield from (event for event in events if not event.done)


def test_a_consumer_that_stops_or_fails_leaves_nothing_running() -> None:
    taken = ahead(run(work, ["a", "b", "hang"], 2), 1)
    next(taken)
    taken.close()
    assert not multiprocessing.active_children()

    def failing() -> Iterator[int]:
        yield 1
        raise FrosterError("disk full")

    with pytest.raises(FrosterError, match="disk full"):
        list(ahead(failing(), 1))


def test_a_slow_consumer_is_no_silence_of_the_workers() -> None:
    for event in run(work, ["a", "b"], 1, limit=0.5):
        assert not event.error
        time.sleep(0.3)


@pytest.mark.skipif(sys.platform == "win32", reason="the fork server is a matter of POSIX")
def test_a_window_holds_back_what_is_too_far_ahead() -> None:
    """While the first file hangs, only those of the window are done."""
    done = [event.task for event in run(work, ["hang", *"abcdef"], 2, limit=1.0, window=3) if event.done]
    assert done[:3] == [1, 2, 0]
    assert sorted(done) == list(range(7))
