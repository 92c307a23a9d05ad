"""What a model is taught: labelled videos in rounds, of which the first may be tested on, and later
ones are corrections. A file of them goes on growing, whatever ends the process.

    OUT/examples.jsonl      a line an example; a later one for the same video takes its place
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.data.fingerprint import file_fingerprints
from froster.data.listing import list_videos
from froster.data.manifest import Item, refuse_segments
from froster.errors import DataError, UsageError
from froster.inference.store import ABOUT, Store
from froster.training.measure import labelled_videos
from froster.training.reporter import Reporter
from froster.training.teach_options import TeachOptions
from froster.utils.address import as_path, is_address, whole_name
from froster.utils.files import Appender, json_line, read_lines, write_text

FILE = "examples.jsonl"
Videos = str | Path | Mapping[str, Sequence[str | Path]] | Sequence[tuple[str | Path, str]]
"""A folder of class folders, a manifest, an index; or in Python label -> videos, or (video, label).
"""


@dataclass(frozen=True)
class Example:
    """One labelled video."""

    path: str
    label: str
    split: str | None = None
    round: int = 0
    """0: taught first; later: corrections, which all train."""

    @property
    def item(self) -> Item:
        return Item(as_path(self.path), self.label, self.split)


def examples_of(items: Sequence[Item], round: int) -> list[Example]:
    refuse_segments(items, "froster teach")
    return [Example(whole_name(i.path), i.label, i.split, round) for i in items]


def read_videos(videos: Videos, asked: TeachOptions, reporter: Reporter) -> Sequence[Item]:
    """The labelled videos. Raises DataError where there is none, UsageError where labels are
    missing."""
    if isinstance(videos, Mapping):
        pairs = [(path, label) for label, paths in videos.items() for path in paths]
        return [Item(as_path(path), label) for path, label in pairs]
    if not isinstance(videos, (str, Path)):
        return [Item(as_path(path), label) for path, label in videos]
    path = as_path(videos)
    if index_at(path) is not None:
        if asked.labels is None:
            raise UsageError(
                f"{path} is an index, which has no labels: give --labels, a manifest"
                " with the columns path and label"
            )
        return indexed_videos(asked.labels, asked.root or Store(path).root)
    if asked.labels is None:
        return labelled_videos(path, asked, reporter)
    root = asked.root or (path if path.is_dir() else None)
    return labelled_videos(asked.labels, dataclasses.replace(asked, root=root), reporter)


def index_at(videos: Videos) -> Path | None:
    """The folder, if it is an index."""
    if not isinstance(videos, (str, Path)) or is_address(videos):
        return None
    return Path(videos) if (Path(videos) / ABOUT).is_file() else None


def indexed_videos(labels: Path, root: Path) -> list[Item]:
    """Those of a manifest, which need not exist any more."""
    items = []
    for video in list_videos([labels], root=root):
        label = video.columns.get("label", "")
        if not label:
            raise DataError(f"{labels}: {video.path} has no label")
        items.append(Item(video.path, label, video.columns.get("split") or None))
    return items


class ExampleFile:
    """The examples of a folder. Raises DataError where the file cannot be read."""

    def __init__(self, folder: Path):
        self.path = folder / FILE
        lines, self._bytes = read_lines(self.path)
        try:
            self.examples = [Example(**line) for line in lines]
        except TypeError as error:
            raise DataError(f"{self.path}: not of this version of froster ({error})") from None

    @property
    def rounds(self) -> int:
        """How many there were."""
        return max((example.round for example in self.examples), default=-1) + 1

    def begin(self, items: Sequence[Item]) -> None:
        """The first round anew; corrections stay."""
        later = [example for example in self.examples if example.round]
        self.examples = [*examples_of(items, 0), *later]
        write_text(self.path, "".join(json_line(dataclasses.asdict(e)) for e in self.examples))
        self._bytes = self.path.stat().st_size

    def add(self, items: Sequence[Item]) -> None:
        """A round of corrections. Each line is one call of the system."""
        new = examples_of(items, max(1, self.rounds))
        appender = Appender(self.path, self._bytes)
        try:
            for example in new:
                appender.add(json_line(dataclasses.asdict(example)))
        finally:
            appender.close()
        self.examples += new
        self._bytes = self.path.stat().st_size


@dataclass(frozen=True)
class Marked:
    """An example with the fingerprint of its file, None where that cannot be read."""

    example: Example
    video: str | None
    corrected: bool = False
    """Has a later example taken its place?"""

    @property
    def item(self) -> Item:
        return self.example.item


def marked(examples: Sequence[Example], reporter: Reporter) -> list[Marked]:
    """Each video once in a round; of corrections the last one."""
    items: list[Any] = [example.item for example in examples]
    with reporter.bar("note the videos", len(items), keep=False) as bar:
        videos = file_fingerprints(items, bar)
    first: dict[str, Marked] = {}
    later: dict[str, Marked] = {}
    for example, video in zip(examples, videos, strict=True):
        key, mark = video or example.path, Marked(example, video)
        if example.round:
            later[key] = mark
        else:
            first.setdefault(key, mark)
    once = [dataclasses.replace(mark, corrected=key in later) for key, mark in first.items()]
    return [*once, *later.values()]
