"""Which classes are learnt (base) and which are only asked for (novel), and which videos train and
which test."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from froster.data.manifest import Item
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
NAMED = 12
"""Held-out classes that a note names."""


@dataclass
class Split:
    """A dataset taken apart for fine-tuning. `novel` may be empty; then only base classes are
    measured."""

    base: list[str]
    novel: list[str]
    train: list[Item]
    base_test: list[Item]
    novel_test: list[Item]
    notes: list[str] = field(default_factory=list)  # what was left out, for the report
    validation: list[Item] = field(default_factory=list)
    """Videos of base classes that neither train nor test: they stop the training and calibrate it.
    """


def train_and_test(
    items: Sequence[Item], holdout: float, seed: int
) -> tuple[list[Item], list[Item], list[str]]:
    """By the manifest's split column, or, where there is none, by holding out a share of every
    class."""
    if not any(item.split for item in items):
        note = f"no split column: {holdout:.0%} of every class held out for the test (seed {seed})"
        return (*hold_out(items, holdout, seed), [note])
    words = set(map(split_word, items))
    testing = TEST_WORDS if words & TEST_WORDS else VALIDATION_WORDS
    train, test, unnamed, unused = [], [], 0, 0
    for item in items:
        word = split_word(item)
        if word in TRAIN_WORDS:
            train.append(item)
        elif word in testing:
            test.append(item)
        elif word in VALIDATION_WORDS:
            unused += 1
        elif word:
            raise DataError(f"{item.path}: unknown split {item.split!r}; expected train or test")
        else:
            unnamed += 1
    notes = [f"{unnamed} videos whose split is empty are left out"] if unnamed else []
    if unused:
        notes.append(f"{unused} validation videos neither train nor test: there is a test split")
    return train, test, notes


def split_word(item: Item) -> str:
    return (item.split or "").lower()


def hold_out(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """At least one video of every class that has two or more goes to the test."""
    if any(item.span for item in items) and len({item.path for item in items}) > 1:
        return _hold_out_videos(items, share, seed)
    train: list[Item] = []
    test: list[Item] = []
    for members in _shuffled_classes(items, "holdout", seed):
        n = len(members)
        count = min(n - 1, max(1, round(share * n))) if share > 0 else 0
        test += [items[i] for i in members[:count]]
        train += [items[i] for i in members[count:]]
    return train, test


def _hold_out_videos(
    items: Sequence[Item], share: float, seed: int
) -> tuple[list[Item], list[Item]]:
    """Of segments: by whole videos, as those of one are alike. No class is left without training
    segments."""
    videos = sorted({item.path for item in items})
    random.Random(f"holdout/{seed}").shuffle(videos)
    labels: dict[Path, set[str]] = defaultdict(set)
    for item in items:
        labels[item.path].add(item.label)
    left = Counter(label for members in labels.values() for label in members)
    wanted = max(1, round(share * len(videos))) if share > 0 else 0
    held: set[Path] = set()
    for path in videos:
        if len(held) < wanted and all(left[label] > 1 for label in labels[path]):
            held.add(path)
            left.subtract(labels[path])
    test = [item for item in items if item.path in held]
    return [item for item in items if item.path not in held], test


def _shuffled_classes(items: Sequence[Item], purpose: str, seed: int) -> Iterator[list[int]]:
    """The positions of the videos of each class, classes by name, videos in the order of the
    seed."""
    classes = defaultdict(list)
    for i, item in enumerate(items):
        classes[item.label].append(i)
    for label, members in sorted(classes.items()):
        random.Random(f"{purpose}/{seed}/{label}").shuffle(members)
        yield members


def _at(items: Sequence[Item], positions: set[int]) -> list[Item]:
    return [item for i, item in enumerate(items) if i in positions]


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


def few_shots(items: Sequence[Item], shots: int | None, seed: int) -> list[Item]:
    """At most `shots` videos of every class, drawn by the seed, in the given order."""
    if shots is None:
        return list(items)
    classes = _shuffled_classes(items, "shots", seed)
    return _at(items, {i for members in classes for i in members[:shots]})


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
    classes = sorted({item.label for item in (*train, *test)})
    trainable = Counter(item.label for item in train)
    fraction = novel_fraction if novel is None else 0.0
    if novel is None:
        novel = draw_novel(classes, trainable, fraction, split_seed) if fraction > 0 else []
    novel = sorted(set(novel))
    if unknown := [name for name in novel if name not in classes]:
        raise UsageError(
            f"no video has the class {unknown[0]!r} that should be held out; there is"
            f" {', '.join(classes)}"
        )
    base = [name for name in classes if name not in novel and trainable[name]]
    if idle := [name for name in classes if name not in novel and not trainable[name]]:
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
    pool = [item for item in train if item.label in base]
    drawn = few_shots(pool, shots, split_seed)
    spare = [] if validation == 0 else validation_videos(items, base) or left_over(pool, drawn)
    spare = evenly(spare, SPARE_MOST, split_seed)
    if not spare and validation:
        spare = validation_share(drawn, validation, split_seed)
        drawn = left_over(drawn, spare)
    base_test = [item for item in test if item.label in base]
    return Split(base, novel, drawn, base_test, novel_test, notes + more, spare)


def novel_videos(
    items: Sequence[Item],
    train: Sequence[Item],
    test: Sequence[Item],
    novel: Sequence[str],
    seed: int,
) -> tuple[list[Item], list[str]]:
    """The test videos of novel classes: those of the test split, or where there is none (for these
    classes) all of them, at most `MOST_NOVEL`; and what is to be said of the others."""
    classes = set(novel)
    every = [item for item in items if item.label in classes]
    if any(item.split for item in items):
        tested = [item for item in test if item.label in classes]
        spare = [item for item in train if item.label in classes]
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


def validation_videos(items: Sequence[Item], base: Sequence[str]) -> list[Item]:
    """Videos of base classes in a validation split that neither trains nor tests: there is a test
    split beside it."""
    if not any(split_word(item) in TEST_WORDS for item in items):
        return []
    return [item for item in items if split_word(item) in VALIDATION_WORDS and item.label in base]


def left_over(items: Sequence[Item], used: Sequence[Item]) -> list[Item]:
    ids = {id(item) for item in used}
    return [item for item in items if id(item) not in ids]


def evenly(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    """At most `most` videos, of every class as many as of the others while it has them; drawn by
    the seed, in order."""
    if len(items) <= most:
        return list(items)
    turns: list[tuple[int, str, int]] = []
    for members in _shuffled_classes(items, "evenly", seed):
        turns += [(turn, items[i].label, i) for turn, i in enumerate(members)]
    return _at(items, {i for _, _, i in sorted(turns)[:most]})


def validation_share(train: Sequence[Item], share: float, seed: int) -> list[Item]:
    """That share of every class with five training videos or more, one at least."""
    classes = [c for c in _shuffled_classes(train, "watch", seed) if len(c) >= 5]
    return _at(train, {i for c in classes for i in c[: max(1, round(share * len(c)))]})
