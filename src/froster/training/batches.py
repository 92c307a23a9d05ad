"""What each step of an epoch gets: clips, which may be mixed, and prompts. All of it depends on the
seed, the epoch and the step alone, so that a resumed run gets the same."""

from __future__ import annotations

import math
import random
from collections.abc import Container, Iterator

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.utils.data import Dataset

from froster.data.dataset import Batch
from froster.data.loader import batches
from froster.methods.recipe import Recipe
from froster.text.bank import PromptBank
from froster.training.distributed import ranks, this_rank
from froster.utils.tensors import seed_of


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """A shuffle of the dataset's indices."""
    generator = torch.Generator().manual_seed(seed_of(seed * 1_000_003 + epoch))
    return torch.randperm(count, generator=generator).tolist()


def global_batch(recipe: Recipe, clips: int) -> int:
    """Clips a step, over all ranks, whose shares may be unequal: as the recipe says, or all of
    fewer videos. It does not depend on the number of ranks, so that another number may go on with a
    run."""
    return min(recipe.batch_size, clips)


def steps_of_epoch(recipe: Recipe, clips: int) -> int:
    """Clips beyond the last whole batch wait for another epoch."""
    return max(1, clips // recipe.batch_size)


def epoch_batches(
    dataset: Dataset, recipe: Recipe, epoch: int, known: Container[str] = (), first: int = 0
) -> Iterator[Batch]:
    """This rank's clips of the steps of one epoch from step `first` on (from 0): clip i of a global
    batch goes to rank i modulo the ranks. With `Recipe.meta` those of the first step come again
    behind the last. `known` is what could not be read in earlier epochs (`batches`)."""
    clips = len(dataset)  # type: ignore[arg-type]
    order, size = epoch_order(clips, recipe.seed, epoch), global_batch(recipe, clips)
    shares = [
        order[step * size : (step + 1) * size][this_rank() :: ranks()]
        for step in range(steps_of_epoch(recipe, clips))
    ]
    shares = shares[first:] + (shares[:1] if recipe.meta else [])
    dataset.set_epoch(epoch)  # type: ignore[attr-defined]
    return batches(dataset, shares, recipe.workers, known=known, pin=torch.cuda.is_available())


def draw_template(seed: int, epoch: int, step: int, templates: int) -> int:
    """The template of one step, uniform, the same on every rank."""
    return random.Random(f"template/{seed}/{epoch}/{step}").randrange(templates) if templates else 0


def rows_of_step(draw: str, template: int, bank: PromptBank) -> list[int]:
    """The rows of prompts that a step uses: one template (in FROSTER's form with the bare label,
    the last row), or all."""
    if draw != "one":
        return bank.rows
    return [template, bank.rows[-1]] if len(bank.rows) > bank.num_templates > 0 else [template]


def soft_targets(
    labels: Int64[Tensor, " batch"], classes: int, smoothing: float
) -> Float32[Tensor, "batch {classes}"]:
    """1 - smoothing on the label, and `smoothing` spread over all classes (timm)."""
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + off)


def mix_clips(
    frames: Float[Tensor, "batch time 3 height width"],
    targets: Float[Tensor, "batch classes"],
    rng: random.Random,
    mixup: float,
    cutmix: float,
    switch: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Mixes each clip, and its targets, with its partner in the batch turned around (a copy).

    `mixup` and `cutmix` are the parameters of Beta(a, a), from which one share for the whole batch
    is drawn; 0 turns one off, and with both on `switch` is the probability of cutmix. Cutmix takes
    a box in the same place in all frames, and the share is then the one of the area that is left.
    """
    if mixup <= 0 and cutmix <= 0:
        return frames, targets
    if cutmix > 0 and (mixup <= 0 or rng.random() < switch):
        *_, height, width = frames.shape
        top, bottom, left, right = _box(height, width, rng.betavariate(cutmix, cutmix), rng)
        mixed = frames.clone()
        mixed[..., top:bottom, left:right] = frames.flip(0)[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        share = rng.betavariate(mixup, mixup)
        mixed = frames.lerp(frames.flip(0), 1 - share)
    return mixed, targets.lerp(targets.flip(0), 1 - share)


def _box(height: int, width: int, share: float, rng: random.Random) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box with 1 - `share` of the area around a random pixel, cut off
    at the edges."""
    rows, columns = int(height * math.sqrt(1 - share)), int(width * math.sqrt(1 - share))
    top, left = rng.randrange(height) - rows // 2, rng.randrange(width) - columns // 2
    return max(0, top), min(height, top + rows), max(0, left), min(width, left + columns)
