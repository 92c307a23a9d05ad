"""A manifest's file as a table of texts: CSV, JSON lines, Parquet, or a list without a header.
Every row is checked as it is read, and an error names its line.

Names of files are bytes: those of a path that are no UTF-8 are kept.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from froster.data.columns import Column, Growing, Table
from froster.errors import DataError, UsageError, install
from froster.utils import strict_json as json
from froster.utils.address import Address, as_path
from froster.utils.files import NAME_ERRORS
from froster.utils.text import is_text
from froster.video.container import VIDEO_SUFFIXES

LABELLED = ("path", "label")
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = ".parquet"
MANIFESTS = (".csv", *JSON_LINES, PARQUET)
_REPEAT = ("label", "split")
_END = "\0"
"""What follows a CSV for its reader: the file holds none, and an open quote takes it in."""
_LINE_END = re.compile(r"\r\n|\r|\n")
_AT_ONCE = 8192
_BOM = b"\xef\xbb\xbf"


def read_table(source: Path, needs: Sequence[str] = LABELLED) -> tuple[Table, bool]:
    """All rows of a manifest, which have a value in each of the columns `needs`, and whether it is
    a list without a header. Raises DataError, which names the line of what cannot be read."""
    rows = _Rows(source, needs, "row" if source.suffix.lower() == PARQUET else "line")
    is_list = False
    if source.suffix.lower() == PARQUET:
        _read_parquet(rows)
        return rows.table(), is_list
    data = read_bytes(source)
    if not data.strip():
        raise DataError(f"{source}: empty manifest")
    if source.suffix.lower() in JSON_LINES:
        rows.add_dicts(_json_rows(source, data, needs))
    elif is_list := not _read_csv(rows, data):
        rows.add_dicts(_list_rows(source, data))
    return rows.table(), is_list


def read_bytes(source: Path) -> bytes:
    """Without a byte-order mark. Raises DataError for what is no text."""
    if source.suffix.lower() in VIDEO_SUFFIXES:
        raise DataError(
            f"{source} is a video: expected a folder with a folder for each class, or a CSV / JSONL"
            " manifest of path,label"
        )
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    if b"\0" in data:
        raise DataError(f"{source}, line 1: not UTF-8 text (is it UTF-16? save it as UTF-8)")
    return data.removeprefix(_BOM)


def read_text(source: Path) -> str:
    """With its own line ends, as names may hold such; bytes that are no UTF-8 may only be of names
    (`check_text`)."""
    return read_bytes(source).decode("utf-8", NAME_ERRORS)


def check_text(place: str, *texts: str) -> None:
    """Raises DataError where one of them cannot be written as UTF-8."""
    if not all(map(is_text, texts)):
        raise DataError(f"{place}: not UTF-8 text (is it latin-1? save it as UTF-8)")


def lines(source: Path, text: str) -> Iterator[tuple[str, str]]:
    """Where it stands ("FILE, line 3") and the text, of every line that has one."""
    for number, line in enumerate(_LINE_END.split(text), 1):
        if line.strip():
            yield f"{source}, line {number}", line.strip()


class _Rows:
    """Takes rows, checks them, and keeps them by columns."""

    def __init__(self, source: Path, needs: Sequence[str], unit: str) -> None:
        self.source, self.needs, self.unit = source, needs, unit
        self._columns: dict[str, Growing] = {}
        self._numbers: list[np.ndarray] = []
        self._count = 0

    def place(self, number: int) -> str:
        return f"{self.source}, {self.unit} {number}"

    def add(self, numbers: Sequence[int], columns: Mapping[str, Sequence[str | None]]) -> None:
        """Rows by their lines and columns. Raises DataError for the first that is wrong."""
        if not self._are_sound(columns):
            for number, values in zip(numbers, zip(*columns.values(), strict=True), strict=True):
                row = {k: v for k, v in zip(columns, values, strict=True) if v is not None}
                _check(self.place(number), row, self.needs)
        for name in columns:
            if name not in self._columns:
                check_text(str(self.source), name)
                repeats = {"path": False, **dict.fromkeys(_REPEAT, True)}.get(name)
                self._columns[name] = Growing(strip=name != "path", repeats=repeats)
                if self._count:
                    self._columns[name].add([None] * self._count)
        for name, growing in self._columns.items():
            growing.add(columns.get(name) or [None] * len(numbers))
        self._count += len(numbers)
        self._numbers.append(np.fromiter(numbers, np.int64, len(numbers)))

    def add_dicts(self, rows: Iterable[tuple[int, dict[str, str]]]) -> None:
        """Rows by their lines. Raises DataError for the first that is wrong, or what `rows` raises
        after it."""
        numbers: list[int] = []
        fields: list[dict[str, str]] = []

        def keep() -> None:
            names = dict.fromkeys(name for row in fields for name in row)
            self.add(numbers, {name: [row.get(name) for row in fields] for name in names})
            numbers.clear()
            fields.clear()

        try:
            for number, row in rows:
                numbers.append(number)
                fields.append(row)
                if len(fields) == _AT_ONCE:
                    keep()
        finally:  # what is wrong in a row before is raised in place of what is wrong here
            keep()

    def _are_sound(self, columns: Mapping[str, Sequence[str | None]]) -> bool:
        for name in self.needs:
            values = columns.get(name, [None])
            if None in values or not _are_given(values):  # type: ignore[arg-type]
                return False
        if not _is_name("".join(filter(None, columns.get("path", [])))):
            return False
        if "://" in "\n".join(filter(None, columns.get("path", []))):
            return False
        return all(
            is_encodable("".join(filter(None, set(values))))
            for name, values in columns.items()
            if name != "path"
        )

    def table(self) -> Table:
        columns: dict[str, Column] = {name: c.column() for name, c in self._columns.items()}
        numbers = self._numbers or [np.zeros(0, np.int64)]
        return Table(self.source, columns, np.concatenate(numbers), self.unit)


def is_encodable(text: str) -> bool:
    """As `is_text`, of long texts."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_name(path: str) -> bool:
    """Whether it stands for bytes: only what is no UTF-8 is held by surrogates."""
    try:
        path.encode("utf-8", NAME_ERRORS)
    except UnicodeEncodeError:
        return False
    return True


def _check(place: str, fields: Mapping[str, str], needs: Sequence[str]) -> None:
    for name in needs:
        if not fields.get(name, "").strip():
            raise DataError(f"{place}: no {name}")
    check_text(place, *(value for key, value in fields.items() if key != "path"))
    if not _is_name(fields.get("path", "")):
        raise DataError(f"{place}: the path is no name that a file can have")
    try:
        as_path(fields.get("path", ""))
    except UsageError as error:
        raise DataError(f"{place}: {error}") from error


def _check_columns(place: str, columns: Sequence[str], needs: Sequence[str]) -> None:
    check_text(place, *columns)
    if len(set(columns)) < len(columns) or not set(needs) <= set(columns):
        wanted = " and ".join(f"a column '{name}'" for name in needs)
        raise DataError(f"{place}: expected {wanted}, found: {', '.join(columns)}")


def _opened(data: bytes, newline: str | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(BytesIO(data), encoding="utf-8", errors=NAME_ERRORS, newline=newline)


def _has_text(values: Iterable[str]) -> bool:
    return any(map(str.strip, values))


def _are_given(values: Iterable[str]) -> bool:
    return all(map(str.strip, values))


def _read_csv(rows: _Rows, data: bytes) -> bool:
    """False where there is no header."""
    reader = csv.reader(chain(_opened(data, ""), [_END]))
    columns: list[str] = []
    numbers: list[int] = []
    records: list[list[str]] = []
    last = 0
    try:
        for values in reader:
            first, last = last + 1, reader.line_num
            if values == [_END]:
                break
            if columns and values and values[-1].endswith(_END):
                _keep_csv(rows, columns, numbers, records)
                raise DataError(f"{rows.place(first)}: a quote is not closed before the file ends")
            if not columns:
                if _has_text(values):
                    columns = [name.strip().lower() for name in values]
                    if "path" not in columns and "label" not in columns:
                        return False
                    _check_columns(rows.place(reader.line_num), columns, rows.needs)
                continue
            numbers.append(reader.line_num)
            records.append(values)
            if len(records) == _AT_ONCE:
                _keep_csv(rows, columns, numbers, records)
                numbers, records = [], []
    except csv.Error as error:
        _keep_csv(rows, columns, numbers, records)
        raise DataError(f"{rows.source}, line {reader.line_num}: {error}") from error
    if not columns:
        raise DataError(f"{rows.source}: empty manifest")
    _keep_csv(rows, columns, numbers, records)
    return True


def _keep_csv(
    rows: _Rows, columns: Sequence[str], numbers: Sequence[int], records: Sequence[list[str]]
) -> None:
    """Rows without a value are passed over; one of another length is an error, after those of the
    rows before it."""
    if not records:
        return
    need = columns.index(rows.needs[0])  # a row with a value here has one
    if set(map(len, records)) != {len(columns)} or not _are_given(r[need] for r in records):
        kept = [
            (n, values) for n, values in zip(numbers, records, strict=True) if _has_text(values)
        ]
        wrong = (i for i, (_, values) in enumerate(kept) if len(values) != len(columns))
        end = next(wrong, len(kept))
        numbers, records = [n for n, _ in kept[:end]], [values for _, values in kept[:end]]
    else:
        kept, end = [], 0
    if records:
        rows.add(numbers, dict(zip(columns, zip(*records, strict=True), strict=True)))
    if end < len(kept):
        number, values = kept[end]
        raise DataError(
            f"{rows.place(number)}: expected {len(columns)} values, found {len(values)}"
        )


def _texts(data: bytes) -> Iterator[tuple[int, str]]:
    """Number and text of every line that has one."""
    for number, line in enumerate(_opened(data, None), 1):
        if text := line.strip():
            yield number, text


def _json_rows(
    source: Path, data: bytes, needs: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in _texts(data):
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise DataError(f"{source}, line {number}: not JSON ({error})") from error
        if not isinstance(fields, dict):
            raise DataError(
                f"{source}, line {number}: expected an object with {' and '.join(needs)}"
            )
        for name in LABELLED:
            if isinstance(fields.get(name), (dict, list)):
                raise DataError(
                    f"{source}, line {number}: {name}: expected a text, found {fields[name]!r:.60}"
                )
        yield number, {key: str(value) for key, value in fields.items() if value is not None}


def _list_rows(source: Path, data: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    # A number is what follows the last separator; a text may have separators of its own and
    # follows the first.
    number_last = re.compile(r"(.+?)(?:, *| +)(\d+)")
    word_last = re.compile(r"([^,]+),(.+)|(\S+) (.+)")
    for number, line in _texts(data):
        match = number_last.fullmatch(line) or word_last.fullmatch(line)
        if not match:
            raise DataError(f"{source}, line {number}: expected 'path,label', found '{line[:80]}'")
        path, label = (group for group in match.groups() if group is not None)
        yield number, {"path": path, "label": label}


def _read_parquet(rows: _Rows) -> None:
    """Numbers and truth values are as Python writes them."""
    try:
        from pyarrow import ArrowException, types
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UsageError(f"{rows.source}: Parquet needs pyarrow: {install('parquet')}") from None
    try:
        remote = isinstance(rows.source, Address)
        with BytesIO(rows.source.read_bytes()) if remote else rows.source.open("rb") as file:
            table = ParquetFile(file)
            columns = [name.strip().lower() for name in table.schema_arrow.names]
            _check_columns(str(rows.source), columns, rows.needs)
            for name, kind in zip(columns, table.schema_arrow.types, strict=True):
                if name in LABELLED and types.is_nested(kind):
                    raise DataError(f"{rows.source}: column '{name}': expected texts, found {kind}")
            count = 0
            for batch in table.iter_batches(_AT_ONCE):
                numbers = range(count + 1, count + len(batch) + 1)
                values = [list(map(_text_of, column.to_pylist())) for column in batch.columns]
                rows.add(numbers, dict(zip(columns, values, strict=True)))
                count += len(batch)
    except (OSError, ArrowException) as error:
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"{rows.source}: cannot be read ({cause})") from error


def _text_of(value: Any) -> str | None:
    if isinstance(value, bytes):  # names of files that are no text
        return os.fsdecode(value)
    return value if value is None or isinstance(value, str) else str(value)
