"""Rows of results in one local file: added to it as lines of JSON, or beside it until it is written
whole. Of what earlier runs have written, only the names are kept."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from froster.errors import DataError
from froster.evaluation.calibration import NONE
from froster.inference.row_table import cannot_read, raw_paths, write_rows
from froster.utils.files import (
    NAME_ERRORS,
    Appender,
    atomic_file,
    csv_text,
    json_line,
    line_object,
    whole_lines,
)
from froster.utils.keys import Keys
from froster.utils.text import is_text

LINES = (".jsonl", ".ndjson")
_START, _END = b'{"path": "', b"}\n"
"""Of a line as `json_line` writes it."""


def rows_file(out: Path) -> Path:
    """Where the rows of `out` are added."""
    return out if out.suffix.lower() in LINES else out.with_name(f"{out.name}.rows.jsonl")


class RowFile:
    """The rows of a file; a row has at most `top` labels."""

    def __init__(self, path: Path, top: int) -> None:
        self.path, self._columns = path, columns_of(top)
        self.done = Keys()
        self._is_csv = path.suffix.lower() == ".csv"
        self._length = 0  # of the whole records of a CSV
        self._text = True
        if self._is_csv:
            self._length = _scan_csv(path, self._columns, self.done)
        elif path.suffix.lower() == ".parquet":
            self._scan_parquet()
        self._journal = rows_file(path)
        self._fresh = 0
        "rows of the journal that the file lacks"
        self._repeated: set[int] = set()
        "places of its other rows"
        self._appender = Appender(self._journal, keep=self._scan_journal())

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """After this nothing but the disk itself can lose the rows."""
        self._appender.add("".join(map(json_line, rows)))
        for row in rows:
            self._fresh += self.done.add(row["path"])
            self._text = self._text and is_text(row["path"])

    def close(self) -> None:
        self._appender.close()

    def finish(self) -> None:
        """Writes the file whole, once its last row is there."""
        if self._journal == self.path:
            return
        # A kill may have come after the file was written and before its rows were taken away.
        if self._fresh or not self.path.exists():
            if self._is_csv:
                self._finish_csv()
            else:
                earlier = self.path if self.path.exists() else None
                write_rows(self.path, earlier, self._rows(), self._text)
        with contextlib.suppress(OSError):
            self._journal.unlink()

    def _scan_journal(self) -> int:
        """The bytes of its whole lines. Raises DataError for a line that is no row."""
        length = 0
        for place, line in enumerate(whole_lines(self._journal)):
            length += len(line)
            end = line.find(b'"', len(_START))
            name = line[len(_START) : end]
            if line.startswith(_START) and line.endswith(_END) and b"\\" not in name:
                is_new = self.done.add_raw(name)
            else:
                path = str(line_object(line, self._journal, place + 1).get("path"))
                self._text = self._text and is_text(path)
                is_new = self.done.add(path)
            self._fresh += is_new
            if not is_new:
                self._repeated.add(place)
        return length

    def _scan_parquet(self) -> None:
        if not self.path.exists():
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self.path)
            self._text = not pa.types.is_binary(file.schema_arrow.field("path").type)
            for name in raw_paths(file):
                self.done.add_raw(name)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise cannot_read(self.path, error) from error

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Of the journal, what the file lacks."""
        for place, line in enumerate(whole_lines(self._journal)):
            if place not in self._repeated:
                yield line_object(line, self._journal, place + 1)

    def _finish_csv(self) -> None:
        with atomic_file(self.path) as part, part.open("wb") as out:
            if self._length:
                with self.path.open("rb") as earlier:
                    left = self._length
                    while left:
                        block = earlier.read(min(left, 1 << 20))
                        out.write(block)
                        left -= len(block)
            else:
                out.write(csv_text([self._columns]).encode())
            for row in self._rows():
                record = csv_text([_record(row, self._columns)])
                out.write(record.encode("utf-8", NAME_ERRORS))


def columns_of(top: int) -> list[str]:
    """Of CSV: the best label and its score, then those of the next places."""
    places = [name for i in range(2, top + 1) for name in (f"label_{i}", f"score_{i}")]
    return [
        "path",
        "label",
        "score",
        *places,
        *["answer", "none", "cosine", "seconds", "frames", "damaged"],
    ]


def _record(row: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """A row as CSV has it. What is None is empty, but for the answer "none of these"."""
    cells = dict.fromkeys(columns, "")
    for i, (label, score) in enumerate(zip(row["labels"], row["scores"], strict=True), 1):
        place = "" if i == 1 else f"_{i}"
        cells[f"label{place}"], cells[f"score{place}"] = " ".join(label.split()), f"{score:.6g}"
    for name in ("none", "cosine"):
        cells[name] = "" if row[name] is None else f"{row[name]:.6g}"
    several = row.get("answers", [row["answer"]] if row["answer"] else [])
    cells |= {"path": row["path"], "answer": " ".join(("; ".join(several) or NONE).split())}
    cells |= {"seconds": f"{row['seconds']:.3f}"}
    cells |= {name: str(row[name]) for name in ("frames", "damaged")}
    return list(cells.values())


def _scan_csv(path: Path, columns: list[str], keys: Keys) -> int:
    """Adds the names of all records to `keys`; returns the bytes of whole lines. Raises DataError
    where a record is not ours."""
    header = csv_text([columns]).encode()
    commas, length = len(columns) - 1, 0
    pending: list[bytes] = []
    quotes = 0
    for number, line in enumerate(whole_lines(path), 1):
        length += len(line)
        if not pending and b'"' not in line and line.count(b",") == commas:
            if number > 1:
                keys.add_raw(line[: line.index(b",")])
            elif line.rstrip(b"\r\n") != header.rstrip(b"\n"):
                raise _not_ours(path, columns)
            continue
        # A name may hold line ends; a record is whole where its quotes are in pairs.
        pending.append(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            record = _parsed(path, number, b"".join(pending))
            if len(record) != len(columns) or (number == len(pending) and record != columns):
                raise _not_ours(path, columns)
            if number > len(pending):
                keys.add(record[0])
            pending, quotes = [], 0
    if pending:
        raise DataError(f"{path}: it ends within a quoted cell; was it changed?")
    return length


def _parsed(path: Path, number: int, record: bytes) -> list[str]:
    text = record.decode("utf-8", NAME_ERRORS)
    try:
        (cells,) = csv.reader(io.StringIO(text, newline=""), strict=True)
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}, line {number}: {error}; was it changed?") from error
    return cells


def _not_ours(path: Path, columns: Sequence[str]) -> DataError:
    names = ", ".join(columns[:3])
    return DataError(f"{path}: a row is not of the columns {names} …: was it changed?")
