"""The paper's two protocols on prepared manifests: which videos train, which test, and between
which classes.

Where the released code has a defect that its published numbers contain, an option has the name of
the defect and "released" is its default; `Options.words` says what was used.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from froster.data.annotations import list_rows
from froster.data.manifest import Item
from froster.data.public import (
    TEST_SPLIT,
    classes,
    official,
    partition,
    published_clips,
    readable,
    unseen_k600,
)
from froster.data.splits import Split, few_shots
from froster.data.tree import stem
from froster.errors import DataError, UsageError, one_of
from froster.video.augment import FROSTER_AUGMENT, Augment
from froster.video.sampling import Sampling

SWAPPED = (("sword", "sword_exercise"), ("kick", "kick_ball"))
"""HMDB51 classes whose names stand in each other's place in the released base-to-novel label files.
"""


@dataclass(frozen=True)
class Options:
    """What a result may depend on. The defaults are what the released code does, except
    `base_sets`."""

    hmdb_labels: Literal["released", "fixed"] = "released"
    """Base-to-novel: `released` gives four classes each other's names (`SWAPPED`)."""
    hmdb_full: Literal["released", "all"] = "released"
    """HMDB*: the 5,100 training and test videos of split 1, or all 6,766."""
    ssv2_flip: bool = True
    """Mirror training clips of SSv2 too, though six of its base classes then become their
    opposites."""
    sampling: Literal["dense", "uniform"] = "dense"
    clamp: Literal["released", "even"] = "released"
    """Dense sampling: `released` cuts the last step short where the length is stated and repeats
    the last frame of a short video; `even` steps evenly through the stretch, or through the whole
    of a shorter video."""
    shots: int = 16
    base_sets: int = 3
    """Draws of the training videos. The release has three lists for K400 and SSv2, and one for
    UCF101 and HMDB51."""

    def __post_init__(self) -> None:
        one_of("hmdb_labels", self.hmdb_labels, "released", "fixed")
        one_of("hmdb_full", self.hmdb_full, "released", "all")
        one_of("sampling", self.sampling, "dense", "uniform")
        one_of("clamp", self.clamp, "released", "even")
        if self.shots < 1 or self.base_sets < 1:
            raise UsageError("shots and base_sets must be one or more")

    def frames_of(self, frames: int = 8, rate: int = 16) -> Sampling:
        """How clips are taken from the videos, in training and in the test."""
        return Sampling(self.sampling, frames, rate, clamp=self.clamp)

    def augment(self, dataset: str, augment: Augment = FROSTER_AUGMENT) -> Augment:
        """A method's augmentation, without the mirror image where it must not be."""
        return dataclasses.replace(
            augment, flip=augment.flip and (self.ssv2_flip or dataset != "ssv2")
        )

    def words(self, dataset: str, protocol: Literal["base-to-novel", "cross-dataset"]) -> list[str]:
        """A sentence on each choice that matters to a result on this data set, for its report."""
        sentences = []
        if self.sampling == "uniform":
            sentences.append(
                "sampling uniform: the whole video in equal segments (as the paper says)"
            )
        else:
            released = self.clamp == "released"
            clamp = "last index clamped as released" if released else "even steps, not as released"
            sentences.append(
                "sampling dense: a stretch at stride 16 of 30 frames a second (as released);"
                f" {clamp}"
            )
        if protocol == "base-to-novel":
            sentences.append(
                f"{self.shots} shots, {self.base_sets} training sets; HM is that of the mean base"
                " and mean novel"
            )
            if dataset == "hmdb51":
                pairs = ", ".join(f"{readable(a)}/{readable(b)}" for a, b in SWAPPED)
                fixed = {
                    "released": "swapped as in the released files",
                    "fixed": "right, unlike the released files",
                }
                sentences.append(f"HMDB51 names of {pairs}: {fixed[self.hmdb_labels]}")
            if dataset == "ssv2":
                flip = "mirrored at random (as released)" if self.ssv2_flip else "not mirrored"
                sentences.append(f"SSv2 training clips are {flip}")
        elif dataset == "hmdb51":
            full = {
                "released": "training and test videos of split 1 (as released)",
                "all": "all videos of the data set",
            }
            sentences.append(f"HMDB*: {full[self.hmdb_full]}")
        return sentences


@dataclass(frozen=True)
class CrossSet:
    """Videos that are scored together, between the same classes."""

    column: str
    """Of the paper's tables: UCF*, UCF, HMDB*, HMDB or K600."""
    number: int
    """Which of the column's splits, from 1."""
    dataset: str
    classes: list[str]
    items: list[Item]
    published: int
    """Videos in the released list."""

    @property
    def name(self) -> str:
        return self.column if self.column.endswith("*") else f"{self.column} {self.number}"


def base_to_novel(
    dataset: str,
    items: Sequence[Item],
    options: Options,
    number: int = 1,
    given: Sequence[str] | None = None,
) -> Split:
    """Set `number` (from 1) of base-to-novel on a prepared manifest: base classes train, each half
    is tested by itself. Classes are readable names in the published order; UCF101 and HMDB51 use
    their split 1. The training videos are drawn by `number`, or are those of `given`, video names
    as `read_list` gives them. Raises DataError for items of another data set, and where there is
    nothing to train on or to test."""
    items = [item for item, _ in _named(dataset, items)]
    base, novel = ([readable(name) for name in half] for half in partition(dataset))
    train = [item for item in items if item.split == "train" and item.label in set(base)]
    test = [item for item in items if item.split == TEST_SPLIT[dataset]]
    notes = []
    if given is None:
        # In the order of the names: a draw must not depend on where the videos lie.
        by_name_of_file = sorted(train, key=lambda item: item.path.name)
        train = list(few_shots(by_name_of_file, options.shots, number))
        counts = Counter(item.label for item in train)
        few = [name for name, count in counts.items() if count < options.shots]
        few += [name for name in base if name not in counts]
        if few:
            notes.append(
                f"{len(few)} base classes have fewer than {options.shots} training videos, such as"
                f" {few[0]}"
            )
    else:
        by_name = {stem(item.path.name): item for item in train}
        # YouTube's ids differ by case, UCF101's lists only by mistake.
        others = {}
        if dataset != "k400":
            others = {name.casefold(): by_name[name] for name in sorted({*by_name} - {*given})}
        listed = {name: by_name.get(name) or others.get(name.casefold()) for name in given}
        train = [item for item in listed.values() if item is not None]
        if absent := [name for name, item in listed.items() if item is None]:
            notes.append(
                f"{len(absent)} of {len(listed)} given training videos are not in the manifest,"
                f" such as {absent[0]}"
            )
    base_test, novel_test = (
        [item for item in test if item.label in set(names)] for names in (base, novel)
    )
    split = Split(base, novel, train, base_test, novel_test, notes)
    if dataset == "hmdb51" and options.hmdb_labels == "released":
        # Last, so that the same videos are drawn with either labels.
        parts = split.train, split.base_test, split.novel_test
        split.train, split.base_test, split.novel_test = map(_swapped, parts)
    expected = published_clips()["base_to_novel"][dataset]
    trained = expected["train"][min(number, len(expected["train"])) - 1]
    for what, part, published in (
        ("training", split.train, trained),
        ("base test", split.base_test, expected["base"]),
        ("novel test", split.novel_test, expected["novel"]),
    ):
        if not part:
            raise DataError(
                f"{dataset}: the manifest has no {what} videos ({TEST_SPLIT[dataset]} split of"
                f" {len(items)} items)"
            )
        if len(part) != published:
            notes.append(f"{what}: {len(part)} videos, published {published}")
    return split


def base_to_novel_sets(
    dataset: str, items: Sequence[Item], options: Options, lists: Sequence[Path] | None = None
) -> list[Split]:
    """All training sets: `options.base_sets` draws, or one for each of the released lists that are
    given."""
    if lists:
        return [
            base_to_novel(dataset, items, options, n, read_list(path))
            for n, path in enumerate(lists, 1)
        ]
    return [base_to_novel(dataset, items, options, n) for n in range(1, options.base_sets + 1)]


def read_list(path: Path) -> list[str]:
    """The names of the videos of a released list, without folders and suffixes."""
    return [stem(video) for video, _ in list_rows(path)]


def cross_training(items: Sequence[Item]) -> tuple[list[Item], list[str]]:
    """The videos and the 400 classes that cross-dataset models are trained on."""
    train = [item for item, _ in _named("k400", items) if item.split == "train"]
    if not train:
        raise DataError("k400: the manifest has no training videos")
    return train, [readable(name) for name in classes("k400")]


def cross_dataset(manifests: Mapping[str, Sequence[Item]], options: Options) -> list[CrossSet]:
    """The test sets that these manifests (of ucf101, hmdb51, k600) allow, in the order of the
    paper's columns.

    UCF* and HMDB* are whole data sets, UCF and HMDB the tests of three splits, K600 three draws of
    160 unseen classes of the validation videos. Raises DataError for items of another data set and
    for a set without videos.
    """
    sets: list[CrossSet] = []
    for dataset, column in (("ucf101", "UCF"), ("hmdb51", "HMDB"), ("k600", "K600")):
        if dataset not in manifests:
            continue
        named = _named(dataset, manifests[dataset])
        names = classes(dataset)
        chosen: list[tuple[str, list[str], list[Item]]]
        if dataset == "k600":
            tests = [(item, name) for item, name in named if item.split == "val"]
            chosen = [
                (column, unseen, [item for item, name in tests if name in set(unseen)])
                for unseen in unseen_k600()
            ]
        else:
            full = dataset == "ucf101" or options.hmdb_full == "all"
            chosen = [(f"{column}*", names, [item for item, _ in named if full or item.split])]
            chosen += [
                (column, names, [item for item, _ in named if item.columns.get(word) == "test"])
                for word in ("split", "split2", "split3")
            ]
        counts, numbers = published_clips()["cross_dataset"], Counter[str]()
        for title, names_of_set, items in chosen:
            numbers[title] += 1
            number = numbers[title]
            if not items:
                raise DataError(
                    f"{dataset}: the manifest has no videos for {title} {number}; was it prepared"
                    " with all splits?"
                )
            texts = [readable(name) for name in names_of_set]
            sets.append(CrossSet(title, number, dataset, texts, items, counts[title][number - 1]))
    return sets


def _named(dataset: str, items: Sequence[Item]) -> list[tuple[Item, str]]:
    """Each item, its label in the readable form, with its official class."""
    named = []
    for item in items:
        name = official(dataset, item.label)
        if name is None:
            raise DataError(
                f"{item.path}: {item.label!r} is no class of {dataset}; is it the manifest of"
                " another data set?"
            )
        named.append((dataclasses.replace(item, label=readable(name)), name))
    return named


def _swapped(items: Sequence[Item]) -> list[Item]:
    other = {readable(a): readable(b) for pair in SWAPPED for a, b in (pair, pair[::-1])}
    return [dataclasses.replace(item, label=other.get(item.label, item.label)) for item in items]
