"""Which videos a dataset consists of: a folder of class folders, a CSV or JSONL manifest, or an
official list.

Names of files are bytes: a path of a manifest is taken as it is written, white space and bytes that
are no UTF-8 included. Only where there is no such file is it looked for without the white space
around it, and with / for \\.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from froster.data.label_tools import READ, read_segments
from froster.errors import DataError, UsageError
from froster.utils import strict_json as json
from froster.utils.address import Address, as_path, is_address, located
from froster.utils.files import NAME_ERRORS
from froster.utils.text import is_text, printable
from froster.video.container import VIDEO_SUFFIXES

_MISSING_SHOWN = 3
_LABELLED = ("path", "label")
_LINE_END = re.compile(r"\r\n|\r|\n")
_COMPANIONS = """
.aac .bmp .cfg .csv .db .flac .html .ini .jpeg .jpg .json .jsonl .lock .log .lrv .m3u .md .mp3 .nfo
.npy .ogg .parquet .pdf .pickle .pkl .png .py .sh .srt .sub .svg .thm .toml .tsv .txt .vtt .wav
.webp .xml .yaml .yml
"""
COMPANIONS = frozenset(["", *_COMPANIONS.split()])
"""Endings of files that lie beside videos and are none: they are counted, but nobody is told of
them."""
Video = TypeVar("Video")


@dataclass(frozen=True)
class Item:
    """One labelled video."""

    path: Path
    label: str
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)
    "every column of its row in a CSV or JSONL manifest"
    span: tuple[float, float] | None = None
    "the part of the video that has the label, in seconds; None: all of it"


class VideoList(list[Video]):
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


class Items(VideoList[Item]):
    """The videos of a dataset, in the order of the manifest, or of the sorted folders."""


Row = tuple[str, dict[str, str]]
"""Where a row of a manifest stands ("FILE, line 3"), and its fields."""


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


def is_video(path: Path) -> bool:
    """By its name, which is not a hidden file's."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def read_items(
    source: str | Path,
    *,
    labels_json: str | Path | None = None,
    root: str | Path | None = None,
    where: Mapping[str, str] | None = None,
) -> Items:
    """The labelled videos of a dataset.

    `source` is one of
    - a folder of class folders: the label is the folder's name with blanks for underscores;
    - a CSV file (UTF-8) whose header has the columns path, label and perhaps split, in any order,
      among others;
    - a JSONL file with an object of the same fields on each line;
    - a file of a label tool (`label_tools`), of which each segment is an item;
    - a list without a header, `path,label` or `path label`, as the official repositories have.

    `labels_json` is a file `{"0": "Name: description", ...}`: the manifest's labels are then its
    keys, and each is replaced by the whole text. Relative paths start at `root`, or else at the
    manifest's folder. `where` keeps the rows that have the given value in each given column of a
    CSV or JSONL manifest.

    Raises DataError, which names file and line, for what cannot be read, for rows without path or
    label, for keys that the label file lacks, for files that do not exist, and where no video is
    left; UsageError for an address of another kind than froster reads. Files at addresses are not
    looked for.
    """
    source, labels_json = as_path(source), labels_json and as_path(labels_json)
    root = root and as_path(root)
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
        return _from_tool(source, root or source.parent)
    rows, is_list = _rows(source)
    rows = _chosen(source, rows, where or {})
    names = _label_names(labels_json) if labels_json is not None else None
    if is_list and names is None and all(fields["label"].isdecimal() for _, fields in rows):
        raise DataError(
            f"{source}: the labels are numbers; give the JSON file that names them (labels_json)"
        )
    base = root or source.parent
    items, missing = Items(), []
    for place, fields in rows:
        label = fields["label"]
        if names is not None:
            if label not in names:
                raise DataError(f"{place}: label '{label}' is not among the keys of {labels_json}")
            label = names[label]
        path = _locate(base, fields["path"])
        if not isinstance(path, Address) and not os.path.isfile(path):
            # Rather the manifest's encoding than the file's name.
            _check_text(place, fields["path"])
            missing.append(f"{fields['path']} ({place.rpartition(', ')[2]})")
        items.append(Item(path, label, fields.get("split") or None, fields))
    if missing:
        more = f" and {len(missing) - _MISSING_SHOWN} more" if len(missing) > _MISSING_SHOWN else ""
        shown = ", ".join(missing[:_MISSING_SHOWN]) + more
        count = f"{len(missing)} of {len(items)} files"
        raise DataError(f"{source}: {count} do not exist below {base}: {shown}")
    return items


def read_rows(
    source: str | Path, root: str | Path | None = None
) -> list[tuple[Path, dict[str, str]]]:
    """The path of each row of a manifest, which need not exist, and its columns, which need no
    label.

    Relative paths start at `root`, or else at the manifest's folder. Raises DataError as
    `read_items` does.
    """
    source = as_path(source)
    base = as_path(root) if root is not None else source.parent
    rows, _ = _rows(source, ("path",))
    return [(_locate(base, fields["path"]), fields) for _, fields in rows]


def _from_folder(folder: Path) -> Items:
    items = Items()
    if isinstance(folder, Address):
        _from_address(folder, items)
        return items
    for directory in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if not directory.is_dir():
            items.loose += is_video(directory)
            continue
        for path in sorted(directory.iterdir()):
            if is_video(path) and path.is_file():
                items.append(Item(path, class_label(directory)))
            else:
                items.pass_over(path)
    if not items:
        lack = f"its {items.loose} videos lie in no" if items.loose else "no videos in"
        raise DataError(
            f"{folder}: {lack} class folders; expected one folder for each class, with that class's"
            " videos in it"
        )
    return items


def _from_address(folder: Address, items: Items) -> None:
    try:
        files = folder.files()
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    for path in files:
        if path.parent.parent != folder.parent / folder.name or not is_video(path):
            items.pass_over(path)
        else:
            items.append(Item(path, class_label(path.parent)))
    if not items:
        raise DataError(f"{folder}: no videos in class folders")


def _from_tool(source: Path, base: Path) -> Items:
    """The segments of videos that are named relative to `base`, perhaps without an ending."""
    from froster.video.reader import Video as OpenedVideo

    def place(name: str) -> Path:
        if isinstance(base, Address) or is_address(name):
            return located(base, name)
        names = (name, Path(name).name)
        plain = [base / folder / one for one in names for folder in ("", "data")]
        ended = (
            path.with_name(path.name + end) for path in plain for end in sorted(VIDEO_SUFFIXES)
        )
        return next(filter(os.path.isfile, chain(plain, ended)), base / name)

    def rate(name: str) -> float:
        with OpenedVideo(place(name)) as video:
            return video.fps

    items, missing = Items(), []
    for video in read_segments(source, _text(source), rate):
        path = place(video.name)
        if not isinstance(path, Address) and not os.path.isfile(path):
            missing.append(video.name)
        words = (video.subset or "").lower()
        split = None if words in ("", "unlabeled") else words
        items += (
            Item(path, span.label, split, span=(max(0.0, span.start), span.end))
            for span in video.spans
        )
    if missing:
        more = f" and {len(missing) - _MISSING_SHOWN} more" if len(missing) > _MISSING_SHOWN else ""
        shown = ", ".join(missing[:_MISSING_SHOWN]) + more
        raise DataError(f"{source}: {len(missing)} videos do not exist below {base}: {shown}")
    return items


def refuse_segments(items: Sequence[Item], what: str) -> None:
    """Raises UsageError where an item is a part of a video."""
    if part := next((item for item in items if item.span), None):
        raise UsageError(
            f"{what} takes whole videos, and {part.path} is labelled by segments: froster train"
            " learns from these"
        )


def class_label(folder: Path) -> str:
    """`brush_hair` -> "brush hair". Raises DataError where the folder's name is no text."""
    if not is_text(folder.name):
        raise DataError(
            f"{printable(str(folder))}: the name of this class folder is not UTF-8 text, so that it"
            " cannot be a label: rename it, or give a manifest with the label"
        )
    return folder.name.replace("_", " ")


def _rows(source: Path, needs: Sequence[str] = _LABELLED) -> tuple[list[Row], bool]:
    """All rows of a manifest, and whether it is a list without a header."""
    text = _text(source)
    if not text.strip():
        raise DataError(f"{source}: empty manifest")
    is_list = False
    if source.suffix.lower() in (".jsonl", ".ndjson"):
        rows = _json_rows(source, text, needs)
    else:
        csv_lines = _csv_lines(source, text)
        place, names = next(csv_lines)
        columns = [name.strip().lower() for name in names]
        is_list = "path" not in columns and "label" not in columns
        if is_list:
            rows = _list_rows(source, text)
        else:
            _check_columns(place, columns, needs)
            rows = _csv_rows(csv_lines, columns)
    return [_checked(place, fields, needs) for place, fields in rows], is_list


def _text(source: Path) -> str:
    """With its own line ends, as names may hold such; bytes that are no UTF-8 may only be of names
    (`_check_text`)."""
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    if b"\0" in data:
        raise DataError(f"{source}, line 1: not UTF-8 text (is it UTF-16? save it as UTF-8)")
    return data.decode("utf-8", NAME_ERRORS).removeprefix("\ufeff")


def _check_text(place: str, *texts: str) -> None:
    if not all(map(is_text, texts)):
        raise DataError(f"{place}: not UTF-8 text (is it latin-1? save it as UTF-8)")


def lines(source: Path, text: str) -> Iterator[tuple[str, str]]:
    """Where it stands ("FILE, line 3") and the text, of every line that has one."""
    for number, line in enumerate(_LINE_END.split(text), 1):
        if line.strip():
            yield f"{source}, line {number}", line.strip()


def _csv_lines(source: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for values in reader:
            if any(value.strip() for value in values):
                yield f"{source}, line {reader.line_num}", values
    except csv.Error as error:
        raise DataError(f"{source}, line {reader.line_num}: {error}") from error


def _check_columns(place: str, columns: Sequence[str], needs: Sequence[str]) -> None:
    _check_text(place, *columns)
    if len(set(columns)) < len(columns) or not set(needs) <= set(columns):
        wanted = " and ".join(f"a column '{name}'" for name in needs)
        raise DataError(f"{place}: expected {wanted}, found: {', '.join(columns)}")


def _csv_rows(csv_lines: Iterator[tuple[str, list[str]]], columns: list[str]) -> Iterator[Row]:
    for place, values in csv_lines:
        if len(values) != len(columns):
            raise DataError(f"{place}: expected {len(columns)} values, found {len(values)}")
        yield place, dict(zip(columns, values, strict=True))


def _json_rows(source: Path, text: str, needs: Sequence[str]) -> Iterator[Row]:
    for place, line in lines(source, text):
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise DataError(f"{place}: not JSON ({error})") from error
        if not isinstance(fields, dict):
            raise DataError(f"{place}: expected an object with {' and '.join(needs)}")
        yield place, {key: str(value) for key, value in fields.items() if value is not None}


def _list_rows(source: Path, text: str) -> Iterator[Row]:
    for place, line in lines(source, text):
        # A number is what follows the last separator; a text may have separators of its own and
        # follows the first.
        number, word = r"(.+?)(?:, *| +)(\d+)", r"([^,]+),(.+)|(\S+) (.+)"
        match = re.fullmatch(number, line) or re.fullmatch(word, line)
        if not match:
            raise DataError(f"{place}: expected 'path,label', found '{line[:80]}'")
        path, label = (group for group in match.groups() if group is not None)
        yield place, {"path": path, "label": label}


def _checked(place: str, fields: dict[str, str], needs: Sequence[str]) -> Row:
    fields = {key: value if key == "path" else value.strip() for key, value in fields.items()}
    for name in needs:
        if not fields.get(name, "").strip():
            raise DataError(f"{place}: no {name}")
    _check_text(place, *(value for key, value in fields.items() if key != "path"))
    if is_address(fields.get("path", "")):
        try:
            as_path(fields["path"])
        except UsageError as error:
            raise DataError(f"{place}: {error}") from error
    return place, fields


def _chosen(source: Path, rows: list[Row], where: Mapping[str, str]) -> list[Row]:
    if not rows:
        raise DataError(f"{source}: no videos, only a header")
    for column, value in where.items():
        values = sorted({fields[column] for _, fields in rows if column in fields})
        if not values:
            columns = ", ".join(sorted({name for _, fields in rows for name in fields}))
            raise DataError(f"{source}: no column '{column}' to choose by (columns: {columns})")
        rows = [row for row in rows if row[1].get(column) == value]
        if not rows:
            known = ", ".join(values[:20])
            raise DataError(f"{source}: no rows with {column}={value} (found: {known})")
    return rows


def _label_names(source: Path) -> dict[str, str]:
    text = _text(source)
    for place, line in lines(source, text):
        _check_text(place, line)
    try:
        table = json.loads(text)
    except ValueError as error:
        raise DataError(f"{source}: not JSON ({error})") from error
    names: list[Any] = list(table.values()) if isinstance(table, dict) else [None]
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f'{source}: expected {{"0": "Name: description", ...}}')
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{source}: two classes have the same name: {', '.join(twice[:3])}")
    return table


def _locate(base: Path, path: str) -> Path:
    if isinstance(base, Address) or is_address(path):
        return located(base, path.strip())
    names = list(dict.fromkeys((path, path.strip(), path.strip().replace("\\", "/"))))
    return next((base / name for name in names if os.path.lexists(base / name)), base / names[-1])
