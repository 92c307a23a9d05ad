"""Training checkpoints: one folder an epoch, written whole or not at all, from which a run goes on
exactly.

    student.safetensors    the trained network; beside it a file for each other trained module
    average.safetensors    the running mean of the epochs, once there is one
    optimizer.pt
    state.json             settings, what was measured, the SHA-256 of every file and of itself

A file that is not what was written is named, and the newest whole checkpoint is taken in its place.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

NOT_WRITTEN = "it is not what was written, its digest differs"


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


@dataclass
class Checkpoints:
    """The folders `epoch-0001` … of one run."""

    folder: Path
    keep: int = 1
    """How many of the newest to keep; 0 keeps all."""
    passed_over: list[str] = field(default_factory=list)
    """What is wrong with the checkpoints that `resume` could not take, the newest first."""

    def epochs(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        matches = (re.fullmatch(r"epoch-(\d+)", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}"

    def save(self, epoch: int, run: RunState) -> None:
        """Raises FrosterError when the disk is full; what was there before stays."""
        with atomic_folder(self.path(epoch)) as part:
            for name, module in run.modules.items():
                save_tensors(cpu_state(module), part / f"{name}.safetensors")
            if run.average.count:
                save_tensors(run.average.mean, part / "average.safetensors")
            try:
                torch.save(run.optimizer.state_dict(), part / "optimizer.pt")
            except RuntimeError as error:  # of torch's archive writer, on a full disk
                raise cannot_write(part / "optimizer.pt", error) from error
            state = {
                "epoch": epoch,
                "averaged": run.average.count,
                "unreadable": run.unreadable,
                "run": run.run,
                "history": run.history,
                "files": {path.name: file_digest(path) for path in sorted(part.iterdir())},
            }
            state["digest"] = digest_of(state)
            write_text(part / "state.json", json.dumps(state, indent=1))
        # A newer one that was damaged and passed over stays until the run has come so far again.
        done = [old for old in self.epochs() if old <= epoch]
        for old in done[: -self.keep] if self.keep else []:
            shutil.rmtree(self.path(old), ignore_errors=True)

    def resume(self, run: RunState) -> int:
        """Load the newest whole checkpoint into `run`; returns the number of epochs done, 0 where
        there is none. `passed_over` is filled with what is wrong with newer ones. Raises UsageError
        when it belongs to a run with other settings or other data, CheckpointError when there are
        checkpoints and none is whole."""
        self.passed_over = []
        for epoch in reversed(self.epochs()):
            try:
                state = self.state(epoch)
                check_same_run(state["run"], run.run, self.path(epoch))
                weights = {name: self.tensors(epoch, name, state) for name in run.modules}
                moments = self._content(epoch, "optimizer.pt", read_pickle, state)
                mean = self.tensors(epoch, "average", state) if state["averaged"] else {}
                load_into(run, weights, moments, self.path(epoch))
            except CheckpointError as error:
                self.passed_over.append(str(error))
                continue
            run.unreadable.update(state["unreadable"])
            run.history.extend(state["history"])
            run.average.count, run.average.mean = state["averaged"], mean
            return epoch
        if self.passed_over:
            raise CheckpointError(
                f"cannot resume from {self.folder}: {self.passed_over[0]}; no other checkpoint is"
                " whole. To start the run anew, remove that folder (--keep 2 keeps one more to go"
                " back to)"
            )
        return 0

    def state(self, epoch: int) -> dict[str, Any]:
        """What `state.json` says. Raises CheckpointError where that is not what was written."""
        path = self.path(epoch) / "state.json"
        try:
            return checked_state(json.loads(path.read_bytes()), epoch)
        except (OSError, ValueError, RecursionError) as error:  # to write goes deeper than to read
            raise damaged(path, error) from error

    def tensors(self, epoch: int, name: str, state: dict[str, Any]) -> StateDict:
        """The weights `name`, "student" or "average". Raises CheckpointError where they are not
        what `state` says."""
        return self._content(epoch, f"{name}.safetensors", load_file, state)

    def _content(
        self, epoch: int, name: str, reader: Callable[[Path], Any], state: dict[str, Any]
    ) -> Any:
        files, path = state["files"], self.path(epoch) / name
        try:
            if files and file_digest(path) != files.get(name):
                raise ValueError(NOT_WRITTEN)
            return reader(path)
        except FrosterError:
            raise
        except Exception as error:  # readers raise whatever the damage leads them to
            raise damaged(path, error) from error


def digest_of(state: dict[str, Any]) -> str:
    """Of what JSON keeps of it, in any order."""
    text = json.dumps(json.loads(json.dumps(state)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def checked_state(state: Any, epoch: int) -> dict[str, Any]:
    """The content of a `state.json` without its digest. Raises ValueError where it is not what was
    written. Checkpoints of older versions have no digests, the oldest no history."""
    if not isinstance(state, dict):
        raise ValueError("it is no object of JSON")
    signed = state.keys() & {"digest", "files"}
    if signed and state.pop("digest", None) != digest_of(state):
        raise ValueError(NOT_WRITTEN)
    state = {"history": [], "files": {}, **state}
    kinds = {"averaged": int, "unreadable": dict, "run": dict, "history": list, "files": dict}
    for name, kind in kinds.items():
        if not isinstance(state.get(name), kind):
            raise ValueError(f"its {name} is {state.get(name)!r:.40}")
    if not all(isinstance(values, dict) for values in state["history"]):
        raise ValueError("its history holds something else than objects")
    if state.get("epoch") != epoch:
        raise ValueError(f"it is of epoch {state.get('epoch')!r:.40}")
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
