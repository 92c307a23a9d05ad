"""What a model is taught: labelled videos in rounds, of which the first may be tested on, and later
ones are corrections. A file of them goes on growing, whatever ends the process.

    OUT/teach.json          model and options, which the next round takes
    OUT/examples.jsonl      a line an example; a later one for the same video, or the same part of
                            one, takes its place
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.data.fingerprint import file_fingerprints
from froster.data.manifest import Item, read_rows
from froster.data.spans import span_of
from froster.errors import DataError, UsageError
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer
from froster.inference.store import OLD, SEGMENTS, Store
from froster.training.measure import labelled_videos
from froster.training.options import TeachOptions
from froster.training.reporter import Reporter
from froster.training.run_folder import whereabouts
from froster.utils import strict_json as json
from froster.utils.address import as_path, is_address, whole_name
from froster.utils.files import (
    Appender,
    absolute,
    claim_folder,
    json_line,
    read_lines,
    sole_writer,
    write_json,
    write_text,
)

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


SETTINGS = "teach.json"
GOES_ON: tuple[str, ...] = (
    *("method", "hold", "strength", "lr", "steps", "views", "holdout", "novel_fraction"),
    *("split_seed", "shots", "features", "descriptions", "truncate", "classes"),
)
"""What another round of corrections takes from the first, unless it is asked for otherwise."""


@dataclass(frozen=True)
class Round:
    """What a round starts from."""

    asked: TeachOptions
    model: str
    """By name; empty for one that was given as it is."""
    index: Path | None
    out: Path | None
    examples: list[Marked]
    new: int
    """Corrections of this round."""


def first_or_next(
    videos: Videos | None,
    out: Path | None,
    model: Recognizer | str | None,
    asked: TeachOptions,
    reporter: Reporter,
    held: ExitStack,
) -> Round:
    """The examples of all rounds, which are on the disk before anything is computed. Raises
    UsageError where there is nothing to go on from."""
    if videos is None and (out is None or not (out / FILE).exists()):
        raise UsageError(
            "give labelled videos (a folder of class folders, a manifest, an index); only an --out"
            " that was taught before goes on without"
        )
    items = None if videos is None else read_videos(videos, asked, reporter)
    more = (
        []
        if asked.more is None
        else read_videos(asked.more, dataclasses.replace(asked, labels=None), reporter)
    )
    index = None if videos is None else index_at(videos)
    name = model.source or "" if isinstance(model, Recognizer) else model
    if name is None and index is not None:
        name = Store(index).source
    if out is None:
        examples = [*examples_of(items or [], 0), *examples_of(more, 1)]
        name = DEFAULT_MODEL if name is None else name
        return Round(asked, name, index, out, marked(examples, reporter), len(more))
    claim_folder(out, FILE, "choose another --out")
    held.enter_context(sole_writer(out))
    settings = settings_of(out)
    if items is None:
        asked = went_on(settings["options"], asked)
        index = Path(settings["index"]) if settings.get("index") else None
        name = settings.get("model") if name is None else name
    name = DEFAULT_MODEL if name is None else name
    file = ExampleFile(out)
    if items is not None:
        file.begin(items)
        if file.rounds > 1:
            later = sum(example.round > 0 for example in file.examples)
            reporter.say(f"{later} corrections of earlier rounds are kept")
    if more:
        file.add(more)
    options = {key: value for key in GOES_ON if (value := getattr(asked, key)) is not None}
    # The next round may start in another folder.
    options |= {key: absolute(options[key]) for key in ("features", "classes") if key in options}
    if "descriptions" in options:
        options["descriptions"] = whereabouts(options["descriptions"])
    about = {"made_by": "froster teach", "model": name and whereabouts(name), "options": options}
    write_json(out / SETTINGS, {**about, "index": None if index is None else absolute(index)})
    return Round(asked, name, index, out, marked(file.examples, reporter), len(more))


def settings_of(out: Path) -> dict[str, Any]:
    """What the rounds before were asked for, "options" as such. Raises DataError where that cannot
    be read."""
    path = out / SETTINGS
    if not path.exists():
        return {"options": TeachOptions()}
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {**values, "options": TeachOptions(**values.get("options", {}))}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def went_on(earlier: TeachOptions, asked: TeachOptions) -> TeachOptions:
    """What was asked for, and else what was asked for before."""
    default = TeachOptions()
    changes = {
        name: getattr(earlier, name)
        for name in GOES_ON
        if getattr(asked, name) == getattr(default, name)
    }
    if asked.method not in (None, "prolip", earlier.method):
        changes |= dict.fromkeys(("hold", "strength", "lr"))
    return dataclasses.replace(asked, **changes)
