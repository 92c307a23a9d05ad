"""A sentence about each class of the world, as people write them for real classes: what the motion
looks like."""

from __future__ import annotations

from collections.abc import Iterable

from froster.world.sets import SETS

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


def sentences(sets: Iterable[str] = tuple(SETS)) -> dict[str, str]:
    """Class name -> sentence, for every class of these sets."""
    return {
        action.name: f"the {action.noun} {MOTIONS[action.verb]}"
        for name in sets
        for action in SETS[name].actions
    }
