"""The programme on the world: every run of the tables with the nano CLIP, seed by seed, resumable.

Base classes of the world stand for the training data, its novel classes for the novel ones; near,
mid and far, ever less like base, for the three cross-dataset tests. A run trains on its seed's own
`shots` videos a class; test videos are fixed. Nothing here looks at a test set before the end of a
run.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from froster.data.loader import batches
from froster.encoders.model import normalise
from froster.errors import UsageError
from froster.evaluation.metrics import ensemble, harmonic_mean
from froster.inference.recognizer import Recognizer
from froster.paper.cells import Cell
from froster.text.sentences import with_descriptions
from froster.training.fine_tune import fine_tune, halfway, with_weights
from froster.utils import strict_json as json
from froster.utils.files import write_text
from froster.utils.interrupt import check
from froster.world.clips import WorldClips
from froster.world.sentences import sentences
from froster.world.sets import SETS, render_set

TEST_SETS = ("base", "novel", "near", "mid", "far")
COLUMNS = {"UCF*": "near", "HMDB*": "mid", "K600": "far"}
"""A column of the paper -> the set of the world that stands for it."""

Scores = dict[str, float]
"""Set -> accuracy, per cent."""


@dataclass
class World:
    """Rendered test videos, the model to start from, and what frozen CLIP says of them."""

    base: Recognizer
    shots: int
    """Training videos a base class."""
    tests: dict[str, WorldClips]
    frozen: dict[str, dict[str, Tensor]]
    """labels -> set -> logits (N, K)"""


def texts(classes: list[str], described: bool) -> list[str]:
    return with_descriptions(classes, sentences()) if described else classes


def videos_of_class(name: str, videos: int) -> int:
    """Test videos of each class, so that the set has `videos` or a few more."""
    return -(-videos // len(SETS[name].classes))


def open_world(base: Recognizer, shots: int, videos: int, bars: Progress) -> World:
    """Render `videos` or a few more test videos a set, and score them with frozen CLIP."""
    bar = bars.add_task("render the tests", total=len(TEST_SETS), note="")
    tests = {}
    for name in TEST_SETS:
        tests[name] = WorldClips(
            render_set(name, videos_of_class(name, videos), split="test"),
            base.config.sampling,
            train=False,
        )
        bars.update(bar, advance=1, note=name)
    world = World(base, shots, tests, {})
    world.frozen = logits_of(base, world)
    return world


@torch.no_grad()
def logits_of(model: Recognizer, world: World) -> dict[str, dict[str, Tensor]]:
    """Logits of every test video for plain and for described labels, from one pass over the videos."""
    found: dict[str, dict[str, Tensor]] = {"plain": {}, "described": {}}
    for name, clips in world.tests.items():
        classes = {
            kind: model.class_embeddings(texts(SETS[name].classes, kind == "described"))
            for kind in found
        }
        parts: dict[str, list[Tensor]] = {kind: [] for kind in found}
        for batch in batches(
            clips, [range(first, min(first + 32, len(clips))) for first in range(0, len(clips), 32)]
        ):
            check()
            features = model.model.encode(
                normalise(batch.frames[:, 0].to(model.device), model.preprocessing)
            )
            for kind in found:
                parts[kind].append(
                    model.model.logits(features.video, classes[kind], features.context).cpu()
                )
        for kind in found:
            found[kind][name] = torch.cat(parts[kind])
    return found


def accuracies(world: World, logits: dict[str, Tensor]) -> Scores:
    """Top-1 on every set, and the harmonic mean of base and novel."""
    top1 = {
        name: 100 * (logits[name].argmax(1) == clips.videos.labels).float().mean().item()
        for name, clips in world.tests.items()
    }
    return {**top1, "hm": harmonic_mean(top1["base"], top1["novel"])}


def measured(world: World, logits: Mapping[str, dict[str, Tensor]]) -> dict[str, dict[str, Any]]:
    """What is kept of the logits by kind of weights and labels: accuracies, and the right answers
    of every class."""
    results, correct = {}, {}
    for kind, found in logits.items():
        results[kind] = accuracies(world, found)
        correct[kind] = {
            name: right_by_class(clips.videos.labels, found[name])
            for name, clips in world.tests.items()
        }
    return {"results": results, "correct": correct}


def right_by_class(labels: Tensor, logits: Tensor) -> list[int]:
    right = labels[logits.argmax(1) == labels]
    return torch.bincount(right, minlength=logits.shape[1]).tolist()


def train_cell(cell: Cell, seed: int, world: World, bars: Progress) -> Recognizer:
    """The network that a run ends with."""
    base = world.base
    method, preset = cell.setting(base, seed=seed)
    classes = SETS["base"].classes
    train_set = WorldClips(
        render_set("base", world.shots, seed, "train"), base.config.sampling, train=True, seed=seed
    )
    with tempfile.TemporaryDirectory() as folder:
        student, trained = fine_tune(
            base,
            method,
            cell.loss(method),
            preset.recipe,
            train_set,
            texts(classes, cell.described),
            Path(folder),
            bars,
            f"{cell.key} {seed}",
            preset=preset,
        )
    final = (
        halfway(base, student, trained.average, method.patch) if method.patch else trained.average
    )
    return with_weights(student, final)


def run_cell(cell: Cell, seed: int, world: World, bars: Progress) -> dict[str, dict[str, Tensor]]:
    """Train once: logits of the final weights and of their sum with frozen CLIP, for plain and for
    described labels."""
    logits = {}
    for kind, found in logits_of(train_cell(cell, seed, world, bars), world).items():
        logits[f"final, {kind}"] = found
        logits[f"ensemble, {kind}"] = {
            name: ensemble(world.frozen[kind][name], x) for name, x in found.items()
        }
    return logits


def path_of(cell: Cell, seed: int, out: Path) -> Path:
    return out / "cells" / f"{cell.key}_seed-{seed}.json"


def run_all(
    cells: list[Cell],
    seeds: int,
    shots: int,
    videos: int,
    base: Recognizer,
    out: Path,
    bars: Progress,
    shard: tuple[int, int] = (0, 1),
) -> None:
    """Every missing run, all cells of one seed before the next seed; what exists is not run again.

    Raises UsageError where `out` holds runs of other sizes.
    """
    jobs = [(cell, seed) for seed in range(seeds) for cell in cells][shard[0] :: shard[1]]
    missing = [(cell, seed) for cell, seed in jobs if not path_of(cell, seed, out).exists()]
    frozen = out / "cells" / "frozen.json"
    sizes = {"shots": shots, "videos": videos}
    if frozen.exists():
        there = json.loads(frozen.read_text())
        if known := {name: there[name] for name in sizes if there[name] != sizes[name]}:
            raise UsageError(
                f"the runs in {out} have {known}: go on with these, or choose another --out"
            )
        if not missing:
            return
    world = open_world(base, shots, videos, bars)
    known = measured(world, {f"frozen, {kind}": logits for kind, logits in world.frozen.items()})
    write_text(frozen, json.dumps({**sizes, **known}) + "\n")
    bar = bars.add_task("runs", total=len(missing), note="")
    for cell, seed in missing:
        began = time.monotonic()
        record = {
            "cell": dataclasses.asdict(cell),
            "seed": seed,
            **sizes,
            **measured(world, run_cell(cell, seed, world, bars)),
        }
        write_text(
            path_of(cell, seed, out),
            json.dumps({**record, "seconds": round(time.monotonic() - began, 1)}) + "\n",
        )
        bars.update(bar, advance=1, note=f"{cell.key} {seed}")
