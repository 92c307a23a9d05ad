"""The paper's figures from the miniature's records: outputs summed with CLIP's (1), attention (4),
gain by distance (5)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from froster.encoders.model import normalise
from froster.inference.recognizer import Recognizer
from froster.paper.claims import verdict
from froster.paper.miniature import TEST_SETS, World, train_cell
from froster.paper.report import Records
from froster.paper.tables import OFFICIAL, PICTURED
from froster.report.attention import Row, attention_strip, cls_attention
from froster.report.distance import (
    ClassGain,
    class_gains,
    gain_scatter,
    nearest,
    rank_correlation,
    text_features,
)
from froster.report.plots import Bars, accuracy_bars
from froster.world.sets import SETS


def figure_1(records: Records, path: Path) -> Path | None:
    """Frozen CLIP, tuned networks, and both summed, on the cross-dataset sets; whiskers: standard
    deviation over seeds."""
    sets = ("near", "mid", "far")
    start = records.frozen.get("frozen, plain")
    if start is None:
        return None
    bars = [Bars("frozen CLIP", [start[name] for name in sets], [None] * len(sets))]
    for name in ("ActionCLIP", "AIM", "ST-Adapter"):
        for words, kind in ((name, "final, plain"), (f"{name} + frozen", "ensemble, plain")):
            found = list(records.scores(OFFICIAL[name], kind).values())
            if not found:
                return None
            values = [[scores[s] for scores in found] for s in sets]
            spreads = [statistics.stdev(v) if len(v) > 1 else None for v in values]
            bars.append(Bars(words, [statistics.fmean(v) for v in values], spreads))
    return accuracy_bars(sets, bars, path)


def figure_5(records: Records, base: Recognizer, folder: Path) -> dict[str, Any]:
    """Per-class gain over frozen CLIP against the similarity of the class's name to the nearest
    training class.

    One picture a network, `fig5_<network>.png`, of the classes of all test sets; of each network
    the rank correlation by seed, with and without the classes that were trained on, and the verdict
    on the claim that it is positive.
    """
    names = [name for s in TEST_SETS for name in SETS[s].classes]
    training = SETS["base"].classes
    similar = nearest(names, text_features(base, names), training, text_features(base, training))
    assert similar is not None
    found: dict[str, Any] = {}
    for network, cell in PICTURED.items():
        labels = "described" if cell.described else "plain"
        seeds = records.by_class(cell, f"final, {labels}")
        before = records.by_class(None, f"frozen, {labels}")
        if not seeds or not before:
            continue
        points = [
            class_gains(next(iter(before.values())), after, similar) for after in seeds.values()
        ]
        unseen = [[point for point in seed if point.name not in training] for seed in points]
        picture = folder / f"fig5_{network.replace(' ', '_')}.png"
        gain_scatter(mean_gains(points), picture, f"{network}, mean of {len(points)} seeds")
        found[network] = {"all": correlations(points), "unseen": correlations(unseen)}
    return found


def correlations(seeds: Sequence[Sequence[ClassGain]]) -> dict[str, Any]:
    """None for a seed whose classes all gain the same: nothing can be ranked."""
    each = [
        rank_correlation([p.similarity for p in seed], [p.gain for p in seed]) for seed in seeds
    ]
    return {
        "rank_correlation": [None if math.isnan(rho) else rho for rho in each],
        "verdict": verdict(each),
    }


def mean_gains(seeds: Sequence[Sequence[ClassGain]]) -> list[ClassGain]:
    mean = statistics.fmean
    return [
        ClassGain(
            same[0].name, same[0].similarity, same[0].before, mean(point.after for point in same)
        )
        for same in zip(*seeds, strict=True)
    ]


def figure_4(world: World, folder: Path, bars: Progress) -> list[Path]:
    """What [CLS] looks at in the last block: one test video of each set, frozen CLIP above two
    tuned networks."""
    networks = {
        "frozen": world.base,
        **{name: train_cell(cell, 0, world, bars) for name, cell in PICTURED.items()},
    }
    paths = []
    for name, clips in world.tests.items():
        sample = clips[0]
        assert sample.frames is not None
        frames = sample.frames[0]  # (T, 3, S, S)
        rows = [Row("", frames)]
        for words, model in networks.items():
            heat = cls_attention(model.model, normalise(frames, model.preprocessing)).patches
            rows.append(Row(words, frames, heat))
        title = (
            f"{name}: {SETS[name].classes[int(clips.videos.labels[0])]}; attention of [CLS], last"
            " block, mean over heads"
        )
        columns = [f"frame {t + 1}" for t in range(len(frames))]
        paths.append(attention_strip(rows, columns, title, folder / f"fig4_{name}.png"))
    return paths
