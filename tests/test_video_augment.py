"""The default is FROSTER's released augmentation; every option does what it says, to the frames
that it says, from the one generator that it is given."""

import colorsys
import dataclasses
import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from froster.encoders.preprocessing import Preprocessing
from froster.errors import UsageError
from froster.video.augment import OPERATIONS, Augment, augment

EVERYTHING = Augment(
    "multiscale", color_jitter=1.0, grayscale=0.3, rand_augment=(4, 7), erasing=1.0
)


def noise(n: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)


def still(frames: int, height: int = 48, width: int = 64) -> Tensor:
    """One smooth picture as a clip."""
    y, x = torch.linspace(0, 255, height)[:, None], torch.linspace(0, 255, width)
    picture = torch.stack(
        [y.expand(height, width), x.expand(height, width), (x + y) / 2], -1
    ).byte()
    return picture.expand(frames, -1, -1, -1)


def released(frames: Tensor, size: int, rng: random.Random, flip: bool) -> Tensor:
    """FROSTER's augmentation as the checkpoints up to now were trained with: the order of the draws
    is part of it."""
    _, height, width, _ = frames.shape
    short = rng.randint(size, round(size * 256 / 224))
    if max(height, width) > 16 * min(height, width):
        kept = 16 * min(height, width)
        start = rng.randint(0, max(height, width) - kept)
        frames = (
            frames[:, :, start : start + kept]
            if width > height
            else frames[:, start : start + kept]
        )
        _, height, width, _ = frames.shape
    new = (
        (short, int(short * width / height))
        if height <= width
        else (int(short * height / width), short)
    )
    top, left = rng.randint(0, new[0] - size), rng.randint(0, new[1] - size)
    images = frames.permute(0, 3, 1, 2)
    images = F.interpolate(images, new, mode="bilinear") if images.shape[2:] != new else images
    images = images[:, :, top : top + size, left : left + size]
    return images.flip(3) if flip and rng.random() < 0.5 else images


@pytest.mark.parametrize(
    "shape", [(240, 320), (320, 240), (97, 131), (32, 32), (2, 30), (10, 300), (700, 3), (1, 1)]
)
def test_the_default_is_what_froster_trains_with(shape):
    frames = noise(3, *shape)
    for seed in range(5):
        for flip in (True, False):
            ours, theirs = random.Random(seed), random.Random(seed)
            assert torch.equal(
                augment(frames, 32, ours, Augment(flip=flip)), released(frames, 32, theirs, flip)
            )
            assert ours.getstate() == theirs.getstate()


OPTIONS = st.builds(
    Augment,
    crop=st.sampled_from(["jitter", "multiscale", "resized"]),
    color_jitter=st.sampled_from([0.0, 1.0]),
    grayscale=st.sampled_from([0.0, 1.0]),
    rand_augment=st.none() | st.tuples(st.integers(1, 4), st.integers(0, 10)),
    erasing=st.sampled_from([0.0, 1.0]),
)


@settings(deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 40),
    OPTIONS,
    st.integers(0, 2**32),
)
def test_any_clip_becomes_squares(n, height, width, size, how, seed):
    clip = augment(noise(n, height, width), size, random.Random(seed), how)
    assert clip.shape == (n, 3, size, size) and clip.dtype == torch.uint8 and clip.is_contiguous()


@pytest.mark.parametrize("crop", ["jitter", "multiscale", "resized"])
@pytest.mark.parametrize("shape", [(10, 300), (3000, 1), (1, 20000)])
def test_strips_become_squares(shape, crop):
    how = dataclasses.replace(EVERYTHING, crop=crop, rand_augment=(1, 10))
    for seed in range(3):
        assert augment(noise(1, *shape), 32, random.Random(seed), how).shape == (1, 3, 32, 32)


def test_nothing_but_the_generator_decides_and_nothing_else_changes():
    frames = noise(3, 48, 64)
    kept = frames.clone()
    clips = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
        clips.append([augment(frames, 32, random.Random(n), EVERYTHING) for n in range(6)])
        assert before == (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )
    assert all(torch.equal(first, again) for first, again in zip(*clips, strict=True))
    assert len({clip.numpy().tobytes() for clip in clips[0]}) == 6
    assert torch.equal(frames, kept)


def test_frames_that_need_no_resize_are_not_written_into():
    frames = noise(2, 32, 32)
    kept = frames.clone()
    for seed in range(20):
        augment(frames, 32, random.Random(seed), Augment(flip=False, erasing=1.0))
    assert torch.equal(frames, kept)


def test_half_of_the_clips_are_mirror_images():
    frames, mirrored = noise(2, 48, 64), 0
    for seed in range(60):
        flipped, plain = (
            augment(frames, 32, random.Random(seed), Augment(flip=flip)) for flip in (True, False)
        )
        assert torch.equal(flipped, plain) or torch.equal(flipped, plain.flip(3))
        mirrored += not torch.equal(flipped, plain)
    assert 15 < mirrored < 45


@pytest.mark.parametrize("crop", ["jitter", "multiscale", "resized"])
def test_crops_are_the_same_in_all_frames(crop):
    for seed in range(8):
        clip = augment(still(4), 32, random.Random(seed), Augment(crop))
        assert (clip == clip[:1]).all()


def test_grayscale_takes_the_colours_of_the_whole_clip():
    frames = noise(4, 48, 64)
    clip = augment(frames, 32, random.Random(0), Augment(grayscale=1.0))
    assert (clip == clip[:, :1]).all()
    colours = augment(frames, 32, random.Random(0), Augment()).float()
    luma = (colours * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    assert (clip[:, 0] - luma).abs().max() <= 0.51
    some = [augment(frames, 8, random.Random(seed), Augment(grayscale=0.2)) for seed in range(200)]
    assert 20 < sum(bool((clip == clip[:, :1]).all()) for clip in some) < 62


def test_colours_change_for_each_frame_by_itself():
    clip = augment(still(6), 32, random.Random(0), Augment(color_jitter=1.0)).flatten(1)
    assert len(clip.unique(dim=0)) == 6


def test_colours_change_as_far_as_they_may():
    """On plain grey only the brightness tells, on pure red only the hue can turn."""
    grey = augment(
        torch.full((200, 4, 4, 3), 100, dtype=torch.uint8),
        4,
        random.Random(0),
        Augment(color_jitter=1.0),
    )
    levels = grey[:, 0, 0, 0].int()
    assert (grey.flatten(1) == grey[:, :1, 0, 0]).all()
    assert 59 <= levels.min() < 64 and 136 < levels.max() <= 140
    red = torch.zeros(200, 4, 4, 3, dtype=torch.uint8)
    red[..., 0] = 180
    turned = augment(red, 4, random.Random(0), Augment(color_jitter=1.0))[:, :, 0, 0].tolist()
    hues = [(colorsys.rgb_to_hsv(*pixel)[0] + 0.5) % 1 - 0.5 for pixel in turned]
    assert -0.11 < min(hues) < -0.08 and 0.08 < max(hues) < 0.11


def test_rand_augment_draws_once_for_a_clip():
    """A still clip stays still, and sixty draws are not all alike."""
    clips = [
        augment(still(3), 32, random.Random(seed), Augment(rand_augment=(4, 7)))
        for seed in range(60)
    ]
    assert all((clip == clip[:1]).all() for clip in clips)
    assert len({clip.numpy().tobytes() for clip in clips}) == 60


def test_rand_augment_leaves_out_half_of_its_operations():
    """A plain field shows ten of the fourteen: not identity, autocontrast, equalize and sharpness."""
    field = torch.tensor([200, 100, 50], dtype=torch.uint8).expand(1, 8, 8, 3)
    plain = augment(field, 8, random.Random(0), Augment())
    clips = [
        augment(field, 8, random.Random(seed), Augment(rand_augment=(1, 10))) for seed in range(700)
    ]
    assert 0.3 < sum(not torch.equal(clip, plain) for clip in clips) / 700 < 0.42  # 10 / 28 = 0.36
    flat = {
        tuple(clip[0, :, 0, 0].tolist()) for clip in clips if (clip == clip[:, :, :1, :1]).all()
    }
    assert {(20, 10, 5), (255, 190, 95)} <= flat  # brightness in both directions, at its ends


def test_the_operations_at_their_ends():
    assert len(OPERATIONS) == 14
    image = Image.fromarray(still(1)[0].numpy())
    pixels = np.asarray(image).astype(int)
    for name in set(OPERATIONS) - {"autocontrast", "equalize", "posterize"}:
        assert (np.asarray(OPERATIONS[name](image, 0.0)) == pixels).all(), name
    at = {
        name: np.asarray(operation(image, 1.0)).astype(int)
        for name, operation in OPERATIONS.items()
    }
    assert (at["solarize"] == 255 - pixels).all()
    assert set(np.unique(at["posterize"])) == {0, 128}
    assert (at["brightness"] == (pixels * 1.9).astype(int).clip(0, 255)).all()
    moved = int(0.45 * 64)
    assert abs(at["translate x"][:, : 64 - moved - 1] - pixels[:, moved:63]).max() <= 4
    assert (at["translate x"][:, 64 - moved :] == 128).all() and (
        at["translate y"][-20:] == 128
    ).all()
    assert at["equalize"].min() == 0 and at["autocontrast"].max() == 255


@pytest.mark.parametrize(
    "name",
    [
        "rotate",
        "color",
        "contrast",
        "brightness",
        "sharpness",
        "shear x",
        "shear y",
        "translate x",
        "translate y",
    ],
)
def test_the_operations_go_both_ways(name):
    image = Image.fromarray(noise(1, 48, 64)[0].numpy())
    there, back = (np.asarray(OPERATIONS[name](image, x)) for x in (0.7, -0.7))
    assert (there != back).any() and (there != np.asarray(image)).any()


def test_erasing_fills_the_same_box_in_all_frames():
    frames = noise(3, 48, 64)
    shares, places = [], set()
    for seed in range(80):
        whole = augment(frames, 40, random.Random(seed), Augment())
        erased = augment(frames, 40, random.Random(seed), Augment(erasing=1.0))
        changed = (whole != erased).any(1)  # (3, 40, 40)
        rows, columns = changed.any(0).any(1).nonzero()[:, 0], changed.any(0).any(0).nonzero()[:, 0]
        box = changed[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.float().mean() > 0.99 and changed.sum() == box.sum()
        shares.append(box[0].numel() / 1600)
        places.add((int(rows[0]), int(columns[0])))
        noise_of_frames = erased[
            :, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1
        ].flatten(1)
        assert len(noise_of_frames.unique(dim=0)) == 3 and 90 < noise_of_frames.float().mean() < 165
    assert 0.018 < min(shares) < 0.06 and 0.25 < max(shares) < 0.345 and len(places) > 40


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crop": "centre"}, "crop must be jitter, multiscale or resized, not 'centre'"),
        ({"color_jitter": 1.5}, "color_jitter must be a probability from 0 to 1, not 1.5"),
        ({"erasing": float("nan")}, "erasing must be a probability"),
        (
            {"rand_augment": (0, 7)},
            r"rand_augment must be \(operations, magnitude from 0 to 10\), not \(0, 7\)",
        ),
        ({"rand_augment": (2, 11)}, "rand_augment must be"),
        ({"rand_augment": (2,)}, "rand_augment must be"),
    ],
)
def test_a_wrong_option_says_so(wrong, message):
    with pytest.raises(UsageError, match=message):
        Augment(**wrong)


def test_options_survive_json():
    for how in (Augment(), EVERYTHING):
        assert Augment(**json.loads(json.dumps(dataclasses.asdict(how)))) == how


def test_of_a_letterboxed_model_training_clips_are_crops_of_the_letterbox() -> None:
    """A white picture of 24 rows between red ones, of which a crop of 56 is cut, at 56 to 64
    pixels."""
    white, how = (
        torch.full((2, 48, 128, 3), 255, dtype=torch.uint8),
        Preprocessing(resize="longest", fill=(200, 10, 20)),
    )
    for crop in ("jitter", "multiscale", "resized"):
        for seed in range(8):
            clip = augment(white, 56, random.Random(seed), Augment(crop), how)
            assert clip.shape == (2, 3, 56, 56) and torch.equal(
                clip[:, :, :, :1].expand_as(clip), clip
            )
            if crop == "jitter":
                rows = clip[0, :, :, 0].T.tolist()
                assert 20 <= rows.count([255, 255, 255]) <= 24
                assert rows.count([200, 10, 20]) >= 28 and rows[28] == [255, 255, 255]


def test_of_a_squashing_model_training_clips_have_all_of_the_width() -> None:
    """A panorama ten times as wide as high: red at its left end, blue at its right one."""
    frames = torch.zeros(2, 40, 400, 3, dtype=torch.uint8)
    frames[:, :, :100, 0], frames[:, :, 300:, 2] = 255, 255
    for seed in range(8):
        clip = augment(
            frames,
            56,
            random.Random(seed),
            Augment(flip=False),
            Preprocessing(resize="squash", scale=2.0),
        )
        red, blue = (float((clip[:, channel] > 128).float().mean()) for channel in (0, 2))
        assert 0.14 < red < 0.29 and 0.14 < blue < 0.29 and red + blue > 0.4
        middle = augment(frames, 56, random.Random(seed), Augment(flip=False))
        assert not (
            (middle[:, 0] > 128).any() and (middle[:, 2] > 128).any()
        )  # what it was: a tenth of the panorama


def test_mean_filter_and_scale_of_a_model_that_cuts_change_no_training_clip() -> None:
    how = Preprocessing((0.5, 0.4, 0.3), interpolation="bilinear", scale=256 / 224)
    for given_how in (Augment(), EVERYTHING):
        frames = noise(3, 50, 70)
        assert torch.equal(
            augment(frames, 32, random.Random(1), given_how, how),
            augment(frames, 32, random.Random(1), given_how),
        )
