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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from froster.errors import DataError
from froster.utils import strict_json as json
from froster.utils.address import is_address, refusal, refuse_address
from froster.utils.files import NAME_ERRORS
from froster.utils.text import is_text, printable
from froster.video.container import VIDEO_SUFFIXES

_MISSING_SHOWN = 3


@dataclass(frozen=True)
class Item:
    """One labelled video."""

    path: Path
    label: str
    split: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)
    "every column of its row in a CSV or JSONL manifest"


class Items(list[Item]):
    """The videos of a dataset, in the order of the manifest, or of the sorted folders."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        super().__init__(items)
        self.ignored = 0
        "files in class folders that are hidden or no videos"
        self.passed_over: Counter[str] = Counter()
        "how many of them, but for hidden ones, have which ending"
        self.loose = 0
        "videos beside the class folders, which have no label"


_LABELLED = ("path", "label")
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class _Row:
    line: int
    fields: dict[str, str]


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
    - a CSV file (UTF-8) whose header has the columns path, label and perhaps split, in any order, among others;
    - a JSONL file with an object of the same fields on each line;
    - a list without a header, `path,label` or `path label`, as the official repositories have.

    `labels_json` is a file `{"0": "Name: description", ...}`: the manifest's labels are then its
    keys, and each is replaced by the whole text. Relative paths start at `root`, or else at the
    manifest's folder. `where` keeps the rows that have the given value in each given column of a
    CSV or JSONL manifest.

    Raises DataError, which names file and line, for what cannot be read, for rows without path or
    label, for keys that the label file lacks, for files that do not exist, and where no video is
    left; UsageError for an address.
    """
    refuse_address(source, labels_json, root)
    source = Path(source)
    if source.is_dir():
        if where:
            raise DataError(
                f"{source}: a folder has no columns to choose by ({', '.join(where)}); use a"
                " manifest"
            )
        if labels_json is not None:
            raise DataError(
                f"{source}: a folder's labels are its folders' names; {labels_json} has no use here"
            )
        return _from_folder(source)
    rows, is_list = _rows(source)
    rows = _chosen(source, rows, where or {})
    names = _label_names(Path(labels_json)) if labels_json is not None else None
    if is_list and names is None and all(row.fields["label"].isdecimal() for row in rows):
        raise DataError(
            f"{source}: the labels are numbers; give the JSON file that names them (labels_json)"
        )
    base = Path(root) if root is not None else source.parent
    items, missing = Items(), []
    for row in rows:
        label = row.fields["label"]
        if names is not None:
            if label not in names:
                raise DataError(
                    f"{source}, line {row.line}: label '{label}' is not among the keys of"
                    f" {labels_json}"
                )
            label = names[label]
        path = _locate(base, row.fields["path"])
        if not os.path.isfile(path):
            # Rather the manifest's encoding than the file's name.
            _check_text(source, row.line, row.fields["path"])
            missing.append(f"{row.fields['path']} (line {row.line})")
        items.append(Item(path, label, row.fields.get("split") or None, row.fields))
    if missing:
        more = f" and {len(missing) - _MISSING_SHOWN} more" if len(missing) > _MISSING_SHOWN else ""
        shown = ", ".join(missing[:_MISSING_SHOWN])
        raise DataError(
            f"{source}: {len(missing)} of {len(items)} files do not exist below {base}:"
            f" {shown}{more}"
        )
    return items


def read_rows(
    source: str | Path, root: str | Path | None = None
) -> list[tuple[Path, dict[str, str]]]:
    """The path of each row of a manifest, which need not exist, and its columns, which need no
    label.

    Relative paths start at `root`, or else at the manifest's folder. Raises DataError as
    `read_items` does.
    """
    source = Path(source)
    base = Path(root) if root is not None else source.parent
    rows, _ = _rows(source, ("path",))
    return [(_locate(base, row.fields["path"]), row.fields) for row in rows]


def _from_folder(folder: Path) -> Items:
    items = Items()
    for directory in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if not directory.is_dir():
            items.loose += directory.suffix.lower() in VIDEO_SUFFIXES
            continue
        for path in sorted(directory.iterdir()):
            if (
                path.suffix.lower() in VIDEO_SUFFIXES
                and not path.name.startswith(".")
                and path.is_file()
            ):
                items.append(Item(path, class_label(directory)))
            else:
                items.ignored += 1
                if not path.name.startswith(".") and path.is_file():
                    items.passed_over[path.suffix.lower()] += 1
    if not items:
        here = (
            f"its {items.loose} videos lie in no class folders"
            if items.loose
            else "no videos in class folders"
        )
        raise DataError(
            f"{folder}: {here}; expected one folder for each class, with that class's videos in it"
        )
    return items


def class_label(folder: Path) -> str:
    """`brush_hair` -> "brush hair". Raises DataError where the folder's name is no text."""
    if not is_text(folder.name):
        raise DataError(
            f"{printable(str(folder))}: the name of this class folder is not UTF-8 text, so that it"
            " cannot be a label: rename it, or give a manifest with the label"
        )
    return folder.name.replace("_", " ")


def _rows(source: Path, needs: Sequence[str] = _LABELLED) -> tuple[list[_Row], bool]:
    """All rows of a manifest, and whether it is a list without a header."""
    text = _text(source)
    if not text.strip():
        raise DataError(f"{source}: empty manifest")
    if source.suffix.lower() in (".jsonl", ".ndjson"):
        return list(_json_rows(source, text, needs)), False
    first = [name.strip().lower() for name in next(_csv_lines(source, text))[1]]
    if "path" in first or "label" in first:
        return list(_csv_rows(source, text, first, needs)), False
    return list(_list_rows(source, text)), True


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


def _check_text(source: Path, line: int, *texts: str) -> None:
    if not all(map(is_text, texts)):
        raise DataError(f"{source}, line {line}: not UTF-8 text (is it latin-1? save it as UTF-8)")


def _csv_lines(source: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for values in reader:
            if any(value.strip() for value in values):
                yield reader.line_num, values
    except csv.Error as error:
        raise DataError(f"{source}, line {reader.line_num}: {error}") from error


def _csv_rows(source: Path, text: str, columns: list[str], needs: Sequence[str]) -> Iterator[_Row]:
    lines = _csv_lines(source, text)
    next(lines)
    _check_text(source, 1, *columns)
    if len(set(columns)) < len(columns) or not set(needs) <= set(columns):
        wanted = " and ".join(f"a column '{name}'" for name in needs)
        raise DataError(f"{source}, line 1: expected {wanted}, found: {', '.join(columns)}")
    for line, values in lines:
        if len(values) != len(columns):
            raise DataError(
                f"{source}, line {line}: expected {len(columns)} values, found {len(values)}"
            )
        yield _checked(source, line, dict(zip(columns, values, strict=True)), needs)


def _json_rows(source: Path, text: str, needs: Sequence[str]) -> Iterator[_Row]:
    for line, content in enumerate(_LINE_END.split(text), 1):
        if not content.strip():
            continue
        try:
            fields = json.loads(content)
        except ValueError as error:
            raise DataError(f"{source}, line {line}: not JSON ({error})") from error
        if not isinstance(fields, dict):
            raise DataError(f"{source}, line {line}: expected an object with {' and '.join(needs)}")
        yield _checked(
            source,
            line,
            {key: str(value) for key, value in fields.items() if value is not None},
            needs,
        )


def _list_rows(source: Path, text: str) -> Iterator[_Row]:
    for line, content in enumerate(_LINE_END.split(text), 1):
        if not content.strip():
            continue
        # A number is what follows the last separator; a text may have separators of its own and
        # follows the first.
        content = content.strip()
        match = re.fullmatch(r"(.+?)(?:, *| +)(\d+)", content) or re.fullmatch(
            r"([^,]+),(.+)|(\S+) (.+)", content
        )
        if not match:
            raise DataError(f"{source}, line {line}: expected 'path,label', found '{content[:80]}'")
        path, label = (group for group in match.groups() if group is not None)
        yield _checked(source, line, {"path": path, "label": label})


def _checked(
    source: Path, line: int, fields: dict[str, str], needs: Sequence[str] = _LABELLED
) -> _Row:
    fields = {key: value if key == "path" else value.strip() for key, value in fields.items()}
    for name in needs:
        if not fields.get(name, "").strip():
            raise DataError(f"{source}, line {line}: no {name}")
    _check_text(source, line, *(value for key, value in fields.items() if key != "path"))
    if is_address(fields.get("path", "")):
        raise DataError(f"{source}, line {line}: {refusal(fields['path'])}")
    return _Row(line, fields)


def _chosen(source: Path, rows: list[_Row], where: Mapping[str, str]) -> list[_Row]:
    if not rows:
        raise DataError(f"{source}: no videos, only a header")
    for column, value in where.items():
        values = sorted({row.fields[column] for row in rows if column in row.fields})
        if not values:
            columns = ", ".join(sorted({name for row in rows for name in row.fields}))
            raise DataError(f"{source}: no column '{column}' to choose by (columns: {columns})")
        rows = [row for row in rows if row.fields.get(column) == value]
        if not rows:
            raise DataError(
                f"{source}: no rows with {column}={value} (found: {', '.join(values[:20])})"
            )
    return rows


def _label_names(source: Path) -> dict[str, str]:
    text = _text(source)
    for line, content in enumerate(_LINE_END.split(text), 1):
        _check_text(source, line, content)
    try:
        names = json.loads(text)
    except ValueError as error:
        raise DataError(f"{source}: not JSON ({error})") from error
    if not isinstance(names, dict) or not all(
        isinstance(name, str) and name.strip() for name in names.values()
    ):
        raise DataError(f'{source}: expected {{"0": "Name: description", ...}}')
    if len(set(names.values())) < len(names):
        twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
        raise DataError(f"{source}: two classes have the same name: {', '.join(twice[:3])}")
    return names


def _locate(base: Path, path: str) -> Path:
    names = list(dict.fromkeys((path, path.strip(), path.strip().replace("\\", "/"))))
    return next((base / name for name in names if os.path.lexists(base / name)), base / names[-1])
