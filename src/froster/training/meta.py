"""Open-MeDe's meta step: a step must also serve the batch after it (Yu et al., ICCV 2025).

    g_S = grad L(theta; S)      theta' = theta - alpha g_S      g_Q = grad L(theta'; Q)
    the optimiser gets g_S + delta g_Q at theta

First order: g_Q is taken by theta', not through the inner step. S is the batch of the step, Q the
next one, and of the last step the first of the epoch, so that every batch serves twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from froster.data.dataset import Batch


def with_query(batches: Iterator[Batch], wanted: bool) -> Iterator[tuple[Batch, Batch | None]]:
    """Every batch; where that is wanted, every one but the last and the one that follows it."""
    if wanted:
        yield from pairwise(batches)
    else:
        yield from ((batch, None) for batch in batches)


@contextmanager
def inner_step(weights: Sequence[nn.Parameter], rate: float) -> Iterator[None]:
    """The weights after a plain step of gradient descent by the gradients that they hold; at the
    end they are what they were."""
    moved = [weight for weight in weights if weight.grad is not None]
    start = [weight.detach().clone() for weight in moved]
    with torch.no_grad():
        for weight in moved:
            weight.sub_(rate * weight.grad)  # type: ignore[operator]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(moved, start, strict=True):
                weight.copy_(value)


def add_query_gradient(
    weights: Sequence[nn.Parameter], loss: Callable[[], Tensor], delta: float, rate: float
) -> Tensor:
    """Of weights whose gradient is g_S: add delta g_Q to it, of `loss` at the inner step. Returns
    that loss."""
    with inner_step(weights, rate):
        value = loss()
        (delta * value).backward()
    return value.detach()
