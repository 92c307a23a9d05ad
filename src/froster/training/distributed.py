"""Running under `torchrun`: one process (rank) a GPU (NCCL), or gloo on CPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from froster.errors import UsageError

T = TypeVar("T")


@contextmanager
def process_group(device_name: str | None = None) -> Iterator[tuple[int, torch.device | None]]:
    """Join the group that `torchrun` describes. Yields (rank, this rank's device); without torchrun
    (0, None)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, None
        return
    cuda = torch.cuda.is_available() and device_name != "cpu"
    if cuda and int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
        raise UsageError(
            f"more processes than the {torch.cuda.device_count()} GPUs here; or pass --device cpu"
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield dist.get_rank(), device
    finally:
        dist.destroy_process_group()


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def this_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def from_rank_0(value: Any) -> Any:
    """What rank 0 has, on every rank."""
    if ranks() == 1:
        return value
    parcel = [value]
    dist.broadcast_object_list(parcel, src=0)
    return parcel[0]


def by_rank_0(work: Callable[[], T]) -> T:
    """What the work gives on rank 0, which alone does it, on every rank; so with what it raises."""
    value: Any = None
    error: Exception | None = None
    if this_rank() == 0:
        try:
            value = work()
        except Exception as raised:
            error = raised
    value, error = from_rank_0((value, error))
    if error is not None:
        raise error
    return value


def from_all_ranks(messages: list[T]) -> list[T]:
    if ranks() == 1:
        return messages
    gathered: list[list[T] | None] = [None] * ranks()
    dist.all_gather_object(gathered, messages)
    return [message for part in gathered for message in part or []]


class GatherClasses(torch.autograd.Function):
    """Concatenate every rank's class features. Backward: sum over the ranks' losses, then each
    rank's own slice."""

    @staticmethod
    def forward(ctx, local: Tensor) -> Tensor:  # (P, k, E) -> (P, k * ranks, E)
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size(), dim=1)[dist.get_rank()]


def gather_clips(
    v: Float[Tensor, "batch embed"], t: Float[Tensor, "batch embed"], labels: Int[Tensor, " batch"]
) -> tuple[Tensor, Tensor, Tensor]:
    """All ranks' video and text embeddings and labels; ranks may hold different numbers, and -1
    marks no clip."""
    if ranks() == 1:
        return v, t, labels
    most = torch.tensor(len(labels), device=labels.device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    short = int(most) - len(labels)
    both = GatherClasses.apply(F.pad(torch.stack([v, t]), (0, 0, 0, short)))
    padded = F.pad(labels, (0, short), value=-1)
    parts = [torch.empty_like(padded) for _ in range(ranks())]
    dist.all_gather(parts, padded)
    known = torch.cat(parts)
    return both[0][known >= 0], both[1][known >= 0], known[known >= 0]
