"""What a model is taught: labelled videos in rounds, of which the first may be tested on, and later
ones are corrections. A file of them goes on growing, whatever ends the process.

    OUT/examples.jsonl      a line an example; a later one for the same video, or the same part of
                            one, takes its place
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.data.fingerprint import file_fingerprints
from froster.data.manifest import Item, read_rows
from froster.data.spans import span_of
from froster.errors import DataError, UsageError
from froster.inference.store import OLD, SEGMENTS, Store
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
    span: tuple[float, float] | None = None
    """The part of the video that is labelled, in seconds."""

    @property
    def item(self) -> Item:
        return Item(as_path(self.path), self.label, self.split, span=self.span)

    @classmethod
    def from_dict(cls, line: dict[str, Any]) -> Example:
        """Raises TypeError where it is none."""
        span = line.get("span")
        return cls(**{**line, "span": span and (float(span[0]), float(span[1]))})

    def line(self) -> str:
        """Of the file; one of a whole video is as it has always been."""
        return json_line({k: v for k, v in dataclasses.asdict(self).items() if v or k != "span"})


def examples_of(items: Sequence[Item], round: int) -> list[Example]:
    return [Example(whole_name(i.path), i.label, i.split, round, i.span) for i in items]


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
    path = Path(videos)
    return path if any((path / name).exists() for name in (OLD, SEGMENTS)) else None


def indexed_videos(labels: Path, root: Path) -> list[Item]:
    """Those of a manifest, which need not exist any more."""
    items = []
    for path, fields in read_rows(labels, root):
        if not fields.get("label"):
            raise DataError(f"{labels}: {path} has no label")
        span = span_of(fields, f"{labels}: {path}")
        items.append(Item(path, fields["label"], fields.get("split") or None, span=span))
    return items


class ExampleFile:
    """The examples of a folder. Raises DataError where the file cannot be read."""

    def __init__(self, folder: Path):
        self.path = folder / FILE
        lines, self._bytes = read_lines(self.path)
        try:
            self.examples = [Example.from_dict(line) for line in lines]
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
        write_text(self.path, "".join(example.line() for example in self.examples))
        self._bytes = self.path.stat().st_size

    def add(self, items: Sequence[Item]) -> None:
        """A round of corrections. Each line is one call of the system."""
        new = examples_of(items, max(1, self.rounds))
        appender = Appender(self.path, self._bytes)
        try:
            for example in new:
                appender.add(example.line())
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
    """Each video, or part of one, once in a round; of corrections the last one."""
    items: list[Any] = [example.item for example in examples]
    with reporter.bar("note the videos", len(items), keep=False) as bar:
        videos = file_fingerprints(items, bar)
    first: dict[Any, Marked] = {}
    later: dict[Any, Marked] = {}
    for example, video in zip(examples, videos, strict=True):
        key, mark = (video or example.path, example.span), Marked(example, video)
        if example.round:
            later[key] = mark
        else:
            first.setdefault(key, mark)
    once = [dataclasses.replace(mark, corrected=key in later) for key, mark in first.items()]
    return [*once, *later.values()]
