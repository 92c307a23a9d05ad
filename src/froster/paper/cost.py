"""What a run costs, from counted operations: said before it starts.

Counted are the two towers (linear layers and attention over a frame's own tokens; a multiplication
and an addition are two operations, a backward pass is two forward passes). A method's additions are
not: under a tenth for most, 44 % for AIM's second attention, as much again for Open-VCLIP's second
pass. A frozen image tower below a trained head is counted as if it were trained.
"""

from __future__ import annotations

from typing import Any

import torch

from froster.data.public import classes, partition, published_clips
from froster.encoders.blank import blank
from froster.encoders.config import ARCHITECTURES, CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.errors import CheckpointError
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.methods import Frozen, Method
from froster.methods.recipe import Preset
from froster.paper import er_zasr
from froster.paper.cells import Cell
from froster.paper.programme import PaperRun, runs_of_tables
from froster.paper.real_runs import RealProgramme, setting
from froster.paper.tables import TABLES

GPUS = {"v100": 125.0, "a100": 312.0, "h100": 989.0, "h200": 989.0, "l40s": 362.0, "rtx4090": 165.0}
"""Peak TFLOP/s of dense matrix products in 16 bits, as the vendor states it."""
UTILISATION = 0.3
"""The share of the peak that a training run is assumed to reach."""

PLAIN_TOKENS, DESCRIBED_TOKENS = 12, 37
"""Of a prompt, its end included, on average over the published labels with CLIP's vocabulary."""
K400_CLIPS = 240_000
"""About as many of its training videos can be had."""


def blocks_flops(tower: VisionConfig | TextConfig, tokens: int) -> float:
    width, hidden = tower.width, tower.mlp_width or 4 * tower.width
    a_token = 8 * width**2 + 4 * width * hidden
    return tower.layers * (a_token * tokens + 4 * tokens**2 * width)


def frame_flops(config: CLIPConfig) -> float:
    """The image tower on one frame, forward."""
    vision = config.vision
    patches = 2 * vision.side**2 * 3 * vision.patch_size**2 * vision.width
    return blocks_flops(vision, vision.tokens) + patches


def prompt_flops(config: CLIPConfig, tokens: int) -> float:
    """The text tower on one prompt, forward: of `tokens`, or of its whole context where padding
    counts."""
    text = config.text
    return blocks_flops(text, text.context if text.full_length else min(tokens, text.context))


def training_flops(
    config: CLIPConfig, cell: Cell, method: Method, preset: Preset, clips: int, num_classes: int
) -> float:
    """One training run on `clips` videos of `num_classes` classes."""
    recipe = preset.recipe
    tunes_text = recipe.tune in ("both", "text") or (
        recipe.tune == "method" and method.trains("clip.text.text_projection")
    )
    passes = 2 if recipe.meta else 1
    student = passes * (1 if recipe.tune == "text" else 3)
    teacher = 1 if cell.distill != "none" and recipe.tune != "text" else 0
    vision = clips * preset.sampling.frames * frame_flops(config) * (student + teacher)
    prompts = {"one": 2, "all": len(preset.prompting.templates) or 1, "one a clip": 1}[recipe.draw]
    tokens = DESCRIBED_TOKENS if cell.described else PLAIN_TOKENS
    steps = max(1, clips // recipe.batch_size)
    follows = cell.distill != "none" and cell.loss(method).teacher == "ema"  # its text is not kept
    rounds = passes * 3 + follows if tunes_text else 0
    text = steps * prompts * num_classes * prompt_flops(config, tokens) * rounds
    return recipe.epochs * (vision + text)


def test_flops(config: CLIPConfig, preset: Preset, videos: int) -> float:
    """Scoring `videos` videos; their classes are encoded once, which is next to nothing."""
    return videos * preset.views * preset.sampling.frames * frame_flops(config)


def run_flops(run: PaperRun, source: RealProgramme) -> float:
    """Operations of a run, by the published numbers of videos."""
    counts, config = published_clips(), source.base.clip.config
    if run.protocol == "base-to-novel":
        published = counts["base_to_novel"][run.dataset]
        clips = published["train"][min(run.number, len(published["train"])) - 1]
        num_classes = len(partition(run.dataset).base)
        videos = published["base"] + published["novel"]
    else:
        clips, num_classes = K400_CLIPS, len(classes("k400"))
        videos = sum(sum(splits) for splits in counts["cross_dataset"].values())
    if run.cell is None:
        return test_flops(config, Preset(), videos)
    if not run.cell.on_clip:
        return er_zasr.run_flops(clips, videos, num_classes, DESCRIBED_TOKENS, blocks_flops)
    method, preset = setting(run, source.base, source.data.options)
    tests = test_flops(config, preset, videos) * 2  # the tuned network and frozen CLIP
    return training_flops(config, run.cell, method, preset, clips, num_classes) + tests


def hours(flops: float, gpu: str) -> float:
    return flops / (GPUS[gpu] * 1e12 * UTILISATION) / 3600


def plan(source: RealProgramme, names: list[str], gpu: str) -> dict[str, Any]:
    """What is missing and what the runs cost: of each table by itself, and of all that are still to
    do."""
    wanted = {name: source.all_runs(TABLES[name]) for name in names}
    cost = {run: run_flops(run, source) for runs in wanted.values() for run in runs}
    possible = runs_of_tables(source, names)
    todo = [run for run in possible if not source.is_done(run)]

    def totals(runs: list[PaperRun]) -> dict[str, Any]:
        flops = sum(cost[run] for run in runs)
        return {"runs": len(runs), "flops": flops, "hours": hours(flops, gpu)}

    return {
        "missing": source.data.missing(names),
        "er-zasr": missing_files(source, names),
        "tables": {name: totals(runs) for name, runs in wanted.items()},
        **totals(todo),
        "runs": {"all": len(cost), "possible": len(possible), "to do": len(todo)},
        "gpu": gpu,
        "utilisation": UTILISATION,
    }


def missing_files(source: RealProgramme, names: list[str]) -> list[str]:
    """Of ER-ZASR, where a table has its row."""
    cells = [row.cell for name in names for row in TABLES[name].rows if row.cell is not None]
    return [] if all(c.on_clip for c in cells) else er_zasr.missing_files(source.data.root)


def weightless() -> Recognizer:
    """The default CLIP without its weights: enough to plan with, without a download."""
    with blank():
        model = Frozen().build(CLIP(ARCHITECTURES["ViT-B/16"]))
    return Recognizer(
        model,
        CheckpointError("a sketch has no vocabulary"),
        ModelConfig(),
        device=torch.device("meta"),
        precision="float32",
    )
