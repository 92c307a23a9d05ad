"""Processes that crash or hang cost one file each; nobody waits for a consumer that is slow."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pytest
import torch

from froster.errors import FrosterError, UsageError
from froster.utils import pool
from froster.utils.channel import Channel
from froster.utils.pool import Event, ahead, in_order, run, silence
from pool_tasks import large, threads_of, work
from video_files import make_video


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
        assert [
            event.part for event in events if paths[event.task] == path and not event.done
        ] == parts(path)
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
    done = [
        event.task for event in run(work, ["hang", *"abcdef"], 2, limit=1.0, window=3) if event.done
    ]
    assert done[:3] == [1, 2, 0]
    assert sorted(done) == list(range(7))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_with_the_request_is_said_as_it_is(workers: int) -> None:
    with pytest.raises(UsageError, match=r"^wrong: choose another$"):
        list(run(work, ["a", "wrong", "b"], workers))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_needs_too_much_memory_is_said_to(workers: int) -> None:
    events = [event for event in run(work, ["large", "a", "tensor"], workers) if event.done]
    assert {event.task: event.error for event in events} == {
        0: "out of memory",
        1: "",
        2: "out of memory",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of POSIX")
def test_a_file_whose_process_is_killed_is_read_once_more(tmp_path: Path) -> None:
    """And what the first had handed on does not come twice."""
    path = f"once {tmp_path / 'marker'}"
    events = list(run(work, ["a", path, "b"], 2))
    assert [event.part for event in events if event.task == 1] == [*parts(path), None]
    assert not any(event.error for event in events)


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork server here"
)
# The server alone is killed with its tracker, too.
@pytest.mark.parametrize(
    "victims", [pytest.param("server", marks=pytest.mark.slow), "server and workers", "tracker"]
)
def test_a_killed_fork_server_is_replaced(victims: str, capfd: pytest.CaptureFixture[str]) -> None:
    paths = [f"pause {i}" for i in range(6)]
    found = []
    with (
        pytest.warns(match="resource_tracker") if victims == "tracker" else contextlib.nullcontext()
    ):
        for event in run(work, paths, 2):
            if not found:
                children = [child.pid for child in multiprocessing.active_children()]
                server = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
                tracker = multiprocessing.resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
                killed = {
                    "server": [server],
                    "server and workers": [server, *children],
                    "tracker": [server, tracker],
                }
                for pid in killed[victims]:
                    os.kill(pid, signal.SIGKILL)
            found.append(event)
    assert sorted(event.part for event in found if not event.done) == sorted(
        part for path in paths for part in parts(path)
    )
    assert sum(event.done for event in found) == len(paths) and not any(
        event.error for event in found
    )
    assert "Traceback" not in capfd.readouterr().err


class Refused(BaseContext):
    """A system that has no process to give, so many times."""

    def __init__(self, times: int, error: Exception):
        self.times, self.error = times, error

    def Process(self, *args: object, **kwargs: object) -> multiprocessing.process.BaseProcess:  # type: ignore[override]
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return multiprocessing.get_context("forkserver").Process(*args, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [BlockingIOError(11, "Resource temporarily unavailable"), EOFError(), ConnectionResetError()],
)
def test_a_refused_process_is_asked_for_again_and_then_said(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(pool, "_context", lambda work: Refused(2, error))
    assert [event.part for event in run(work, ["a"], 1) if not event.done] == parts("a")
    monkeypatch.setattr(pool, "_context", lambda work: Refused(3, error))
    with pytest.raises(
        FrosterError, match=r"no process that reads videos can be started .*--workers 0"
    ):
        list(run(work, ["a"], 1))


def test_a_message_that_stops_in_the_middle_keeps_nobody_waiting() -> None:
    one, other = socket.socketpair()
    sender, receiver = Channel(one), Channel(other, blocking=False)
    message = {"clip": np.arange(12, dtype=np.uint8).reshape(3, 4), "end": None}
    sender.send(message)
    sent = other.recv(1 << 16)
    for byte in sent[:-1]:
        one.sendall(bytes([byte]))
        assert receiver.poll() is None
    one.sendall(sent[-1:])
    (found,) = receiver.poll() or (None,)
    assert (
        np.array_equal(found["clip"], message["clip"])
        and found["clip"].flags.writeable
        and found["end"] is None
    )
    sender.close()
    with pytest.raises(EOFError):
        receiver.poll()
    receiver.close()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of POSIX")
def test_a_process_that_stops_while_it_sends_is_silent() -> None:
    """Its part is larger than what a socket takes at once."""
    done = {}
    for event in run(large, ["stop", "a", "b"], 2, limit=1.5):
        if event.done:
            done[event.task] = event.error
        else:
            assert event.part.sum() == event.part.size
    assert done == {0: silence(1.5), 1: "", 2: ""}


def test_a_process_decodes_with_one_thread_as_its_siblings_have_the_other_cores(
    tmp_path: Path,
) -> None:
    path = str(make_video(tmp_path / "a.mp4", 1))
    alone, helped = (
        [event.part for event in run(threads_of, [path], workers) if not event.done]
        for workers in (0, 1)
    )
    assert alone == [0] and helped == [1], "0 is as many as the codec likes"


GPU, CPU = True, False


@pytest.mark.parametrize(
    ("cores", "gpu", "ranks", "expected"),
    [
        (1, GPU, 1, 0),
        (2, CPU, 1, 1),
        (16, CPU, 1, 4),
        (16, GPU, 1, 15),
        (64, GPU, 2, 16),
        (16, GPU, 8, 1),
        (2, GPU, 2, 1),
    ],
)
def test_a_gpu_is_read_for_by_more_processes(
    cores: int, gpu: bool, ranks: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert pool.spare_cores() == expected
