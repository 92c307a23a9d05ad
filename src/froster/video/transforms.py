"""From decoded frames to the network's square."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import UsageError

# Beyond this ratio of the sides, resizing the whole frame to crop its middle would take memory for
# nothing.
_STRIP = 16


def inference_transform(
    frames: UInt8[Tensor, "n height width 3"], size: int, how: Preprocessing = CLIP_PREPROCESSING
) -> UInt8[Tensor, "n 3 {size} {size}"]:
    """The model's preprocessing up to the normalisation. CLIP's: short side to `size` by
    antialiased bicubic, the long side rounded down, centre crop; within 2 of 255 levels (0.002 on
    average) of PIL's result, which CLIP was trained on, eight times faster."""
    _, height, width, _ = frames.shape
    new_height, new_width = how.resized(height, width, size)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    if how.resize == "shortest" and max(height, width) > _STRIP * min(height, width):
        # Only what the crop keeps, first across and then down, as PIL does with whole pictures.
        x, y = width / new_width, height / new_height
        across = left * x, 0, (left + size) * x, height
        down = 0, top * y, size, (top + size) * y
        kernel = Image.Resampling[how.interpolation.upper()]
        images = [Image.fromarray(frame.numpy()) for frame in frames]
        images = [image.resize((size, height), kernel, across) for image in images]
        arrays = [np.asarray(image.resize((size, size), kernel, down)) for image in images]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    resized = _resize(frames, new_height, new_width, mode=how.interpolation, antialias=True)
    if how.resize == "longest":
        return _filled(resized, size, how.fill)
    return packed(resized[:, :, top : top + size, left : left + size])


def whole_square(frames: Tensor, size: int, how: Preprocessing) -> Tensor:
    """(n, H, W, 3) uint8 -> (n, size, size, 3) uint8: all of it, squashed or filled up by `how`."""
    square = inference_transform(frames, size, dataclasses.replace(how, scale=1.0))
    return square.permute(0, 2, 3, 1).contiguous()


def _filled(images: Tensor, size: int, fill: tuple[int, int, int]) -> Tensor:
    """(n, 3, h, w), h and w at most `size` -> (n, 3, size, size), the picture in the middle, as
    open_clip places it."""
    _, _, height, width = images.shape
    top, left = (size - height) // 2, (size - width) // 2
    colour = torch.tensor(fill, dtype=torch.uint8).view(1, 3, 1, 1)
    square = colour.repeat(len(images), 1, size, size)
    square[:, :, top : top + height, left : left + width] = images
    return square


def packed(images: Tensor, mirrored: bool = False) -> Tensor:
    """(n, 3, h, w) in any layout -> the same in the plain one; `mirrored` left to right.

    By NumPy, in this thread alone: PyTorch would share the millisecond out, and wait twenty for the
    other thread where another process, or another worker of the loader, has the core.
    """
    array = images.numpy()
    return torch.from_numpy(array[..., ::-1].copy() if mirrored else np.ascontiguousarray(array))


def scaled(frames: Tensor, short: int, rng: random.Random) -> Tensor:
    """(n, H, W, 3) uint8 -> (n, 3, h, w) uint8 with a short side of `short`, bilinear without
    antialias as in training; of a strip, a random part along its long side. The references
    interpolate floats; whole numbers differ by at most 1.001 of 255 levels, 0.3 on average."""
    _, height, width, _ = frames.shape
    longest = _STRIP * min(height, width)
    if max(height, width) > longest:
        start = rng.randint(0, max(height, width) - longest)
        part = slice(start, start + longest)
        frames = frames[:, :, part] if width > height else frames[:, part]
        _, height, width, _ = frames.shape
    rows, columns = short, int(short * width / height)
    if height > width:
        rows, columns = int(short * height / width), short
    return _resize(frames, rows, columns, mode="bilinear", antialias=False)


def random_crop(images: Tensor, size: int, rng: random.Random) -> Tensor:
    """(n, 3, h, w) -> (n, 3, size, size), h and w at least `size`."""
    return _random_part(images, size, size, rng)


def multiscale_crop(images: Tensor, size: int, rng: random.Random) -> Tensor:
    """(n, 3, h, w) -> (n, 3, size, size): X-CLIP's MultiScaleCrop. Each side is one of four
    fractions of the short side, the two at most one step apart, in a corner or in the middle."""
    _, _, height, width = images.shape
    sides = [max(1, int(min(height, width) * fraction)) for fraction in (1, 0.875, 0.75, 0.66)]
    rows, columns = rng.choice(
        [(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1]
    )
    y, x = rng.choice([(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)])
    top, left = int(y * (height - rows)), int(x * (width - columns))
    return _squared(images[:, :, top : top + rows, left : left + columns], size)


def resized_crop(images: Tensor, size: int, rng: random.Random) -> Tensor:
    """(n, 3, h, w) -> (n, 3, size, size): RandomResizedCrop, 8 to 100 % of the area at an aspect of
    3/4 to 4/3; where ten draws do not fit, a random square of the short side, as in Text4Vis."""
    _, _, height, width = images.shape
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            break
    else:
        rows = columns = min(height, width)
    return _squared(_random_part(images, rows, columns, rng), size)


def _random_part(images: Tensor, rows: int, columns: int, rng: random.Random) -> Tensor:
    _, _, height, width = images.shape
    top, left = rng.randint(0, height - rows), rng.randint(0, width - columns)
    return images[:, :, top : top + rows, left : left + columns]


def _squared(images: Tensor, size: int) -> Tensor:
    return _resize(images.permute(0, 2, 3, 1), size, size, mode="bilinear", antialias=False)


def _resize(frames: Tensor, height: int, width: int, mode: str, antialias: bool) -> Tensor:
    # Frames as decoded are channels-last images, the layout that PyTorch resizes in whole numbers
    # as PIL does.
    images = frames.permute(0, 3, 1, 2)
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode=mode, antialias=antialias)


def given_clips(clips: Any, size: int, names: str = "B, T") -> Tensor:
    """Clips (B, T, 3, S, S) uint8 of numpy or torch, S being `size`; with other leading dimensions
    where `names` says so."""
    dims = len(names.split(", ")) + 3
    shape = tuple(clips.shape) if isinstance(clips, (Tensor, np.ndarray)) else ()
    fits = len(shape) == dims and shape[-3:] == (3, size, size) and 0 not in shape
    if not fits or not is_uint8(clips):
        raise UsageError(
            f"expected uint8 clips ({names}, 3, {size}, {size}), got {described(clips)}"
        )
    return as_tensor(clips)


def is_uint8(array: Tensor | np.ndarray) -> bool:
    return array.dtype == (torch.uint8 if isinstance(array, Tensor) else np.uint8)


def as_tensor(array: Tensor | np.ndarray) -> Tensor:
    """The same numbers; a copy where torch cannot look at them as they lie (read-only, or
    backwards)."""
    if isinstance(array, Tensor):
        return array
    return torch.from_numpy(np.require(np.asarray(array), requirements=["C", "W"]))


def described(thing: object) -> str:
    """A few words on what something is, without its content."""
    if isinstance(thing, (Tensor, np.ndarray)):
        return f"{tuple(thing.shape)} {thing.dtype}"
    if isinstance(thing, (list, tuple, dict, set)):
        return f"a {type(thing).__name__} of {len(thing)}"
    return f"{thing!r:.100}"
