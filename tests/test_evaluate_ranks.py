"""`evaluate` and `calibrate` on several processes of torchrun: the numbers of one, said once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import quick
from shared_files import World

NANO = ("--model", "nano", "--workers", 0, "--device", "cpu")


def started(*arguments: object, processes: int = 1) -> list[tuple[int, str, str]]:
    """Exit status and what was said of each process, as `torchrun` starts them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    group = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        quick.Popen(
            [sys.executable, "-m", "froster", *map(str, arguments)],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **{name: str(value) for name, value in group.items()},
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [process.communicate(timeout=240) for process in running]
    return [(p.returncode, *texts) for p, texts in zip(running, said, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of each class, and a file that is none."""
    root, videos = tmp_path_factory.mktemp("ranks") / "videos", World("base", 2)
    for i in range(2 * len(videos.classes)):
        videos.write(i, root / videos.label(i) / f"{i}.mp4")
    (root / videos.label(0) / "broken.mp4").write_bytes(b"no video")
    return root


def test_two_processes_evaluate_as_one(folder: Path, tmp_path: Path) -> None:
    """Each a share, in the same batches, so to the bit. What they scored before the disk was full,
    or whatever it was, is taken over by one process."""
    one, two = tmp_path / "one", tmp_path / "two"
    command = ("evaluate", "--data", folder, *NANO, "--batch-size", 5, "--out")
    ((code, *_),) = started(*command, one)
    assert code == 0
    first, second = started(*command, two, processes=2)
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "top-1" in first[2] + first[1] and second[1:] == ("", "")
    report = json.loads((one / "evaluation.json").read_text())
    assert report == json.loads((two / "evaluation.json").read_text())
    assert len(report["splits"]["all"]["errors"]) == 1
    predictions = (one / "predictions_all.csv").read_bytes()
    assert predictions == (two / "predictions_all.csv").read_bytes()
    assert not [*two.glob("scores*")]

    shutil.rmtree(two)
    (two / "predictions_all.csv").mkdir(parents=True)
    (two / "evaluation.json").touch()
    first, second = started(*command, two, processes=2)
    assert first[0] != 0 and second[1:] == ("", "")
    lines = [len((two / f"scores.{n}-of-2.jsonl").read_text().splitlines()) for n in range(2)]
    videos = report["splits"]["all"]["videos"] - 1
    assert sum(lines) - 2 == videos and abs(lines[0] - lines[1]) <= 5
    (two / "predictions_all.csv").rmdir()
    ((code, *_),) = started(*command, two)
    assert code == 0 and report == json.loads((two / "evaluation.json").read_text())


def test_two_processes_calibrate_as_one(folder: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    command = ("calibrate", *NANO, "--data", folder, "--out")
    ((code, _, err),) = started(*command, one)
    assert code == 0, err
    first, second = started(*command, two, processes=2)
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "temperature" in first[1] and second[1:] == ("", "")
    fits = [json.loads((out / "calibration.json").read_text()) for out in (one, two)]
    assert fits[0] == fits[1]


def test_what_the_first_process_cannot_do_ends_all(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    first, second = started("evaluate", "--data", folder, *NANO, "--out", tmp_path, processes=2)
    assert first[0] != 0 and second[0] != 0
    said = [line for _, _, err in (first, second) for line in err.splitlines()]
    assert "Traceback" not in str(said) and any("choose another --out" in line for line in said)


JOINS = """
import torch, torch.distributed as dist
from froster.training.distributed import process_group
for number in range(4):
    with process_group("cpu"):
        one = torch.ones(1)
        dist.all_reduce(one)
        assert one == 3
"""


def test_a_process_may_join_again(tmp_path: Path) -> None:
    """As one does that trains and then evaluates: what the first group left is not met."""
    script = tmp_path / "joins.py"
    script.write_text(JOINS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    program = ("--no-python", sys.executable, quick.__file__, quick.server(), script)
    done = quick.run(
        [*command, *program],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
