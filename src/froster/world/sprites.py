"""The forty things of the world, as small drawings.

A drawing is a list of shapes on a 100 x 100 board in three tones; the outline is added afterwards,
so that every thing stands out from every scene. The colour comes in when the thing is placed.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from froster.world.vocabulary import NOUNS

SPRITE_SIZE = 32
BOARD = 256
DARK, BODY, LIGHT = 1, 2, 3


class Shape(NamedTuple):
    """One stroke of the pen: an ellipse (two corners), a filled polygon, or an open line of some
    width."""

    kind: str
    tone: int
    points: tuple[float, ...]
    width: float = 0.0


def oval(tone: int, x: float, y: float, rx: float, ry: float | None = None) -> Shape:
    ry = rx if ry is None else ry
    return Shape("ellipse", tone, (x - rx, y - ry, x + rx, y + ry))


def poly(tone: int, *points: float) -> Shape:
    return Shape("polygon", tone, points)


def line(tone: int, width: float, *points: float) -> Shape:
    return Shape("line", tone, points, width)


def ring(tone: int, width: float, x: float, y: float, r: float) -> Shape:
    return Shape("ellipse", tone, (x - r, y - r, x + r, y + r), width)


DRAWINGS: dict[str, list[Shape]] = {
    "cat": [
        poly(BODY, 12, 8, 40, 28, 60, 28, 88, 8, 92, 56, 72, 88, 28, 88, 8, 56),
        oval(LIGHT, 32, 52, 9),
        oval(LIGHT, 68, 52, 9),
        oval(DARK, 32, 53, 5),
        oval(DARK, 68, 53, 5),
        poly(DARK, 42, 68, 58, 68, 50, 77),
    ],
    "fish": [
        poly(BODY, 62, 50, 95, 20, 88, 50, 95, 80),
        oval(BODY, 40, 50, 36, 25),
        oval(LIGHT, 24, 43, 8),
        oval(DARK, 24, 43, 4),
        line(DARK, 4, 46, 30, 54, 50, 46, 70),
    ],
    "car": [
        poly(BODY, 24, 46, 34, 24, 68, 24, 78, 46),
        poly(BODY, 5, 46, 95, 46, 95, 70, 5, 70),
        poly(LIGHT, 33, 44, 39, 31, 49, 31, 49, 44),
        poly(LIGHT, 54, 44, 54, 31, 64, 31, 70, 44),
        oval(DARK, 27, 72, 13),
        oval(DARK, 73, 72, 13),
        oval(LIGHT, 27, 72, 5),
        oval(LIGHT, 73, 72, 5),
    ],
    "tree": [
        poly(DARK, 42, 60, 58, 60, 58, 95, 42, 95),
        oval(BODY, 30, 44, 24),
        oval(BODY, 70, 44, 24),
        oval(BODY, 50, 28, 25),
        oval(BODY, 50, 52, 20),
    ],
    "key": [
        ring(BODY, 13, 26, 50, 22),
        line(BODY, 12, 46, 50, 94, 50),
        line(BODY, 11, 74, 50, 74, 74),
        line(BODY, 11, 89, 50, 89, 70),
    ],
    "clock": [
        oval(BODY, 50, 50, 44),
        oval(LIGHT, 50, 50, 33),
        line(DARK, 7, 50, 52, 50, 24),
        line(DARK, 7, 48, 50, 70, 62),
    ],
    "star": [
        poly(BODY, 50, 3, 62, 36, 97, 38, 69, 59, 80, 94, 50, 73, 20, 94, 31, 59, 3, 38, 38, 36)
    ],
    "umbrella": [
        poly(
            BODY,
            4,
            52,
            12,
            28,
            32,
            10,
            50,
            6,
            68,
            10,
            88,
            28,
            96,
            52,
            80,
            44,
            65,
            52,
            50,
            44,
            35,
            52,
            20,
            44,
        ),
        line(LIGHT, 4, 50, 10, 35, 48),
        line(LIGHT, 4, 50, 10, 65, 48),
        line(DARK, 7, 50, 46, 50, 88, 40, 94, 32, 86),
    ],
    "mushroom": [
        poly(LIGHT, 36, 50, 64, 50, 70, 94, 30, 94),
        oval(BODY, 50, 36, 46, 28),
        poly(LIGHT, 36, 62, 64, 62, 64, 70, 36, 70),
        oval(LIGHT, 30, 34, 8),
        oval(LIGHT, 54, 22, 8),
        oval(LIGHT, 74, 40, 8),
    ],
    "boat": [
        poly(BODY, 4, 66, 96, 66, 80, 92, 20, 92),
        line(DARK, 6, 48, 6, 48, 66),
        poly(LIGHT, 54, 8, 90, 60, 54, 60),
        poly(BODY, 42, 16, 42, 60, 14, 60),
    ],
    "ladder": [
        line(BODY, 9, 30, 4, 30, 96),
        line(BODY, 9, 70, 4, 70, 96),
        *(line(BODY, 8, 30, y, 70, y) for y in (16, 38, 60, 82)),
    ],
    "apple": [
        oval(BODY, 35, 58, 29, 34),
        oval(BODY, 65, 58, 29, 34),
        oval(LIGHT, 28, 48, 7, 10),
        line(DARK, 7, 50, 34, 54, 8),
        poly(BODY, 56, 20, 74, 6, 88, 12, 72, 24),
    ],
    "rabbit": [
        oval(BODY, 34, 26, 11, 25),
        oval(BODY, 66, 26, 11, 25),
        oval(LIGHT, 34, 26, 5, 17),
        oval(LIGHT, 66, 26, 5, 17),
        oval(BODY, 50, 68, 32, 28),
        oval(DARK, 38, 62, 5),
        oval(DARK, 62, 62, 5),
        oval(LIGHT, 50, 80, 12, 9),
        oval(DARK, 50, 74, 4),
    ],
    "bird": [
        poly(BODY, 8, 30, 40, 52, 32, 70),
        oval(BODY, 54, 58, 30, 25),
        oval(BODY, 76, 32, 17),
        poly(LIGHT, 90, 28, 99, 36, 88, 40),
        oval(DARK, 78, 29, 4),
        poly(LIGHT, 34, 50, 66, 52, 48, 72),
        line(DARK, 5, 48, 80, 48, 97),
        line(DARK, 5, 62, 80, 62, 97),
    ],
    "plane": [
        poly(
            BODY,
            50,
            2,
            58,
            18,
            58,
            38,
            97,
            62,
            97,
            74,
            58,
            62,
            56,
            82,
            70,
            92,
            70,
            98,
            50,
            93,
            30,
            98,
            30,
            92,
            44,
            82,
            42,
            62,
            3,
            74,
            3,
            62,
            42,
            38,
            42,
            18,
        ),
        oval(LIGHT, 50, 20, 4, 7),
    ],
    "flower": [
        line(DARK, 7, 50, 60, 50, 97),
        oval(BODY, 50, 17, 13),
        oval(BODY, 73, 33, 13),
        oval(BODY, 64, 59, 13),
        oval(BODY, 36, 59, 13),
        oval(BODY, 27, 33, 13),
        oval(LIGHT, 50, 40, 13),
        poly(BODY, 52, 86, 76, 72, 80, 82),
    ],
    "hammer": [
        poly(LIGHT, 43, 34, 57, 34, 57, 96, 43, 96),
        poly(BODY, 18, 8, 76, 8, 92, 28, 76, 36, 18, 36),
    ],
    "cup": [
        ring(BODY, 9, 72, 52, 22),
        poly(BODY, 10, 22, 70, 22, 64, 86, 16, 86),
        oval(LIGHT, 40, 22, 30, 9),
    ],
    "heart": [
        poly(
            BODY,
            50,
            94,
            8,
            50,
            4,
            34,
            8,
            20,
            20,
            10,
            34,
            10,
            44,
            17,
            50,
            28,
            56,
            17,
            66,
            10,
            80,
            10,
            92,
            20,
            96,
            34,
            92,
            50,
        )
    ],
    "turtle": [
        oval(BODY, 88, 46, 10, 9),
        line(BODY, 13, 28, 60, 20, 78),
        line(BODY, 13, 66, 60, 74, 78),
        poly(DARK, 8, 60, 16, 36, 34, 22, 56, 22, 74, 36, 82, 60),
        poly(LIGHT, 38, 30, 54, 30, 60, 44, 46, 52, 32, 44),
        poly(LIGHT, 16, 54, 26, 44, 36, 56),
        poly(LIGHT, 56, 56, 66, 44, 74, 54),
        oval(DARK, 91, 43, 3),
    ],
    "house": [
        poly(LIGHT, 16, 46, 84, 46, 84, 94, 16, 94),
        poly(BODY, 50, 4, 97, 48, 3, 48),
        poly(DARK, 42, 64, 60, 64, 60, 94, 42, 94),
        poly(BODY, 22, 56, 36, 56, 36, 70, 22, 70),
        poly(BODY, 66, 56, 79, 56, 79, 70, 66, 70),
    ],
    "carrot": [
        poly(LIGHT, 62, 34, 66, 2, 76, 22),
        poly(LIGHT, 66, 36, 96, 14, 86, 34),
        poly(LIGHT, 66, 38, 98, 42, 80, 48),
        poly(BODY, 52, 26, 76, 50, 56, 70, 4, 96, 30, 44),
        line(DARK, 4, 40, 46, 52, 56),
        line(DARK, 4, 28, 64, 38, 74),
    ],
    "anchor": [
        ring(BODY, 8, 50, 16, 12),
        line(BODY, 10, 50, 26, 50, 90),
        line(BODY, 9, 28, 38, 72, 38),
        line(BODY, 11, 10, 58, 18, 78, 34, 88, 50, 91, 66, 88, 82, 78, 90, 58),
        poly(BODY, 2, 68, 10, 48, 24, 66),
        poly(BODY, 98, 68, 90, 48, 76, 66),
    ],
    "balloon": [
        oval(BODY, 50, 34, 30, 32),
        oval(LIGHT, 40, 22, 7, 10),
        poly(BODY, 42, 72, 58, 72, 50, 60),
        line(DARK, 4, 50, 72, 44, 82, 54, 90, 48, 99),
    ],
    "spider": [
        *(
            line(DARK, 5, 50, 52, x, y, x2, y2)
            for x, y, x2, y2 in (
                (20, 34, 6, 52),
                (22, 22, 12, 8),
                (20, 62, 4, 76),
                (26, 76, 16, 97),
                (80, 34, 94, 52),
                (78, 22, 88, 8),
                (80, 62, 96, 76),
                (74, 76, 84, 97),
            )
        ),
        oval(BODY, 50, 64, 22, 24),
        oval(BODY, 50, 34, 14),
        oval(LIGHT, 45, 31, 4),
        oval(LIGHT, 55, 31, 4),
    ],
    "lamp": [
        poly(BODY, 30, 6, 70, 6, 92, 48, 8, 48),
        line(DARK, 8, 50, 48, 50, 88),
        poly(LIGHT, 24, 84, 76, 84, 82, 96, 18, 96),
    ],
    "snail": [
        poly(LIGHT, 4, 92, 10, 80, 66, 78, 76, 48, 92, 48, 92, 74, 80, 92),
        line(DARK, 4, 80, 48, 74, 30),
        line(DARK, 4, 88, 48, 94, 30),
        oval(BODY, 42, 52, 33),
        ring(DARK, 5, 42, 52, 22),
        ring(DARK, 5, 44, 54, 10),
    ],
    "butterfly": [
        oval(BODY, 24, 30, 22, 24),
        oval(BODY, 76, 30, 22, 24),
        oval(BODY, 30, 72, 18, 20),
        oval(BODY, 70, 72, 18, 20),
        oval(LIGHT, 24, 30, 9),
        oval(LIGHT, 76, 30, 9),
        oval(LIGHT, 30, 72, 7),
        oval(LIGHT, 70, 72, 7),
        oval(DARK, 50, 52, 6, 34),
    ],
    "rocket": [
        poly(BODY, 30, 58, 12, 88, 32, 80),
        poly(BODY, 70, 58, 88, 88, 68, 80),
        poly(LIGHT, 50, 2, 66, 24, 70, 56, 64, 80, 36, 80, 30, 56, 34, 24),
        poly(BODY, 50, 2, 64, 24, 36, 24),
        oval(BODY, 50, 44, 10),
        poly(DARK, 40, 82, 60, 82, 50, 99),
    ],
    "cactus": [
        line(BODY, 20, 50, 8, 50, 96),
        line(BODY, 13, 50, 62, 20, 62, 20, 32),
        line(BODY, 13, 50, 74, 80, 74, 80, 44),
        *(
            oval(LIGHT, x, y, 3)
            for x, y in ((50, 18), (46, 36), (54, 52), (48, 70), (52, 86), (20, 42), (80, 54))
        ),
    ],
    "chair": [
        line(BODY, 9, 26, 4, 26, 96),
        line(BODY, 9, 74, 56, 74, 96),
        poly(BODY, 22, 48, 80, 48, 80, 62, 22, 62),
        line(LIGHT, 8, 26, 8, 26, 44),
        line(BODY, 9, 24, 10, 38, 10),
        line(BODY, 9, 24, 28, 38, 28),
    ],
    "moon": [
        poly(
            BODY,
            58,
            4,
            34,
            8,
            14,
            26,
            8,
            50,
            14,
            74,
            34,
            92,
            58,
            96,
            78,
            88,
            60,
            80,
            48,
            66,
            44,
            50,
            48,
            34,
            60,
            20,
            78,
            12,
        )
    ],
    "crown": [
        poly(BODY, 8, 84, 4, 26, 28, 52, 50, 12, 72, 52, 96, 26, 92, 84),
        poly(LIGHT, 10, 72, 90, 72, 90, 84, 10, 84),
        oval(LIGHT, 5, 24, 5),
        oval(LIGHT, 50, 12, 6),
        oval(LIGHT, 95, 24, 5),
    ],
    "cherry": [
        line(DARK, 6, 28, 68, 40, 34, 62, 6),
        line(DARK, 6, 74, 74, 70, 36, 62, 6),
        oval(BODY, 26, 74, 21),
        oval(BODY, 75, 78, 20),
        oval(LIGHT, 20, 67, 5),
        oval(LIGHT, 69, 71, 5),
        poly(LIGHT, 62, 6, 92, 4, 82, 22),
    ],
    "snake": [
        line(
            BODY,
            15,
            6,
            84,
            22,
            92,
            38,
            80,
            36,
            60,
            28,
            44,
            40,
            30,
            56,
            38,
            60,
            58,
            70,
            70,
            86,
            60,
            84,
            38,
            78,
            20,
        ),
        oval(BODY, 76, 16, 14, 11),
        oval(LIGHT, 80, 13, 4),
        line(DARK, 4, 64, 16, 48, 12),
    ],
    "octopus": [
        *(
            line(BODY, 9, x, 52, x2, 78, x3, 94)
            for x, x2, x3 in (
                (26, 14, 4),
                (36, 30, 22),
                (46, 44, 42),
                (54, 58, 60),
                (64, 72, 80),
                (74, 88, 96),
            )
        ),
        oval(BODY, 50, 34, 31, 30),
        oval(LIGHT, 38, 36, 8),
        oval(LIGHT, 62, 36, 8),
        oval(DARK, 38, 37, 4),
        oval(DARK, 62, 37, 4),
    ],
    "bicycle": [
        ring(DARK, 6, 22, 66, 20),
        ring(DARK, 6, 78, 66, 20),
        line(BODY, 7, 22, 66, 38, 34, 64, 34, 78, 66),
        line(BODY, 7, 38, 34, 48, 66, 64, 34),
        line(BODY, 7, 22, 66, 48, 66),
        line(BODY, 7, 64, 36, 60, 18, 74, 16),
        line(BODY, 8, 28, 28, 46, 28),
    ],
    "bell": [
        oval(DARK, 50, 88, 10),
        ring(BODY, 6, 50, 10, 8),
        poly(BODY, 50, 12, 70, 20, 76, 44, 80, 66, 94, 82, 6, 82, 20, 66, 24, 44, 30, 20),
        line(LIGHT, 6, 14, 74, 86, 74),
    ],
    "cake": [
        line(DARK, 6, 50, 30, 50, 14),
        oval(LIGHT, 50, 8, 5, 7),
        poly(LIGHT, 24, 30, 76, 30, 76, 54, 24, 54),
        poly(BODY, 6, 54, 94, 54, 94, 92, 6, 92),
        poly(BODY, 24, 30, 76, 30, 76, 40, 66, 46, 56, 38, 44, 46, 34, 38, 24, 44),
        poly(LIGHT, 6, 54, 94, 54, 94, 62, 80, 70, 64, 62, 50, 70, 36, 62, 20, 70, 6, 62),
    ],
    "guitar": [
        line(DARK, 9, 44, 56, 90, 10),
        line(BODY, 15, 84, 16, 94, 6),
        oval(BODY, 30, 70, 26, 25),
        oval(BODY, 50, 50, 18, 17),
        oval(LIGHT, 38, 62, 9),
        line(DARK, 5, 18, 74, 28, 84),
    ],
}


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
    covered = (
        np.asarray(board.point(lambda tone: 255 * (tone > 0)).filter(ImageFilter.MaxFilter(13)))
        / 255
    )
    tones = np.asarray(board)
    body, light = (tones == BODY).astype(np.float32), (tones == LIGHT).astype(np.float32)
    planes = np.stack([covered, body + 0.3 * light, 0.68 * light]).astype(np.float32)
    step = BOARD // SPRITE_SIZE
    return planes.reshape(3, SPRITE_SIZE, step, SPRITE_SIZE, step).mean((2, 4))


@cache
def atlas() -> Tensor:
    """All drawings in the order of `NOUNS`, (40, 3, S, S) float32."""
    return torch.from_numpy(np.stack([draw(noun) for noun in NOUNS]))
