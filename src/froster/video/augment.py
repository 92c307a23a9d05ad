"""The augmentations of training clips: FROSTER's crop and mirror image, and what the methods in the
comparison add. Everything is drawn from one generator and, unless it says otherwise, is the same
for all frames of a clip. Pictures are changed by PIL, as in the references, and stay uint8."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import UsageError, one_of
from froster.video.transforms import (
    multiscale_crop,
    packed,
    random_crop,
    resized_crop,
    scaled,
    whole_square,
)

Change = Callable[[Image.Image], Image.Image]

_CROPS = {"jitter": random_crop, "multiscale": multiscale_crop, "resized": resized_crop}
# The references resize the short side to at most 256 for a crop of 224.
_LARGEST_SCALE = 256 / 224
_GREY = (128, 128, 128)


@dataclass(frozen=True)
class Augment:
    """What is done to a training clip. The defaults are FROSTER's and Open-VCLIP's: a random crop
    and a mirror image."""

    crop: Literal["jitter", "multiscale", "resized"] = "jitter"
    """For a size of 224. `jitter`: short side to 224-256, random crop. `multiscale`: short side to
    256, sides of 1, .875, .75 or .66 of it, in a corner or the middle (X-CLIP, ViFi-CLIP,
    ActionCLIP). `resized`: short side to 256, 8-100 % of the area, aspect 3/4-4/3 (Text4Vis, AIM).
    """
    flip: bool = True
    """Mirror half of the clips. Not for classes that tell left from right."""
    color_jitter: float = 0.0
    """Probability of changed brightness and contrast (up to .4), saturation (.2) and hue (.1), in
    random order. Drawn for each frame by itself, as the released X-CLIP, ViFi-CLIP and ActionCLIP
    do."""
    grayscale: float = 0.0
    """Probability of a clip without colours."""
    rand_augment: tuple[int, int] | None = None
    """RandAugment (n, m): n operations at magnitude m of 10. As timm's `rand-m7-n4-mstd0.5-inc1`
    (ST-Adapter, Vita-CLIP): each is done with probability 1/2, and m varies by a normal deviation
    of .5."""
    erasing: float = 0.0
    """Probability of one box of random pixels, 2-33 % of the area, in the same place in all frames.
    """

    def __post_init__(self) -> None:
        one_of("crop", self.crop, *_CROPS)
        for name in ("color_jitter", "grayscale", "erasing"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise UsageError(f"{name} must be a probability from 0 to 1, not {share!r}")
        if self.rand_augment is not None:
            # From JSON it comes as a list.
            object.__setattr__(self, "rand_augment", tuple(self.rand_augment))
            drawn = self.rand_augment
            if len(drawn) != 2 or drawn[0] < 1 or not 0 <= drawn[1] <= 10:
                raise UsageError(
                    f"rand_augment must be (operations, magnitude from 0 to 10), not {drawn!r}"
                )


FROSTER_AUGMENT = Augment()


def augment(
    frames: UInt8[Tensor, "n height width 3"],
    size: int,
    rng: random.Random,
    how: Augment,
    tested: Preprocessing = CLIP_PREPROCESSING,
) -> UInt8[Tensor, "n 3 {size} {size}"]:
    """Crops are cut out of the shapes that the model sees when it is `tested`: of the whole frame,
    or of the square that it is squashed to or put into. What a `shortest` resize cuts off then,
    training still sees, as in the references.

    RandAugment sees whole frames, as in the references, so that a crop can leave out the edges that
    it moves in, but resized, so that its cost does not grow with the video's resolution.
    """
    largest = round(size * _LARGEST_SCALE)
    if tested.resize != "shortest":
        frames = whole_square(frames, largest, tested)
    images = scaled(frames, rng.randint(size, largest) if how.crop == "jitter" else largest, rng)
    if how.rand_augment is not None:
        images = _rand_augment(images, *how.rand_augment, rng)
    images = _CROPS[how.crop](images, size, rng)
    if how.flip and rng.random() < 0.5:
        images = packed(images, mirrored=True)
    # A probability of 0 draws nothing, so that an option that is off leaves the other draws as they
    # are.
    if how.color_jitter and rng.random() < how.color_jitter:
        images = _by_pil(images, lambda image: _jitter_colors(image, rng))
    if how.grayscale and rng.random() < how.grayscale:
        images = _by_pil(images, lambda image: image.convert("L").convert("RGB"))
    if how.erasing and rng.random() < how.erasing:
        images = _erase(images, rng)
    return packed(images)


def _by_pil(images: Tensor, change: Change) -> Tensor:
    """(n, 3, h, w) -> the same, each picture changed."""
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    changed = np.stack([np.asarray(change(Image.fromarray(array))) for array in arrays])
    return torch.from_numpy(changed).permute(0, 3, 1, 2)


def _jitter_colors(image: Image.Image, rng: random.Random) -> Image.Image:
    brightness, contrast = rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4)
    saturation, hue = rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)
    changes: list[Change] = [
        lambda image: ImageEnhance.Brightness(image).enhance(brightness),
        lambda image: ImageEnhance.Contrast(image).enhance(contrast),
        lambda image: ImageEnhance.Color(image).enhance(saturation),
        lambda image: _turn_hue(image, hue),
    ]
    rng.shuffle(changes)
    for change in changes:
        image = change(image)
    return image


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """By `turn` of the colour circle."""
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(level + int(turn * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY
    )


# At a strength from -1 to 1; where an operation has no direction the size alone counts. The ranges
# are timm's increasing ones, but that posterising keeps one bit: with none a picture is black.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "rotate": lambda image, x: image.rotate(30 * x, Image.Resampling.BILINEAR, fillcolor=_GREY),
    "solarize": lambda image, x: ImageOps.solarize(image, 256 - int(256 * abs(x))),
    "posterize": lambda image, x: ImageOps.posterize(image, max(1, 4 - int(4 * abs(x)))),
    "color": lambda image, x: ImageEnhance.Color(image).enhance(1 + 0.9 * x),
    "contrast": lambda image, x: ImageEnhance.Contrast(image).enhance(1 + 0.9 * x),
    "brightness": lambda image, x: ImageEnhance.Brightness(image).enhance(1 + 0.9 * x),
    "sharpness": lambda image, x: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * x),
    "shear x": lambda image, x: _affine(image, 1, 0.3 * x, 0, 0, 1, 0),
    "shear y": lambda image, x: _affine(image, 1, 0, 0, 0.3 * x, 1, 0),
    "translate x": lambda image, x: _affine(image, 1, 0, 0.45 * x * image.width, 0, 1, 0),
    "translate y": lambda image, x: _affine(image, 1, 0, 0, 0, 1, 0.45 * x * image.height),
}


def _rand_augment(images: Tensor, n: int, m: int, rng: random.Random) -> Tensor:
    drawn = []
    for _ in range(n):
        operation = rng.choice(list(OPERATIONS.values()))
        if rng.random() < 0.5:
            sign, size = rng.choice((-1, 1)), min(10.0, max(0.0, rng.gauss(m, 0.5)))
            drawn.append((operation, sign * size / 10))

    def change(image: Image.Image) -> Image.Image:
        for operation, strength in drawn:
            image = operation(image, strength)
        return image

    return _by_pil(images, change) if drawn else images


def _erase(images: Tensor, rng: random.Random) -> Tensor:
    """The pixels differ from frame to frame. Nothing is erased where ten draws do not fit, as at a
    size of one pixel."""
    n, channels, height, width = images.shape
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 1 / 3)
        aspect = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows < height and 0 < columns < width:
            top, left = rng.randint(0, height - rows), rng.randint(0, width - columns)
            noise = bytearray(rng.randbytes(n * channels * rows * columns))
            box = torch.frombuffer(noise, dtype=torch.uint8).view(n, channels, rows, columns)
            images = images.clone()
            images[:, :, top : top + rows, left : left + columns] = box
            break
    return images
