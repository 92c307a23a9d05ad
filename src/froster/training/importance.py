"""What every weight has done for the loss while a run was trained: the path integral of synaptic
intelligence (Zenke et al., ICML 2017), from which a later run knows what to hold.

    w_i <- w_i - g_i (theta_i after the step - theta_i before it)

g: the gradient before the step, before it is clipped. By the authors' rule it is that of the loss
without the penalty that holds an earlier task; by van de Ven's (`total`) that of all of it.
Distillation belongs to the loss of either.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from froster.errors import CheckpointError, UsageError
from froster.methods.base import VideoCLIP
from froster.methods.penalised import Consolidated, consolidate
from froster.utils.tensors import StateDict, finite

FILE = "importance.safetensors"
"""In the folder of a run: `path/` and `change/` before the name of each trained weight, and, where
an earlier task was held, `held/` before each that it has held, trained anew or not."""


class PathIntegral(nn.Module):
    """Of the trained weights of a network. `before` is called between the gradient and the step,
    `after` behind the step. Its state is what a checkpoint must hold."""

    def __init__(self, student: nn.Module, held: Consolidated | None = None, total: bool = False):
        super().__init__()
        self.weights = {n: p for n, p in student.named_parameters() if p.requires_grad}
        self.held, self.total = held, total
        self.start = {name: p.detach().clone() for name, p in self.weights.items()}
        for name, weight in self.weights.items():  # a buffer's name has no dots
            self.register_buffer(name.replace(".", "/"), torch.zeros_like(weight))

    def path(self, name: str) -> Tensor:
        return self.get_buffer(name.replace(".", "/"))

    @torch.no_grad()
    def before(self) -> None:
        self.last = {name: p.detach().clone() for name, p in self.weights.items()}
        self.gradients = {n: p.grad.clone() for n, p in self.weights.items() if p.grad is not None}
        if self.held is not None and not self.total:
            for name, gradient in self.gradients.items():
                gradient -= self.held.gradient(name, self.last[name])

    @torch.no_grad()
    def after(self) -> None:
        for name, gradient in self.gradients.items():
            self.path(name).sub_(gradient * (self.weights[name] - self.last[name]))

    def record(self) -> StateDict:
        """What `FILE` holds."""
        state = {}
        for name, weight in self.weights.items():
            state[f"path/{name}"] = self.path(name)
            state[f"change/{name}"] = weight.detach() - self.start[name]
        held = {} if self.held is None else self.held.importance
        state |= {f"held/{name}": importance for name, importance in held.items()}
        return {name: x.to("cpu", copy=True).contiguous() for name, x in state.items()}


def read_importance(model: str) -> StateDict:
    """Of the run that a model is of: its folder, or `model` and `last` in it. Raises UsageError
    where that is no run, or one that was trained without `--remember`."""
    folder = Path(os.path.expanduser(model))
    places = [folder, folder.parent] if folder.name in ("model", "last") else [folder]
    for place in places if str(model) != "nano" else []:
        if (place / FILE).is_file():
            try:
                return {
                    name: finite(x, "importance") for name, x in load_file(place / FILE).items()
                }
            except Exception as error:
                raise CheckpointError(f"{place / FILE}: cannot be read ({error})") from error
    run = any((place / "checkpoints").is_dir() for place in places)
    why = "was trained without --remember" if run else "is no folder of a training run"
    raise UsageError(
        f"{model} {why}, so nothing is known of what its weights have done: --hold needs a run of"
        " froster train --remember"
    )


def holding(student: VideoCLIP, record: StateDict, rule: str, strength: float) -> Consolidated:
    """The penalty that holds `student` where it stands, by what an earlier run has recorded. Raises
    UsageError where that was of another network."""
    weights = dict(student.named_parameters())
    names = [name.removeprefix("path/") for name in record if name.startswith("path/")]
    shapes = {name.partition("/")[2]: x.shape for name, x in record.items()}
    other = [n for n, shape in shapes.items() if n not in weights or weights[n].shape != shape]
    if other:
        raise UsageError(
            f"the earlier run has trained another network than this one ({other[0]}): --hold needs"
            " the same --method"
        )
    importance = {
        name: consolidate(
            record[f"path/{name}"],
            record[f"change/{name}"],
            record.get(f"held/{name}"),
            clip=rule == "si",
        )
        for name in names
    }
    earlier = {n.removeprefix("held/"): x for n, x in record.items() if n.startswith("held/")}
    importance = {**earlier, **importance}
    start = {name: weights[name].detach().clone() for name in importance}
    on = student.clip.logit_scale.device
    return Consolidated(start, strength, {name: x.to(on) for name, x in importance.items()})
