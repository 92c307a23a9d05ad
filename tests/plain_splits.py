"""The draws of `froster.data.splits` in plain code, video by video: what its columns must agree with."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

from froster.data.items import Item
from froster.data.splits import (
    MOST_NOVEL,
    SPARE_MOST,
    TEST_WORDS,
    TRAIN_WORDS,
    VALIDATION_WORDS,
    draw_novel,
)
from froster.errors import DataError


def train_and_test(
    items: Sequence[Item], holdout: float, seed: int
) -> tuple[list[Item], list[Item], list[str]]:
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
    classes = defaultdict(list)
    for i, item in enumerate(items):
        classes[item.label].append(i)
    for label, members in sorted(classes.items()):
        random.Random(f"{purpose}/{seed}/{label}").shuffle(members)
        yield members


def _at(items: Sequence[Item], positions: set[int]) -> list[Item]:
    return [item for i, item in enumerate(items) if i in positions]


def few_shots(items: Sequence[Item], shots: int | None, seed: int) -> list[Item]:
    if shots is None:
        return list(items)
    classes = _shuffled_classes(items, "shots", seed)
    return _at(items, {i for members in classes for i in members[:shots]})


def split(
    items: Sequence[Item],
    novel_fraction: float,
    holdout: float,
    shots: int | None,
    split_seed: int,
    validation: float | None,
) -> SimpleNamespace:
    train, test, _ = train_and_test(items, holdout, split_seed)
    classes = sorted({item.label for item in (*train, *test)})
    trainable = Counter(item.label for item in train)
    novel = draw_novel(classes, trainable, novel_fraction, split_seed) if novel_fraction else []
    base = [name for name in classes if name not in novel and trainable[name]]
    novel_test = novel_videos(items, train, test, novel, split_seed)
    pool = [item for item in train if item.label in base]
    drawn = few_shots(pool, shots, split_seed)
    spare = [] if validation == 0 else validation_videos(items, base) or left_over(pool, drawn)
    spare = evenly(spare, SPARE_MOST, split_seed)
    if not spare and validation:
        spare = validation_share(drawn, validation, split_seed)
        drawn = left_over(drawn, spare)
    base_test = [item for item in test if item.label in base]
    return SimpleNamespace(
        base=base,
        novel=novel,
        train=drawn,
        base_test=base_test,
        novel_test=novel_test,
        validation=spare,
    )


def novel_videos(
    items: Sequence[Item],
    train: Sequence[Item],
    test: Sequence[Item],
    novel: Sequence[str],
    seed: int,
) -> list[Item]:
    classes = set(novel)
    every = [item for item in items if item.label in classes]
    if any(item.split for item in items):
        tested = [item for item in test if item.label in classes]
        spare = [item for item in train if item.label in classes]
        if tested and spare:
            return tested
        every = tested or spare
    return evenly(every, MOST_NOVEL, seed)


def validation_videos(items: Sequence[Item], base: Sequence[str]) -> list[Item]:
    if not any(split_word(item) in TEST_WORDS for item in items):
        return []
    return [item for item in items if split_word(item) in VALIDATION_WORDS and item.label in base]


def left_over(items: Sequence[Item], used: Sequence[Item]) -> list[Item]:
    ids = {id(item) for item in used}
    return [item for item in items if id(item) not in ids]


def evenly(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    if len(items) <= most:
        return list(items)
    turns: list[tuple[int, str, int]] = []
    for members in _shuffled_classes(items, "evenly", seed):
        turns += [(turn, items[i].label, i) for turn, i in enumerate(members)]
    return _at(items, {i for _, _, i in sorted(turns)[:most]})


def validation_share(train: Sequence[Item], share: float, seed: int) -> list[Item]:
    classes = [c for c in _shuffled_classes(train, "watch", seed) if len(c) >= 5]
    return _at(train, {i for c in classes for i in c[: max(1, round(share * len(c)))]})
