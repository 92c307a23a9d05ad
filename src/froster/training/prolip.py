"""ProLIP (Fahes et al., arXiv 2410.05270): the last linear map of the image tower, trained on kept
features in seconds.

    L = CE(logits of x W) + lambda * |W - W0|^2 + [ beta * D(h(x W), x W0) ]

W0 is where W starts. The paper has the first two terms and lambda = 1 / shots; the last one,
FROSTER's residual feature distillation in place of the second or beside it, is ours. Each step
takes one view of every video, the views in turn (as the released code); its frames are embedded one
by one and then pooled as the network does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from froster.encoders.last_map import LastMap
from froster.encoders.precision import autocast
from froster.errors import FrosterError, UsageError, one_of
from froster.methods import VideoCLIP
from froster.training.distill import Distillation
from froster.training.distill_options import Distill
from froster.utils.interrupt import check

EPS = 1e-4
"""Of Adam."""
Holds = Literal["weights", "features", "both", "none"]


@dataclass(frozen=True)
class ProjectionRecipe:
    """How the last map is trained."""

    lr: float = 1e-5
    """At the start; it falls to zero along a cosine."""
    steps: int = 300
    strength: float = 0.0
    """lambda."""
    hold: Holds = "weights"
    """What keeps the old knowledge: nearness to W0, to the frames' old embeddings (distillation),
    or both."""
    distill: Distill = field(default_factory=Distill)
    """The distillation, where there is one."""
    seed: int = 0
    """Draws the projector of the distillation."""

    def __post_init__(self) -> None:
        one_of("hold", self.hold, "weights", "features", "both", "none")
        if not (self.lr > 0 and self.steps >= 1 and self.strength >= 0):
            raise UsageError("lr and steps must be positive, and the strength not negative")


def strength_of(rule: str, shots: float) -> float:
    """`1/shots`, `1/shots2` or a number -> lambda. Raises UsageError."""
    rules = {"1/shots": 1 / shots, "1/shots2": 1 / shots**2}
    try:
        value = rules[rule] if rule in rules else float(rule)
    except ValueError:
        value = -1.0
    if not (0 <= value < math.inf):
        raise UsageError(f"--strength is 1/shots, 1/shots2 or a number from 0, not {rule!r:.50}")
    return value


class Cosines(torch.autograd.Function):
    """z = x W + b of N frames and unit texts (K, E) -> their cosines (N, K).

    With c the cosines and g their gradient, dL/dz = (g T - sum(g c) z / |z|) / |z|: two passes over
    z where autograd takes ten, which is two thirds of a step's time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, texts: Tensor) -> Tensor:
        z, texts = x @ W.to(x.dtype), texts.to(x.dtype)
        if bias is not None:
            z += bias.to(x.dtype)
        length = torch.linalg.vector_norm(z, dim=-1, keepdim=True, dtype=W.dtype)
        cosines = (z @ texts.T).to(W.dtype) / length
        ctx.save_for_backward(x, z, texts, length, cosines)
        return cosines

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None, None]:
        x, z, texts, length, cosines = ctx.saved_tensors
        (g,) = grads
        along = (g * cosines).sum(-1, keepdim=True) / length.square()
        dz = ((g / length).to(x.dtype) @ texts).addcmul_(z, along.to(x.dtype), value=-1)
        return None, (x.T @ dz).to(g.dtype), None, None


def has_cosines(network: VideoCLIP, last: LastMap) -> bool:
    """Are its logits the scaled mean over the frames of `Cosines`?"""
    plain = type(network).logits is VideoCLIP.logits and network.head is None
    pooled = type(network).pool_frames is VideoCLIP.pool_frames
    return plain and pooled and network.pooling == "frame_unit" and last.name == "proj"


def train_projection(
    network: VideoCLIP,
    kept: Float[Tensor, "videos views time kept"],
    labels: Int64[Tensor, " videos"],
    classes: Tensor,
    recipe: ProjectionRecipe,
    on_step: Callable[[float], None] = lambda loss: None,
) -> Float[Tensor, "dim embed"]:
    """The trained W; the network is left as it is. `classes` is the result of `network.classes` for
    the labels; `kept` in bfloat16 is computed with in bfloat16. Raises FrosterError where the loss
    is not finite."""
    last = LastMap(network.clip.visual)
    start = last.weight.clone()
    dtype = torch.bfloat16 if kept.dtype == torch.bfloat16 else torch.float32
    W = start.clone().requires_grad_()
    device = start.device
    weights, distillation = [W], None
    if recipe.hold in ("features", "both"):
        torch.manual_seed(recipe.seed)
        width = network.clip.config.embed_dim
        distillation = Distillation(width, recipe.distill, text=False).to(start)
        weights += distillation.parameters()
    optimizer = torch.optim.Adam(weights, lr=recipe.lr, eps=EPS)
    labels, none = labels.to(device), classes.new_zeros(1, 1, 1)
    views = [kept[:, view].to(device) for view in range(kept.shape[1])]
    quick = distillation is None and has_cosines(network, last)
    for step in range(recipe.steps):
        check()
        x = views[step % len(views)]
        if quick:
            cosines = Cosines.apply(x.flatten(0, 1), W, last.visual.proj_bias, classes)
            logits = network.clip.logit_scale.exp() * cosines.unflatten(0, x.shape[:2]).mean(1)
        else:
            with autocast(device, dtype):
                features = network.pool_frames(last.embed(x, W).to(start.dtype))
            logits = network.logits(features.video, classes, features.context)
        loss = F.cross_entropy(logits, labels)
        if recipe.hold in ("weights", "both"):
            loss = loss + recipe.strength * (W - start).square().sum()
        if distillation is not None:
            with torch.no_grad(), autocast(device, dtype):
                teacher = network.pool_frames(last.embed(x, start).to(start.dtype))
            loss = loss + distillation(features, none, teacher, none)[0]["distill_v"]
        if not bool(loss.isfinite()):
            raise FrosterError(f"the loss is not finite in step {step + 1}: lower --lr")
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (1 + math.cos(math.pi * step / recipe.steps)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        on_step(float(loss.detach()))
    return W.detach()
