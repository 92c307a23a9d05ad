"""What a clip loses: orders of its frames that take the motion out and leave the pictures in."""

import random
from itertools import pairwise
from typing import Literal

Probe = Literal["static", "shuffled", "reversed"]
PROBES: tuple[Probe, ...] = ("static", "shuffled", "reversed")


def frame_order(probe: Probe, frames: int) -> list[int]:
    """The frames of a clip of `frames`, by their places in time, as a probe shows them.

    `static`: the frame in the middle (of an even number the later one), as often as there were
    frames: the first and the last may lie before and after the action. `shuffled`: one random order
    for each number of frames, always the same. `reversed`: backwards.
    """
    if probe == "static":
        return [frames // 2] * frames
    if probe == "reversed":
        return list(range(frames))[::-1]
    return shuffled(frames)


def shuffled(frames: int) -> list[int]:
    """A random order of 0 … frames - 1 in which no two that follow each other, forwards or
    backwards, still do; of two and three frames there is none, and the order is only another one.
    """
    forwards = list(range(frames))
    if frames < 4:
        return [*forwards[1:], 0] if frames else []
    order, rng = forwards, random.Random(f"shuffled/{frames}")
    while any(abs(a - b) == 1 for a, b in pairwise(order)):
        order = rng.sample(forwards, frames)
    return order
