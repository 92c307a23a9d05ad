"""Which classes are learnt (base) and which are only asked for (novel), and which videos train and
which test."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from froster.data.columns import WordColumn
from froster.data.items import (
    Item,
    any_segment,
    at,
    in_order,
    label_counts,
    labels_of,
    splits_of,
    where_in,
)
from froster.errors import DataError, UsageError

TRAIN_WORDS = {"train", "training"}
TEST_WORDS = {"test", "testing", "eval"}
VALIDATION_WORDS = {"val", "valid", "validation"}
SPARE_MOST = 200
"""Videos that neither train nor test, of which so many validate."""
FEWEST_NOVEL = 2
"""One novel class alone would always be right."""
MOST_NOVEL = 5000
"""Test videos of novel classes where the data has no split: more take longer and say no more (one
standard error of 5,000 is 0.7 points)."""
MISSPELT_SHARE = 4
"""How many times the videos of a class the class has whose name may be meant."""
NAMED = 12
"""Held-out classes that a note names."""


@dataclass
class Split:
    """A dataset taken apart for fine-tuning. `novel` may be empty; then only base classes are
    measured."""

    base: list[str]
    novel: list[str]
    train: Sequence[Item]
    base_test: Sequence[Item]
    novel_test: Sequence[Item]
    notes: list[str] = field(default_factory=list)  # what was left out, for the report
    validation: Sequence[Item] = ()
    """Videos of base classes that neither train nor test: they stop the training and calibrate it.
    """


def train_and_test(
    items: Sequence[Item], holdout: float, seed: int
) -> tuple[Sequence[Item], Sequence[Item], list[str]]:
    """By the manifest's split column, or, where there is none, by holding out a share of every
    class."""
    if not has_split(items):
        note = f"no split column: {holdout:.0%} of every class held out for the test (seed {seed})"
        return (*hold_out(items, holdout, seed), [note])
    splits = splits_of(items)
    validating = with_words(splits, VALIDATION_WORDS)
    training, testing = with_words(splits, TRAIN_WORDS), with_words(splits, TEST_WORDS)
    if not testing.any():
        testing, validating = validating, np.zeros(len(items), bool)
    unnamed = where_in(splits, ("", None))
    unknown = ~(training | testing | validating | unnamed)
    if unknown.any():
        item = items[int(unknown.argmax())]
        raise DataError(f"{item.path}: unknown split {item.split!r}; expected train or test")
    left_out, unused = int(unnamed.sum()), int(validating.sum())
    notes = [f"{left_out} videos whose split is empty are left out"] if left_out else []
    if unused:
        notes.append(f"{unused} validation videos neither train nor test: there is a test split")
    return at(items, training), at(items, testing), notes


def has_split(items: Sequence[Item]) -> bool:
    """Whether one of them has."""
    return any(in_order(splits_of(items)))


def with_words(splits: WordColumn, words: Collection[str]) -> np.ndarray:
    """bool: whose split is one of the words, in small letters or not."""
    return where_in(splits, [value for value in splits.values if value.lower() in words])


def hold_out(
    items: Sequence[Item], share: float, seed: int
) -> tuple[Sequence[Item], Sequence[Item]]:
    """At least one video of every class that has two or more goes to the test."""
    if any_segment(items) and len({item.path for item in items}) > 1:
        return _hold_out_videos(items, share, seed)
    train: list[np.ndarray] = [np.zeros(0, np.int64)]
    test: list[np.ndarray] = [np.zeros(0, np.int64)]
    for members in _shuffled_classes(items, "holdout", seed):
        n = len(members)
        count = min(n - 1, max(1, round(share * n))) if share > 0 else 0
        test.append(members[:count])
        train.append(members[count:])
    return at(items, np.concatenate(train)), at(items, np.concatenate(test))


def _hold_out_videos(
    items: Sequence[Item], share: float, seed: int
) -> tuple[Sequence[Item], Sequence[Item]]:
    """Of segments: by whole videos, as those of one are alike. No class is left without training
    segments."""
    of = [(item.path, item.label) for item in items]
    videos = sorted({path for path, _ in of})
    random.Random(f"holdout/{seed}").shuffle(videos)
    labels: dict[Path, set[str]] = defaultdict(set)
    for path, label in of:
        labels[path].add(label)
    left = Counter(label for members in labels.values() for label in members)
    wanted = max(1, round(share * len(videos))) if share > 0 else 0
    held: set[Path] = set()
    for path in videos:
        if len(held) < wanted and all(left[label] > 1 for label in labels[path]):
            held.add(path)
            left.subtract(labels[path])
    testing = np.array([path in held for path, _ in of])
    return at(items, ~testing), at(items, testing)


def _shuffled_classes(items: Sequence[Item], purpose: str, seed: int) -> Iterator[np.ndarray]:
    """The positions of the videos of each class, classes by name, videos in the order of the
    seed."""
    labels = labels_of(items)
    order = np.argsort(labels.codes, kind="stable")
    ends = np.cumsum(np.bincount(labels.codes, minlength=len(labels.values)))
    for code in sorted(range(len(labels.values)), key=labels.values.__getitem__):
        members = order[ends[code - 1] if code else 0 : ends[code]].tolist()
        if members:
            random.Random(f"{purpose}/{seed}/{labels.values[code]}").shuffle(members)
            yield np.array(members)


def _mask(count: int, parts: Iterable[np.ndarray]) -> np.ndarray:
    """bool (count,): which positions are in one of the parts."""
    chosen = np.zeros(count, bool)
    for part in parts:
        chosen[part] = True
    return chosen


def draw_novel(
    classes: Sequence[str], trainable: Iterable[str], fraction: float, seed: int
) -> list[str]:
    """About `fraction` of the classes, by the seed. Classes without a training video can only be
    novel."""
    trainable = set(trainable)
    novel = [name for name in classes if name not in trainable]
    rest = sorted(name for name in classes if name in trainable)
    random.Random(f"novel/{seed}").shuffle(rest)
    wanted = max(FEWEST_NOVEL, round(fraction * len(classes)))
    return sorted(novel + rest[: max(0, wanted - len(novel))])


def _novel_note(novel: Sequence[str], classes: int, fraction: float, untrained: int) -> str:
    """What is held out, and why it is more than `fraction` of the classes. `untrained` of them have
    no training video."""
    more = f" and {len(novel) - NAMED} more" if len(novel) > NAMED else ""
    note = f"{len(novel)} of {classes} classes held out as novel: {', '.join(novel[:NAMED])}{more}"
    if not fraction or len(novel) <= fraction * classes + 0.5:
        return note
    if len(novel) == FEWEST_NOVEL:
        return (
            f"{note}; {FEWEST_NOVEL} because one alone cannot be mistaken ({fraction:.0%} would be"
            f" {fraction * classes:.2g})"
        )
    return f"{note}; {untrained} of them have no training video"


def few_shots(items: Sequence[Item], shots: int | None, seed: int) -> Sequence[Item]:
    """At most `shots` videos of every class, drawn by the seed, in the given order."""
    return at(items, _shots(items, shots, seed))


def _shots(items: Sequence[Item], shots: int | None, seed: int) -> np.ndarray:
    """bool: which videos these are."""
    if shots is None:
        return np.ones(len(items), bool)
    classes = _shuffled_classes(items, "shots", seed)
    return _mask(len(items), (members[:shots] for members in classes))


def split(
    items: Sequence[Item],
    *,
    novel: Sequence[str] | None = None,
    novel_fraction: float = 0.0,
    holdout: float = 0.2,
    shots: int | None = None,
    split_seed: int = 0,
    validation: float | None = None,
) -> Split:
    """Take a dataset apart. `novel` names the held-out classes; otherwise a fraction of them is
    drawn.

    All videos of novel classes test, at most `MOST_NOVEL`; where the data has a split, those of its
    test split. `validation` has the validation videos beside a test split, else those that `shots`
    leaves over; only where there are neither, the share `validation` of the training videos, if one
    is given. With 0 there are none.

    Raises DataError when fewer than two base classes have training videos, UsageError on a novel
    class that does not exist.
    """
    train, test, notes = train_and_test(items, holdout, split_seed)
    trainable = label_counts(train)
    classes = sorted({*trainable, *label_counts(test)})
    fraction = novel_fraction if novel is None else 0.0
    if novel is None:
        novel = draw_novel(classes, trainable, fraction, split_seed) if fraction > 0 else []
    held_out = set(novel)
    novel = sorted(held_out)
    if unknown := sorted(held_out.difference(classes)):
        raise UsageError(
            f"no video has the class {unknown[0]!r} that should be held out; there is"
            f" {', '.join(classes)}"
        )
    notes += misspelt(label_counts(items))
    base = [name for name in classes if name not in held_out and trainable[name]]
    if idle := [name for name in classes if name not in held_out and not trainable[name]]:
        notes.append(f"no training videos, so neither base nor novel: {', '.join(idle)}")
    if novel:
        untrained = sum(not trainable[name] for name in novel)
        notes.append(_novel_note(novel, len(classes), fraction, untrained))
    if len(novel) == 1:
        notes.append(
            f"one novel class ({novel[0]}) cannot be mistaken for another, so novel is not"
            " measured; hold out two"
        )
    if len(base) < 2:
        held = f" (held out as novel: {', '.join(novel[:NAMED])})" if novel else ""
        raise DataError(
            f"two or more base classes with training videos are needed, found {len(base)}:"
            f" {', '.join(base) or 'none'}{held}"
        )
    novel_test, more = novel_videos(items, train, test, novel, split_seed)
    pool = at(train, where_in(labels_of(train), base))
    chosen = _shots(pool, shots, split_seed)
    drawn, spare = at(pool, chosen), at(pool, ~chosen)
    spare = [] if validation == 0 else validation_videos(items, base) or spare
    spare = evenly(spare, SPARE_MOST, split_seed)
    if not spare and validation:
        taken_out = _validation_share(drawn, validation, split_seed)
        drawn, spare = at(drawn, ~taken_out), at(drawn, taken_out)
    base_test = at(test, where_in(labels_of(test), base))
    return Split(base, novel, drawn, base_test, novel_test, notes + more, spare)


def misspelt(counts: Counter[str]) -> list[str]:
    """A note on rare classes whose name is a common one's but for a letter (left out, put in,
    changed, or two exchanged)."""
    least, most = min(counts.values(), default=0), max(counts.values(), default=0)
    near: dict[str, set[str]] = defaultdict(set)
    for name, count in counts.items():
        if count < MISSPELT_SHARE * least and MISSPELT_SHARE * count > most:
            continue  # so that captions, a video each, cost nothing
        for place in range(len(name) + 1):
            near[(name[:place] + name[place + 1 :]).casefold()].add(name)
    pairs = {
        (rare, common)
        for names in near.values()
        for rare in names
        for common in names
        if counts[common] >= MISSPELT_SHARE * counts[rare] and _letters_differ(rare, common)
    }
    places = [f"{a!r} ({counts[a]}) and {b!r} ({counts[b]})" for a, b in sorted(pairs)]
    shown = ", ".join(places[:NAMED])
    return [f"one class misspelt? they differ by a letter: {shown}"] if pairs else []


def _letters_differ(a: str, b: str) -> bool:
    """Between two words, and not their numbers, which tell classes apart."""
    return a != b and min(len(a), len(b)) > 3 and re.findall(r"\d+", a) == re.findall(r"\d+", b)


def novel_videos(
    items: Sequence[Item],
    train: Sequence[Item],
    test: Sequence[Item],
    novel: Sequence[str],
    seed: int,
) -> tuple[Sequence[Item], list[str]]:
    """The test videos of novel classes: those of the test split, or where there is none (for these
    classes) all of them, at most `MOST_NOVEL`; and what is to be said of the others."""
    every = at(items, where_in(labels_of(items), novel))
    if has_split(items):
        tested = at(test, where_in(labels_of(test), novel))
        spare = at(train, where_in(labels_of(train), novel))
        if tested and spare:
            return tested, [
                f"of novel classes, {len(spare)} training videos neither train nor test: there is a"
                " test split"
            ]
        every = tested or spare
    chosen = evenly(every, MOST_NOVEL, seed)
    note = (
        f"of {len(every)} novel videos {len(chosen)} test, as many of each class: more say no more"
    )
    return chosen, [note] if len(chosen) < len(every) else []


def validation_videos(items: Sequence[Item], base: Sequence[str]) -> Sequence[Item]:
    """Videos of base classes in a validation split that neither trains nor tests: there is a test
    split beside it."""
    splits = splits_of(items)
    if not with_words(splits, TEST_WORDS).any():
        return []
    return at(items, with_words(splits, VALIDATION_WORDS) & where_in(labels_of(items), base))


def evenly(items: Sequence[Item], most: int, seed: int) -> Sequence[Item]:
    """At most `most` videos, of every class as many as of the others while it has them; drawn by
    the seed, in order."""
    if len(items) <= most:
        return items
    classes = list(_shuffled_classes(items, "evenly", seed))
    sizes = [len(members) for members in classes]
    turns = np.concatenate([np.arange(size) for size in sizes])
    # Of the videos of a turn, those of the first classes by name.
    first = np.lexsort((np.repeat(np.arange(len(sizes)), sizes), turns))[:most]
    return at(items, _mask(len(items), [np.concatenate(classes)[first]]))


def _validation_share(train: Sequence[Item], share: float, seed: int) -> np.ndarray:
    """bool: that share of every class with five training videos or more, one at least."""
    classes = [c for c in _shuffled_classes(train, "watch", seed) if len(c) >= 5]
    return _mask(len(train), (c[: max(1, round(share * len(c)))] for c in classes))
