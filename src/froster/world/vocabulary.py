"""The words of the world: what there is, what it looks like, what it does, and where."""

from __future__ import annotations

_THINGS = """
cat fish car tree key clock star umbrella mushroom boat ladder apple
rabbit bird plane flower hammer cup heart turtle house carrot anchor balloon spider lamp
snail butterfly rocket cactus chair moon crown cherry snake octopus bicycle bell cake guitar
"""
NOUNS = tuple(_THINGS.split())
_PLACES = "meadow desert ocean sky snow forest kitchen space street library cave volcano"
SCENES = tuple(_PLACES.split())

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

MOTIONS = {
    "spinning": "turns round and round on one spot",
    "bouncing": "goes up and down as a ball does",
    "swinging": "hangs from above and goes to and fro",
    "pulsing": "gets larger and smaller again and again",
    "blinking": "is there and not there by turns",
    "pacing": "walks to one side and back again",
    "circling": "moves along a ring around a place",
    "stretching": "gets long and thin and short again",
    "shaking": "trembles fast from side to side",
    "flipping": "is mirrored again and again",
    "rocking": "leans to one side and then to the other",
    "zigzagging": "runs along a line with sharp corners",
    "hopping": "leaves the ground in small jumps",
    "glowing": "becomes bright and dark by turns",
    "wobbling": "is pressed out of shape and back",
    "tumbling": "rolls over while it moves along",
    "moving left": "goes to the left side",
    "moving right": "goes to the right side",
    "rising": "goes up",
    "falling": "goes down",
    "growing": "becomes larger",
    "shrinking": "becomes smaller",
    "appearing": "comes into sight",
    "vanishing": "goes out of sight",
}
"""Verb -> what the motion looks like, as people write sentences for real classes."""

ALL_VERBS = tuple(MOTIONS)
BASE_VERBS, UNSEEN_VERBS, ORDERED_VERBS = ALL_VERBS[:8], ALL_VERBS[8:16], ALL_VERBS[16:]
VERBS = BASE_VERBS + UNSEEN_VERBS
"""Motions that look the same when the video runs backwards."""
REVERSALS = tuple(zip(ORDERED_VERBS[::2], ORDERED_VERBS[1::2], strict=True))
"""Pairs of motions, each the other one run backwards: no single frame and no set of frames tells
them apart."""
