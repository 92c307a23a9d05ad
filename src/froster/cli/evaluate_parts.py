"""Which videos `froster evaluate` scores: never, unasked, those that the model was trained on or
watched by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from froster.data.manifest import Item
from froster.data.splits import TEST_WORDS, VALIDATION_WORDS
from froster.errors import DataError, UsageError, one_of
from froster.inference.seen import Part, counted, seen_by


@dataclass(frozen=True)
class Chosen:
    """The videos to score, by their split, and what the model has to do with the data."""

    sets: dict[str, list[Item]]
    part: str
    """test (the model has not seen them), trained, watched, or all."""
    trained: int | None
    """Videos of the data that the model was trained on; None where its report does not say which
    these were."""
    watched: int | None
    scored_trained: dict[str, int]
    """Of each set."""
    notes: list[str]


def choose(
    items: Sequence[Item],
    split: Sequence[str] | None,
    part: str | None,
    report: dict[str, Any],
    on_videos: Callable[[int], None] = lambda n: None,
) -> Chosen:
    """`part` is what was asked for; left out, it is the test part where the model has seen some of
    the data, else all.

    Raises UsageError where the part cannot be known, DataError where nothing is left.
    """
    if part is not None:
        one_of("--part", part, "test", "all", "trained", "watched")
    seen = seen_by(report)
    if seen is None:
        if part not in (None, "all"):
            raise UsageError(
                f"--part {part}: this model's report does not say which videos it was trained on"
            )
        sets = chosen_splits(items, split, part)
        return Chosen(sets, "all", None, None, dict.fromkeys(sets, 0), unknown(items, report))
    kinds: dict[int, Part] = dict(zip(map(id, items), seen.parts(items, on_videos), strict=True))
    trained, watched = counted(list(kinds.values()))
    known = trained + watched > 0
    own = part or ("test" if known else "all")
    sets = chosen_splits(items, split, own if known or part else None)
    if own != "all":
        sets = {
            name: [item for item in some if kinds[id(item)] == own] for name, some in sets.items()
        }
    for name, some in sets.items():
        if not some:
            raise DataError(
                f"no {own} video to score in {name if split else 'this data'}: of its {len(items)}"
                f" videos {trained} were trained on and {watched} watched the training; --part all"
                " scores them"
            )
    scored = {name: counted([kinds[id(item)] for item in some])[0] for name, some in sets.items()}
    return Chosen(
        sets,
        own,
        trained,
        watched,
        scored,
        said(trained, watched, own, sets, part) if known else [],
    )


def said(
    trained: int, watched: int, own: str, sets: dict[str, list[Item]], part: str | None
) -> list[str]:
    count = sum(map(len, sets.values()))
    also = f", {watched} watched the training" if watched else ""
    begin = f"{trained} videos of this data were trained on{also}; scored: "
    if own == "test":
        return [
            f"{begin}the {count} test videos"
            + ("" if part else " (--part all: every video, --part trained: those)")
        ]
    if own == "watched":
        return [f"{begin}the {count} that watched it, by which it was stopped and calibrated"]
    whose = f"the {count} trained on" if own == "trained" else f"all {count}"
    return [f"{begin}{whose}, so this says little of new videos"]


def unknown(items: Sequence[Item], report: dict[str, Any]) -> list[str]:
    """A warning where some of the videos may have been trained on."""
    base = set(report.get("base_classes") or [])
    shared = {item.label for item in items} & base
    if not shared:
        return []
    return [
        f"warning: this model was trained on {report.get('training_videos')} videos of {len(base)}"
        f" classes, {len(shared)} of them in this data, and its report does not say which videos:"
        " of those the accuracy would be too high"
    ]


def chosen_splits(
    items: Sequence[Item], names: Sequence[str] | None, part: str | None = None
) -> dict[str, list[Item]]:
    """The named splits one by one; by default the test videos, or all where there is no split or
    another part is meant."""
    if names:
        found = {name: [item for item in items if item.split == name] for name in names}
        for name, some in found.items():
            if not some:
                there = ", ".join(sorted({item.split for item in items if item.split})) or "none"
                raise DataError(f"no video has the split {name!r}; there is {there}")
        return found
    said = {(item.split or "").lower() for item in items}
    words = TEST_WORDS if said & TEST_WORDS else VALIDATION_WORDS
    test = [item for item in items if (item.split or "").lower() in words]
    if part in ("all", "trained", "watched") or not test:
        return {part or "all": list(items)}
    return {"test": test}
