"""Inference resizes as CLIP's own preprocessing does; the crops of training take the parts that
they say."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from froster.video.transforms import (
    inference_transform,
    multiscale_crop,
    random_crop,
    resized_crop,
    scaled,
)


def noise(n: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)


def clip_by_pil(frame: Tensor, size: int) -> Tensor:
    """CLIP's preprocessing of one picture: the short side by PIL's bicubic, the long side cut off,
    centre crop."""
    image = Image.fromarray(frame.numpy())
    width, height = image.size
    new = (
        (size, int(size * height / width))
        if width <= height
        else (int(size * width / height), size)
    )
    left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
    cropped = image.resize(new, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)


SIZES = [
    (240, 320),
    (320, 240),
    (97, 131),
    (50, 60),
    (224, 300),
    (224, 224),
    (1080, 607),
    (2, 30),
    (2, 1000),
    (700, 3),
]


@pytest.mark.parametrize("size", [224, 32])
@pytest.mark.parametrize("shape", [*SIZES, (1, 1)])
def test_inference_is_clips_preprocessing(shape, size):
    frames = noise(2, *shape)
    ours = inference_transform(frames, size)
    assert ours.shape == (2, 3, size, size) and ours.dtype == torch.uint8
    difference = (
        ours.int() - torch.stack([clip_by_pil(frame, size) for frame in frames]).int()
    ).abs()
    assert difference.max() <= 2
    assert difference.float().mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 20000), (20000, 1), (1, 1), (2, 1000), (240, 320), (31, 33)])
def test_no_crop_is_empty_and_no_strip_takes_all_memory(shape):
    frames = noise(2, *shape)
    assert inference_transform(frames, 224).shape == (2, 3, 224, 224)
    for crop in (random_crop, multiscale_crop, resized_crop):
        images = scaled(frames, 256, random.Random(0))
        assert min(images.shape[2:]) == 256 and max(images.shape[2:]) <= 16 * 256
        assert crop(images, 224, random.Random(0)).shape == (2, 3, 224, 224)


def boxes(crop, height, width, draws):
    """The parts (top, left, rows, columns) that a crop takes, read off pictures that show each
    pixel's row and column."""
    size, factor = 64, 4
    rows = torch.arange(height)[:, None].expand(height, width).div(factor)
    columns = torch.arange(width).expand(height, width).div(factor)
    images = torch.stack([rows, columns, torch.zeros(height, width)])[
        None
    ]  # floats, for the reading to be exact
    for seed in range(draws):
        found = crop(images, size, random.Random(seed))[0]
        first, last = found[:2, 0, 0] * factor, found[:2, -1, -1] * factor
        extent = (last - first) * size / (size - 1)
        start = first + 0.5 - extent / size / 2
        yield (*start.round().int().tolist(), *extent.round().int().tolist())


def test_multiscale_takes_ten_shapes_in_five_places():
    taken = list(boxes(multiscale_crop, 256, 341, 400))
    assert {(rows, columns) for *_, rows, columns in taken} == {
        (a, b) for a in (256, 224, 192, 168) for b in (256, 224, 192, 168) if abs(a - b) <= 32
    }
    for top, left, rows, columns in taken:
        down, right = 256 - rows, 341 - columns
        corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
        assert min(abs(top - y) + abs(left - x) for y, x in corners) <= 1
    places = {
        (round(top / 44), round(left / 86.5))
        for top, left, rows, columns in taken
        if rows == columns == 168
    }
    assert places == {(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)}


def test_a_resized_crop_has_the_area_and_the_aspect_that_it_says():
    taken = list(boxes(resized_crop, 256, 341, 300))
    areas = [rows * columns / (256 * 341) for *_, rows, columns in taken]
    aspects = [columns / rows for *_, rows, columns in taken]
    assert 0.075 < min(areas) < 0.12 and 0.8 < max(areas) <= 1
    assert 0.74 < min(aspects) < 0.8 and 1.27 < max(aspects) < 1.35
    assert all(
        top >= 0 and left >= 0 and top + a <= 257 and left + b <= 342 for top, left, a, b in taken
    )
    assert len({top for top, *_ in taken}) > 50


def test_whole_numbers_are_close_to_the_references_floats():
    """The bound in the docstring of `scaled`."""
    frames = noise(2, 240, 320)
    ours = scaled(frames, 231, random.Random(0)).float()
    theirs = F.interpolate(frames.permute(0, 3, 1, 2).float(), (231, 308), mode="bilinear")
    difference = (ours - theirs).abs()
    assert difference.max() < 1.01 and difference.mean() < 0.32
