"""The forty things of the world, as small drawings (`drawings.txt`).

A drawing is a list of shapes on a 100 x 100 board in three tones; the outline is added afterwards,
so that every thing stands out from every scene. The colour comes in when the thing is placed.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from froster.world.vocabulary import NOUNS

SPRITE_SIZE, BOARD = 32, 256
TONES = {"dark": 1, "body": 2, "light": 3}


class Shape(NamedTuple):
    """An ellipse (two corners), a filled polygon, or an open line of some width."""

    kind: str
    tone: int
    points: tuple[float, ...]
    width: float = 0.0


def read_drawings(text: str) -> dict[str, list[Shape]]:
    """The shapes of each thing, from back to front; the text says how it is written."""
    drawings = {}
    for block in text.split("\n\n")[1:]:
        name, *lines = block.splitlines()
        drawings[name] = [shape_of(*line.split()) for line in lines]
    return drawings


def shape_of(kind: str, tone: str, *numbers: str) -> Shape:
    values = [float(number) for number in numbers]
    match kind, values:
        case "oval", [x, y, rx, ry]:
            return Shape("ellipse", TONES[tone], (x - rx, y - ry, x + rx, y + ry))
        case "ring", [width, x, y, r]:
            return Shape("ellipse", TONES[tone], (x - r, y - r, x + r, y + r), width)
        case "line", [width, *points]:
            return Shape("line", TONES[tone], tuple(points), width)
        case "poly", _:
            return Shape("polygon", TONES[tone], tuple(values))
    raise ValueError(f"no shape: {kind} {numbers}")


DRAWINGS = read_drawings(
    resources.files("froster.world").joinpath("drawings.txt").read_text(encoding="utf-8")
)


def draw(noun: str) -> np.ndarray:
    """One thing, (3, S, S) float32 in 0..1: coverage, weight of its colour, weight of white.

    The two weights are premultiplied by the coverage, so that linear resampling of them is exact at
    the edges.
    """
    board = Image.new("L", (BOARD, BOARD))
    pen = ImageDraw.Draw(board)
    unit = BOARD / 112  # a margin of six units on each side, for the outline
    for shape in DRAWINGS[noun]:
        points = [(value + 6) * unit for value in shape.points]
        width = round(shape.width * unit)
        if shape.kind == "line":
            pen.line(points, fill=shape.tone, width=width, joint="curve")
        elif shape.kind == "polygon":
            pen.polygon(points, fill=shape.tone)
        elif width:
            pen.ellipse(points, outline=shape.tone, width=width)
        else:
            pen.ellipse(points, fill=shape.tone)
    tones = np.asarray(board)
    outlined = torch.from_numpy(tones > 0).float()[None]
    for window, padding in (((13, 1), (6, 0)), ((1, 13), (0, 6))):  # one of 13 x 13 in two passes
        outlined = F.max_pool2d(outlined, window, 1, padding)
    covered = outlined[0].numpy()
    body, light = ((tones == TONES[tone]).astype(np.float32) for tone in ("body", "light"))
    planes = np.stack([covered, body + 0.3 * light, 0.68 * light]).astype(np.float32)
    step = BOARD // SPRITE_SIZE
    return planes.reshape(3, SPRITE_SIZE, step, SPRITE_SIZE, step).mean((2, 4))


@cache
def atlas() -> Tensor:
    """All drawings in the order of `NOUNS`, (40, 3, S, S) float32."""
    return torch.from_numpy(np.stack([draw(noun) for noun in NOUNS]))
