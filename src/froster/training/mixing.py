"""Soft targets: label smoothing, mixup and cutmix, as the recipes of X-CLIP and ViFi-CLIP train
with."""

import math
import random

import torch
from torch import Tensor


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels (B,) -> (B, classes) float32: 1 - smoothing on the label, and `smoothing` spread over
    all classes (timm)."""
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + off)


def mix(
    frames: Tensor,
    targets: Tensor,
    rng: random.Random,
    mixup: float,
    cutmix: float,
    switch: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Mixes each clip of (B, T, 3, H, W) floats, and its row of (B, K), with its partner in the
    batch turned around.

    `mixup` and `cutmix` are the parameters of Beta(a, a), from which one share for the whole batch
    is drawn; 0 turns one off, and with both on `switch` is the probability of cutmix. Cutmix takes
    a box in the same place in all frames, and the share is then the one of the area that is left.
    The inputs are not changed.
    """
    if mixup <= 0 and cutmix <= 0:
        return frames, targets
    if cutmix > 0 and (mixup <= 0 or rng.random() < switch):
        *_, height, width = frames.shape
        top, bottom, left, right = _box(height, width, rng.betavariate(cutmix, cutmix), rng)
        mixed = frames.clone()
        mixed[..., top:bottom, left:right] = frames.flip(0)[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        share = rng.betavariate(mixup, mixup)
        mixed = frames.lerp(frames.flip(0), 1 - share)
    return mixed, targets.lerp(targets.flip(0), 1 - share)


def _box(height: int, width: int, share: float, rng: random.Random) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box with 1 - `share` of the area around a random pixel, cut off
    at the edges."""
    rows, columns = int(height * math.sqrt(1 - share)), int(width * math.sqrt(1 - share))
    top, left = rng.randrange(height) - rows // 2, rng.randrange(width) - columns // 2
    return max(0, top), min(height, top + rows), max(0, left), min(width, left + columns)
