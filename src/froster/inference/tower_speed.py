"""How many frames a second this machine puts through the image tower of a known encoder."""

from __future__ import annotations

import platform
import statistics
import time
from typing import Any

import torch
from torch import nn

from froster.encoders.config import VisionConfig
from froster.encoders.families import EVA02, MOBILECLIP_B, PE_CORE, PE_CORE_G, SIGLIP_TOWER, Family
from froster.encoders.known import KnownEncoder
from froster.encoders.precision import autocast, pick_device, pick_dtype, with_cast_weights
from froster.encoders.vision import VisionTower
from froster.inference.speeds import Speed, keep
from froster.utils.interrupt import check

CLIP_FRAMES = 8
"""Frames that go through the tower at once."""
_SECONDS, _LEAST, _MOST = 3.0, 3, 50
"""How long is measured, and how often at least and at most."""

# Patch, width, layers, heads and the joint width, by the size that the authors state.
_SIZES = {
    "T/16": (16, 192, 12, 3, 512),
    "S/16": (16, 384, 12, 6, 512),
    "B/32": (32, 768, 12, 12, 512),
    "B/16": (16, 768, 12, 12, 512),
    "L/16": (16, 1024, 24, 16, 768),
    "L/14": (14, 1024, 24, 16, 768),
    "So400m/14": (14, 1152, 27, 16, 1152),
    "So400m/16": (16, 1152, 27, 16, 1152),
    "H/14": (14, 1280, 32, 16, 1024),
    "g/14": (14, 1408, 40, 16, 1024),
    "g-opt/16": (16, 1536, 40, 16, 1536),
    "G/14": (14, 1536, 50, 16, 1280),
    "bigG/14": (14, 1664, 48, 16, 1280),
}
_MLP_WIDTHS = {
    "So400m/14": 4304,
    "So400m/16": 4304,
    "g/14": 6144,
    "g-opt/16": 6144,
    "G/14": 8960,
    "bigG/14": 8192,
}
_QUICK = ("CLIP", "DFN", "MetaCLIP", "MetaCLIP 2")
_LINEAR = {"projection": "affine"}


def _of(family: Family) -> dict[str, Any]:
    return {**family.structure, **family.vision}


_OPTIONS: dict[str, dict[str, Any]] = {
    "SigLIP": SIGLIP_TOWER | {"eps": 1e-6},
    "SigLIP 2": SIGLIP_TOWER | {"eps": 1e-6},
    "PE-Core": _of(PE_CORE),
    "EVA02": _of(EVA02) | _LINEAR,
    "CLIPA": {"pre_norm": False, "pool": "mean"},
    "MobileCLIP": _of(MOBILECLIP_B) | _LINEAR,
    "MobileCLIP 2": _of(MOBILECLIP_B) | _LINEAR,
}
_OF_SIZE: dict[tuple[str, str], dict[str, Any]] = {
    ("PE-Core", "G/14"): _of(PE_CORE_G),
    ("MobileCLIP 2", "L/14"): _LINEAR,
}
"""In place of the family's."""


def architecture(known: KnownEncoder) -> tuple[VisionConfig, int, str]:
    """The image tower of a known encoder: its config, the joint width and the activation."""
    patch, width, layers, heads, embed_dim = _SIZES[known.size]
    options = _OF_SIZE.get((known.family, known.size), _OPTIONS.get(known.family, {}))
    if known.size in _MLP_WIDTHS:
        options = options | {"mlp_width": _MLP_WIDTHS[known.size]}
    if options.get("gated"):
        options = options | {"mlp_width": 8 * width // 3}
    if known.family == "PE-Core" and known.size in ("B/16", "L/14"):
        embed_dim = 1024
    if options.get("projection") == "none":
        embed_dim = width
    config = VisionConfig(known.pixels, patch, width, layers, heads, **options)
    tanh = known.family.startswith("SigLIP")
    activation = "quick_gelu" if known.family in _QUICK else "gelu_tanh" if tanh else "gelu"
    return config, embed_dim, activation


@torch.no_grad()
def measure(known: KnownEncoder, device: str | None = None, precision: str = "auto") -> Speed:
    """Times the image tower on clips of 8 frames, one at a time, as `classify` puts them through.

    The weights are random, as the time does not depend on them: nothing is downloaded. The figure
    is that of the median clip; decoding is not in it.
    """
    place = pick_device(device)
    config, embed_dim, activation = architecture(known)
    dtype = pick_dtype(place, config.width, precision)
    tower = VisionTower(config, embed_dim, activation).eval().requires_grad_(False)
    for weight in tower.parameters():
        nn.init.normal_(weight, std=0.02)
    tower = tower.to(place)
    if dtype != torch.float32:
        tower = with_cast_weights(tower, dtype)
    size = config.image_size
    clip = torch.randn(1, CLIP_FRAMES, 3, size, size, device=place)
    seconds: list[float] = []
    with autocast(place, dtype):
        tower(clip)  # the first one warms up
        while len(seconds) < _MOST and (len(seconds) < _LEAST or sum(seconds) < _SECONDS):
            check()
            began = time.perf_counter()
            tower(clip).float().cpu()  # which waits for the chip
            seconds.append(time.perf_counter() - began)
    speed = Speed(
        known.name,
        CLIP_FRAMES / statistics.median(seconds),
        _chip(place),
        str(dtype).removeprefix("torch."),
        torch.get_num_threads(),
        time.strftime("%Y-%m-%d"),
    )
    keep(speed)
    return speed


def _chip(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"
