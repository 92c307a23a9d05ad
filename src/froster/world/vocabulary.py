"""The words of the world: what there is, what it looks like, what it does, and where."""

from __future__ import annotations

NOUNS: tuple[str, ...] = (
    "cat",
    "fish",
    "car",
    "tree",
    "key",
    "clock",
    "star",
    "umbrella",
    "mushroom",
    "boat",
    "ladder",
    "apple",
    "rabbit",
    "bird",
    "plane",
    "flower",
    "hammer",
    "cup",
    "heart",
    "turtle",
    "house",
    "carrot",
    "anchor",
    "balloon",
    "spider",
    "lamp",
    "snail",
    "butterfly",
    "rocket",
    "cactus",
    "chair",
    "moon",
    "crown",
    "cherry",
    "snake",
    "octopus",
    "bicycle",
    "bell",
    "cake",
    "guitar",
)

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 32),
    "orange": (248, 138, 20),
    "yellow": (248, 222, 40),
    "green": (40, 158, 54),
    "cyan": (60, 214, 220),
    "blue": (40, 74, 214),
    "purple": (138, 44, 176),
    "pink": (250, 140, 190),
    "brown": (124, 72, 32),
    "white": (240, 240, 240),
}

SCENES: tuple[str, ...] = (
    "meadow",
    "desert",
    "ocean",
    "sky",
    "snow",
    "forest",
    "kitchen",
    "space",
    "street",
    "library",
    "cave",
    "volcano",
)

BASE_VERBS: tuple[str, ...] = (
    "spinning",
    "bouncing",
    "swinging",
    "pulsing",
    "blinking",
    "pacing",
    "circling",
    "stretching",
)
UNSEEN_VERBS: tuple[str, ...] = (
    "shaking",
    "flipping",
    "rocking",
    "zigzagging",
    "hopping",
    "glowing",
    "wobbling",
    "tumbling",
)
VERBS: tuple[str, ...] = BASE_VERBS + UNSEEN_VERBS
"""Motions that look the same when the video runs backwards."""

REVERSALS: tuple[tuple[str, str], ...] = (
    ("moving left", "moving right"),
    ("rising", "falling"),
    ("growing", "shrinking"),
    ("appearing", "vanishing"),
)
"""Pairs of motions, each the other one run backwards: no single frame and no set of frames tells
them apart."""

ORDERED_VERBS: tuple[str, ...] = tuple(verb for pair in REVERSALS for verb in pair)
ALL_VERBS: tuple[str, ...] = VERBS + ORDERED_VERBS
