"""Training on machines that come and go: a run survives a process that is killed, goes on with
another number of them, and shares its weights out."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import torch

import quick
from test_training import (
    ENVIRONMENT,
    WORKER,
    as_after_two_epochs,
    assert_same_weights,
    pair,
    run,
    steps,
    weights,
    whole,
)

__all__ = ["pair", "whole"]
OFTEN = ("--checkpoint-minutes", 1e-9)
LOSSES = ("loss", "ce", "distill_v", "distill_t", "grad_norm")


def assert_alike(a: Path, b: Path, tolerance: float) -> None:
    """The same steps, with losses that differ by this share, and weights that are as near."""
    assert [line["step"] for line in steps(a)] == [line["step"] for line in steps(b)]
    for one, other in zip(steps(a), steps(b), strict=True):
        assert one["template"] == other["template"]
        for key in LOSSES:
            assert one[key] == pytest.approx(other[key], rel=tolerance, abs=tolerance), (one, key)


def test_a_lost_process_costs_nothing_but_time(pair: Path, tmp_path: Path) -> None:
    """`torchrun` starts all processes again after one is killed (-9) in mid-epoch; the run ends as
    one to which nothing happened, bit for bit."""
    out = tmp_path / "run"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    program = (sys.executable, quick.__file__, quick.server(), WORKER)
    command = [sys.executable, *torchrun, "--max-restarts=1", "--no-python", *program, out]
    options = ["--kill-rank-1-once", 5, *OFTEN]
    done = quick.run(
        list(map(str, [*command, *options])),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "killed").exists(), "no process was killed"
    assert steps(out) == steps(pair)
    assert_same_weights(pair, out)


def test_a_damaged_average_is_damaged_for_all_processes(
    whole: Path, pair: Path, tmp_path: Path
) -> None:
    """Only the first keeps the average; all go on from the checkpoint before."""
    out = as_after_two_epochs(pair, tmp_path / "run")
    damaged = out / "checkpoints" / "epoch-0002" / "average.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    done = run(out, "--keep", 2, processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on from epoch 1" in " ".join(done.stderr.split())
    assert_alike(out, whole, 1e-4)


def test_another_number_of_processes_goes_on(whole: Path, tmp_path: Path) -> None:
    """Two, then three, whose shares of a batch of four are unequal: the clips are those of one."""
    out = tmp_path / "run"
    assert run(out, *OFTEN, "--kill-at", 5, processes=2).returncode != 0
    done = run(out, processes=3)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_alike(out, whole, 2e-3)


def test_weights_that_are_shared_out_train_the_same(pair: Path, tmp_path: Path) -> None:
    """Against processes that each have all weights; killed in mid-epoch, and gone on with by
    three."""
    out = tmp_path / "out"
    options = ("--shard-weights", "--checkpointing")
    killed = run(out, *options, *OFTEN, "--kill-at", 5, processes=2)
    assert killed.returncode in (1, -signal.SIGKILL, -signal.SIGABRT), killed.stderr[-2000:]
    folder = out / "checkpoints" / "epoch-0001-step-000001"
    assert {path.name for path in (folder / "shards").iterdir()} == {
        ".metadata",
        "__0_0.distcp",
        "__1_0.distcp",
    }
    assert len(json.loads((folder / "state.json").read_text())["files"]) == 3
    done = run(out, *options, processes=3)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_alike(out, pair, 1e-5)
    shared = weights(out)
    for kind, state in weights(pair).items():
        other = shared[kind]
        assert other.keys() == state.keys()
        a, b = (torch.cat([s[name].flatten() for name in state]) for s in (state, other))
        assert (a - b).norm() < 1e-4 * a.norm(), kind

    done = run(out)
    assert "shard_weights = True, not False" in done.stderr


def test_what_cannot_be_shared_out_is_said(tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--shard-weights")
    assert done.returncode == 1
    assert "froster: --shard-weights shares the weights out over the processes of" in done.stderr
