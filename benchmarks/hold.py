"""`python -m benchmarks.hold`: what keeps more when a projection is taught, nearness of the weights or
of the features? On the rendered world's base classes, 16 clips each; accuracy on these and on novel
classes. A minute and a half on one core."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from froster.inference.features import features_of, last_map
from froster.inference.recognizer import Recognizer, load
from froster.training.distill_options import Distill
from froster.training.prolip import ProjectionRecipe, train_projection
from froster.world.clips import WorldClips
from froster.world.sets import Split, render_set

LR, SEEDS = 1e-3, 3
HELD = {
    "nothing": {"hold": "none"},
    "weights, 1/16": {"strength": 1 / 16},
    "weights, 1/256": {"strength": 1 / 256},
    "features, 2": {"hold": "features"},
    "features, 20": {"hold": "features", "distill": Distill(beta_v=20.0)},
    "features, 100": {"hold": "features", "distill": Distill(beta_v=100.0)},
    "both, 1/16 and 2": {"hold": "both", "strength": 1 / 16},
    "both, 1/16 and 20": {"hold": "both", "strength": 1 / 16, "distill": Distill(beta_v=20.0)},
}


def main() -> None:
    torch.set_num_threads(1)
    nano = load("nano", device="cpu")
    tests = [features(nano, name, 20, 0, "test") for name in ("base", "novel")]
    tables = [nano.class_embeddings(classes) for _, _, classes in tests]
    start = [accuracy(nano, None, *of) for of in zip(tests, tables, strict=True)]
    print(f"| frozen | {start[0]:.1f} | {start[1]:.1f} | |")
    train = [features(nano, "base", 16, seed, "train") for seed in range(SEEDS)]
    for name, how in HELD.items():
        rows, begun = [], time.process_time()
        for x, labels, _ in train:
            recipe = ProjectionRecipe(LR, **how)  # type: ignore[arg-type]
            W = train_projection(nano.model, x[:, None], labels, tables[0], recipe)
            rows.append([accuracy(nano, W, *of) for of in zip(tests, tables, strict=True)])
        spent = (time.process_time() - begun) / SEEDS
        base, novel = (
            f"{statistics.fmean(column):.1f} ± {statistics.stdev(column):.1f}"
            for column in zip(*rows, strict=True)
        )
        print(f"| {name} | {base} | {novel} | {spent:.1f} |", flush=True)


def features(
    model: Recognizer, name: str, per_class: int, seed: int, split: Split
) -> tuple[Tensor, Tensor, list[str]]:
    """(N, T, D), labels, classes."""
    videos = render_set(name, per_class, seed, split)
    clips = WorldClips(videos, model.config.sampling, train=False)
    last = last_map(model.model)
    kept = [features_of(model, last, clips[i].frames) for i in range(len(clips))]
    return torch.cat(kept), videos.labels, videos.classes


def accuracy(
    model: Recognizer, W: Tensor | None, test: tuple[Tensor, Tensor, list[str]], table: Tensor
) -> float:
    x, labels, _ = test
    video = model.model.pool_frames(last_map(model.model).embed(x, W)).video
    right = (video @ table.T).argmax(1) == labels
    return 100 * float(right.float().mean())


if __name__ == "__main__":
    main()
