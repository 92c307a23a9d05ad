"""Training checkpoints: one folder an epoch, written whole or not at all, from which a run goes on exactly."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import froster.strict_json as json
from froster.clip.reading import read_pickle
from froster.errors import CheckpointError, UsageError
from froster.files import atomic_folder, cannot_write

State = dict[str, Tensor]


def cpu_state(module: nn.Module) -> State:
    """A copy of a module's weights, on the CPU, that later steps do not change."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in module.state_dict().items()}


class RunningMean:
    """The uniform mean of the weights it was shown, without keeping them all."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: State = {}

    def add(self, state: State) -> None:
        self.count += 1
        for name, tensor in state.items():
            old = self.mean.get(name)
            new = tensor.float()
            self.mean[name] = new if old is None else old + (new - old) / self.count

    def weights(self, like: State) -> State:
        return {name: tensor.to(like[name].dtype) for name, tensor in self.mean.items()}


@dataclass
class Checkpoints:
    """The folders `epoch-0001` … of one run."""

    folder: Path
    keep: int = 1
    """How many of the newest to keep; 0 keeps all."""

    def epochs(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        found = (re.fullmatch(r"epoch-(\d+)", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:04d}"

    def save(
        self,
        epoch: int,
        modules: dict[str, nn.Module],
        optimizer: Any,
        average: RunningMean,
        unreadable: dict[str, int],
        run: dict,
        history: Sequence[dict] = (),
    ) -> None:
        """Raises FrosterError when the disk is full; what was there before stays."""
        with atomic_folder(self.path(epoch)) as part:
            for name, module in modules.items():
                save_file(cpu_state(module), part / f"{name}.safetensors")
            if average.count:
                save_file(average.mean, part / "average.safetensors")
            try:
                torch.save(optimizer.state_dict(), part / "optimizer.pt")
            except RuntimeError as error:  # what a full disk looks like from inside torch's archive writer
                raise cannot_write(part / "optimizer.pt", error) from error
            state = {
                "epoch": epoch, "averaged": average.count, "unreadable": unreadable, "run": run, "history": list(history),
            }  # fmt: skip
            (part / "state.json").write_text(json.dumps(state, indent=1))
        for old in self.epochs()[: -self.keep] if self.keep else []:
            shutil.rmtree(self.path(old), ignore_errors=True)

    def resume(
        self,
        modules: dict[str, nn.Module],
        optimizer: Any,
        average: RunningMean,
        unreadable: dict[str, int],
        run: dict,
        history: list[dict],
    ) -> int:
        """Load the newest checkpoint; returns the number of epochs done, 0 where there is none. `history` is filled with
        what was measured after those epochs.

        Raises UsageError when the checkpoint belongs to a run with other settings or other data.
        """
        epochs = self.epochs()
        if not epochs:
            return 0
        folder = self.path(epochs[-1])
        try:
            state = json.loads((folder / "state.json").read_text())
            check_same_run(state["run"], run, folder)
            for name, module in modules.items():
                module.load_state_dict(load_file(folder / f"{name}.safetensors"))
            optimizer.load_state_dict(read_pickle(folder / "optimizer.pt"))
            unreadable.update(state["unreadable"])
            history.extend(state.get("history", []))
            average.count = state["averaged"]
            average.mean = load_file(folder / "average.safetensors") if average.count else {}
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"cannot resume from {folder}: {error}") from error
        return state["epoch"]


def check_same_run(old: dict, new: dict, folder: Path) -> None:
    new = json.loads(json.dumps(new))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise UsageError(
                f"{folder.parent.parent} holds a run with {key} = {old.get(key)!r}, not {new.get(key)!r}: "
                "resume it with the same settings, or choose another --out"
            )
