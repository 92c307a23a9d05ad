"""The optimiser of a recipe: which weights are decayed, at which rate each is trained, and how the
rate changes over a training."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import nn

from froster.methods.recipe import Recipe
from froster.methods.weight_names import new_weights
from froster.training.task import Task


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    weight_decay: float,
    *,
    decay: str = "matrices",
    new: Container[str] = (),
    new_scale: float = 1.0,
    clip_scale: float = 1.0,
) -> list[dict]:
    """Groups by weight decay and by `scale`, the factor of the learning rate: `new_scale` for the
    names in `new`, else `clip_scale`.

    With `decay="matrices"`, the released rule: no decay on 1-D tensors and biases. The 0-D
    `logit_scale` is therefore decayed. `"no positions"`: nor on positional and temporal embeddings;
    `"all"`: on every weight.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            free = decay != "all" and (parameter.ndim == 1 or name.endswith(".bias"))
            free = free or (
                decay == "no positions"
                and name.endswith(("positional_embedding", "temporal_embedding"))
            )
            scale = new_scale if name in new else clip_scale
            # One kernel takes either whole weights or those that the ranks share out.
            key = (0.0 if free else weight_decay, scale, hasattr(parameter, "full_tensor"))
            groups.setdefault(key, []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (item[0][1], -item[0][0], item[0][2]))
    return [
        {"params": params, "weight_decay": decay, "scale": scale}
        for (decay, scale, _), params in ordered
    ]


def adamw(
    module: nn.Module,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    **groups: Any,
) -> torch.optim.AdamW:
    """AdamW, eps 1e-8, in one fused kernel (on a CPU a tenth of the default's time). `groups`: see
    `parameter_groups`."""
    scaled = with_rates(parameter_groups(module.named_parameters(), weight_decay, **groups), lr)
    return torch.optim.AdamW(scaled, lr=lr, betas=betas, fused=True)


def sgd(module: nn.Module, lr: float, weight_decay: float, **groups: Any) -> torch.optim.SGD:
    """SGD with momentum 0.9, as AdaptFormer's release trains."""
    scaled = with_rates(parameter_groups(module.named_parameters(), weight_decay, **groups), lr)
    return torch.optim.SGD(scaled, lr=lr, momentum=0.9)


def with_rates(groups: list[dict], lr: float) -> list[dict]:
    return [{**group, "lr": lr * group["scale"]} for group in groups]


def optimizer_of(task: Task, recipe: Recipe) -> torch.optim.Optimizer:
    projection = {name for name, _ in task.named_parameters() if name.startswith("specialise.")}
    groups = {
        "decay": recipe.decay,
        "new": {f"student.{name}" for name in new_weights(task.student)} | projection,
        "new_scale": recipe.new_scale,
        "clip_scale": recipe.clip_scale,
    }
    if recipe.optimizer == "sgd":
        return sgd(task, recipe.lr, recipe.weight_decay, **groups)
    return adamw(task, recipe.lr, recipe.weight_decay, recipe.betas, **groups)


def rate(recipe: Recipe, epoch: float) -> float:
    """The rate of what the method trains at a (fractional) epoch."""
    if recipe.schedule == "constant":
        return recipe.lr
    ends, warmup = recipe.lr * recipe.lr_ends, min(recipe.warmup_epochs, recipe.epochs / 2)
    return warmup_cosine(
        epoch,
        base=recipe.lr,
        start=ends,
        end=ends,
        warmup_epochs=warmup,
        max_epochs=float(recipe.epochs),
    )


def warmup_cosine(
    epoch: float, *, base: float, start: float, end: float, warmup_epochs: float, max_epochs: float
) -> float:
    """The rate at a (fractional) epoch: linear from `start` to `base` over the warm-up, then a
    cosine down to `end`. As the released code has it, by the fraction of an epoch."""
    if epoch < warmup_epochs:
        return start + (base - start) * epoch / warmup_epochs
    progress = (epoch - warmup_epochs) / (max_epochs - warmup_epochs)
    return end + (base - end) * (math.cos(math.pi * progress) + 1) / 2
