"""Photographs of the world with what is in them: what the nano CLIP is pretrained and measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from froster.world import motion, render
from froster.world.scenes import STILL_TEXTURES, TEXTURE_SIZE, textures
from froster.world.stock import processes
from froster.world.vocabulary import ALL_VERBS, COLOURS, NOUNS, SCENES

CHUNK = 200
"""Stills rendered at once: large enough to be fast, small enough for the processor's cache."""


@dataclass(frozen=True)
class Still:
    """What a photograph shows. `other` is a second thing (noun, colour), or None; only the first
    thing moves."""

    noun: str
    colour: str
    scene: str
    verb: str | None = None
    other: tuple[str, str] | None = None


def draw_stills(count: int, seed: int, pair: float = 0.55, verb: float = 0.4) -> list[Still]:
    """`count` random stills; `pair`: share with a second thing, `verb`: share in which the first
    thing does something."""
    rng = np.random.default_rng([seed, 1])
    colours = tuple(COLOURS)
    stills = []
    for _ in range(count):
        noun, other = rng.choice(len(NOUNS), 2, replace=False)
        colour, other_colour = rng.integers(0, len(colours), 2)
        scene, action = rng.integers(0, len(SCENES)), rng.integers(0, len(ALL_VERBS))
        has_other, has_verb = rng.random(2) < (pair, verb)
        stills.append(
            Still(
                NOUNS[noun],
                colours[colour],
                SCENES[scene],
                ALL_VERBS[action] if has_verb else None,
                (NOUNS[other], colours[other_colour]) if has_other else None,
            )
        )
    return stills


def render_chunk(stills: Sequence[Still], seed: int, first: int) -> Tensor:
    """Photographs of `stills`, (N, 3, 60, 60) uint8; still i of the chunk has the random stream
    (seed, first + i)."""
    colours = torch.tensor([COLOURS[still.colour] for still in stills], dtype=torch.float32)
    rngs, corners, poses, brightness = [], [], [], []
    for index, still in enumerate(stills):
        rng = np.random.default_rng([seed, 2, first + index])
        corners.append(
            (
                rng.integers(0, STILL_TEXTURES),
                *rng.integers(0, TEXTURE_SIZE - render.FRAME_SIZE + 1, 2),
            )
        )
        brightness.append(rng.uniform(0.6, 1.15))
        rest, other = render.place(rng, alone=still.other is None)
        time = rng.uniform(0, motion.FRAMES - 1)
        times = time + np.array([-1.0, 1.0, 0.0])
        three = (
            np.repeat(rest[None], 3, axis=0)
            if still.verb is None
            else motion.moved(rest, still.verb, times, rng)
        )
        poses.append(np.concatenate([three, other[None]]))
        rngs.append(rng)
    # (N, 4, 8): before, after, now, other
    pose = torch.from_numpy(np.stack(poses).astype(np.float32, copy=False))

    size = render.FRAME_SIZE
    canvas = torch.stack(
        [
            textures()[SCENES.index(still.scene), texture, :, y : y + size, x : x + size]
            for still, (texture, y, x) in zip(stills, corners, strict=True)
        ]
    ).float()
    nouns = torch.tensor([NOUNS.index(still.noun) for still in stills])
    paired = [i for i, still in enumerate(stills) if still.other]
    acting = [i for i, still in enumerate(stills) if still.verb]
    if paired:
        others = [still.other for still in stills if still.other]
        planes = render.coverage(
            torch.tensor([NOUNS.index(noun) for noun, _ in others]), pose[paired, 3], size
        )
        tints = torch.tensor([COLOURS[colour] for _, colour in others], dtype=torch.float32)
        canvas[paired] = render.lay_over(canvas[paired], planes, tints)
    for ghost in (0, 1):
        if acting:
            planes = render.coverage(nouns[acting], pose[acting, ghost], size)
            canvas[acting] = render.lay_over(canvas[acting], planes, colours[acting], render.GHOST)
    canvas = render.lay_over(canvas, render.coverage(nouns, pose[:, 2], size), colours)
    return render.photograph(canvas, torch.tensor(brightness, dtype=torch.float32), rngs)


def chunk_pixels(stills: Sequence[Still], seed: int, first: int) -> np.ndarray:
    """As `render_chunk`. Tensors would go from process to process through shared memory, of which
    there may be little."""
    return render_chunk(stills, seed, first).numpy()


def render_stills(
    stills: Sequence[Still],
    seed: int,
    progress: Callable[[int], None] | None = None,
    workers: int = 1,
) -> Tensor:
    """Photographs (N, 3, 60, 60) uint8, by `workers` processes; `progress` receives the number
    rendered so far. About 1,000 a second and process."""
    images = torch.empty(len(stills), 3, render.FRAME_SIZE, render.FRAME_SIZE, dtype=torch.uint8)
    starts = range(0, len(stills), CHUNK)
    chunks = [stills[start : start + CHUNK] for start in starts]
    seeds = [seed] * len(chunks)
    with ExitStack() as stack:
        run: Callable[..., Iterable[np.ndarray]] = map
        if workers > 1:
            run = stack.enter_context(processes(workers)).map
        for start, part in zip(starts, run(chunk_pixels, chunks, seeds, starts), strict=True):
            images[start : start + len(part)] = torch.from_numpy(part)
            if progress is not None:
                progress(start + len(part))
    return images
