"""Inference resizes as CLIP's own preprocessing does; training treats all frames of a clip alike."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from froster.video.transforms import inference_transform, train_transform


def noise(n: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)


def clip_by_pil(frame: Tensor, size: int) -> Tensor:
    """CLIP's preprocessing of one picture: the short side by PIL's bicubic, the long side cut off, centre crop."""
    image = Image.fromarray(frame.numpy())
    width, height = image.size
    new = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
    cropped = image.resize(new, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)


SIZES = [(240, 320), (320, 240), (97, 131), (50, 60), (224, 300), (224, 224), (1080, 607), (2, 30), (2, 1000), (700, 3)]


@pytest.mark.parametrize("size", [224, 32])
@pytest.mark.parametrize("shape", [*SIZES, (1, 1)])
def test_inference_is_clips_preprocessing(shape, size):
    frames = noise(2, *shape)
    ours = inference_transform(frames, size)
    assert ours.shape == (2, 3, size, size) and ours.dtype == torch.uint8
    difference = (ours.int() - torch.stack([clip_by_pil(frame, size) for frame in frames]).int()).abs()
    assert difference.max() <= 2
    assert difference.float().mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 20000), (20000, 1), (1, 1), (2, 1000), (240, 320), (31, 33)])
def test_no_crop_is_empty_and_no_strip_takes_all_memory(shape):
    frames = noise(2, *shape)
    assert inference_transform(frames, 224).shape == (2, 3, 224, 224)
    assert train_transform(frames, 224, random.Random(0)).shape == (2, 3, 224, 224)


def test_training_treats_all_frames_alike():
    frames = noise(1, 240, 320).expand(5, -1, -1, -1)
    for seed in range(6):
        clip = train_transform(frames, 64, random.Random(seed))
        assert clip.dtype == torch.uint8 and (clip == clip[:1]).all()


def test_training_is_repeatable_and_varies():
    frames = noise(2, 240, 320)
    first, again, other = (train_transform(frames, 64, random.Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_training_crops_a_resized_frame_and_mirrors_half():
    """Each clip is found, whole or mirrored, in the frame resized as floats, for a scale between 1 and 256/224."""
    size, row = 56, torch.arange(320).float().mul(0.75)
    frames = torch.stack([row.expand(240, -1), row.expand(240, -1), torch.full((240, 320), 9.0)], -1).byte()[None]
    mirrored = 0
    scales = set()
    for seed in range(60):
        clip = train_transform(frames, size, random.Random(seed))[0, 0].float()
        step = (clip[0, -1] - clip[0, 0]) / (size - 1)
        mirrored += int(step < 0)
        scales.add(round(float(0.75 * 240 / step.abs())))
    assert 15 < mirrored < 45
    assert min(scales) >= 55 and max(scales) <= 65 and len(scales) > 5
    unflipped = [train_transform(frames, size, random.Random(seed), flip=False) for seed in range(9)]
    assert all(clip[0, 0, 0, -1] > clip[0, 0, 0, 0] for clip in unflipped)


def test_whole_numbers_are_close_to_the_references_floats():
    """The bound in the docstring of `train_transform`: without crop and flip, a short side of 224 becomes 231."""
    frames = noise(2, 240, 320)
    images = frames.permute(0, 3, 1, 2)
    ours = F.interpolate(images, (231, 308), mode="bilinear", antialias=False).float()
    theirs = F.interpolate(images.float(), (231, 308), mode="bilinear")
    difference = (ours - theirs).abs()
    assert difference.max() < 1.01 and difference.mean() < 0.32
