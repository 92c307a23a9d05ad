"""Labelled videos, held by columns: an `Item` is made when it is asked for.

Functions here take any sequence of items. Of `Items` they read the columns, so that a million rows
cost milliseconds; a part of `Items` is again `Items`, of a list a list.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np

from froster.data.columns import Row, Table, WordColumn
from froster.data.located import Paths
from froster.utils.address import Address, as_path

_COMPANIONS = """
.aac .bmp .cfg .csv .db .flac .html .ini .jpeg .jpg .json .jsonl .lock .log .lrv .m3u .md .mp3 .nfo
.npy .ogg .parquet .pdf .pickle .pkl .png .py .sh .srt .sub .svg .thm .toml .tsv .txt .vtt .wav
.webp .xml .yaml .yml
"""
COMPANIONS = frozenset(["", *_COMPANIONS.split()])
"""Endings of files that lie beside videos and are none: they are counted, but nobody is told of
them."""
Video = TypeVar("Video")


Place = tuple[Path, tuple[float, float] | None]
"""A video, or a part of one: its path, and where the part starts and ends, in seconds."""


@dataclass(frozen=True)
class Item:
    """One labelled video."""

    path: Path
    label: str
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)
    "every column of its row in a manifest"
    span: tuple[float, float] | None = None
    "the part of the video that has the label, in seconds; None: all of it"

    @property
    def place(self) -> Place:
        """What tells it from the other items of a dataset."""
        return self.path, self.span


class VideoList(Sequence[Video], Generic[Video]):
    """Videos, and what was passed over beside them."""

    def __init__(self) -> None:
        self.ignored = 0  # files in folders that are hidden or no videos
        self.passed_over: Counter[str] = Counter()
        "how many of them, but for hidden ones, have which ending"
        self.loose = 0  # videos beside the class folders, which have no label

    def pass_over(self, path: Path) -> None:
        self.ignored += 1
        is_folder = not isinstance(path, Address) and path.is_dir()
        if not path.name.startswith(".") and not is_folder:
            self.passed_over[path.suffix.lower()] += 1

    def notes(self) -> list[str]:
        """Lines on what was passed over."""
        lines = [passed_over(self.passed_over)]
        if self.loose:
            lines.append(f"passed over, as they lie in no class folder: {self.loose} videos")
        return list(filter(None, lines))

    def __eq__(self, other: object) -> bool:
        """As lists are compared, whatever was passed over."""
        if not isinstance(other, (list, VideoList)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} videos>"


class Items(VideoList[Item]):
    """The videos of a dataset, in the order of the manifest, or of the sorted folders; or a part
    of them."""

    def __init__(
        self,
        paths: Paths,
        labels: WordColumn,
        splits: WordColumn,
        *,
        table: Table | None = None,
        spans: Sequence[tuple[float, float] | None] | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        """`spans`: of each of the N rows, in seconds, None for a whole video; `rows`: which of
        these, by default all."""
        super().__init__()
        self.paths, self.table = paths, table
        self._labels, self._splits, self._spans = labels, splits, spans
        self.rows = np.arange(len(paths)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> Items: ...
    def __getitem__(self, place: int | slice) -> Item | Items:
        if isinstance(place, slice):
            return self._of(self.rows[place])
        row = int(self.rows[place])
        return self._item(row, self.paths.text(row))

    def __iter__(self) -> Iterator[Item]:
        for row, path in zip(self.rows.tolist(), self.paths.texts(self.rows), strict=True):
            yield self._item(row, path)

    def at(self, places: np.ndarray) -> Items:
        """The videos at these places, or those of a mask."""
        return self._of(self.rows[places])

    @property
    def labels(self) -> WordColumn:
        """The label of each video, None of them missing."""
        return WordColumn(self._labels.codes[self.rows], self._labels.values)

    @property
    def splits(self) -> WordColumn:
        """The split of each video."""
        return WordColumn(self._splits.codes[self.rows], self._splits.values)

    @property
    def has_spans(self) -> bool:
        spans = self._spans
        return spans is not None and any(spans[row] is not None for row in self.rows.tolist())

    def _of(self, rows: np.ndarray) -> Items:
        return Items(
            self.paths, self._labels, self._splits, table=self.table, spans=self._spans, rows=rows
        )

    def _item(self, row: int, path: str) -> Item:
        label = self._labels.get(row)
        assert label is not None
        columns: Mapping[str, str] = {} if self.table is None else Row(self.table, row)
        split = self._splits.get(row) or None
        span = None if self._spans is None else self._spans[row]
        return Item(as_path(path), label, split, columns, span)


def passed_over(endings: Mapping[str, int]) -> str:
    """One line on files that may be videos for all that froster knows; empty if there is none."""
    count = [(n, ending) for ending, n in sorted(endings.items()) if ending not in COMPANIONS]
    if not count:
        return ""
    kinds = ", ".join(f"{number} {ending}" for number, ending in count)
    return (
        f"passed over, as their endings are not those of videos: {kinds} (named one by one, files"
        " of any ending are read)"
    )


def labels_of(items: Sequence[Item]) -> WordColumn:
    """The label of each video."""
    return items.labels if isinstance(items, Items) else WordColumn.of(item.label for item in items)


def splits_of(items: Sequence[Item]) -> WordColumn:
    """The split of each video."""
    return items.splits if isinstance(items, Items) else WordColumn.of(item.split for item in items)


def at(items: Sequence[Item], places: np.ndarray) -> Sequence[Item]:
    """The videos at these places, in their order, or those of a mask."""
    if isinstance(items, Items):
        return items.at(places)
    places = np.flatnonzero(places) if places.dtype == bool else places
    return [items[place] for place in places.tolist()]


def in_order(words: WordColumn) -> list[str]:
    """The different values, in the order in which they come."""
    codes, first = np.unique(words.codes, return_index=True)
    return [words.values[code] for code in codes[np.argsort(first)].tolist() if code >= 0]


def label_counts(items: Sequence[Item]) -> Counter[str]:
    """How many videos have which label, in the order in which labels come."""
    labels = labels_of(items)
    counts = np.bincount(labels.codes, minlength=len(labels.values)).tolist()
    numbers = dict(zip(labels.values, counts, strict=True))
    return Counter({label: numbers[label] for label in in_order(labels)})


def where_in(words: WordColumn, chosen: Iterable[str | None]) -> np.ndarray:
    """bool: which rows have one of the values. None: a missing one."""
    some = set(chosen)
    fits = [value in some for value in words.values]
    return np.array([*fits, None in some])[words.codes]  # number -1 is the last


def label_set(items: Sequence[Item]) -> list[str]:
    """The different labels, in order."""
    return sorted(in_order(labels_of(items)))


def names_of(items: Sequence[Item]) -> Iterator[str]:
    """The name of each file, without its folders."""
    if not isinstance(items, Items):
        yield from (item.path.name for item in items)
        return
    for path in items.paths.texts(items.rows):
        name = path.rpartition("/")[2]
        plain = os.sep == "/" and name not in ("", ".", "..") and "://" not in path
        yield name if plain else as_path(path).name


def any_segment(items: Sequence[Item]) -> bool:
    """Whether one of them is a part of a video."""
    return items.has_spans if isinstance(items, Items) else any(item.span for item in items)


def column_names(items: Sequence[Item]) -> list[str]:
    """The columns that one of the videos has, in order."""
    if not isinstance(items, Items):
        return sorted({name for item in items for name in item.columns})
    columns = items.table.columns if items.table is not None else {}
    return sorted(name for name, column in columns.items() if column.known(items.rows))


def column_of(items: Sequence[Item], name: str) -> Iterator[str]:
    """The value of each video, empty where it has none."""
    if not isinstance(items, Items):
        return (item.columns.get(name, "") for item in items)
    columns = items.table.columns if items.table is not None else {}
    if name not in columns:
        return repeat("", len(items))
    return (columns[name].get(row) or "" for row in items.rows.tolist())
