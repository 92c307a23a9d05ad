"""The loop's promises: a killed run goes on exactly, two processes equal one, nothing half-written
stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import quick
import templates
from shared_files import once

WORKER = Path(__file__).with_name("train_worker.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", templates.VARIABLE: "1"}


def run(*arguments: object, processes: int = 1) -> subprocess.CompletedProcess:
    """With several, as `torchrun` starts them; what the first one said comes last."""
    command = [sys.executable, str(WORKER), *map(str, arguments)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    group = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        quick.Popen(
            command,
            env={
                **ENVIRONMENT,
                **{k: str(v) for k, v in group.items()},
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    done = [process.communicate(timeout=240) for process in started]
    code = next((process.returncode for process in started if process.returncode), 0)
    return subprocess.CompletedProcess(
        command, code, *map("".join, zip(*reversed(done), strict=True))
    )


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(folder / "weights.pt", weights_only=True)


def assert_same_weights(one: Path, two: Path, *kinds: str) -> None:
    """To the bit."""
    a, b = weights(one), weights(two)
    for kind in kinds or a:
        for name, tensor in a[kind].items():
            assert torch.equal(b[kind][name], tensor), (kind, name)


def steps(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "step" in line]


def three_epochs(processes: int) -> Path:
    """A run to which nothing happens, the checkpoints of all epochs kept; other files take it too."""

    def make(folder: Path) -> None:
        folder.mkdir()
        done = run(folder / "run", "--keep", 3, processes=processes)
        assert done.returncode == 0, done.stderr

    return once(f"three-epochs-by-{processes}", make) / "run"


@pytest.fixture(scope="module")
def whole() -> Path:
    return three_epochs(1)


@pytest.fixture(scope="module")
def pair() -> Path:
    return three_epochs(2)


def as_after_two_epochs(folder: Path, out: Path) -> Path:
    """A copy of a run as it was before it wrote the third checkpoint."""
    third = shutil.ignore_patterns("epoch-0003", "weights.pt")
    return shutil.copytree(folder, out, ignore=third)


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(("--kill-at", 1), marks=pytest.mark.slow),
        ("--kill-at", 5),
        ("--kill-in-save", 2),
        ("--kill-at", 5, "--checkpoint-minutes", 1e-9),
        pytest.param(("--kill-at", 2, "--checkpoint-minutes", 1e-9), marks=pytest.mark.slow),
        pytest.param(("--kill-at", 9, "--checkpoint-minutes", 1e-9), marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(whole: Path, kill: tuple, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(out, *kill).returncode == -signal.SIGKILL
    if "--checkpoint-minutes" in kill:  # one after each step but an epoch's last
        done = kill[1] - 1
        names = {path.name for path in (out / "checkpoints").iterdir()}
        assert f"epoch-{done // 3:04d}-step-{done % 3:06d}" in names and len(names) <= 2, names
    assert run(out).returncode == 0
    assert_same_weights(whole, out)
    assert steps(out) == steps(whole)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["epoch-0003"]


@pytest.mark.parametrize(
    "name",
    [
        "student.safetensors",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("state.json", "average.safetensors", "optimizer.pt")
        ),
    ],
)
def test_a_flipped_bit_is_named_and_the_epoch_before_taken(
    name: str, whole: Path, tmp_path: Path
) -> None:
    out = as_after_two_epochs(whole, tmp_path / "run")
    damaged = out / "checkpoints" / "epoch-0002" / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    shutil.copytree(out, tmp_path / "alone")
    done = run(out, "--keep", 2)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert (
        f"{damaged}: cannot be read (" in said
        and "going on from epoch 1, the newest whole checkpoint" in said
    )
    assert_same_weights(whole, out)
    assert steps(out) == steps(whole)

    shutil.rmtree(tmp_path / "alone" / "checkpoints" / "epoch-0001")
    done = run(tmp_path / "alone")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("froster: cannot resume from "), line
    assert f"epoch-0002/{name}: cannot be read" in line and "To start the run anew" in line


def test_steps_are_numbered_and_the_loss_falls(whole: Path) -> None:
    lines = steps(whole)
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert lines[-1]["ce"] < lines[0]["ce"]
    assert abs(lines[0]["distill_t"]) < 1e-5, "the student's text starts as the teacher's"
    assert lines[0]["distill_v"] > 1e-3, (
        "neighbour attention differs from plain CLIP from the start"
    )
    first = lines[0]
    assert abs(first["loss"] - first["ce"] - 2 * first["distill_v"] - 2 * first["distill_t"]) < 1e-4


def test_average_is_the_mean_of_the_epochs_from_the_second(whole: Path) -> None:
    """Three epochs: the average holds two, so the second epoch's weights are twice the average less
    the last."""
    second = load_file(whole / "checkpoints" / "epoch-0002" / "student.safetensors")
    found = weights(whole)
    for name, tensor in second.items():
        mean = (tensor + found["last"][name]) / 2
        torch.testing.assert_close(found["average"][name], mean, atol=1e-6, rtol=1e-5)


def test_two_processes_are_one_with_the_same_global_batch(whole: Path, pair: Path) -> None:
    one, two = steps(whole), steps(pair)
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for key in ("loss", "ce", "distill_v", "distill_t", "grad_norm"):
            assert abs(a[key] - b[key]) <= 2e-3 * abs(a[key]) + 1e-4, (
                a["step"],
                key,
                a[key],
                b[key],
            )
        assert a["template"] == b["template"]


def test_a_contrast_within_the_batch_is_over_all_processes(tmp_path: Path) -> None:
    """ActionCLIP's loss needs every clip of the global batch: two processes must see each other's."""
    runs = {}
    for processes in (1, 2):
        done = run(
            tmp_path / f"{processes}", "--method", "actionclip", "--epochs", 1, processes=processes
        )
        assert done.returncode == 0, done.stderr[-2000:]
        runs[processes] = steps(tmp_path / f"{processes}")
    for a, b in zip(runs[1], runs[2], strict=True):
        for key in ("loss", "ce", "distill_v", "distill_t", "grad_norm"):
            assert abs(a[key] - b[key]) <= 2e-3 * abs(a[key]) + 1e-4, (
                a["step"],
                key,
                a[key],
                b[key],
            )


def test_dropped_branches_are_the_same_after_a_resume(tmp_path: Path) -> None:
    """AIM drops branches at random; a killed run goes on with the very draws of one that was not."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, "--method", "aim", "--epochs", 2).returncode == 0
    assert run(out, "--method", "aim", "--epochs", 2, "--kill-at", 5).returncode == -signal.SIGKILL
    assert run(out, "--method", "aim", "--epochs", 2).returncode == 0
    assert steps(out) == steps(whole)
    assert_same_weights(whole, out, "last")


def test_a_full_disk_gives_one_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run(out, "--limit", 200_000)
    assert done.returncode == 1
    assert re.search(r"froster: cannot write \S+/optimizer\.pt: File too large", done.stderr)
    assert "Traceback" not in done.stderr
    assert not list((out / "checkpoints").iterdir())


def test_another_run_s_checkpoint_is_refused(whole: Path) -> None:
    done = run(whole, "--epochs", 4)
    assert done.returncode == 1
    assert "holds a run with epochs = 3, not 4" in done.stderr
