"""The prepared manifests of the real data sets, and what the paper's protocols make of them for
each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from froster.data.manifest import Item, read_items
from froster.data.splits import Split
from froster.errors import UsageError
from froster.paper.programme import PaperRun
from froster.paper.protocols import (
    CrossSet,
    Options,
    base_to_novel_sets,
    cross_dataset,
    cross_training,
)
from froster.paper.tables import TABLES

COLUMN_OF = {"k400": "K400", "hmdb51": "HMDB", "ucf101": "UCF", "ssv2": "SSv2"}
"""Data sets of base-to-novel, in the paper's order -> their columns."""
CROSS_TESTS = ("ucf101", "hmdb51", "k600")


@dataclass(frozen=True)
class TestSet:
    name: str
    """Column of the table, with the number of the split where there are several."""
    dataset: str
    classes: list[str]
    items: Sequence[Item]


class RealData:
    """The prepared manifests of a folder, read when they are first asked for, and the protocols on
    them."""

    def __init__(self, root: Path, options: Options, lists: Path | None = None) -> None:
        """`lists`: a folder of released lists of training videos. Raises UsageError where there is
        no folder `root`."""
        if not root.is_dir():
            raise UsageError(
                f"there is no folder {root}: --data-root holds the manifests of froster prepare"
            )
        self.root, self.options, self.lists = root, options, lists
        self._items: dict[str, list[Item]] = {}

    def path(self, dataset: str) -> Path:
        return self.root / f"{dataset}.csv"

    def has(self, dataset: str) -> bool:
        return self.path(dataset).is_file()

    def items(self, dataset: str) -> list[Item]:
        if dataset not in self._items:
            self._items[dataset] = list(read_items(self.path(dataset)))
        return self._items[dataset]

    def missing(self, names: Sequence[str]) -> list[str]:
        """The data sets that these tables need and the folder lacks."""
        needed = {"base-to-novel": tuple(COLUMN_OF), "cross-dataset": ("k400", *CROSS_TESTS)}
        protocols = sorted({TABLES[name].protocol for name in names})
        datasets = dict.fromkeys(name for protocol in protocols for name in needed[protocol])
        return [name for name in datasets if not self.has(name)]

    def training_lists(self, dataset: str) -> list[Path]:
        """The lists of training videos, `LISTS/<dataset>/*train*.csv` or `.txt`, one a training
        set, in the order of their names; none for a data set without a folder, whose videos are
        drawn."""
        if self.lists is None or not (self.lists / dataset).is_dir():
            return []
        folder = self.lists / dataset
        lists = (path for path in folder.glob("*train*") if path.suffix in (".csv", ".txt"))
        paths = sorted(path for path in lists if "idx2cls" not in path.name)
        if not paths:
            raise UsageError(f"there are no training lists (*train*.csv or .txt) in {folder}")
        return paths

    def num_training_sets(self, dataset: str) -> int:
        lists = self.training_lists(dataset) if self.has(dataset) else []
        return len(lists) or self.options.base_sets

    @cached_property
    def cross_tests(self) -> list[CrossSet]:
        manifests = {name: self.items(name) for name in CROSS_TESTS if self.has(name)}
        return cross_dataset(manifests, self.options)

    def split_of(self, run: PaperRun) -> Split:
        lists = self.training_lists(run.dataset)
        sets = base_to_novel_sets(run.dataset, self.items(run.dataset), self.options, lists)
        return sets[run.number - 1]

    def training_of(self, run: PaperRun) -> tuple[Sequence[Item], list[str]]:
        """Videos and classes that a run learns."""
        if run.protocol == "base-to-novel":
            split = self.split_of(run)
            return split.train, split.base
        return cross_training(self.items("k400"))

    def tests_of(self, run: PaperRun) -> tuple[list[TestSet], list[str]]:
        """What a run is tested on, and notes on how that differs from what was published."""
        if run.protocol == "base-to-novel":
            split, column = self.split_of(run), COLUMN_OF[run.dataset]
            return [
                TestSet(f"{column} base", run.dataset, split.base, split.base_test),
                TestSet(f"{column} novel", run.dataset, split.novel, split.novel_test),
            ], split.notes
        notes = [
            f"{test.name}: {len(test.items)} videos, published {test.published}"
            for test in self.cross_tests
            if len(test.items) != test.published
        ]
        return [
            TestSet(test.name, test.dataset, test.classes, test.items) for test in self.cross_tests
        ], notes
