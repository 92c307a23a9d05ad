"""`python -m benchmarks.asking [VIDEOS]`: how many labels `froster label` needs for what so many labels
at random teach, over 5 seeds, on the rendered world and on the UCF101 clips of a folder with a
manifest (path, dataset, label, split).

What is labelled is the training part, what is measured the other; the model is taught after every
label as in the loop. A seed draws the random order, and the world's videos or four fifths of the
clips that can be labelled.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from froster.data.manifest import Item, read_items
from froster.inference.recognizer import Recognizer, load
from froster.training.asking import around_mean, choose, fit_answers, uncertainty
from froster.world.sets import SETS, render_set

SEEDS, SHARE = 5, 0.8
Choice = Callable[[Tensor, Tensor, Tensor], int]
"""features, scores, known -> the row that is asked next."""


@dataclass(frozen=True)
class Pool:
    """What can be labelled, what is tested, and the labels' embeddings."""

    features: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    text: Tensor
    scale: float


def doubt_alone(features: Tensor, scores: Tensor, known: Tensor) -> int:
    return int(uncertainty(scores).masked_fill(known, -1.0).argmax())


def distance_alone(features: Tensor, scores: Tensor, known: Tensor) -> int:
    return choose(around_mean(features), scores[:, :1], known)[0]


def both(features: Tensor, scores: Tensor, known: Tensor) -> int:
    return choose(around_mean(features), scores, known)[0]


def at_random(generator: torch.Generator, features: Tensor, scores: Tensor, known: Tensor) -> int:
    left = (~known).nonzero()[:, 0]
    return int(left[torch.randint(len(left), (), generator=generator)])


def choices(seed: int) -> dict[str, Choice]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "random": partial(at_random, generator),
        "uncertain": doubt_alone,
        "diverse": distance_alone,
        "both": both,
    }


def curve(pool: Pool, choice: Choice, most: int) -> list[float]:
    """Test accuracy in per cent after 0, 1, … labels."""
    known = torch.zeros(len(pool.features), dtype=torch.bool)
    rows: list[int] = []
    accuracies = []
    for _ in range(most + 1):
        weight = fit_answers(
            pool.features[rows], pool.labels[rows], pool.text, pool.scale, steps=300
        )
        right = (pool.test @ weight.T).argmax(-1) == pool.test_labels
        accuracies.append(100 * float(right.float().mean()))
        rows.append(choice(pool.features, pool.features @ weight.T, known))
        known[rows[-1]] = True
    return accuracies


@torch.no_grad()
def world_pool(model: Recognizer, seed: int, takes: int, tests: int) -> Pool:
    """The 24 base classes."""
    train, test = render_set("base", takes, seed, "train"), render_set("base", tests, 0, "test")
    classes = SETS["base"].classes
    features, embedded = (embed(model, frames) for frames in (train.frames, test.frames))
    text = model.class_embeddings(classes).float()
    return Pool(features, train.labels, embedded, test.labels, text, model.logit_scale or 1.0)


def embed(model: Recognizer, frames: Tensor) -> Tensor:
    """uint8 (B, 16, 3, 60, 60) -> (B, E)"""
    count = model.config.sampling.frames
    at = torch.linspace(0, frames.shape[1] - 1, count).round().long()
    side = model.image_size
    clips = torch.nn.functional.interpolate(
        frames[:, at].flatten(0, 1).float(), (side, side), mode="bilinear", antialias=True
    )
    clips = clips.round().clamp(0, 255).to(torch.uint8).unflatten(0, (-1, count))
    return torch.cat([model.embed_clips(part) for part in clips.split(32)])


@torch.no_grad()
def clips_pool(model: Recognizer, folder: Path) -> Pool:
    """The UCF101 clips of a manifest by its column split."""
    items = read_items(folder / "manifest.csv", where={"dataset": "UCF101"})
    classes = sorted({item.label for item in items})
    parts = [[i for i in items if i.split == s] for s in ("train", "test")]

    def embedded(part: list[Item]) -> tuple[Tensor, Tensor]:
        rows = [model.embed_video(item.path) for item in part]
        return torch.stack(rows), torch.tensor([classes.index(i.label) for i in part])

    (features, labels), (test, test_labels) = map(embedded, parts)
    text = model.class_embeddings(classes).float()
    return Pool(features, labels, test, test_labels, text, model.logit_scale or 1.0)


def part_of(pool: Pool, seed: int) -> Pool:
    """The share that a seed draws of what can be labelled."""
    order = torch.randperm(len(pool.labels), generator=torch.Generator().manual_seed(seed))
    rows = order[: int(SHARE * len(order))]
    return dataclasses.replace(pool, features=pool.features[rows], labels=pool.labels[rows])


def report(name: str, pools: Callable[[int], Pool], most: int) -> None:
    """Accuracies by number of labels, and how many each choice needs for what random labelling
    reaches."""
    curves: dict[str, list[list[float]]] = {}
    for seed in range(SEEDS):
        pool = pools(seed)
        for words, choice in choices(seed).items():
            curves.setdefault(words, []).append(curve(pool, choice, most))
    means = {
        words: [statistics.mean(at) for at in zip(*c, strict=True)] for words, c in curves.items()
    }
    marks = [n for n in (0, 8, 16, 32, 64, 96, 128, 192) if n <= most]
    print(f"\n## {name}: {len(pool.labels)} to label, {len(pool.test)} tested")
    print("| labels | " + " | ".join(means) + " |")
    for n in marks:
        cells = (
            f"{means[words][n]:.1f} ± {statistics.stdev(c[n] for c in curves[words]):.1f}"
            for words in means
        )
        print(f"| {n} | " + " | ".join(cells) + " |")
    for n in marks[1:]:
        goal = means["random"][n]
        if goal <= means["random"][0]:
            continue
        needed = {
            words: next((i for i, value in enumerate(mean) if value >= goal), None)
            for words, mean in means.items()
        }
        print(
            f"mean of random with {n} labels ({goal:.1f} %) is reached with: {needed}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asking", description=__doc__)
    parser.add_argument("videos", nargs="?", type=Path, help="folder of clips with manifest.csv")
    parser.add_argument("--takes", type=int, default=16, help="videos a class of the world")
    parser.add_argument("--tests", type=int, default=21, help="tested videos a class of the world")
    parser.add_argument("--most", type=int, default=192, help="labels")
    asked = parser.parse_args()
    model = load("nano", device="cpu")
    if asked.videos is None:
        most = min(asked.most, 24 * asked.takes - 1)
        name = "the world, 24 classes"
        report(name, lambda seed: world_pool(model, seed, asked.takes, asked.tests), most)
    else:
        pool = clips_pool(model, asked.videos)
        most = min(asked.most, int(SHARE * len(pool.labels)) - 1)
        report("UCF101, 8 classes", lambda seed: part_of(pool, seed), most)


if __name__ == "__main__":
    main()
