"""Habits: what a class of videos is usually filmed with, as swimming is in pools.

A class has a usual scene, a usual bystander, a usual way in which the camera turns and a usual
light; a video keeps each with a probability of its own and otherwise draws it freely. What is
learnt of them helps on videos with the same habits and misleads elsewhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from froster.world.vocabulary import COLOURS, SCENES

PANS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
"""Ways in which a camera turns, in pixels a frame: across and down."""
LIGHTS = 3
"""Thirds of the range of a set's brightness."""


@dataclass(frozen=True)
class Strength:
    """How often a video keeps each habit of its class: probabilities below 1."""

    scene: float = 0.9
    bystander: float = 0.9
    camera: float = 0.9
    light: float = 0.9


FREE = Strength(0.0, 0.0, 0.0, 0.0)
"""No habits: everything goes with every class."""


@dataclass(frozen=True)
class Habit:
    """What one class is usually filmed with."""

    scene: int
    bystander: str
    colour: str
    """Of the bystander."""
    pan: tuple[int, int]
    light: int


@dataclass(frozen=True)
class Setting:
    """What one video is filmed with; `light` in 0..1 of the range of the set's brightness."""

    scene: int
    bystander: str
    colour: str
    pan: tuple[int, int]
    light: float


def shuffled(rng: Generator, size: int, values: int) -> list[int]:
    """`size` of the numbers below `values`, each equally often, as far as that goes."""
    parts = [rng.permutation(values) for _ in range(-(-size // values))]
    return np.concatenate(parts)[:size].tolist()


def dealt(
    rng: Generator, nouns: Sequence[str], values: int, refused: Mapping[str, set[int]]
) -> list[int]:
    """A number below `values` for every class, each equally often, as far as that goes: a class
    gets none that is refused to its noun, and classes of one noun get different ones."""
    while True:
        stack, mine = shuffled(rng, len(nouns), values), []
        refuse = {noun: set(refused.get(noun, ())) for noun in nouns}
        for noun in nouns:
            fitting = [value for value in stack if value not in refuse[noun]]
            if not fitting:
                break
            mine.append(fitting[0])
            stack.remove(fitting[0])
            refuse[noun].add(fitting[0])
        else:
            return mine


Thing = tuple[str, str | None]
"""A noun, and its colour where a class's name tells it."""


def draw_habits(
    name: str, shown: Sequence[Thing], others: Mapping[str, Sequence[Habit]] | None = None
) -> tuple[Habit, ...]:
    """A habit for every class of set `name`, given what its classes show; always the same. What
    stands by is what another class of the set shows, so that the things alone do not tell who acts.

    No bystander is what the class itself shows. Classes that show the same thing have different
    scenes and bystanders, none of which is among those that `others` have for this thing.
    """
    rng = np.random.default_rng([5, zlib.crc32(name.encode())])
    others, nouns = others or {}, [noun for noun, _ in shown]
    things = list(dict.fromkeys(shown))
    used = {noun: {habit.scene for habit in others.get(noun, ())} for noun in nouns}
    scenes = dealt(rng, nouns, len(SCENES), used)
    beside = {noun: {h.bystander for h in others.get(noun, ())} | {noun} for noun in nouns}
    refused = {
        noun: {i for i, (thing, _) in enumerate(things) if thing in beside[noun]} for noun in nouns
    }
    bystanders = dealt(rng, nouns, len(things), refused)
    size, colours = len(nouns), tuple(COLOURS)
    tints, pans = shuffled(rng, size, len(COLOURS)), shuffled(rng, size, len(PANS))
    lights = shuffled(rng, size, LIGHTS)
    return tuple(
        Habit(scene, things[bystander][0], things[bystander][1] or colours[tint], PANS[pan], light)
        for scene, bystander, tint, pan, light in zip(
            scenes, bystanders, tints, pans, lights, strict=True
        )
    )


def exchanged(habits: tuple[Habit, ...]) -> tuple[Habit, ...]:
    """The second half's for the first half and the other way round."""
    half = len(habits) // 2
    return habits[half:] + habits[:half]


def draw_setting(
    habit: Habit | None, things: Sequence[Thing], strength: Strength, rng: Generator
) -> Setting:
    """What one video of a class is filmed with; `things` are those that may stand by. The number of
    draws is always the same."""
    scene, place = rng.integers(0, len(SCENES)), rng.integers(0, len(things))
    colour, pan = rng.integers(0, len(COLOURS)), rng.integers(0, len(PANS))
    light, kept = rng.random(), rng.random(4)
    bystander, tint = things[place]
    drawn = Setting(int(scene), bystander, tint or tuple(COLOURS)[colour], PANS[pan], light)
    if habit is None:
        return drawn
    usual = kept < (strength.scene, strength.bystander, strength.camera, strength.light)
    beside = habit if usual[1] else drawn
    return Setting(
        habit.scene if usual[0] else drawn.scene,
        beside.bystander,
        beside.colour,
        habit.pan if usual[2] else drawn.pan,
        (habit.light + light) / LIGHTS if usual[3] else light,
    )
