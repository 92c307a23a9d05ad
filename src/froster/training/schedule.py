"""The learning rate over a training."""

import math

from froster.methods.recipe import Recipe


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
