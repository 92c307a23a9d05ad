"""What a run costs, from counted operations: said before it starts.

Counted are the two towers (linear layers and attention over a frame's own tokens; a multiplication
and an addition are two operations, a backward pass is two forward passes). A method's additions are
not: under a tenth for most, 44 % for AIM's second attention, as much again for Open-VCLIP's second
pass. A frozen image tower below a trained head is counted as if it were trained.
"""

from __future__ import annotations

from froster.encoders.model import CLIPConfig
from froster.methods import Method
from froster.methods.recipe import Preset
from froster.paper.cells import Cell

GPUS = {"v100": 125.0, "a100": 312.0, "h100": 989.0, "h200": 989.0, "l40s": 362.0, "rtx4090": 165.0}
"""Peak TFLOP/s of dense matrix products in 16 bits, as the vendor states it."""
UTILISATION = 0.3
"""The share of the peak that a training run is assumed to reach."""

PLAIN_TOKENS, DESCRIBED_TOKENS = 12, 37
"""Of a prompt, its end included, on average over the published labels with CLIP's vocabulary."""


def layers_flops(layers: int, width: int, tokens: int) -> float:
    return layers * (24 * tokens * width**2 + 4 * tokens**2 * width)


def frame_flops(config: CLIPConfig) -> float:
    """The image tower on one frame, forward."""
    vision = config.vision
    patches = 2 * (vision.tokens - 1) * 3 * vision.patch_size**2 * vision.width
    return layers_flops(vision.layers, vision.width, vision.tokens) + patches


def prompt_flops(config: CLIPConfig, tokens: int) -> float:
    """The text tower on one prompt, forward."""
    return layers_flops(config.text.layers, config.text.width, tokens)


def training_flops(
    config: CLIPConfig, cell: Cell, method: Method, preset: Preset, clips: int, classes: int
) -> float:
    """One training run on `clips` videos of `classes` classes."""
    recipe = preset.recipe
    tunes_text = recipe.tune in ("both", "text") or (
        recipe.tune == "method" and method.trains("clip.text.text_projection")
    )
    student = 1 if recipe.tune == "text" else 3
    teacher = 1 if cell.distill != "none" and recipe.tune != "text" else 0
    vision = clips * preset.sampling.frames * frame_flops(config) * (student + teacher)
    prompts = {"one": 2, "all": len(preset.prompting.templates) or 1, "one a clip": 1}[recipe.draw]
    tokens = DESCRIBED_TOKENS if cell.described else PLAIN_TOKENS
    steps = max(1, clips // recipe.batch_size)
    text = steps * prompts * classes * prompt_flops(config, tokens) * (3 if tunes_text else 0)
    return recipe.epochs * (vision + text)


def test_flops(config: CLIPConfig, preset: Preset, videos: int) -> float:
    """Scoring `videos` videos; their classes are encoded once, which is next to nothing."""
    return videos * preset.views * preset.sampling.frames * frame_flops(config)


def hours(flops: float, gpu: str) -> float:
    return flops / (GPUS[gpu] * 1e12 * UTILISATION) / 3600
