"""Labels: the forms in which people give them, the files that hold them, and what they must be.

A label is "Name" or "Name: description".
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from pathlib import Path
from typing import Any

from froster.errors import UsageError
from froster.utils import strict_json as json
from froster.utils.address import as_path, is_address
from froster.utils.text import is_text

NONE = "none of these"
"""The answer where no label fits; so no label is called that."""
_SHOWN = 5
"""Repeated labels that are named; the others are counted."""


def check_texts(labels: Any) -> None:
    """Raises UsageError unless it is a list of texts, each of one line, that can be written as
    UTF-8."""
    # An array of names will do.
    listed = hasattr(labels, "__getitem__") and isinstance(labels, Sized)
    if not listed or isinstance(labels, (str, bytes, Mapping)):
        raise UsageError(f"labels must be a list of names, not {labels!r:.200}")
    for position, label in enumerate(labels, start=1):
        place = f"label {position} of {len(labels)}"
        if not isinstance(label, str):
            raise UsageError(f"{place} is no text: {label!r:.200}")
        if not is_text(label):
            raise UsageError(f"{place} holds half a character: {label!r:.200}")
        if len(f"{label}.".splitlines()) > 1:
            raise UsageError(f"{place} holds a line end: {label!r:.200}; give labels one by one")


def check_labels(labels: Sequence[str], places: Sequence[str] = ()) -> None:
    """Raises UsageError on what is no text, no labels, a label without a name, or one given twice
    (case and white space aside). `places` says where each stands ("line 5"); by default it is
    counted."""
    check_texts(labels)
    if len(labels) == 0:
        raise UsageError("no labels were given: at least one is needed")
    seen: dict[str, int] = {}
    repeated = []
    for i, label in enumerate(labels):
        place = places[i] if places else f"label {i + 1} of {len(labels)}"
        if not label.partition(":")[0].strip():
            raise UsageError(f"{place} is empty" + (f": {label!r}" if label.strip() else ""))
        key = " ".join(label.casefold().split())
        if key == NONE:
            raise UsageError(
                f"{place} is {label!r}, which is the answer where no label fits: leave it out"
            )
        first = seen.setdefault(key, i)
        if first != i:
            where = f" ({places[first]}, {place})" if places else ""
            both = repr(label) if labels[first] == label else f"{labels[first]!r} and {label!r}"
            repeated.append(both + where)
    if several := list(dict.fromkeys(repeated)):
        more = f"; and {len(several) - _SHOWN} more" if len(several) > _SHOWN else ""
        raise UsageError(f"labels given more than once: {'; '.join(several[:_SHOWN])}{more}")


def names_of(labels: Sequence[str]) -> tuple[str, ...]:
    """The name of each label, without its description; the whole labels where several have one name
    ("drink: tea", "drink: coffee")."""
    names = tuple(label.partition(":")[0] for label in labels)
    return names if len(set(names)) == len(names) else tuple(labels)


def place_of(label: str, names: Mapping[str, int]) -> int | None:
    """The place of a label, or else of its name, among `names_of` others."""
    return names.get(label, names.get(label.partition(":")[0]))


def check_cleaned(labels: Sequence[str], clean: Callable[[str], str]) -> None:
    """Raises UsageError where the cleaning of a text tower leaves nothing of a label's name, or
    makes two labels one: the encoder could not tell them apart."""
    seen: dict[str, str] = {}
    for label in labels:
        if not clean(label.partition(":")[0]):
            raise UsageError(
                f"the label {label!r:.100} is empty for this encoder, which leaves punctuation out"
            )
        text = clean(label)
        if text in seen:
            raise UsageError(
                f"the labels {seen[text]!r:.100} and {label!r:.100} are the same for this encoder,"
                f" which reads {text!r:.100} in both: rename one or leave it out"
            )
        seen[text] = label


def split_labels(text: str) -> list[Any]:
    """`"archery, tai chi"` -> `["archery", "tai chi"]`: labels as people write them, on the command
    line, the page, the API.

    One a line, or between commas, semicolons or tabs; `"salt, pepper", sugar` are two. In a text of
    several lines a line "Name: description" is one label, commas and all. A separator before the
    first or behind the last label means nothing, but two in a row have an empty label between them.
    A text that begins with `[` is a JSON list, whose entries the caller checks. Raises UsageError
    where a quote or a JSON list does not end.
    """
    text = text.removeprefix("\ufeff").strip()
    if text.startswith("["):
        return _json_list(text)
    lines = [line for line in text.splitlines() if line.strip(_BETWEEN)]
    if len(lines) < 2:
        return [label for line in lines for label in _split_line(line)]
    return [
        label
        for line in lines
        for label in ([_whole_line(line)] if _described(line) else _split_line(line))
    ]


_BETWEEN = ",; \t"
_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:[,;\t]|\Z)')
_PLAIN = re.compile(r"([^,;\t]*)(?:[,;\t]|\Z)")


def _described(line: str) -> bool:
    """Is it "Name: description"? In "a, b: c" the name is that of the second label."""
    return ":" in re.split("[,;\t]", line, maxsplit=1)[0]


def _whole_line(line: str) -> str:
    """A line that is one label: `archery,` -> `archery`, and without quotes around all of it."""
    line = line.strip().strip(_BETWEEN).strip()
    quoted = _QUOTED.fullmatch(line)
    return quoted[1].replace('""', '"').strip() if quoted else line


def _split_line(line: str) -> list[str]:
    line = line.strip().strip(_BETWEEN).strip()
    labels: list[str] = []
    place = 0
    while place < len(line):
        if match := _QUOTED.match(line, place):
            label = match[1].replace('""', '"').strip()
        else:
            match = _PLAIN.match(line, place)
            assert match is not None  # it fits every text
            label = match[1].strip()
            if label.startswith('"') and label.count('"') == 1:
                raise UsageError(
                    f"the quote before {label[1:]!r:.100} is not closed before a comma or the end"
                    " of the line"
                )
        labels.append(label)
        place = match.end()
    return labels


def _json_list(text: str) -> list[Any]:
    try:
        return list(json.loads(text))
    except ValueError as error:
        raise UsageError(
            "labels that begin with [ are read as a JSON list, and this is not a JSON list"
            f" ({error})"
        ) from None


LABEL_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".yaml", ".yml")
_COLUMNS = "label labels name names class classes class_name label_name category action activity"
LABEL_COLUMNS = tuple(_COLUMNS.split())
"""What the column of the labels is called in tables, the likelier names first."""


def label_file(text: str) -> Path | None:
    """The file that a text given in the place of labels names, if there is one, with its column
    (`labels.csv:name`).

    Raises UsageError where a file is meant and there is none.
    """
    named = Path(text.strip())
    file, _ = file_and_column(named)
    if os.path.isfile(file):
        return named
    if file.suffix.lower() in LABEL_SUFFIXES and not re.search(r"[,;\t\n]", text.strip()):
        raise UsageError(f"{named}: there is no such file of labels")
    return None


def file_and_column(path: Path) -> tuple[Path, str | None]:
    """`labels.csv:name` -> the file `labels.csv` and its column `name`."""
    file, colon, column = str(path).rpartition(":")
    if colon and file.lower().endswith((".csv", ".tsv")):
        if is_address(path):
            return as_path(file), column
        if not os.path.exists(path):
            return Path(file), column
    return path, None


def read_labels(path: str | Path) -> list[str]:
    """The labels of a file, in order.

    A text file has one a line, or, where it is a single line, what `split_labels` takes; blank
    lines are skipped. A `.csv` or `.tsv` table has them in the column that is named behind a colon
    (`labels.csv:name`), else in one called as in `LABEL_COLUMNS`, whose head is no label. A `.json`
    is a list of names or of objects with such a key, or an object: `{"0": name, …}`, `{name:
    number, …}` or `{name: description, …}`. Raises UsageError when the file is missing, not UTF-8,
    or of another form.
    """
    return [label for _, label in label_entries(as_path(path))]


def label_entries(path: Path) -> list[tuple[str, str]]:
    """The labels of a file, each after where it stands: ("line 5", "archery")."""
    file, column = file_and_column(path)
    text = read_utf8(file)
    if file.suffix.lower() == ".json":
        return [
            (f"entry {number}", label)
            for number, label in enumerate(_json_labels(parse_json(text, file), file), 1)
        ]
    if file.suffix.lower() in (".csv", ".tsv"):
        return _table_labels(text, file, column)
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip(_BETWEEN)
    ]
    if len(lines) == 1 and not _described(lines[0][1]):
        return [(f"line {lines[0][0]}", label) for label in _split_line(lines[0][1])]
    return [(f"line {number}", _whole_line(line)) for number, line in lines]


def _json_labels(data: Any, path: Path) -> list[str]:
    if isinstance(data, dict):
        if all(key.isdecimal() for key in data):
            numbers = [str(index) for index in range(len(data))]
            if set(data) != set(numbers):
                raise UsageError(
                    f'{path}: an object of labels by number needs the keys "0" to "{len(data) - 1}"'
                )
            data = [data[number] for number in numbers]
        elif all(type(value) is int for value in data.values()):
            data = sorted(data, key=data.__getitem__)
        elif all(isinstance(value, str) for value in data.values()):
            data = [
                f"{name}: {' '.join(text.split())}" if text.strip() else name
                for name, text in data.items()
            ]
    if isinstance(data, list):
        data = [_named(entry) if isinstance(entry, dict) else entry for entry in data]
    if not isinstance(data, list) or not all(isinstance(label, str) for label in data):
        raise UsageError(
            f'{path}: expected a JSON list of labels, or an object {{"0": label, …}}, {{label:'
            " number, …} or {label: description, …}"
        )
    return data


def _named(entry: dict[str, Any]) -> Any:
    """The label of an object such as `{"id": 3, "name": "archery"}`; None where no key says which
    it is."""
    keys = {key.casefold(): key for key in reversed(entry)}
    texts = (entry[keys[name]] for name in LABEL_COLUMNS if name in keys)
    return next((text for text in texts if isinstance(text, str)), None)


def _table_labels(text: str, path: Path, column: str | None) -> list[tuple[str, str]]:
    first = text.lstrip("\n").partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    rows = [
        (number, [cell.strip() for cell in row])
        for number, row in csv_rows(text, path, delimiter=delimiter, skipinitialspace=True)
        if any(cell.strip() for cell in row)
    ]
    if not rows:
        return []
    number, cells = rows[0]
    if len(rows) == 1 and column is None and not set(map(_head, cells)) & set(LABEL_COLUMNS):
        return [(f"line {number}", cell) for cell in cells if cell]
    place, headed = _label_column([cells for _, cells in rows], path, column)
    return [(f"line {n}", cells[place] if place < len(cells) else "") for n, cells in rows[headed:]]


def csv_rows(text: str, path: Path, **how: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, each after the number of its last line; `how` is that of `csv.reader`.
    Raises UsageError naming the line where it is none."""
    reader = csv.reader(io.StringIO(text), **how)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: no table ({error})") from None


def _label_column(rows: list[list[str]], path: Path, column: str | None) -> tuple[int, bool]:
    """Which column of a table holds the labels, and whether the first row is the columns' heads."""
    head, rest = [_head(cell) for cell in rows[0]], rows[1:]
    if column is not None:
        if _head(column) not in head:
            raise UsageError(f"{path}: there is no column {column!r}, but {', '.join(rows[0])}")
        return head.index(_head(column)), True
    named = [head.index(name) for name in LABEL_COLUMNS if name in head]
    numbers = [
        bool(rest) and all(cell.isdecimal() for row in rest for cell in row[i : i + 1])
        for i in range(len(head))
    ]
    headed = bool(named) or any(
        number and not cell.isdecimal() for number, cell in zip(numbers, head, strict=True)
    )
    texts = [i for i in range(len(head)) if not numbers[i]]
    likely = [i for i in named if i in texts] or (texts if len(texts) == 1 else named)
    if likely or len(head) == 1:
        return (likely or [0])[0], headed
    raise UsageError(
        f"{path}: which column holds the labels? Name it: {path.name}:COLUMN; there is"
        f" {', '.join(rows[0])}"
    )


def _head(cell: str) -> str:
    return "_".join(cell.casefold().split())


def parse_json(text: str, path: Path) -> Any:
    """Raises UsageError naming the file and the place."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: not valid JSON ({error})") from None


def read_utf8(path: Path) -> str:
    """A text file with `\\n` line ends, without a byte-order mark. Raises UsageError naming the
    line that is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(
            f"{path}: UTF-16 text, as some programs of Windows write it, not UTF-8; convert it: "
            f"iconv -f utf-16 -t utf-8 {path.name} > utf8-{path.name}"
        )
    if b"\0" in data:
        raise UsageError(f"{path}: not UTF-8 text, for it holds zero bytes")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{path}, line {line}: not UTF-8 text; if it is Latin-1, convert it: "
            f"iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}"
        ) from None


def some_labels(label: str, others: Sequence[str], count: int = 3) -> list[str]:
    """That label and some of the others that `--labels` can take, in no telling order."""
    rest = [name for name in others if name != label and as_option([name]) is not None]
    return sorted([label, *rest[: count - 1]])


def as_option(labels: list[str]) -> str | None:
    """Labels as `--labels` takes them, in quotes where it would read others without. None where it
    cannot have them."""
    in_quotes = ('"' + label.replace('"', '""') + '"' for label in labels)
    for text in (", ".join(labels), ", ".join(in_quotes)):
        with suppress(UsageError):
            if split_labels(text) == labels:
                return text
    return None
