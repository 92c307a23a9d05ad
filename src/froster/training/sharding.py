"""`--shard-weights`: the ranks share out the weights of the blocks, their gradients and the
optimiser's moments (FSDP2, ZeRO-3), for towers that do not fit on one GPU.

Each rank keeps its part of every block, of student and teacher, and has a whole block only while it
computes with it. What lies outside the blocks (embeddings, projections, heads, the logit scale,
which is no matrix and cannot be cut) stays on every rank, whose gradients are averaged after the
backward pass. Checkpoints are written by all ranks (`torch.distributed.checkpoint`) and may be read
by another number of them.
"""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, load, save
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from froster.encoders.block import Block
from froster.errors import CheckpointError, UsageError
from froster.methods.base import VideoCLIP
from froster.training.distributed import from_rank_0, ranks, this_rank
from froster.training.task import Task
from froster.utils.progress import reason
from froster.utils.tensors import StateDict, file_digest


class Shards:
    """The weights of a task, which the ranks share out from now on."""

    def __init__(self, task: Task):
        self.task = task
        device = task.student.clip.logit_scale.device
        # A copy without weights, of which a whole network can be made.
        blank = {
            id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
            for p in task.student.parameters()
        }
        self.outline = copy.deepcopy(task.student, blank)  # type: ignore[arg-type]
        mesh = init_device_mesh(device.type, (ranks(),))
        for block in outer_blocks(task):
            fully_shard(block, mesh=mesh)
            register_fsdp_forward_method(block, "forward_at")
        rest = {p for p in task.parameters() if not isinstance(p, DTensor)}
        fully_shard(task, mesh=mesh, ignored_params=rest)
        self.modules: dict[str, nn.Module] = task.checkpoint_modules()
        self.within_blocks = within_blocks

    def average_rest(self) -> None:
        """The gradients of what every rank has whole: their mean over the ranks."""
        gradients = [p.grad for p in self.task.parameters() if p.grad is not None]
        plain = [g for g in gradients if not isinstance(g, DTensor)]
        if plain:
            flat = torch.cat([g.flatten() for g in plain])
            dist.all_reduce(flat)
            parts = (flat / ranks()).split([g.numel() for g in plain])
            for g, mean in zip(plain, parts, strict=True):
                g.copy_(mean.view_as(g))

    @torch.no_grad()
    def clip(self, limit: float) -> Tensor:
        """Scales the gradients so that their norm is at most `limit`; returns the norm before."""
        weights = [p for p in self.task.parameters() if p.grad is not None]
        kinds = [
            [p for p in weights if isinstance(p.grad, DTensor) == cut] for cut in (True, False)
        ]
        gradients = [[p.grad for p in some] for some in kinds if some]
        norms = [uncut(get_total_norm(some)) for some in gradients]  # type: ignore[arg-type]
        norm = torch.stack(norms).norm()
        for some in kinds:
            if some:
                clip_grads_with_norm_(some, limit, norm)
        return norm

    def student(self) -> VideoCLIP:
        """A whole network of the weights that the student has now. All ranks must call it."""
        weights = {name: uncut(p.detach()) for name, p in self.task.student.named_parameters()}
        filled = {
            id(p): nn.Parameter(weights[name].clone(), p.requires_grad)
            for name, p in self.outline.named_parameters()
        }
        network = copy.deepcopy(self.outline, filled)  # type: ignore[arg-type]
        for buffer, now in zip(network.buffers(), self.task.student.buffers(), strict=True):
            buffer.copy_(now)
        return network.train(self.task.student.training)

    def state(self, module: nn.Module) -> StateDict:
        """The whole weights of a module on rank 0's CPU, nothing on the others. All ranks must call
        it."""
        state: StateDict = {}
        for name, tensor in module.state_dict().items():
            full = uncut(tensor.detach())
            if this_rank() == 0:
                state[name] = full.to("cpu", copy=True).contiguous()
        return state

    def tensors(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """What a checkpoint holds, by name: weights, and the optimiser's numbers of each."""
        state = {
            f"{module}/{name}": tensor
            for module, network in self.modules.items()
            for name, tensor in network.state_dict().items()
        }
        for i, p in enumerate(trained(optimizer)):
            for key, value in optimizer.state.get(p, {}).items():
                if isinstance(value, Tensor):
                    state[f"optimizer/{i}/{key}"] = value
        return state

    def write(self, folder: Path, optimizer: torch.optim.Optimizer) -> None:
        """Into the new `folder`. All ranks must call it."""
        if this_rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier()
        save(self.tensors(optimizer), storage_writer=FileSystemWriter(folder))

    def restore(
        self, folder: Path, files: dict[str, str], optimizer: torch.optim.Optimizer
    ) -> None:
        """`files`: name in the checkpoint -> digest, which rank 0 checks. All ranks must call it.
        Raises CheckpointError where they are not what was written, or do not fit."""
        why = from_rank_0(damage(folder, files) if this_rank() == 0 else None)
        if why is not None:
            raise CheckpointError(f"{folder}: cannot be read ({why})")
        try:
            reader = Reader(folder)
            for name in reader.read_metadata().state_dict_metadata:
                kind, number, *key = name.split("/")
                if kind == "optimizer":
                    p = trained(optimizer)[int(number)]
                    empty = torch.zeros((), device=p.device) if key == ["step"] else None
                    state = optimizer.state[p]
                    state[key[0]] = torch.zeros_like(p) if empty is None else empty
            load(self.tensors(optimizer), storage_reader=reader, planner=Tensors())
        except Exception as error:  # whatever the damage leads to
            raise CheckpointError(f"{folder}: cannot be read ({reason(error)})") from error


@contextmanager
def within_blocks() -> Iterator[None]:
    """Raises UsageError where a network uses weights of a block outside of it, where a rank has its
    part of them alone."""
    try:
        yield
    except RuntimeError as error:
        if "mixed torch.Tensor and DTensor" not in str(error):
            raise
        raise UsageError(
            "this method computes with the weights of a block outside of it, so that they cannot be"
            " shared out: leave --shard-weights out"
        ) from None


def outer_blocks(task: nn.Module) -> list[nn.Module]:
    """The blocks of all towers, of which one may lie in another."""
    blocks: list[nn.Module] = []
    inner: set[int] = set()
    for module in task.modules():
        if isinstance(module, Block) and id(module) not in inner:
            blocks.append(module)
            inner |= {id(part) for part in module.modules()}
    return blocks


def uncut(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def check_shardable(task: Task, recipe: Any) -> None:
    """Raises UsageError where something needs the whole weights in one place."""
    needs = {
        "--remember": recipe.remember,
        "--hold": recipe.hold is not None,
        "--meta": recipe.meta,
        "--compile": recipe.compile,
        "a method that holds the weights near CLIP's": task.regulariser is not None,
    }
    for what, asked in needs.items():
        if asked:
            raise UsageError(f"{what} needs every weight on every GPU: leave --shard-weights out")
    if ranks() == 1:
        raise UsageError(
            "--shard-weights shares the weights out over the processes of torchrun, and there is"
            " one: start it with torchrun --nproc-per-node 2 or more"
        )


def damage(folder: Path, files: dict[str, str]) -> str | None:
    """What is wrong with the files of a folder, None where nothing is."""
    mine = {name.removeprefix("shards/"): x for name, x in files.items() if "/" in name}
    try:
        wrong = [name for name, digest in mine.items() if file_digest(folder / name) != digest]
    except OSError as error:
        return error.strerror or reason(error)
    if not mine:
        return "it was not written with --shard-weights"
    return f"{wrong[0]} is not what was written, its digest differs" if wrong else None


class PlainUnpickler(pickle.Unpickler):
    """Makes nothing but what the index of a checkpoint is made of."""

    KNOWN = (
        *("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"),
        *("torch.distributed.checkpoint.planner", "collections", "pathlib"),
    )

    def find_class(self, module: str, name: str) -> Any:
        value = getattr(torch, name, None) if module == "torch" else None
        plain = isinstance(value, torch.dtype) or name in ("Size", "_get_layout")
        if module in self.KNOWN or (plain and module in ("torch", "torch.serialization")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


class Reader(FileSystemReader):
    """PyTorch's, but that its index can run no code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = PlainUnpickler(file).load()
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class Tensors(DefaultLoadPlanner):
    """Loads tensors alone, as all else would be unpickled."""

    def load_bytes(self, read_item: Any, value: Any) -> None:
        raise pickle.UnpicklingError("it holds something else than tensors")
