"""The class sets of the world and their videos.

`base` is what a model is tuned on. `novel` has other things, most of them doing what base things
do. Three further sets are ever less like base: `near` (base things in new pairings, a few novel
things), `mid` (novel and far things in dim light), `far` (things of neither, with a colour in their
names, doing what no base thing does). `order` holds pairs that only the order of the frames tells
apart. `wide` is base with every pairing that is not in `near`: many classes, for the regime with
much data.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from froster.world import motion, render
from froster.world.scenes import STILL_TEXTURES, TEXTURE_SIZE, TEXTURES, textures
from froster.world.vocabulary import (
    BASE_VERBS,
    COLOURS,
    MOTIONS,
    NOUNS,
    ORDERED_VERBS,
    SCENES,
    UNSEEN_VERBS,
)

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Action:
    """One class: a thing that does something, in any colour or in one that its name tells."""

    noun: str
    verb: str
    colour: str | None = None

    @property
    def name(self) -> str:
        return " ".join(word for word in (self.colour, self.noun, self.verb) if word)


@dataclass(frozen=True)
class ClassSet:
    """Classes, and the light they are seen in (range of the brightness, 1 = as painted)."""

    actions: tuple[Action, ...]
    brightness: tuple[float, float] = (0.85, 1.15)

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the labels, such as "cat spinning"."""
        return [action.name for action in self.actions]


@dataclass(frozen=True)
class Videos:
    """Rendered videos: frames (N, 16, 3, 60, 60) uint8, labels (N,) int64 into `classes`."""

    frames: Tensor
    labels: Tensor
    classes: list[str]

    def __len__(self) -> int:
        return len(self.labels)


BASE_NOUNS, NOVEL_NOUNS, FAR_NOUNS = NOUNS[:12], NOUNS[12:26], NOUNS[26:]


def pairings(nouns: tuple[str, ...], verbs: tuple[str, ...], *shifts: int) -> tuple[Action, ...]:
    """Every noun with the verbs that lie `shifts` further than itself."""
    return tuple(
        Action(noun, verbs[(i + s) % len(verbs)]) for s in shifts for i, noun in enumerate(nouns)
    )


def tinted(actions: tuple[Action, ...]) -> tuple[Action, ...]:
    """In a colour each, which their names tell."""
    every = tuple(COLOURS)
    return tuple(Action(a.noun, a.verb, every[3 * i % len(every)]) for i, a in enumerate(actions))


SETS: dict[str, ClassSet] = {
    "base": ClassSet(pairings(BASE_NOUNS, BASE_VERBS, 0, 3)),
    "novel": ClassSet(
        pairings(NOVEL_NOUNS, BASE_VERBS, 1) + pairings(NOVEL_NOUNS[:10], UNSEEN_VERBS[:4], 0)
    ),
    "near": ClassSet(
        pairings(BASE_NOUNS, BASE_VERBS, 5)
        + pairings(NOVEL_NOUNS[:6], BASE_VERBS, 4)
        + pairings(BASE_NOUNS[:6], UNSEEN_VERBS[:2], 0)
    ),
    "mid": ClassSet(
        pairings(NOVEL_NOUNS[:10], BASE_VERBS, 6)
        + pairings(NOVEL_NOUNS[4:], UNSEEN_VERBS[2:6], 3)
        + pairings(FAR_NOUNS[:4], UNSEEN_VERBS[2:6], 0),
        brightness=(0.6, 0.8),
    ),
    "far": ClassSet(
        tinted(pairings(FAR_NOUNS, UNSEEN_VERBS, 0) + pairings(FAR_NOUNS[:10], UNSEEN_VERBS, 3))
    ),
    "order": ClassSet(
        tuple(Action(noun, verb) for noun in BASE_NOUNS[:3] for verb in ORDERED_VERBS)
    ),
    "wide": ClassSet(pairings(BASE_NOUNS, BASE_VERBS, 0, 3, 1, 2, 4, 6, 7)),
}


def record(members: ClassSet, label: int, rng: np.random.Generator) -> Tensor:
    """One video (16, 3, 60, 60) of class `label`: the thing in motion, a thing of another class at
    rest, a camera."""
    action = members.actions[label]
    bystanders = [other for other in members.actions if other.noun != action.noun]
    other = bystanders[rng.integers(len(bystanders))]
    drawn = [tuple(COLOURS)[i] for i in rng.integers(0, len(COLOURS), 2)]
    names = [a.colour or name for a, name in zip((action, other), drawn, strict=True)]
    scene, texture = rng.integers(0, len(SCENES)), rng.integers(STILL_TEXTURES, TEXTURES)
    light = np.full(motion.FRAMES, rng.uniform(*members.brightness), np.float32)
    walk = render.camera_walk(rng, TEXTURE_SIZE - render.FRAME_SIZE)
    rest, other_rest = render.place(rng, alone=False)
    poses = motion.moved(rest, action.verb, np.arange(-1.0, motion.FRAMES + 1), rng)

    # The middle of the walk is where the things were placed; the scene and the bystander stand
    # still under the camera.
    middle = walk[motion.FRAMES // 2]
    other_rest[[motion.X, motion.Y]] += middle
    drift = walk - middle
    poses[:, [motion.X, motion.Y]] -= np.concatenate([drift[:1], drift, drift[-1:]])
    noun, other_noun = (torch.tensor([NOUNS.index(name)]) for name in (action.noun, other.noun))
    colours = torch.tensor([COLOURS[name] for name in names], dtype=torch.float32)
    planes = render.coverage(other_noun, torch.from_numpy(other_rest)[None], TEXTURE_SIZE)
    stage = render.lay_over(textures()[scene, texture][None].float(), planes, colours[1:])
    size = render.FRAME_SIZE
    canvas = torch.cat([stage[:, :, y : y + size, x : x + size] for x, y in walk.tolist()])

    planes = render.coverage(noun.expand(len(poses)), torch.from_numpy(poses), size)
    tint = colours[:1].expand(motion.FRAMES, 3)
    canvas = render.lay_over(canvas, planes[:-2], tint, render.GHOST)
    canvas = render.lay_over(canvas, planes[2:], tint, render.GHOST)
    canvas = render.lay_over(canvas, planes[1:-1], tint)
    return render.photograph(canvas, torch.from_numpy(light), [rng])


def render_set(
    name: str,
    per_class: int,
    seed: int = 0,
    split: Split = "test",
    progress: Callable[[int], None] | None = None,
) -> Videos:
    """`per_class` videos of every class of set `name`, class after class.

    The three splits never share a random stream, whatever the seeds; video i of a class is the same
    for every `per_class` above i. `progress` receives the number of videos rendered so far. Raises
    ValueError on an unknown name.
    """
    if name not in SETS:
        raise ValueError(f"there is no set {name!r} in the world; it has {', '.join(SETS)}")
    members = SETS[name]
    total = per_class * len(members.actions)
    side = render.FRAME_SIZE
    frames = torch.empty(total, motion.FRAMES, 3, side, side, dtype=torch.uint8)
    for index in range(total):
        frames[index] = render_video(name, *divmod(index, per_class), seed, split)
        if progress is not None:
            progress(index + 1)
    labels = torch.arange(len(members.actions)).repeat_interleave(per_class)
    return Videos(frames, labels, members.classes)


def render_video(name: str, label: int, take: int, seed: int = 0, split: Split = "test") -> Tensor:
    """Video `take` of class `label` of set `name`, (16, 3, 60, 60) uint8."""
    stream = [seed, 3, SPLITS.index(split), zlib.crc32(name.encode()), label, take]
    return record(SETS[name], label, np.random.default_rng(stream))


def sentences(sets: Iterable[str] = tuple(SETS)) -> dict[str, str]:
    """Class name -> a sentence on what it looks like, for every class of these sets."""
    return {
        action.name: f"the {action.noun} {MOTIONS[action.verb]}"
        for name in sets
        for action in SETS[name].actions
    }
