"""Frames that a caller made: what they must be, and what is said where they are something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from froster.errors import UsageError


def given_frames(video: Tensor | np.ndarray, count: int) -> Tensor:
    """Frames (T, H, W, 3) uint8 of numpy or torch, whatever their strides. Raises UsageError unless
    T is `count`."""
    fits = (
        video.ndim == 4
        and video.shape[0] == count
        and video.shape[-1] == 3
        and 0 not in video.shape
    )
    if not fits or not is_uint8(video):
        raise UsageError(
            f"expected uint8 frames (T, H, W, 3) with T = {count} as the model reads, got"
            f" {described(video)}"
        )
    return as_tensor(video)


def given_clips(clips: Any, size: int, names: str = "B, T") -> Tensor:
    """Clips (B, T, 3, S, S) uint8 of numpy or torch, S being `size`; with other leading dimensions
    where `names` says so."""
    dims = len(names.split(", ")) + 3
    array = isinstance(clips, (Tensor, np.ndarray))
    if (
        not array
        or clips.ndim != dims
        or tuple(clips.shape[-3:]) != (3, size, size)
        or 0 in clips.shape
        or not is_uint8(clips)
    ):
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
