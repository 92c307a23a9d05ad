"""From poses to pixels: things are sampled from the atlas, laid over a scene, and photographed.

Every pixel is computed element by element from the pose and the random stream of its own image, so
the same seed gives the same bytes in every process, for every batch size and for every number of
threads.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from froster.world import motion
from froster.world.sprites import atlas

FRAME_SIZE = 60
NOISE = 6.0
"""Standard deviation of the sensor noise, in grey levels."""
GHOST = 0.35
"""Opacity of the motion blur: the thing one frame before and one frame after."""


def coverage(nouns: Tensor, poses: Tensor, size: int) -> Tensor:
    """Sprites in their poses: nouns (N,), poses (N, 8) -> (N, 3, size, size), see `sprites.draw`
    for the planes."""
    x, y, angle, width, height, shear, opacity, gain = poses[..., None, None].unbind(1)
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    dx, dy = axis.view(1, 1, -1) - x, axis.view(1, -1, 1) - y
    # In float64: a vectorised and a scalar float32 cosine differ in the last bit.
    cosine, sine = torch.cos(angle.double()).float(), torch.sin(angle.double()).float()
    # Things seen edge-on keep a sliver of width: dividing by nothing would give NaN.
    width = torch.where(width.abs() < 0.6, torch.full_like(width, 0.6), width)
    height = torch.where(height.abs() < 0.6, torch.full_like(height, 0.6), height)
    v = (dy * cosine - dx * sine) / height
    u = (dx * cosine + dy * sine) / width + shear * v
    planes = F.grid_sample(atlas()[nouns], torch.stack([u, v], dim=-1), align_corners=False)
    planes = planes * opacity[:, None]
    planes[:, 1:] *= gain[:, None]
    return planes


def lay_over(canvas: Tensor, planes: Tensor, colours: Tensor, opacity: float = 1.0) -> Tensor:
    """canvas (N, 3, H, W) in 0..255 with things laid over it: planes (N, 3, H, W), colours (N, 3)
    in 0..255."""
    alpha, colour, white = (opacity * planes).split(1, dim=1)
    return canvas * (1 - alpha) + colour * colours[:, :, None, None] + 255 * white


def photograph(canvas: Tensor, brightness: Tensor, rngs: list[np.random.Generator]) -> Tensor:
    """Brightness (N,) and grey sensor noise, rounded to uint8. Each generator serves N / len(rngs)
    images in a row."""
    count, _, height, width = canvas.shape
    share = count // len(rngs)
    noise = np.stack([rng.standard_normal((share, 1, height, width), np.float32) for rng in rngs])
    grain = torch.from_numpy(noise).view(count, 1, height, width) * NOISE
    return (canvas * brightness.view(-1, 1, 1, 1) + grain).round_().clamp_(0, 255).to(torch.uint8)


def place(rng: np.random.Generator, alone: bool) -> tuple[np.ndarray, np.ndarray]:
    """Resting poses (8,) of the first thing and of the second, on opposite sides unless the first
    is alone."""
    direction, distance = rng.uniform(0, 2 * np.pi), rng.uniform(12.5, 17)
    sizes, angles = rng.uniform(10.5, 14.5, 2), rng.uniform(-0.25, 0.25, 2)
    dx, dy = distance * np.cos(direction), distance * np.sin(direction)
    if alone:
        dx, dy = rng.uniform(-9, 9, 2)
    centre = FRAME_SIZE / 2
    first = motion.at_rest(centre + dx, centre + dy, sizes[0], angles[0])
    return first, motion.at_rest(centre - dx, centre - dy, sizes[1], angles[1])


def camera_walk(rng: np.random.Generator, room: int, pan: tuple[int, int]) -> np.ndarray:
    """Offsets of the camera in whole pixels, (FRAMES, 2), within 0..room: a hand-held drift, which
    follows `pan` in half of the steps."""
    start = rng.integers(room // 4, room - room // 4 + 1, (1, 2))
    steps = rng.integers(-1, 2, (motion.FRAMES - 1, 2))
    follows = rng.random((motion.FRAMES - 1, 1)) < 0.5
    steps = np.where(follows & (np.array(pan) != 0), pan, steps)
    return np.clip(np.concatenate([start, start + np.cumsum(steps, axis=0)]), 0, room)
