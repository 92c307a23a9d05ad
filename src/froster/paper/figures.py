"""The paper's figures from stored runs: outputs summed with CLIP's (1), attention (4), gain by
distance (5). A figure whose runs are not there is not drawn."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from rich.progress import Progress

from froster.encoders.preprocessing import normalise
from froster.paper.cells import FROSTER
from froster.paper.programme import RunSource, measured
from froster.paper.tables import PICTURED, TABLES
from froster.report.attention import StripRow, attention_strip, cls_attention
from froster.report.distance import (
    ClassGain,
    class_gains,
    gain_scatter,
    nearest,
    rank_correlation,
    text_features,
)
from froster.report.plots import Bars, accuracy_bars
from froster.utils.progress import attempt


def draw(source: RunSource, names: Sequence[str], bars: Progress, train: bool) -> dict[str, Any]:
    """The pictures of those figures among `names` for which there are runs, beside the runs.
    Returns the rank correlations of Figure 5."""
    if "fig1" in names:
        attempt("fig1", lambda: figure_1(source))
    if "fig4" in names:
        attempt("fig4", lambda: figure_4(source, bars, train))
    return (attempt("fig5", lambda: figure_5(source)) if "fig5" in names else None) or {}


def figure_1(source: RunSource) -> None:
    """Frozen CLIP, tuned networks, and both summed; whiskers: standard deviation over runs."""
    bars = []
    for row in TABLES["fig1"].rows:
        if row.cell == FROSTER:  # is not summed; there are colours for seven bars
            continue
        values_of = measured(source, row, TABLES["fig1"])
        columns = [values_of.get(column, []) for column in source.columns]
        if any(columns):
            means = [statistics.fmean(values) if values else None for values in columns]
            spreads = [statistics.stdev(values) if len(values) > 1 else None for values in columns]
            bars.append(Bars(row.name, means, spreads))
    if bars:
        accuracy_bars(source.columns, bars, source.out / "fig1.png")


def figure_4(source: RunSource, bars: Progress, train: bool) -> None:
    """What [CLS] looks at in the last block: one test video of each set, frozen CLIP above the
    tuned networks."""
    networks = source.networks(train, bars)
    if not networks:
        return
    for name, caption, frames in source.samples():
        strips = [StripRow("", frames)]
        for words, model in {"frozen": source.base, **networks}.items():
            pixels = normalise(frames.to(model.device), model.preprocessing)
            strips.append(StripRow(words, frames, cls_attention(model.model, pixels).patches))
        title = f"{caption}; attention of [CLS], last block, mean over heads"
        columns = [f"frame {t + 1}" for t in range(len(frames))]
        attention_strip(strips, columns, title, source.out / f"fig4_{name}.png")


def figure_5(source: RunSource) -> dict[str, Any]:
    """Gain of each test class over frozen CLIP against the similarity of its name to the nearest
    training class. One picture a network, of the means over its runs; of each network the rank
    correlation by run, with and without the classes that were trained on."""
    (frozen_run,) = source.runs_of(None, "cross-dataset")
    training = source.training_classes
    features = text_features(source.base, training)
    correlations: dict[str, Any] = {}
    for network, cell in PICTURED.items():
        before = source.class_scores(frozen_run, f"frozen, {cell.labels}")
        runs = [
            source.class_scores(run, f"final, {cell.labels}")
            for run in source.runs_of(cell, "cross-dataset")
        ]
        similar = {
            test: nearest(list(names), text_features(source.base, list(names)), training, features)
            for test, names in before.items()
        }
        by_run = [
            [
                gain
                for test, near in similar.items()
                if near is not None and test in run
                for gain in class_gains(before[test], run[test], near)
            ]
            for run in runs
            if run and before
        ]
        if not any(by_run):
            continue
        title = network if len(by_run) == 1 else f"{network}, mean of {len(by_run)} seeds"
        picture = source.out / f"fig5_{network.replace(' ', '_')}.png"
        gain_scatter(mean_gains(by_run), picture, title)
        unseen = [[gain for gain in run if gain.name not in training] for run in by_run]
        correlations[network] = {
            name: {"rank_correlation": [rank_of_gain(run) for run in chosen]}
            for name, chosen in (("all", by_run), ("unseen", unseen))
        }
    return correlations


def rank_of_gain(classes: Sequence[ClassGain]) -> float | None:
    """The rank correlation of gain and similarity; None where all classes gain the same."""
    rho = rank_correlation([c.similarity for c in classes], [c.gain for c in classes])
    return None if math.isnan(rho) else rho


def mean_gains(runs: Sequence[Sequence[ClassGain]]) -> list[ClassGain]:
    return [
        dataclasses.replace(same[0], after=statistics.fmean(gain.after for gain in same))
        for same in zip(*runs, strict=True)
    ]
