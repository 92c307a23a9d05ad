"""Which labelled videos a model has not learnt from: what `froster evaluate` scores, and which of
them choose (a ratio, a temperature) and which are reported in `froster blend`, `calibrate` and
`train`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from froster.data.items import (
    Item,
    at,
    column_names,
    column_of,
    in_order,
    label_counts,
    label_set,
    labels_of,
    splits_of,
    where_in,
)
from froster.data.splits import TEST_WORDS, VALIDATION_WORDS, Split, validation_videos, with_words
from froster.errors import DataError, UsageError, one_of
from froster.inference.model_report import counted, reported_videos
from froster.training.reporter import Reporter
from froster.training.run_folder import Run


@dataclass(frozen=True)
class HeldOut:
    """Held-out videos of base classes: some choose, the others are reported."""

    parts: Split
    """Its `base_test` holds both."""
    chooses: Bool[Tensor, " videos"] | None
    """Of `parts.base_test`; None: all choose."""
    source: str
    """What the choosing videos are, in words."""


def held_out(parts: Split, validation: Sequence[Item]) -> HeldOut:
    """Videos of a validation split choose, else the validation videos of the training, or half of
    the test. Raises DataError where there is too little."""
    videos = validation or parts.validation
    if videos:
        source = "the validation split" if validation else "the validation videos"
        both = dataclasses.replace(parts, base_test=[*videos, *parts.base_test])
        return HeldOut(both, torch.arange(len(both.base_test)) < len(videos), source)
    if len(parts.base_test) < 2:
        raise DataError(
            f"{len(parts.base_test)} held-out videos of base classes are too few: give froster"
            " calibrate others with --data, froster blend a ratio with --ratio"
        )
    return HeldOut(parts, choosing_half(parts.base_test), "half of the base test videos")


def of_run(run: Run, data: Path | None = None, root: Path | None = None) -> HeldOut:
    """What a run held out. Raises DataError when the data is not the run's, or holds too little to
    choose with."""
    items = run.source.items(data, root)
    parts = run.source.split(items, run.report["base_classes"], run.report["novel_classes"])
    return held_out(parts, validation_videos(items, parts.base))


def of_data(items: Sequence[Item], split: str | None) -> HeldOut:
    """The named split, else the validation videos, or all of a data set without splits. Never the
    test by default."""
    column = splits_of(items)
    splits = sorted(filter(None, in_order(column)))
    chosen = items
    if split is not None:
        chosen = at(items, where_in(column, [split]))
    elif splits:
        chosen = at(items, with_words(column, VALIDATION_WORDS))
    if not chosen:
        raise DataError(
            f"no video has the split {split or 'validation'!r}; there is"
            f" {', '.join(splits) or 'none'}. Name one with --split: on videos that were trained on"
            " a model is too sure, and what is fitted to the test cannot be tested there"
        )
    source = f"split {split}" if split else "the validation split" if splits else "all videos"
    return HeldOut(test_of(chosen), None, source)


def test_of(items: Sequence[Item]) -> Split:
    return Split(label_set(items), [], [], items, [])


def untrained(held: HeldOut, report: dict[str, Any], reporter: Reporter) -> HeldOut:
    """Without the videos that the model of `report` was trained on, on which it is too sure; says
    how many these are. Raises DataError where all of them were."""
    items = held.parts.base_test
    known = reported_videos(report)
    if known is None:
        for line in maybe_trained(items, report):
            reporter.warn(line)
        return held
    with reporter.bar("looking for training videos", len(items), keep=False) as bar:
        parts = known.parts(items, bar)
    kept = at(items, np.array([part != "trained" for part in parts], bool))
    if not kept:
        raise DataError(
            f"the model was trained on all {len(items)} videos ({held.source}), on which it is too"
            " sure"
        )
    if len(kept) < len(items):
        reporter.say(
            f"{len(items) - len(kept)} of {len(items)} videos were trained on and are left out"
        )
    return dataclasses.replace(held, parts=test_of(kept))


def maybe_trained(items: Sequence[Item], report: dict[str, Any]) -> list[str]:
    """A warning where some of the videos may have been trained on, of a model whose report does not
    say which these were."""
    base = set(report.get("base_classes") or [])
    shared = base.intersection(label_counts(items))
    line = (
        f"warning: this model was trained on {report.get('training_videos')} videos of {len(base)}"
        f" classes, {len(shared)} of them in this data, and its report does not say which videos:"
        " of those the accuracy would be too high"
    )
    return [line] if shared else []


def choosing_half(items: Sequence[Item]) -> Bool[Tensor, " videos"]:
    """Which half of the held-out base videos chooses; the other half is reported. Class by class,
    every second video in the order of a hash of its name: no seed, machine or novel video matters.
    """

    def place(i: int) -> tuple[str, str, str]:
        label, path = items[i].label, items[i].path
        name = f"{label}/{path.name}".encode(errors="surrogateescape")
        return label, hashlib.sha256(name).hexdigest(), str(path)

    order = sorted(range(len(items)), key=place)
    chooses = torch.zeros(len(items), dtype=torch.bool)
    chooses[torch.tensor(order[::2], dtype=torch.long)] = True
    return chooses


def novel_by_column(items: Sequence[Item], column: str) -> list[str]:
    """The classes whose rows say "novel" in `column`. Raises UsageError where a class says both or
    neither."""
    columns = column_names(items)
    if column.lower() not in columns:
        raise UsageError(f"there is no column {column!r}; there is {', '.join(columns) or 'none'}")
    labels = labels_of(items)
    by_code: dict[int, set[str]] = {}
    for code, word in zip(labels.codes.tolist(), column_of(items, column.lower()), strict=True):
        by_code.setdefault(code, set()).add(word.lower())
    by_label = {labels.values[code]: words for code, words in by_code.items()}
    for label, words in by_label.items():
        if words not in ({"base"}, {"novel"}):
            raise UsageError(
                f"column {column!r} must say base or novel for class {label!r}, it says"
                f" {sorted(words)}"
            )
    return [label for label, words in by_label.items() if words == {"novel"}]


@dataclass(frozen=True)
class VideosToScore:
    """By their split, and what the model has to do with the data."""

    sets: dict[str, Sequence[Item]]
    part: str
    """test (the model has not seen them), trained, validation, or all."""
    trained: int | None
    """Videos of the data that the model was trained on; None where its report does not say which
    these were."""
    validated: int | None
    scored_trained: dict[str, int]
    """Of each set."""
    notes: list[str]


def videos_to_score(
    items: Sequence[Item],
    split: Sequence[str] | None,
    part: str | None,
    report: dict[str, Any],
    on_videos: Callable[[int], None] = lambda n: None,
) -> VideosToScore:
    """`part` is what was asked for; left out, it is the test part where the model knows some of the
    data, else all. Raises UsageError where the part cannot be known, DataError where nothing is
    left."""
    if part is not None:
        one_of("--part", part, "test", "all", "trained", "validation")
    reported = reported_videos(report)
    if reported is None:
        if part not in (None, "all"):
            raise UsageError(
                f"--part {part}: this model's report does not say which videos it was trained on"
            )
        sets = {name: at(items, some) for name, some in chosen_places(items, split, part).items()}
        notes = maybe_trained(items, report)
        return VideosToScore(sets, "all", None, None, dict.fromkeys(sets, 0), notes)
    parts = reported.parts(items, on_videos)
    trained, validated = counted(parts)
    known = trained + validated > 0
    scored_part = part or ("test" if known else "all")
    places = chosen_places(items, split, scored_part if known or part else None)
    if scored_part != "all":
        scoring = np.array([kind == scored_part for kind in parts], bool)
        places = {name: some & scoring for name, some in places.items()}
    sets = {name: at(items, some) for name, some in places.items()}
    for name, some in sets.items():
        if not some:
            data = name if split else "this data"
            raise DataError(
                f"no {scored_part} video to score in {data}: of its {len(items)} videos {trained}"
                f" were trained on and {validated} validated the training; --part all scores them"
            )
    training = np.array([kind == "trained" for kind in parts], bool)
    scored = {name: int((some & training).sum()) for name, some in places.items()}
    notes = [scored_line(trained, validated, scored_part, sets, part)] if known else []
    return VideosToScore(sets, scored_part, trained, validated, scored, notes)


def scored_line(
    trained: int,
    validated: int,
    scored_part: str,
    sets: dict[str, Sequence[Item]],
    part: str | None,
) -> str:
    """Which videos are scored, and why these. `part` is what was asked for."""
    count = sum(map(len, sets.values()))
    also = f", {validated} validated the training" if validated else ""
    begin = f"{trained} videos of this data were trained on{also}; scored: "
    hint = "" if part else " (--part all: every video, --part trained: those)"
    ends = {
        "test": f"the {count} test videos{hint}",
        "validation": f"the {count} of its validation, by which it was stopped and calibrated",
        "trained": f"the {count} trained on, so this says little of new videos",
        "all": f"all {count}, so this says little of new videos",
    }
    return begin + ends[scored_part]


def chosen_places(
    items: Sequence[Item], names: Sequence[str] | None, part: str | None
) -> dict[str, np.ndarray]:
    """Which items (bool) the named splits have, one by one; by default the test videos, or all
    without a split or where another part is meant."""
    splits = splits_of(items)
    if names:
        sets = {name: where_in(splits, [name]) for name in names}
        for name, some in sets.items():
            if not some.any():
                existing = sorted(filter(None, in_order(splits)))
                raise DataError(
                    f"no video has the split {name!r}; there is {', '.join(existing) or 'none'}"
                )
        return sets
    test = with_words(splits, TEST_WORDS)
    if not test.any():
        test = with_words(splits, VALIDATION_WORDS)
    if part in ("all", "trained", "validation") or not test.any():
        return {part or "all": np.ones(len(items), bool)}
    return {"test": test}
