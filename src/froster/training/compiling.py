"""What `--compile` compiles, and when it pays: the one place of that rule."""

from __future__ import annotations

import torch

from froster.encoders.config import VisionConfig
from froster.encoders.kernels import try_window_kernel
from froster.encoders.model import CLIP
from froster.training.distributed import ranks

COST = 31.0
"""Seconds from the first step of a FROSTER training to the compiled one (docs/results/gpu.md)."""
SAVED = (0.369 - 0.243) / 64
"""Seconds saved of a clip of eight frames on a B/16, there."""


def compile_towers(student: CLIP, teacher: CLIP | None, text_is_frozen: bool) -> None:
    """Kernels for the image towers as wholes and for each block of a text tower that is trained:
    they are made when a tower is first used. On several ranks neighbours stay copies, for
    DistributedDataParallel cuts what is compiled into parts, which FlexAttention was not tried in.
    """
    if ranks() == 1:
        try_window_kernel(student.logit_scale.device)
    for clip in filter(None, (student, teacher)):
        clip.visual.compile()
    if not text_is_frozen:
        for block in student.text.transformer.blocks():
            block.compile()


def worth_compiling(device: torch.device, vision: VisionConfig, frames: int, clips: int) -> str:
    """A line for a run over so many clips, epochs counted, on a GPU where `--compile` would save
    twice what it costs, else nothing. Both were measured on one fast card: a slower one saves more
    a clip. What a clip saves grows with the numbers that its tower computes on."""
    towers = [vision, VisionConfig()]
    ours, b16 = (tower.layers * tower.tokens * tower.width for tower in towers)
    saved = clips * SAVED * frames / 8 * ours / b16
    if device.type != "cuda" or saved < 2 * COST:
        return ""
    return (
        f"--compile would take about {COST:.0f} s and save about {saved / 60:.0f} min of this run"
        " (as measured on a H200)"
    )
