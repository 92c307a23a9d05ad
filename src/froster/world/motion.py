"""How things move: each verb as a pose in time."""

from __future__ import annotations

import numpy as np

from froster.world.vocabulary import REVERSALS

FRAMES = 16
POSE = ("x", "y", "angle", "width", "height", "shear", "opacity", "gain")
"""Columns of a pose. x, y: centre in pixels; angle in radians; width, height: half the size of the
thing in pixels (negative: mirrored); opacity 0..1; gain: factor on the brightness."""
X, Y, ANGLE, WIDTH, HEIGHT, SHEAR, OPACITY, GAIN = range(len(POSE))


def at_rest(x: float, y: float, size: float, angle: float) -> np.ndarray:
    """The pose (8,) of a thing that does nothing; `size` is half its width in pixels."""
    return np.array([x, y, angle, size, size, 0, 1, 1], np.float32)


def moved(rest: np.ndarray, verb: str, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The poses (len(times), 8) of a thing that does `verb`; `times` in frames, 0..15 is the video.

    Speed, phase and direction are drawn from `rng`, the same number of draws for every verb.
    """
    speed, phase = rng.uniform(0.85, 1.2), rng.uniform(0, 2 * np.pi)
    amount = rng.uniform(0.85, 1.15)
    direction = 1.0 if rng.random() < 0.5 else -1.0
    jitter = rng.uniform(-1, 1, (2, FRAMES + 4))
    cycles = 2 * np.pi * speed * direction * times / FRAMES
    poses = np.repeat(rest[None], len(times), axis=0)
    for forwards, backwards in REVERSALS:
        if verb == backwards:
            verb, times = forwards, FRAMES - 1 - times
    progress = np.clip(times / (FRAMES - 1), 0, 1)

    def wave(frequency: float) -> np.ndarray:
        return np.sin(frequency * cycles + phase)

    match verb:
        case "spinning":
            poses[:, ANGLE] += 1.6 * cycles + phase
        case "bouncing":
            poses[:, Y] += amount * (8 - 20 * np.abs(wave(1)))
        case "swinging":
            poses[:, ANGLE] -= 0.7 * wave(1.3)
            poses[:, X] += 13 * amount * wave(1.3)
            poses[:, Y] -= 8 * amount * wave(1.3) ** 2 - 4
        case "pulsing":
            poses[:, WIDTH : HEIGHT + 1] *= (1 + 0.4 * amount * wave(2))[:, None]
        case "blinking":
            poses[:, OPACITY] *= np.where(wave(2.2) > -0.2, 1.0, 0.1)
        case "pacing":
            poses[:, X] += 15 * amount * wave(1.2)
        case "circling":
            poses[:, X] += 11 * amount * np.cos(1.5 * cycles + phase)
            poses[:, Y] += 11 * amount * wave(1.5)
        case "stretching":
            poses[:, WIDTH] *= 1 + 0.55 * amount * wave(1.6)
            poses[:, HEIGHT] *= 1 - 0.3 * amount * wave(1.6)
        case "shaking":
            index = np.clip(np.round(times).astype(int) + 2, 0, FRAMES + 3)
            poses[:, X] += 5 * amount * jitter[0, index]
            poses[:, Y] += 3 * amount * jitter[1, index]
        case "flipping":
            poses[:, WIDTH] *= np.cos(1.6 * cycles + phase)
        case "rocking":
            poses[:, ANGLE] += 0.6 * amount * wave(2)
        case "zigzagging":
            poses[:, X] += 14 * amount * wave(0.8)
            poses[:, Y] += 8 * amount * np.sign(np.sin(6 * cycles))
        case "hopping":
            poses[:, X] += 14 * amount * wave(0.8)
            poses[:, Y] += amount * (4 - 11 * np.abs(np.sin(2.5 * cycles)))
        case "glowing":
            poses[:, GAIN] *= 1 + 0.6 * amount * wave(2)
        case "wobbling":
            poses[:, SHEAR] += 0.65 * amount * wave(2)
        case "tumbling":
            poses[:, HEIGHT] *= np.cos(1.6 * cycles + phase)
        case "moving left":
            poses[:, X] += amount * (16 - 32 * progress)
        case "rising":
            poses[:, Y] += amount * (16 - 32 * progress)
        case "growing":
            poses[:, WIDTH : HEIGHT + 1] *= (0.45 + progress)[:, None]
        case "appearing":
            poses[:, OPACITY] *= progress
        case _:
            raise ValueError(f"unknown verb {verb!r}")
    return poses
