"""Where an index may break: a conversion that is killed, and videos of a bucket that are gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch

import object_store
import quick
from froster.inference.failed import FailureTable
from froster.inference.store import OLD, Store
from test_index_lance import NANO, folder, old_index, unit_rows
from typed import one_line

__all__ = ["folder"]
KILLED = """
import os, signal, sys
from pathlib import Path
from froster.inference.old_index import convert
from froster.inference.store import Store

index, call, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
owner = Store if call == "add" else Path
real = getattr(owner, call)

def counted(self, *inputs):
    global after
    if owner is Store or index in self.parents:
        after -= 1
    if after < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *inputs)

setattr(owner, call, counted)
convert(index)
"""


@pytest.mark.parametrize(
    ("call", "after"),
    [("add", 0), ("rename", 0), ("rename", 1), ("unlink", 0), ("unlink", 1), ("unlink", 3)],
)
def test_a_killed_conversion_is_started_again(run, call: str, after: int, tmp_path: Path) -> None:
    """Until the new index is whole the old one is there; from then on the new one is."""
    rows, index = unit_rows(5), tmp_path / "i"
    old_index(
        index,
        {"1": [("a.mp4", 1, rows[:2])], "2": [("a.mp4", 2, rows[2:3]), ("b.mp4", 1, rows[3:])]},
    )
    (index / "failures.jsonl").write_text('{"path": "bad.mp4", "error": "no frame"}\n')
    command = [sys.executable, "-c", KILLED, str(index), call, str(after)]
    done = quick.run(command, stderr=subprocess.DEVNULL)
    assert done.returncode == -9
    if (index / OLD).exists():
        one_line(run("search", index, "cat"), 1, "--convert")
        report = run("index", "--convert", "--out", index, "--json").json
        assert (report["videos"], report["segments"]) == (2, 3)
        assert {path.name for path in index.iterdir()} == {"segments.lance", "failures.lance"}
    else:
        assert (call, after) >= ("unlink", 1)
    videos = Store(index).videos()
    assert list(videos) == ["a.mp4", "b.mp4"] and videos["a.mp4"].entry.size == 2
    assert torch.equal(videos["a.mp4"].vectors, rows[2:3].half())
    assert torch.equal(videos["b.mp4"].vectors, rows[3:].half())
    assert FailureTable(index, ()).causes == {"bad.mp4": "no frame"}


@pytest.fixture
def bucket() -> Iterator[object_store.Store]:
    store = object_store.Store()
    store.bucket("films")
    yield store
    store.stop()


def test_videos_of_a_bucket_are_pruned(
    run, bucket: object_store.Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are gone; none where the folder itself is not there."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=bucket.url)
    gone = lambda name: client.delete_object(Bucket="films", Key=f"videos/{name}")  # noqa: E731
    for path in sorted(folder.iterdir())[:3]:
        bucket.put("films", f"videos/{path.name}", path.read_bytes())
    index = "s3://films/index"
    command = ("index", "s3://films/videos", *NANO, "--out", index, "--json")
    assert run(*command).json["videos"] == 3
    gone("1.mp4")
    name = "s3://films/videos/1.mp4"
    report = run(*command).json
    assert (report["gone"], report["videos"]) == ([name], 3), "without --prune it stays"
    report = run(*command, "--prune").json
    assert (report["gone"], report["videos"], report["new"]) == ([name], 2, 0)
    assert set(Store(index).files()) == {f"s3://films/videos/{n}.mp4" for n in (0, 2)}
    gone("0.mp4")
    gone("2.mp4")
    local = ("index", folder / "5.mp4", *command[2:])
    one_line(run(*local, "--prune"), 2, "not there", "--prune")
    assert set(Store(index).files()) == {f"s3://films/videos/{n}.mp4" for n in (0, 2)}
