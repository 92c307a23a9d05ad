"""Where things happen: twelve procedural textures, muted so that the things in front stand out."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
import torch
from torch import Tensor

from froster.world.vocabulary import SCENES

TEXTURE_SIZE = 84
"""Larger than a frame, so that the camera has room to move."""
TEXTURES = 24
STILL_TEXTURES = 16
"""Textures 0-15 of a scene are for stills; 16-23 are seen in videos only."""

Field = np.ndarray  # (S, S) float, about 0..1


def clouds(rng: np.random.Generator, cells: int, stretch: int = 1) -> Field:
    """Smooth noise: a coarse random grid, enlarged with smooth interpolation; `stretch` makes it
    wider than high."""
    rows, columns = cells * stretch + 2, cells + 2
    grid = rng.random((rows, columns))
    y = np.linspace(0, rows - 1.001, TEXTURE_SIZE)
    x = np.linspace(0, columns - 1.001, TEXTURE_SIZE)
    yi, xi = y.astype(int), x.astype(int)
    fy, fx = (y - yi)[:, None], (x - xi)[None]
    fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
    top = grid[yi][:, xi] * (1 - fx) + grid[yi][:, xi + 1] * fx
    bottom = grid[yi + 1][:, xi] * (1 - fx) + grid[yi + 1][:, xi + 1] * fx
    return top * (1 - fy) + bottom * fy


def shade(low: tuple[int, int, int], high: tuple[int, int, int], weight: Field) -> np.ndarray:
    """Colours between `low` (weight 0) and `high` (weight 1): (3, S, S)."""
    a, b = np.array(low, float)[:, None, None], np.array(high, float)[:, None, None]
    return a + (b - a) * np.clip(weight, 0, 1)


def dots(rng: np.random.Generator, count: int, size: int) -> Field:
    """A mask of `count` small squares."""
    mask = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE))
    for y, x in rng.integers(0, TEXTURE_SIZE - size, (count, 2)):
        mask[y : y + size, x : x + size] = 1
    return mask


def paint(scene: str, rng: np.random.Generator) -> np.ndarray:
    """One texture of a scene, (3, S, S) float in 0..255."""
    y, x = np.mgrid[0:TEXTURE_SIZE, 0:TEXTURE_SIZE].astype(float)
    shift = float(rng.uniform(0, 24))
    if scene == "meadow":
        image = shade((84, 128, 66), (128, 168, 92), 0.6 * clouds(rng, 6) + 0.5 * clouds(rng, 40))
        return np.where(dots(rng, 14, 2) > 0, np.array([232.0, 226, 150])[:, None, None], image)
    if scene == "desert":
        dunes = 0.5 + 0.5 * np.sin((y + 5 * np.sin((x + shift) / 13)) / 4.5 + shift)
        return shade((190, 158, 106), (222, 194, 142), 0.7 * dunes + 0.3 * clouds(rng, 20))
    if scene == "ocean":
        waves = 0.5 + 0.5 * np.sin((y + 3 * np.sin((x + 4 * shift) / 6)) / 2.3)
        return shade((48, 96, 132), (104, 152, 178), 0.5 * waves + 0.5 * clouds(rng, 5))
    if scene == "sky":
        return shade((150, 190, 222), (236, 240, 244), 2.2 * clouds(rng, 3, 2) - 0.7)
    if scene == "snow":
        image = shade((204, 212, 222), (232, 236, 240), clouds(rng, 8))
        return image * (1 - 0.22 * dots(rng, 40, 2))
    if scene == "forest":
        trunks = (np.sin(x / 2.9 + shift) + 0.8 * np.sin(x / 5.3 + 2 * shift)) > 0.5
        return shade((38, 66, 44), (84, 72, 50), trunks * 0.8 + 0.3 * clouds(rng, 24))
    if scene == "kitchen":
        tiles = ((x + shift) // 11 + (y + shift) // 11) % 2
        return shade((168, 170, 160), (214, 210, 196), tiles * 0.9 + 0.1 * clouds(rng, 20))
    if scene == "space":
        image = shade((14, 12, 34), (46, 30, 72), 1.4 * clouds(rng, 3) - 0.2)
        return np.maximum(image, 225 * dots(rng, 32, 1))
    if scene == "street":
        image = shade((96, 96, 100), (122, 122, 124), clouds(rng, 30))
        dashes = (np.abs((y + shift) % 28 - 14) < 1.6) & ((x + 2 * shift) % 20 < 11)
        return np.where(dashes, 216, image)
    if scene == "library":
        shelf = (y + shift) % 21 < 3
        spines = rng.uniform(70, 165, (3, 6, 24)) * np.array([1.0, 0.86, 0.78])[:, None, None]
        books = spines[:, ((y + shift) // 21).astype(int)[:, :1], (x[:1] // 4).astype(int)]
        return np.where(shelf, np.array([84.0, 60, 42])[:, None, None], books)
    if scene == "cave":
        rock = 0.5 * clouds(rng, 4, 3) + 0.6 * clouds(rng, 11) - 0.1
        return shade((54, 48, 46), (112, 100, 92), rock)
    veins = np.abs(clouds(rng, 6) - 0.5)  # volcano
    return shade((206, 92, 38), (52, 34, 34), 9 * veins - 0.1)


@cache
def textures() -> Tensor:
    """(12 scenes, 24 textures, 3, 84, 84) uint8, always the same."""
    keys = ((scene, [zlib.crc32(scene.encode()), i]) for scene in SCENES for i in range(TEXTURES))
    images = [paint(scene, np.random.default_rng(key)) for scene, key in keys]
    pixels = torch.from_numpy(np.clip(np.array(images), 0, 255).astype(np.uint8))
    return pixels.unflatten(0, (len(SCENES), TEXTURES))
