"""What `froster train` chooses by itself for a folder of videos, from their number. Each choice
says why in a line.

Published protocols (data with a split of its own, or a preset that was asked for) are left exactly
as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from froster.data.manifest import Item
from froster.data.splits import Split
from froster.methods.recipe import Recipe

FEWEST_STEPS = 150
MOST_EPOCHS = 40
WATCHED_FEWEST, WATCHED_MOST = 20, 200
"""Fewer say too little to stop a training by, or to calibrate with; more take too long after every
epoch."""


@dataclass(frozen=True)
class Chosen:
    recipe: Recipe
    why: list[str]


def is_plain(items: Sequence[Item], preset: str | None) -> bool:
    """May the defaults be chosen? Not for data that has a split, nor for a preset that was named."""
    return preset is None and not any(item.split for item in items)


def holdout_share(items: Sequence[Item]) -> float:
    """Of all videos: a fifth; more of very few, as a test of ten says little; at most 2,000 of very
    many."""
    n = len(items)
    return 0.3 if n < 100 else 0.2 if n <= 10_000 else 2000 / n


def watched_share(training: float) -> float | None:
    """Of about this many training videos: a tenth, or up to a fifth if that gives enough; None
    where it does not."""
    if 0.2 * training < WATCHED_FEWEST:
        return None
    return min(0.2, max(0.1, 1.25 * WATCHED_FEWEST / training), WATCHED_MOST / training)


def choose(recipe: Recipe, parts: Split, given: set[str], plain: bool, world: int = 1) -> Chosen:
    """Batch, epochs and patience for these training videos. What is in `given` was asked for and
    stays.

    A batch that was not asked for is one that `world` processes can share out, the nearest: rates
    are left as they are.
    """
    n, why = len(parts.train), []
    changes: dict[str, int | None] = {}
    batch = recipe.batch_size
    if plain and "batch_size" not in given:
        batch = min(batch, max(4, 2 ** int(math.log2(max(1, n / 8)))))
        if batch != recipe.batch_size:
            changes["batch_size"] = batch
            steps = max(1, n // batch)
            why.append(
                f"batch {batch} in place of {recipe.batch_size}: {n} training videos give {steps}"
                " steps an epoch"
            )
    if "batch_size" not in given and batch % world:
        shared = max(1, round(batch / world)) * world
        why.append(f"batch {shared} in place of {batch}: {world} processes share it out evenly")
        batch = changes["batch_size"] = shared
    if plain and "epochs" not in given:
        steps = max(1, n // batch)
        epochs = min(MOST_EPOCHS, max(recipe.epochs, math.ceil(FEWEST_STEPS / steps)))
        if epochs != recipe.epochs:
            changes["epochs"] = epochs
            why.append(
                f"up to {epochs} epochs in place of {recipe.epochs}: fewer than {FEWEST_STEPS}"
                " steps teach little"
            )
    if (
        plain
        and "patience" not in given
        and "epochs" not in given
        and len(parts.watch) >= WATCHED_FEWEST
    ):
        patience = max(3, changes.get("epochs", recipe.epochs) // 2)  # type: ignore[operator]
        changes["patience"] = patience
        why.append(
            f"stops early: after {patience} epochs without a gain on the {len(parts.watch)} watched"
            " videos"
        )
    if plain and "patience" not in given and len(parts.watch) < WATCHED_FEWEST:
        why.append(f"fewer than {WATCHED_FEWEST} videos to watch the training by: no early stop")
    sizes = Counter(item.label for item in parts.train).values()
    if plain and "shots" not in given:
        why.append(
            f"all training videos are used, {min(sizes)} to {max(sizes)} a class (--shots N: at"
            " most N)"
        )
    return Chosen(dataclasses.replace(recipe, **changes), why)  # type: ignore[arg-type]
