"""Running under `torchrun`: one process (rank) a GPU (NCCL), or gloo on CPUs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed import PrefixStore
from torch.distributed.rendezvous import rendezvous

from froster.errors import FrosterError, UsageError
from froster.evaluation.spread import ALONE, Scores, Spread
from froster.utils.progress import reason

T = TypeVar("T")

PATIENCE = timedelta(hours=4)
"""How long a rank waits for the others: while rank 0 looks at the videos or writes a checkpoint to
a slow disk, they have nothing to do. NCCL's own limit is 10 minutes. A rank that dies is not waited
for: its end breaks the connection, and `torchrun` ends the others."""


_GROUPS = itertools.count()


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
    store, rank, world = next(rendezvous("env://"))
    store.set_timeout(PATIENCE)
    # torchrun keeps the store when it starts all processes again, and a process may join twice:
    # what was left in it would send them to places where nobody is.
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    again = PrefixStore(f"start {restart}, group {next(_GROUPS)}", store)
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=again, rank=rank, world_size=world, timeout=PATIENCE)
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


def to_rank_0(message: T) -> list[T]:
    """The message of every rank, on rank 0; none on the others."""
    if ranks() == 1:
        return [message]
    messages: list[Any] = [None] * ranks()
    dist.gather_object(message, messages if this_rank() == 0 else None, dst=0)
    return messages if this_rank() == 0 else []


def carrier() -> torch.device:
    """Where a tensor must lie to be sent: on this rank's GPU with NCCL."""
    nccl = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


@torch.no_grad()
def weights_from_rank_0(module: nn.Module) -> None:
    """Gives a network of every rank the weights that it has on rank 0, in place."""
    if ranks() == 1:
        return
    for tensor in module.state_dict().values():
        parcel = tensor.to(carrier()).contiguous()
        dist.broadcast(parcel, src=0)
        tensor.copy_(parcel)


class AllRanks:
    """A `Spread`: every rank scores its share of the batches of videos, and rank 0 gets the scores
    of all. Batches are those of one process, so that the scores are the same to the bit. All ranks
    must call `evaluate` with the same videos. A rank that fails lets all fail."""

    def share(self, batches: Sequence[T]) -> list[T]:
        return list(batches[this_rank() :: ranks()])

    def join(
        self, batches: Sequence[range], scores: Scores, failure: Exception | None
    ) -> Scores | None:
        """`batches`: those of all ranks. None on the other ranks."""
        views = scores.logits[0].shape[1] if scores.logits else 0
        why = None if failure is None else reason(failure)
        notes = from_all_ranks([(views, why, scores.errors)])
        if failure is not None:
            raise failure
        for rank, (_, text, _) in enumerate(notes):
            if text is not None:
                raise FrosterError(f"process {rank} could not score its videos: {text}")
        if this_rank() > 0:
            for logits in scores.logits:
                dist.send(logits.to(carrier()), dst=0)
            return None
        count = batches[-1].stop if batches else 0
        most = max((number for number, _, _ in notes), default=0)
        full = [torch.full((count, most, scores.width), float("nan")) for _ in range(scores.models)]
        for rank, (number, _, _) in enumerate(notes):
            places = [i for part in batches[rank :: ranks()] for i in part]
            for model in range(scores.models if number else 0):
                if rank == 0:
                    full[model][places] = scores.logits[model]
                    continue
                parcel = torch.empty(len(places), number, scores.width, device=carrier())
                dist.recv(parcel, src=rank)
                full[model][places] = parcel.cpu()
        errors = sorted((error for _, _, some in notes for error in some), key=lambda e: e[0])
        return Scores(scores.models, scores.width, full if most else [], errors)


def spread_over_ranks() -> Spread:
    """How videos are scored here: by all ranks, or by this process alone."""
    return AllRanks() if ranks() > 1 else ALONE


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
