"""Which videos a dataset consists of: a folder of class folders, a manifest, a label tool's file,
or an official list.

A path of a manifest is taken as it is written, white space and bytes that are no UTF-8 included.
Only where there is no such file is it looked for without the white space around it, and with / for
\\.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from froster.data.columns import Row, Table, TextColumn, WordColumn, texts_of
from froster.data.items import Item, Items, Place, VideoList, in_order, passed_over
from froster.data.label_tools import READ, read_segments
from froster.data.located import Once, Paths, at_once, locate
from froster.data.pack_folder import unpacked
from froster.data.rows import check_text, lines, read_table, read_text
from froster.data.spans import span_of
from froster.errors import DataError
from froster.utils import strict_json as json
from froster.utils.address import Address, as_path, is_address, located
from froster.utils.text import is_text, printable
from froster.video.container import VIDEO_SUFFIXES
from froster.video.tar_shards import exists, is_file

__all__ = [
    "Item",
    "Items",
    "ManifestRows",
    "Place",
    "VideoList",
    "class_label",
    "is_video",
    "lines",
    "passed_over",
    "read_items",
    "read_rows",
]

_MISSING_SHOWN = 3


def is_video(path: Path | str) -> bool:
    """By its name, which is not a hidden file's."""
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(".")


def read_items(
    source: str | Path,
    *,
    labels_json: str | Path | None = None,
    root: str | Path | None = None,
    where: Mapping[str, str] | None = None,
    once: Once = at_once,
) -> Items:
    """The labelled videos of a dataset.

    `source` is one of
    - a folder of class folders: the label is the folder's name with blanks for underscores;
    - a CSV file (UTF-8) whose header has the columns path, label and perhaps split, in any order,
      among others; with the columns start and end (seconds) a row is that part of the video;
    - a Parquet file with the same columns;
    - a JSONL file with an object of the same fields on each line;
    - a file of a label tool (`label_tools`), of which each segment is an item;
    - a list without a header, `path,label` or `path label`, as the official repositories have.

    `labels_json` is a file `{"0": "Name: description", ...}`: the manifest's labels are then its
    keys, and each is replaced by the whole text. Relative paths start at `root`, or else at the
    manifest's folder. `where` keeps the rows that have the given value in each given column of a
    manifest. `once` looks for the files of a manifest: of several processes with the same manifest
    one does.

    Raises DataError, which names file and line, for what cannot be read, for rows without path or
    label, for keys that the label file lacks, for files that do not exist, and where no video is
    left; UsageError for an address that froster does not read, or Parquet without pyarrow.
    """
    source = unpacked(as_path(source))
    root = None if root is None else as_path(root)
    if isinstance(source, Address) and source.is_dir():
        return _from_address(source)
    if source.is_dir():
        if where:
            columns = ", ".join(where)
            raise DataError(f"{source}: a folder has no columns to choose by ({columns})")
        if labels_json is not None:
            raise DataError(
                f"{source}: labels are the folders' names; {labels_json} has no use here"
            )
        return _from_folder(source)
    if source.suffix.lower() in READ:
        if where or labels_json is not None:
            raise DataError(f"{source}: a label tool's file has no columns to choose or name by")
        return _from_tool(source, source.parent if root is None else root)
    table, is_list = read_table(source)
    rows = _chosen(table, where or {})
    labels = _words(table, "label")
    if labels_json is not None:
        labels = _named(table, rows, labels, as_path(labels_json))
    elif is_list and all(label.isdecimal() for label in labels.known(rows)):
        raise DataError(
            f"{source}: the labels are numbers; give the JSON file that names them (labels_json)"
        )
    base = source.parent if root is None else root
    names = _names(table)
    forms, missing = once(lambda: locate(str(base), names, rows, is_file))
    if len(missing):
        _refuse_missing(table, names, missing, len(rows), base)
    paths = Paths(str(base), names, forms)
    spans = _spans(table, rows)
    return Items(paths, labels, _words(table, "split"), table=table, spans=spans, rows=rows)


class ManifestRows(Sequence[tuple[Path, Mapping[str, str]]]):
    """The path of each row of a manifest, and its columns."""

    def __init__(self, table: Table, paths: Paths, missing: np.ndarray) -> None:
        """`missing`: the rows whose file is not there."""
        self.table, self.paths, self.missing = table, paths, missing

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, row: int) -> tuple[Path, Mapping[str, str]]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[Path, Mapping[str, str]]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return self.paths[row], Row(self.table, row)


def read_rows(source: str | Path, root: str | Path | None = None) -> ManifestRows:
    """The path of each row of a manifest, which need not exist, and its columns, which need no
    label.

    Relative paths start at `root`, or else at the manifest's folder. Raises DataError as
    `read_items` does.
    """
    source = as_path(source)
    base = str(root if root is not None else source.parent)
    table, _ = read_table(source, ("path",))
    if not len(table):
        return ManifestRows(table, Paths(base, texts_of([])), np.zeros(0, np.int64))
    names = _names(table)
    forms, missing = locate(base, names, np.arange(len(table)), exists)
    return ManifestRows(table, Paths(base, names, forms), missing)


def _names(table: Table) -> TextColumn:
    names = table.columns["path"]
    assert isinstance(names, TextColumn)
    return names


def _words(table: Table, name: str) -> WordColumn:
    words = table.columns.get(name)
    if words is None:
        return WordColumn(np.full(len(table), -1, np.int32), [])
    assert isinstance(words, WordColumn)
    return words


def _spans(table: Table, rows: np.ndarray) -> list[tuple[float, float] | None] | None:
    """The part of its video that each row of a manifest is about; None where all are whole. Raises
    DataError where columns start and end are no stretch of time."""
    columns = {name: table.columns[name] for name in ("start", "end") if name in table.columns}
    if not columns:
        return None
    spans: list[tuple[float, float] | None] = [None] * len(table)
    for row in rows.tolist():
        fields: dict[str, str] = {n: column.get(row) or "" for n, column in columns.items()}
        spans[row] = span_of(fields, table.place(row))
    return spans if any(spans) else None


def _refuse_missing(
    table: Table, names: TextColumn, missing: np.ndarray, count: int, base: Path
) -> None:
    for row, name in zip(missing.tolist(), names.several(missing), strict=True):
        # Rather the manifest's encoding than the file's name.
        check_text(table.place(row), name)
    shown = [
        f"{names[row]} ({table.place(row).rpartition(', ')[2]})"
        for row in missing[:_MISSING_SHOWN].tolist()
    ]
    files = f"{len(missing)} of {count} files"
    raise DataError(
        f"{table.source}: {files} do not exist below {base}: {_some(shown, len(missing))}"
    )


def _some(shown: Sequence[str], count: int) -> str:
    more = f" and {count - _MISSING_SHOWN} more" if count > _MISSING_SHOWN else ""
    return ", ".join(shown[:_MISSING_SHOWN]) + more


def _from_folder(folder: Path) -> Items:
    paths: list[str] = []
    labels: list[str] = []
    others: list[Path] = []
    loose = 0
    for directory in _entries(folder):
        if directory.name.startswith("."):
            continue
        if not directory.is_dir():
            loose += is_video(directory.name)
            continue
        for entry in _entries(directory):
            if is_video(entry.name) and entry.is_file():
                paths.append(entry.path)
                labels.append(class_label(Path(directory)))
            else:
                others.append(Path(entry))
    if not paths:
        lack = f"its {loose} videos lie in no" if loose else "no videos in"
        raise DataError(
            f"{folder}: {lack} class folders; expected one folder for each class, with that class's"
            " videos in it"
        )
    items = _items(paths, labels)
    items.loose = loose
    for path in others:
        items.pass_over(path)
    return items


def _from_address(folder: Address) -> Items:
    """Of class folders at an address."""
    try:
        files = folder.files()
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    base = folder.text.rstrip("/")
    kept = [
        path
        for path in files
        if path.parent.parent.text.rstrip("/") == base and is_video(path.name)
    ]
    if not kept:
        raise DataError(f"{folder}: no videos in class folders")
    items = _items([str(path) for path in kept], [class_label(path.parent) for path in kept])
    for path in set(files) - set(kept):
        items.pass_over(path)
    return items


def _entries(folder: str | Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    """By name."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: os.path.normcase(entry.name))


def _items(
    paths: Sequence[str],
    labels: Sequence[str],
    splits: Sequence[str | None] = (),
    spans: Sequence[tuple[float, float]] | None = None,
) -> Items:
    words = WordColumn.of(splits or [None] * len(paths))
    return Items(Paths("", texts_of(paths)), WordColumn.of(labels), words, spans=spans)


def _from_tool(source: Path, base: Path) -> Items:
    """The segments of videos that are named relative to `base`, perhaps without an ending."""
    from froster.video.reader import Video as OpenedVideo

    def place(name: str) -> Path:
        if isinstance(base, Address) or is_address(name):
            return located(base, name)
        names = (name, Path(name).name)
        plain = [base / folder / one for one in names for folder in ("", "data")]
        if (path := next(filter(is_file, plain), None)) is not None:
            return path
        ended = ([path.with_name(path.name + end) for end in VIDEO_SUFFIXES] for path in plain)
        fits = next(filter(None, (sorted(filter(is_file, paths)) for paths in ended)), [])
        if len(fits) > 1:
            one, other = (path.name for path in fits[:2])
            raise DataError(f"{source}: {name!r} may be {one} or {other}: name it with its ending")
        return fits[0] if fits else base / name

    def rate(name: str) -> float:
        with OpenedVideo(place(name)) as video:
            return video.fps

    paths, labels, splits, spans, missing = [], [], [], [], []
    for video in read_segments(source, read_text(source), rate):
        path = place(video.name)
        if not isinstance(path, Address) and not is_file(path):
            missing.append(video.name)
        words = (video.subset or "").lower()
        for span in video.spans:
            paths.append(str(path))
            labels.append(span.label)
            splits.append(None if words in ("", "unlabeled") else words)
            spans.append((max(0.0, span.start), span.end))
    if missing:
        shown = _some(missing, len(missing))
        raise DataError(f"{source}: {len(missing)} videos do not exist below {base}: {shown}")
    return _items(paths, labels, splits, spans)


def class_label(folder: Path) -> str:
    """`brush_hair` -> "brush hair". Raises DataError where the folder's name is no text."""
    if not is_text(folder.name):
        raise DataError(
            f"{printable(str(folder))}: the name of this class folder is not UTF-8 text, so that it"
            " cannot be a label: rename it, or give a manifest with the label"
        )
    return folder.name.replace("_", " ")


def _chosen(table: Table, where: Mapping[str, str]) -> np.ndarray:
    """The rows that have each of these values."""
    source, rows = table.source, np.arange(len(table))
    if not len(rows):
        raise DataError(f"{source}: no videos, only a header")
    for column, value in where.items():
        values = sorted(table.columns[column].known(rows)) if column in table.columns else []
        if not values:
            columns = ", ".join(sorted(name for name, c in table.columns.items() if c.known(rows)))
            raise DataError(f"{source}: no column '{column}' to choose by (columns: {columns})")
        rows = rows[table.columns[column].equal(rows, value)]
        if not len(rows):
            known = ", ".join(values[:20])
            raise DataError(f"{source}: no rows with {column}={value} (found: {known})")
    return rows


def _named(table: Table, rows: np.ndarray, labels: WordColumn, labels_json: Path) -> WordColumn:
    """The labels by their names in a label file. Raises DataError where one is not there."""
    names = _label_names(labels_json)
    for label in in_order(WordColumn(labels.codes[rows], labels.values)):
        if label not in names:
            row = rows[labels.equal(rows, label)][0]
            raise DataError(
                f"{table.place(row)}: label '{label}' is not among the keys of {labels_json}"
            )
    return WordColumn(labels.codes, [names.get(label, label) for label in labels.values])


def _label_names(source: Path) -> dict[str, str]:
    text = read_text(source)
    for place, line in lines(source, text):
        check_text(place, line)
    try:
        table = json.loads(text)
    except ValueError as error:
        raise DataError(f"{source}: not JSON ({error})") from error
    names: list[Any] = list(table.values()) if isinstance(table, dict) else [None]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f'{source}: expected {{"0": "Name: description", ...}}')
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"{source}: two classes have the same name: {', '.join(twice[:3])}")
    return table
