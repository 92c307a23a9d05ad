"""Many rows by the local engine: each once, whatever dies; and what a cluster is asked for."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import quick
from engine_works import Lengths, Memory, Video
from froster.errors import FrosterError, UsageError
from froster.utils import cluster
from froster.utils.engine import checked, ends, run
from froster.utils.pool import PAUSE, Event, Feed
from froster.utils.pool import run as run_pool
from froster.utils.work import End, Engine, Means, Work


def rows(*names: str) -> list[Video]:
    return [Video(name) for name in names]


def test_each_row_ends_once_and_what_crashes_costs_itself() -> None:
    store, videos = Memory(), rows("a", "crash", "bb", "fail", "slow", "ccc")
    progress: list[tuple[int, int, int]] = []
    todo = run(Lengths(), videos, store, Means(workers=2), lambda *now: progress.append(now))
    assert list(todo) == videos and store.closed == 1
    assert {(end.row.path, end.result, end.error) for end in store.ends} == {
        ("a", "1 letters", ""),
        ("bb", "2 letters", ""),
        ("ccc", "3 letters", ""),
        ("slow", "4 letters", ""),
        ("crash", None, "the decoder crashed (exit code 139)"),
        ("fail", None, "no frame can be decoded"),
    }
    assert len(store.ends) == 6
    assert progress[0] == (0, 6, 0) and progress[-1] == (6, 6, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_in_order_stay_in_order_whatever_ends_first(workers: int) -> None:
    videos = rows("slow", *(f"v{i}" for i in range(6)), "fail", "last")
    some = list(ends(Lengths(in_order=True), videos, Means(workers=workers)))
    assert [end.row for part in some for end in part] == videos


def test_what_the_store_has_is_passed_over() -> None:
    store = Memory(["a", "c"])
    assert list(run(Lengths(), rows("a", "b", "c"), store, Means())) == rows("b")
    assert store.ends == [End(Video("b"), "1 letters")]
    nothing = Memory(["a"])
    assert not run(Lengths(), rows("a"), nothing, Means(workers=2)) and nothing.closed == 1


def test_what_is_no_matter_of_one_file_ends_the_run_and_closes_the_store() -> None:
    store = Memory()
    with pytest.raises(UsageError, match="nobody can do this"):
        run(Lengths(), rows("a", "b", "wrong", "c"), store, Means())
    assert [end.row.path for end in store.ends] == ["a", "b"] and store.closed == 1


def test_a_work_that_reads_nothing_is_an_error_of_the_row() -> None:
    (some,) = ends(Work(lambda path: iter(())), rows("a"), Means())
    assert some == [End(Video("a"), None, "nothing was read")]


@pytest.mark.parametrize("workers", [0, 2])
def test_tasks_that_come_later_are_done_and_a_pause_is_told(workers: int) -> None:
    feed = Feed()
    feed.add("a")
    events: list[Event] = []

    def give() -> None:
        while PAUSE not in events:
            time.sleep(0.01)
        feed.add("bb")
        feed.add("ccc")
        feed.close()

    giver = threading.Thread(target=give)
    giver.start()
    for event in run_pool(Lengths().reader, feed, workers):
        events.append(event)
    giver.join()
    parts = [event.part for event in events if event.part is not None]
    assert parts[0] == 1 and sorted(parts) == [1, 2, 3]
    assert sum(event.done for event in events) == 3


STOPPED = """
import sys
from pathlib import Path
from engine_works import Journal, Lengths, Video
from froster.utils.engine import run
from froster.utils.work import Engine, Means
if __name__ == "__main__":
    videos = [Video(f"slow{i:02d}") for i in range(14)]
    engine = Engine(sys.argv[2])
    run(Lengths(), videos, Journal(Path(sys.argv[1])), Means(engine, int(sys.argv[3])))
"""


def kill_a_driver(journal: Path, engine: str, workers: int, **variables: str) -> None:
    """What it had stays, and the next one does the rest, each row once."""
    variables = {**os.environ, **variables}

    def started() -> quick.Popen:
        command = [sys.executable, "-c", STOPPED, str(journal), engine, str(workers)]
        return quick.Popen(command, env=variables, cwd=Path(__file__).parent)

    driver = started()
    while not journal.exists() or journal.read_text().count("\n") < 3:
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    had = journal.read_text().splitlines()
    assert 3 <= len(had) < 14
    assert started().wait() == 0
    lines = journal.read_text().splitlines()
    assert lines[: len(had)] == had, "nothing is done twice"
    assert sorted(lines) == [f"slow{i:02d}" for i in range(14)]


def test_a_driver_that_is_killed(tmp_path: Path) -> None:
    kill_a_driver(tmp_path / "journal", "local", 2)


def test_a_cluster_that_is_not_there_is_one_line_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--address is that of a cluster of Ray: give --engine"):
        Engine("local", "127.0.0.1:6379")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"no cluster of Ray answers at 127\.0\.0\.1:9 .*refused"):
        checked(Engine("ray", "127.0.0.1:9"))
    for address in ("somewhere", "host:port"):
        with pytest.raises(UsageError, match="--address is HOST:PORT"):
            checked(Engine("ray", address))
    with pytest.raises(UsageError, match="from one of its machines, as HOST:PORT"):
        checked(Engine("ray", "ray://127.0.0.1:10001"))
    assert time.monotonic() - began < 5
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--engine ray needs Ray: pip install 'froster-video\[ray"
    ):
        checked(Engine("ray"))


class Nodes:
    """A cluster as `ray` tells of it."""

    def __init__(self, nodes: list[dict[str, float]], free: dict[str, float]) -> None:
        self.nodes = lambda: [{"Alive": True, "Resources": node} for node in nodes]
        self.available_resources = lambda: free

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": sum(node["Resources"].get("CPU", 0) for node in self.nodes())}


@pytest.mark.parametrize(
    ("nodes", "free", "cpus", "gpu", "count"),
    [
        ([{"CPU": 8}], {"CPU": 8}, 1, False, 8),
        ([{"CPU": 8}], {"CPU": 3}, 2, False, 1),
        ([{"CPU": 3}, {"CPU": 3}], {"CPU": 6}, 2, False, 2),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 64}], {"CPU": 72, "GPU": 2}, 3, True, 2),
        ([{"CPU": 8, "GPU": 8}], {"CPU": 8, "GPU": 8}, 4, True, 2),
    ],
)
def test_actors_are_as_many_as_fit_into_what_is_free(
    nodes: list[dict[str, float]], free: dict[str, float], cpus: int, gpu: bool, count: int
) -> None:
    assert cluster.places(Nodes(nodes, free), cpus, gpu) == count


def test_no_room_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_SETTLE", 0)
    line = "no room for an actor of 2 CPUs: 1 of 4 CPUs and 0 of 0 GPUs of the cluster are free"
    with pytest.raises(FrosterError, match=line):
        cluster.places(Nodes([{"CPU": 4}], {"CPU": 1}), 2, False)
    with pytest.raises(FrosterError, match="no room for an actor of 1 CPUs and a GPU"):
        cluster.places(Nodes([{"CPU": 4}], {"CPU": 4}), 1, True)
