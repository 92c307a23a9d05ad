"""The class sets of the world and their videos.

`base` is what a model is tuned on. `novel` has other things, most of them doing what base things
do. Three further sets are ever less like base: `near` (base things in new pairings, a few novel
things), `mid` (novel and far things in dim light), `far` (things of neither, with a colour in their
names, doing what no base thing does). `order` holds pairs that only the order of the frames tells
apart. `wide` is base with every pairing that is not in `near`: many classes, for the regime with
much data.

Classes have habits (`habits`): the three splits of base share them, the other sets have their own,
and in `base-swapped` the two base classes of a thing have exchanged theirs. `order` has none. A third
of the base classes are told by what a single frame shows (`told_by_a_frame`), the others by motion
alone.
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
from froster.world.habits import Habit, Strength, draw_habits, draw_setting, exchanged
from froster.world.scenes import STILL_TEXTURES, TEXTURE_SIZE, TEXTURES, textures
from froster.world.vocabulary import (
    BASE_VERBS,
    COLOURS,
    MOTIONS,
    NOUNS,
    ORDERED_VERBS,
    UNSEEN_VERBS,
)

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
USUAL = Strength()
"""The strength that is rendered unless another is asked for."""


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
    """Classes, the habits of each, and the light they are seen in (range of the brightness, 1 = as
    painted)."""

    actions: tuple[Action, ...]
    brightness: tuple[float, float] = (0.75, 1.15)
    habits: tuple[Habit, ...] = ()
    """None: what a class is filmed with is drawn freely."""

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


def base_actions() -> tuple[Action, ...]:
    """Twelve things that do two things each; the last four have a colour for each of the two, by
    which a single frame tells them."""
    first, second = (pairings(BASE_NOUNS, BASE_VERBS, shift) for shift in (0, 3))
    tints = tinted(first[8:] + second[8:])
    return (*first[:8], *tints[:4], *second[:8], *tints[4:])


def novel_actions() -> tuple[Action, ...]:
    """Fourteen things, four of them twice, six of them in two colours."""
    first = pairings(NOVEL_NOUNS, BASE_VERBS, 1)
    second = pairings(NOVEL_NOUNS[:10], UNSEEN_VERBS[:4], 0)
    tints = tinted(first[4:10] + second[4:])
    return (*first[:4], *tints[:6], *first[10:], *second[:4], *tints[6:])


CLASSES: dict[str, tuple[Action, ...]] = {
    "base": base_actions(),
    "base-swapped": base_actions(),
    "novel": novel_actions(),
    "near": pairings(BASE_NOUNS, BASE_VERBS, 5)
    + pairings(NOVEL_NOUNS[:6], BASE_VERBS, 4)
    + pairings(BASE_NOUNS[:6], UNSEEN_VERBS[:2], 0),
    "mid": pairings(NOVEL_NOUNS[:10], BASE_VERBS, 6)
    + pairings(NOVEL_NOUNS[4:], UNSEEN_VERBS[2:6], 3)
    + pairings(FAR_NOUNS[:4], UNSEEN_VERBS[2:6], 0),
    "far": tinted(pairings(FAR_NOUNS, UNSEEN_VERBS, 0) + pairings(FAR_NOUNS[:10], UNSEEN_VERBS, 3)),
    "order": tuple(Action(noun, verb) for noun in BASE_NOUNS[:3] for verb in ORDERED_VERBS),
    "wide": pairings(BASE_NOUNS, BASE_VERBS, 0, 3, 1, 2, 4, 6, 7),
}
BRIGHTNESS = {"mid": (0.6, 0.8)}


def class_sets() -> dict[str, ClassSet]:
    shown = {
        name: [(action.noun, action.colour) for action in actions]
        for name, actions in CLASSES.items()
    }
    base = draw_habits("base", shown["base"])
    of_things: dict[str, list[Habit]] = {}
    for (noun, _), habit in zip(shown["base"], base, strict=True):
        of_things.setdefault(noun, []).append(habit)
    habits = {"base": base, "base-swapped": exchanged(base), "order": ()}
    for name in ("novel", "near", "mid", "far"):
        habits[name] = draw_habits(name, shown[name], of_things)
    habits["wide"] = draw_habits("wide", shown["wide"])
    usual = ClassSet.brightness
    return {
        name: ClassSet(actions, BRIGHTNESS.get(name, usual), habits[name])
        for name, actions in CLASSES.items()
    }


SETS = class_sets()


def told_by_a_frame(name: str) -> list[bool]:
    """Of each class of a set: is there no other class that shows the same thing in a colour that
    could be the same?"""
    actions = SETS[name].actions
    return [
        not any(
            other is not action
            and other.noun == action.noun
            and (other.colour is None or action.colour in (None, other.colour))
            for other in actions
        )
        for action in actions
    ]


def record(
    members: ClassSet, label: int, rng: np.random.Generator, strength: Strength = USUAL
) -> Tensor:
    """One video (16, 3, 60, 60) of class `label`: the thing in motion, another thing at rest, a
    camera. Each habit of the class is kept as often as `strength` says."""
    action = members.actions[label]
    habit = members.habits[label] if members.habits else None
    things = [(a.noun, a.colour) for a in members.actions if a.noun != action.noun]
    setting = draw_setting(habit, things, strength, rng)
    colour = action.colour or tuple(COLOURS)[rng.integers(0, len(COLOURS))]
    texture = rng.integers(STILL_TEXTURES, TEXTURES)
    dark, bright = members.brightness
    brightness = dark + (bright - dark) * setting.light
    light = np.full(motion.FRAMES, brightness, np.float32)
    walk = render.camera_walk(rng, TEXTURE_SIZE - render.FRAME_SIZE, setting.pan)
    rest, other_rest = render.place(rng, alone=False)
    poses = motion.moved(rest, action.verb, np.arange(-1.0, motion.FRAMES + 1), rng)

    # The middle of the walk is where the things were placed; the scene and the bystander stand
    # still under the camera.
    middle = walk[motion.FRAMES // 2]
    other_rest[[motion.X, motion.Y]] += middle
    drift = walk - middle
    poses[:, [motion.X, motion.Y]] -= np.concatenate([drift[:1], drift, drift[-1:]])
    noun, other_noun = (
        torch.tensor([NOUNS.index(name)]) for name in (action.noun, setting.bystander)
    )
    tints = [COLOURS[colour], COLOURS[setting.colour]]
    colours = torch.tensor(tints, dtype=torch.float32)
    planes = render.coverage(other_noun, torch.from_numpy(other_rest)[None], TEXTURE_SIZE)
    stage = render.lay_over(textures()[setting.scene, texture][None].float(), planes, colours[1:])
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
    strength: Strength = USUAL,
) -> Videos:
    """`per_class` videos of every class of set `name`, class after class, which keep their class's
    habits as often as `strength` says.

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
        frames[index] = render_video(name, *divmod(index, per_class), seed, split, strength)
        if progress is not None:
            progress(index + 1)
    labels = torch.arange(len(members.actions)).repeat_interleave(per_class)
    return Videos(frames, labels, members.classes)


def render_video(
    name: str,
    label: int,
    take: int,
    seed: int = 0,
    split: Split = "test",
    strength: Strength = USUAL,
) -> Tensor:
    """Video `take` of class `label` of set `name`, (16, 3, 60, 60) uint8."""
    stream = [seed, 3, SPLITS.index(split), zlib.crc32(name.encode()), label, take]
    return record(SETS[name], label, np.random.default_rng(stream), strength)


def sentences(sets: Iterable[str] = tuple(SETS)) -> dict[str, str]:
    """Class name -> a sentence on what it looks like, for every class of these sets."""
    return {
        action.name: f"the {action.noun} {MOTIONS[action.verb]}"
        for name in sets
        for action in SETS[name].actions
    }
