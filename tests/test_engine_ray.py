"""The same on a cluster of Ray, two actors on this machine: whatever is killed, every row is there
once, and it is the row of the local engine. One cluster serves the file; it takes half a minute."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch

from engine_works import Lengths, Memory
from froster.data.manifest import read_items
from froster.errors import UsageError
from froster.inference.results import failures_of
from froster.inference.store import Store
from froster.utils import cluster
from froster.utils.engine import run as run_engine
from froster.utils.work import Engine, Means
from shared_files import World
from test_engine import kill_a_driver, rows
from typed import one_line

WHY = "not installed: pip install -e '.[ray]'"
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason=WHY)
RAY = Engine("ray")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    from froster.utils.cluster import QUIET

    os.environ.update(QUIET)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for the actors
    import ray
    from ray._private.parameter import RayParams

    # Nothing of Ray's own is tested: no process that scales the cluster, none that collects logs.
    without = partialmethod(RayParams.__init__, include_log_monitor=False, no_monitor=True)
    patch = pytest.MonkeyPatch()
    patch.setattr(RayParams, "__init__", without)
    options = {"log_to_driver": False, "logging_level": "CRITICAL", "include_dashboard": False}
    ray.init(address="local", num_cpus=2, object_store_memory=200_000_000, **options)
    patch.undo()
    yield ray
    ray.shutdown()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of two classes, and one that is broken."""
    root = tmp_path_factory.mktemp("ray") / "videos"
    videos = World("base", 3)
    for i in range(6):
        videos.write(i, root / f"class {i // 3}" / f"{i}.mp4")
    (root / "class 0" / "broken.mp4").write_bytes(b"not a video")
    return root


def test_an_actor_is_killed_while_it_works_and_every_row_is_there_once(
    ray: Any, tmp_path: Path
) -> None:
    """A file that fails and one that kills its actor cost themselves alone."""
    journal, store = tmp_path / "pids", Memory(["had"])
    slow = [f"slow{i}" for i in range(6)]
    videos = rows("had", *slow, "fail", "deadly", *(f"v{i}" for i in range(12)))

    def kill() -> None:
        while not journal.exists():
            time.sleep(0.05)
        os.kill(int(journal.read_text().split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    run_engine(Lengths(journal, in_order=True), videos, store, Means(RAY, 0))
    killer.join()
    assert [end.row for end in store.ends] == videos[1:], "in order"
    errors = {end.row.path: end.error for end in store.ends if end.error}
    assert errors == {
        "fail": "no frame can be decoded",
        "deadly": "the process of the network died 2 times",
    }
    # Two actors and those in their place, of which the last may have had nothing left to do.
    assert len(set(journal.read_text().split())) >= 3


def test_a_file_that_crashes_costs_its_process_and_what_is_no_matter_of_one_file_is_raised(
    ray: Any, tmp_path: Path
) -> None:
    """The process is one of two below an actor, which goes on."""
    known = tmp_path / "the crash is known"

    class Telling(Memory):
        def add(self, ends: Any) -> None:
            super().add(ends)
            known.touch()

    store = Telling()
    with pytest.raises(UsageError, match="nobody can do this"):
        run_engine(Lengths(), rows("crash", f"wrong after {known}"), store, Means(RAY, 2))
    errors = {end.row.path: end.error for end in store.ends if end.error}
    assert errors == {"crash": "the decoder crashed (exit code 139)"}


@pytest.mark.slow  # as in test_engine, by processes of this machine
def test_a_driver_that_is_killed(ray: Any, tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    kill_a_driver(tmp_path / "journal", "ray", 0, RAY_ADDRESS=address)


def by_a_doer(work: Any, rows: Any, means: Means) -> Iterator[Any]:
    """`cluster.ends` by one actor's class in this process: what is sent is pickled as Ray does it."""
    from ray import cloudpickle

    work, rows = cloudpickle.loads(cloudpickle.dumps((work, list(rows))))
    doer = cluster.Doer(work, means, "cpu")

    def endings() -> Iterator[list[Any]]:
        some = doer.step(list(enumerate(rows)))
        left = len(rows)
        while left:
            left -= len(some)
            yield some
            some = doer.step([])

    try:
        yield from cluster._in_order(endings()) if work.in_order else endings()
    finally:
        doer._feed.close()


def test_an_actor_works_in_the_folder_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its machine has that."""
    monkeypatch.setattr("froster.utils.interrupt.ignore", lambda: None)
    monkeypatch.chdir(Path.cwd())
    for folder in (tmp_path, tmp_path / "not here"):
        cluster.Doer(Lengths(), Means(), "cpu", str(folder))._feed.close()
        assert Path.cwd() == tmp_path


# Actors take longer to start than to work. That they do is guarded by `classify` on the cluster;
# what each command sends there, by the class of the actor in this process.
@pytest.fixture(params=["doer", pytest.param("cluster", marks=pytest.mark.slow)])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "cluster":
        request.getfixturevalue("ray")
    else:
        monkeypatch.setattr(cluster, "ends", by_a_doer)
        monkeypatch.setattr("froster.utils.interrupt.ignore", lambda: None)


def test_classify_gives_the_rows_of_the_local_engine(
    ray: Any, run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-6, and what is broken is named alike. An actor with processes that read; the cluster
    was started in another folder than that of the command."""
    monkeypatch.chdir(folder.parent)
    labels = ["--labels", "cat spinning, key pacing, fish bouncing", "--model", "nano"]
    labels += ["--workers", "2"]
    results, tables = [], []
    for engine in ("local", "ray"):
        out = tmp_path / f"{engine}.jsonl"
        assert run("classify", folder.name, *labels, "--engine", engine, "--out", out).code == 1
        results.append([json.loads(line) for line in out.read_text().splitlines()])
        tables.append(Path(failures_of(out)).read_text())
    assert len(results[0]) == 6
    for one, other in zip(*results, strict=True):
        assert one["path"] == other["path"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-6)
    assert "broken.mp4" in tables[0] and tables[0] == tables[1]


@pytest.mark.usefixtures("elsewhere")
def test_other_commands_give_what_the_local_engine_gives(
    run: Any, folder: Path, tmp_path: Path
) -> None:
    """index, evaluate and doctor, without processes below the actors."""
    reports, vectors, findings = [], [], []
    for engine in ("local", "ray"):
        by, out = ("--engine", engine, "--workers", 0), tmp_path / engine
        run("index", folder, "--model", "nano", *by, "--out", out / "index")
        indexed = Store(out / "index").videos()
        vectors.append({path: video.vectors.float() for path, video in indexed.items()})
        data = ("--data", folder, "--model", "nano", "--out", out / "e", "--json")
        reports.append(run("evaluate", *data, *by).json)
        findings.append(run("doctor", folder, *by, "--out", out / "clean.csv", "--json").json)
    assert len(vectors[0]) == 6 and vectors[0].keys() == vectors[1].keys()
    for path, vector in vectors[0].items():
        assert torch.allclose(vector, vectors[1][path], atol=1e-3), "float16"
    assert reports[0]["splits"] == reports[1]["splits"]
    assert findings[0]["problems"] == findings[1]["problems"] != []


@pytest.mark.usefixtures("elsewhere")
def test_a_pack_has_the_same_videos(run: Any, folder: Path, tmp_path: Path) -> None:
    """And shards, which the command writes of what the actors have packed."""
    packs = []
    for engine in ("local", "ray"):
        words = ("--engine", engine, "--workers", 0, "--tar", "--out", tmp_path / engine, "--json")
        report = run("pack", folder, *words).json
        assert (report["videos"], report["shards"], len(report["failures"])) == (6, 1, 1)
        items = read_items(tmp_path / engine)
        packs.append(
            [(str(item.path.relative_to(tmp_path / engine)), item.label) for item in items]
        )
    assert packs[0] == packs[1]


@pytest.mark.usefixtures("elsewhere")
def test_a_pack_in_a_folder_that_is_not_shared(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as one machine can show it: what an actor has written is not to be seen here."""
    monkeypatch.setattr("froster.data.pack_store.PackStore._is_whole", lambda store, row: False)
    by = ("--engine", "ray", "--workers", 0)
    one = folder / "class 0" / "0.mp4"
    one_line(run("pack", one, *by, "--out", tmp_path / "pack"), 2, "share")
