"""Running under `torchrun`: one process a GPU (NCCL), or gloo on CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from froster.errors import UsageError


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
