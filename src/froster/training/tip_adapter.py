"""Tip-Adapter (Zhang et al., ECCV 2022): a cache of the examples beside CLIP's own scores, made
without training, and Tip-Adapter-F, which trains its keys.

The key of an example is the mean of its unit embeddings over the kept views, made unit; its value
is its class. The paper searches alpha and beta on validation data; here they are 1 and 5.5, where
its search begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from froster.encoders.model import unit
from froster.methods.closed_set import TipNet
from froster.utils.interrupt import check

EPOCHS, BATCH, LR, EPS = 20, 256, 1e-3, 1e-4
"""Of Tip-Adapter-F: the released code's."""


def fill_cache(
    network: TipNet,
    video: Float[Tensor, "videos views embed"],
    labels: Int64[Tensor, " videos"],
    text: Float[Tensor, "classes embed"],
) -> None:
    """Tip-Adapter: writes keys, values and class embeddings. `video`: as the network compares it
    with texts."""
    head = network.closed
    head.keys.copy_(unit(unit(video).mean(1)))
    head.values.copy_(F.one_hot(labels, len(text)))
    head.text.copy_(text)


def train_keys(
    network: TipNet,
    video: Float[Tensor, "videos views embed"],
    labels: Int64[Tensor, " videos"],
    *,
    epochs: int = EPOCHS,
    on_step: Callable[[float], None] = lambda loss: None,
) -> None:
    """Tip-Adapter-F: trains the keys of a filled cache by AdamW, a view of every video an epoch."""
    keys = network.closed.keys
    keys.requires_grad_()
    count, batch = len(labels), min(BATCH, len(labels))
    steps = epochs * math.ceil(count / batch)
    optimizer = torch.optim.AdamW([keys], lr=LR, eps=EPS)
    draw, step = torch.Generator().manual_seed(0), 0
    for epoch in range(epochs):
        v = video[:, epoch % video.shape[1]]
        for rows in torch.randperm(count, generator=draw).split(batch):
            check()
            for group in optimizer.param_groups:
                group["lr"] = LR * (1 + math.cos(math.pi * step / steps)) / 2
            loss = F.cross_entropy(network.taught_logits(v[rows]), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            on_step(float(loss.detach()))
    keys.requires_grad_(False)
