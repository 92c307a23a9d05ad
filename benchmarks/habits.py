"""How sure is the habit check of `froster doctor --habits`? Sets of rendered pictures whose classes are
in their usual scene more or less often, from never more than by chance to nearly always.

python -m benchmarks.habits [SETS]        # 20 sets of each kind; two minutes on two cores
python -m benchmarks.habits many          # hundreds of classes that share scenes, drawn words; 2 s
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import sys
from collections import Counter

import numpy as np
import torch
from torch import Tensor

from froster.evaluation.habits import Habits, best_words, habits
from froster.inference.recognizer import Recognizer, load
from froster.training.habits import PROMPT, scene_words
from froster.world import render
from froster.world.scenes import STILL_TEXTURES, TEXTURE_SIZE, TEXTURES, textures
from froster.world.vocabulary import COLOURS, NOUNS, SCENES

THINGS, TAKES = 30, 25
STRENGTHS = (0.0, 0.3, 0.5, 0.8, 0.95)


def picture(noun: int, scene: int, rng: np.random.Generator) -> Tensor:
    """A thing and a bystander in a scene, (1, 3, 60, 60) uint8."""
    size, room = render.FRAME_SIZE, TEXTURE_SIZE - render.FRAME_SIZE
    (y, x), texture = rng.integers(0, room, 2), rng.integers(STILL_TEXTURES, TEXTURES)
    canvas = textures()[scene, texture][None, :, y : y + size, x : x + size].float()
    nouns = torch.tensor([rng.integers(len(NOUNS)), noun])
    poses = torch.from_numpy(np.stack(render.place(rng, alone=False)[::-1]))
    colours = torch.tensor(list(COLOURS.values())).float()[rng.integers(0, len(COLOURS), 2)]
    for planes, colour in zip(render.coverage(nouns, poses, size), colours, strict=True):
        canvas = render.lay_over(canvas, planes[None], colour[None])
    light = torch.tensor([rng.uniform(0.85, 1.15)], dtype=torch.float32)
    return render.photograph(canvas, light, [rng])


def embedded(model: Recognizer) -> Tensor:
    """Of every thing in every scene, some takes: (things, scenes, takes, embed)."""
    rng = np.random.default_rng(5)
    rows = []
    for noun in range(THINGS):
        pictures = [picture(noun, scene, rng) for scene in range(len(SCENES)) for _ in range(TAKES)]
        rows.append(model.embed_clips(torch.stack(pictures)))
    return torch.stack(rows).unflatten(1, (len(SCENES), TAKES))


def measured(
    pool: Tensor, words: Tensor, classes: int, clips: int, strength: float, seed: int
) -> Habits:
    rng = np.random.default_rng(seed)
    chosen, labels = [], []
    for thing in rng.permutation(THINGS)[:classes]:
        usual = rng.integers(len(SCENES))
        for _ in range(clips):
            scene = usual if rng.random() < strength else rng.integers(len(SCENES))
            chosen.append(pool[thing, scene, rng.integers(TAKES)])
            labels.append(NOUNS[thing])
    best = best_words(torch.stack(chosen), words)
    return habits(scene_words(), best.tolist(), labels, range(len(labels)))


def many() -> None:
    """The usual scene of each class is one of 20 words."""
    rng, words = random.Random(0), scene_words()
    print("| classes | clips each | usual scene in | told |\n|---|---|---|---|")
    for classes, clips in ((400, 5), (101, 19), (24, 83)):
        for strength in (0.0, 0.3, 0.8):
            usual = [rng.randrange(20) for _ in range(classes)]
            numbers = [number for number in range(classes) for _ in range(clips)]
            best = [
                usual[n] if rng.random() < strength else rng.randrange(len(words)) for n in numbers
            ]
            result = habits(words, best, list(map(str, numbers)), range(len(numbers)))
            print(f"| {classes} | {clips} | {strength:.0%} | {result.share:.1f} ({result.kind}) |")


def main(sets: int = 20) -> None:
    model = load("nano")
    reader = model.with_network(model.model, dataclasses.replace(model.config, prompting=PROMPT))
    pool, words = embedded(model), reader.embed_text(scene_words())
    print("| classes | clips each | usual scene in | told, mean ± sd | habits | none | too few |")
    print("|---|---|---|---|---|---|---|")
    for classes in (2, 3, 6, 12, 24):
        for clips in (4, 8, 16, 40):
            for strength in STRENGTHS:
                results = [
                    measured(pool, words, classes, clips, strength, seed) for seed in range(sets)
                ]
                shares, kinds = [r.share for r in results], Counter(r.kind for r in results)
                share = f"{statistics.fmean(shares):.0f} ± {statistics.pstdev(shares):.0f}"
                cells = [classes, clips, f"{strength:.0%}", share]
                cells += [kinds[kind] for kind in ("habits", "none", "too few")]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["many"]:
        many()
    else:
        main(*map(int, sys.argv[1:]))
