"""Training checkpoints: a folder after each epoch, and in a long one every few minutes, written
whole or not at all, from which a run goes on exactly.

    student.safetensors    the trained network; beside it a file for each other trained module
    average.safetensors    the running mean of the epochs, once there is one
    optimizer.pt
    shards/                in place of optimizer.pt and of most networks where the ranks share the
                           weights out (`sharding.py`)
    state.json             settings, what was measured, the SHA-256 of every file and of itself

`epoch-0002` is written after two epochs, `epoch-0002-step-000500` 500 steps later. A file that is
not what was written is named, and the newest whole checkpoint is taken in its place.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn

from froster.encoders.reading import read_pickle
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.methods.recipe import as_now
from froster.training.weights import RunningMean
from froster.utils import strict_json as json
from froster.utils.files import atomic_folder, cannot_write, write_text
from froster.utils.progress import reason
from froster.utils.tensors import StateDict, cpu_state, file_digest, save_tensors

if TYPE_CHECKING:
    from froster.training.sharding import Shards

SHARDS = ".shards"
"""What the ranks write, beside the checkpoints, until it is part of one."""
NOT_WRITTEN = "it is not what was written, its digest differs"


Point = tuple[int, int]
"""How far a run has come: epochs done, and steps of the next one."""


@dataclass
class EpochPart:
    """What the steps that are done of an unfinished epoch have left behind."""

    step: int = 0
    """How many are done."""
    counted: int = 0
    """Those that had a clip to train on."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of their metrics."""
    errors: list[str] = field(default_factory=list)
    """What this rank could not read; in a checkpoint, and so on rank 0 after a resume, all ranks.
    """


@dataclass
class RunState:
    """All that a run needs to go on exactly."""

    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    run: dict[str, Any]
    """Its settings and data: a checkpoint of another run is refused."""
    average: RunningMean = field(default_factory=RunningMean)
    unreadable: dict[str, int] = field(default_factory=dict)
    """What could not be read: message -> how often."""
    history: list[dict[str, float]] = field(default_factory=list)
    """What was measured after each epoch."""
    part: EpochPart = field(default_factory=EpochPart)
    rank: int = 0
    """The first alone holds the average, of which the others know the count."""
    shards: Shards | None = None
    """Where the ranks share the weights out."""


@dataclass
class Checkpoints:
    """The folders `epoch-0001` … of one run."""

    folder: Path
    keep: int = 1
    """How many of the newest epochs to keep; 0 keeps all. Of those within an epoch one is kept."""
    passed_over: list[str] = field(default_factory=list)
    """What is wrong with the checkpoints that `resume` could not take, the newest first."""

    def points(self) -> list[Point]:
        """Of which there are checkpoints, in the order of the run."""
        if not self.folder.is_dir():
            return []
        pattern = r"epoch-(\d+)(?:-step-(\d+))?"
        matches = (re.fullmatch(pattern, path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]), int(match[2] or 0)) for match in matches if match)

    def epochs(self) -> list[int]:
        """After which there are checkpoints."""
        return [epoch for epoch, step in self.points() if not step]

    def path(self, epoch: int, step: int = 0) -> Path:
        return self.folder / f"epoch-{epoch:04d}{f'-step-{step:06d}' if step else ''}"

    def save(
        self, epoch: int, run: RunState, weights: Mapping[str, StateDict] | None = None
    ) -> None:
        """After `epoch` whole ones, and `run.part`. `weights`: in place of those of the modules and
        of the optimiser, which the ranks have written as shards. Raises FrosterError when the disk
        is full; what was there before stays."""
        point = epoch, run.part.step
        with atomic_folder(self.path(*point)) as part:
            if weights is None:
                weights = {name: cpu_state(module) for name, module in run.modules.items()}
                save_moments(run.optimizer, part / "optimizer.pt")
            else:
                os.rename(self.folder / SHARDS, part / "shards")
            for name, tensors in weights.items():
                save_tensors(dict(tensors), part / f"{name}.safetensors")
            if run.average.count:
                save_tensors(run.average.mean, part / "average.safetensors")
            files = sorted(path for path in part.rglob("*") if path.is_file())
            state = {
                "epoch": epoch,
                "averaged": run.average.count,
                "unreadable": run.unreadable,
                "run": run.run,
                "history": run.history,
                **({"part": asdict(run.part)} if run.part.step else {}),
                "files": {path.relative_to(part).as_posix(): file_digest(path) for path in files},
            }
            state["digest"] = digest_of(state)
            write_text(part / "state.json", json.dumps(state, indent=1))
        # A newer one that was damaged and passed over stays until the run has come so far again.
        done = [old for old in self.epochs() if (old, 0) <= point]
        old_ones = [(old, 0) for old in (done[: -self.keep] if self.keep else [])]
        old_ones += [other for other in self.points() if other[1] and other < point]
        for old_one in old_ones:
            shutil.rmtree(self.path(*old_one), ignore_errors=True)

    def resume(self, run: RunState) -> int:
        """Load the newest whole checkpoint into `run`; returns the number of epochs done, 0 where
        there is none; `run.part` says what is done of the next. `passed_over` is filled with what
        is wrong with newer ones. Raises UsageError when it belongs to a run with other settings or
        other data, CheckpointError when there are checkpoints and none is whole."""
        self.passed_over = []
        for epoch, step in reversed(self.points()):
            folder = self.path(epoch, step)
            try:
                state = self.state(epoch, step)
                check_same_run(state["run"], run.run, folder)
                part = EpochPart(**state["part"])
                # All ranks look at it, so that all take the same checkpoint; the first keeps it.
                mean = self.tensors(epoch, "average", state, step) if state["averaged"] else {}
                mean = mean if run.rank == 0 else {}
                if run.shards is not None:
                    run.shards.restore(folder / "shards", state["files"], run.optimizer)
                else:
                    weights = {name: self.tensors(epoch, name, state, step) for name in run.modules}
                    moments = content(folder / "optimizer.pt", read_pickle, state)
                    load_into(run, weights, moments, folder)
            except CheckpointError as error:
                self.passed_over.append(str(error))
                continue
            if run.rank > 0:  # who goes on with what all ranks have seen
                part.errors = []
            run.unreadable.update(state["unreadable"])
            run.history.extend(state["history"])
            run.average.count, run.average.mean, run.part = state["averaged"], mean, part
            return epoch
        if self.passed_over:
            raise CheckpointError(
                f"cannot resume from {self.folder}: {self.passed_over[0]}; no other checkpoint is"
                " whole. To start the run anew, remove that folder (--keep 2 keeps one more to go"
                " back to)"
            )
        return 0

    def state(self, epoch: int, step: int = 0) -> dict[str, Any]:
        """What `state.json` says. Raises CheckpointError where that is not what was written."""
        path = self.path(epoch, step) / "state.json"
        try:
            return checked_state(json.loads(path.read_bytes()), epoch, step)
        except (OSError, ValueError, RecursionError) as error:  # to write goes deeper than to read
            raise damaged(path, error) from error

    def tensors(self, epoch: int, name: str, state: dict[str, Any], step: int = 0) -> StateDict:
        """The weights `name`, "student" or "average". Raises CheckpointError where they are not
        what `state` says."""
        return content(self.path(epoch, step) / f"{name}.safetensors", load_file, state)


def content(path: Path, reader: Callable[[Path], Any], state: dict[str, Any]) -> Any:
    """Of a file of the checkpoint whose `state` that is. Raises CheckpointError."""
    files = state["files"]
    try:
        if files and file_digest(path) != files.get(path.name):
            raise ValueError(NOT_WRITTEN)
        return reader(path)
    except FrosterError:
        raise
    except Exception as error:  # readers raise whatever the damage leads them to
        raise damaged(path, error) from error


def save_moments(optimizer: torch.optim.Optimizer, path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(optimizer.state_dict(), file)
    except RuntimeError as error:  # of torch's archive writer, after what the system has said
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise cannot_write(path, cause) from error


def digest_of(state: dict[str, Any]) -> str:
    """Of what JSON keeps of it, in any order."""
    text = json.dumps(json.loads(json.dumps(state)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checked_state(state: Any, epoch: int, step: int = 0) -> dict[str, Any]:
    """The content of a `state.json` without its digest. Raises ValueError where it is not what was
    written. Checkpoints of older versions have no digests, the oldest no history."""
    if not isinstance(state, dict):
        raise ValueError("it is no object of JSON")
    signed = state.keys() & {"digest", "files"}
    if signed and state.pop("digest", None) != digest_of(state):
        raise ValueError(NOT_WRITTEN)
    state = {"history": [], "files": {}, "part": {}, **state}
    kinds = {"averaged": int, "unreadable": dict, "run": dict, "history": list, "files": dict}
    kinds["part"] = dict
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind):
            raise ValueError(f"its {name} is {state.get(name)!r:.40}")
    if not all(isinstance(values, dict) for values in state["history"]):
        raise ValueError("its history holds something else than objects")
    if state.get("epoch") != epoch:
        raise ValueError(f"it is of epoch {state.get('epoch')!r:.40}")
    if state["part"].get("step", 0) != step or state["part"].keys() - asdict(EpochPart()).keys():
        raise ValueError(f"it is of step {state['part'].get('step', 0)!r:.40}")
    return state


def load_into(
    run: RunState, weights: dict[str, StateDict], moments: dict[str, Any], folder: Path
) -> None:
    """Raises CheckpointError where what a checkpoint holds does not fit."""
    try:
        for name, module in run.modules.items():
            module.load_state_dict(weights[name])
        run.optimizer.load_state_dict(moments)
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise damaged(folder, error) from error


def damaged(path: Path, error: Exception) -> CheckpointError:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
    return CheckpointError(f"{path}: cannot be read ({cause.removeprefix('ValueError: ')})")


def check_same_run(old: dict, new: dict, folder: Path) -> None:
    """Raises UsageError where the settings differ. The number of processes, which older checkpoints
    hold too, may: the order of the clips does not depend on it."""
    old = {name: value for name, value in old.items() if name != "world"}
    new = json.loads(json.dumps(new))
    for name, was, now in differences(as_now(old, new), new):
        raise UsageError(
            f"{folder.parent.parent} holds a run with {name} = {was!r}, not {now!r}: "
            "resume it with the same settings, or choose another --out"
        )


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The values that differ, with their dotted names; what is absent counts as None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new
