"""Rows of results in a file that a killed run leaves whole: JSON lines, CSV or Parquet, by the
file's ending."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from froster.errors import DataError, FrosterError, UsageError, install
from froster.evaluation.calibration import NONE
from froster.utils.files import (
    NAME_ERRORS,
    Appender,
    atomic_file,
    cannot_write,
    csv_text,
    json_line,
    read_lines,
)
from froster.utils.text import is_text

Row = dict[str, Any]
"""path, label, score, labels and scores (the best `top`, best first), answer (the label, or None
where none fits), none (how likely that is; None of a model without a rule for it), cosine (of the
label, or None), seconds and frames (of the video), damaged."""
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")


class Results(Protocol):
    done: set[str]
    """The paths of the rows that are there."""

    def add(self, rows: Sequence[Row]) -> None:
        """Adds rows, after which nothing but the disk itself can lose them."""

    def finish(self) -> None:
        """After the last row."""

    def close(self) -> None: ...


def open_results(path: Path, top: int) -> Results:
    """Goes on where the file ends; what a kill has cut off is dropped. `top` is how many labels a
    row has at most."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return Parquet(path)
    return Table(path, top) if suffix == ".csv" else Lines(path)


def check_suffix(path: Path) -> None:
    """Raises UsageError on a file of another kind, or of one that is not installed."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out must end in {', '.join(SUFFIXES)}, not {path.name!r}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; --out needs a file")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise UsageError(
                f"a .parquet file needs pyarrow: {install('parquet')}; or take .csv or .jsonl"
            ) from None


class Lines:
    """An object of JSON a line."""

    def __init__(self, path: Path) -> None:
        rows, length = read_lines(path)
        self.done = {str(row.get("path")) for row in rows}
        self._file = Appender(path, keep=length)

    def add(self, rows: Sequence[Row]) -> None:
        self._file.add("".join(map(json_line, rows)))
        self.done.update(row["path"] for row in rows)

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class Table:
    """CSV: the best label and its score, then those of the next places in columns of their own.
    What is None is empty, but for an answer, which is "none of these" then."""

    def __init__(self, path: Path, top: int) -> None:
        places = [
            name for place in range(2, top + 1) for name in (f"label_{place}", f"score_{place}")
        ]
        self._columns = [
            "path",
            "label",
            "score",
            *places,
            "answer",
            "none",
            "cosine",
            "seconds",
            "frames",
            "damaged",
        ]
        self.done: set[str] = set()
        records = list(whole_records(path))
        for number, (values, _) in enumerate(records):
            if len(values) != len(self._columns) or (number == 0 and values != self._columns):
                raise DataError(
                    f"{path}: a row is not of the columns {', '.join(self._columns[:3])} …: was it"
                    " changed?"
                )
            if number:
                self.done.add(values[0])
        self._file = Appender(path, keep=records[-1][1] if records else 0)
        if not records:
            self._file.add(csv_text([self._columns]))

    def add(self, rows: Sequence[Row]) -> None:
        table = []
        for row in rows:
            best = zip(row["labels"], row["scores"], strict=True)
            values = [
                value
                for label, score in best
                for value in (" ".join(label.split()), f"{score:.6g}")
            ]
            values += [""] * (len(self._columns) - 7 - len(values))
            answer = " ".join((row.get("answer", row["label"]) or NONE).split())
            odds = [
                "" if row.get(name) is None else f"{row[name]:.6g}" for name in ("none", "cosine")
            ]
            table.append(
                [
                    row["path"],
                    *values,
                    answer,
                    *odds,
                    f"{row['seconds']:.3f}",
                    row["frames"],
                    row["damaged"],
                ]
            )
        self._file.add(csv_text(table))
        self.done.update(row["path"] for row in rows)

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class Parquet:
    """JSON lines beside the file, `<out>.rows.jsonl`, until the last row is there; then the file,
    whole."""

    def __init__(self, path: Path) -> None:
        self.path, self._journal = path, path.with_name(f"{path.name}.rows.jsonl")
        self._written = _read_parquet(path) if path.exists() else []
        self._lines = Lines(self._journal)
        self.done = self._lines.done | {row["path"] for row in self._written}

    def add(self, rows: Sequence[Row]) -> None:
        self._lines.add(rows)
        self.done.update(row["path"] for row in rows)

    def finish(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        strings, floats = pa.list_(pa.string()), pa.list_(pa.float64())
        best = {"label": pa.string(), "score": pa.float64(), "labels": strings, "scores": floats}
        best |= {"answer": pa.string(), "none": pa.float64(), "cosine": pa.float64()}
        video = {"seconds": pa.float64(), "frames": pa.int64(), "damaged": pa.int64()}
        # A kill may have come after the file was written and before its rows were taken from the
        # journal.
        rows = {row["path"]: row for row in [*self._written, *read_lines(self._journal)[0]]}
        # Texts of Parquet are UTF-8. Where a name is not, the column holds the bytes of all names,
        # as os.fsencode gives them.
        text = all(map(is_text, rows))
        schema = pa.schema({"path": pa.string() if text else pa.binary(), **best, **video})
        written = [
            row if text else {**row, "path": os.fsencode(row["path"])} for row in rows.values()
        ]
        with atomic_file(self.path) as part:
            pq.write_table(pa.Table.from_pylist(written, schema=schema), part)
        self._written = list(rows.values())
        with contextlib.suppress(OSError):
            self._journal.unlink()

    def close(self) -> None:
        self._lines.close()


def whole_records(path: Path) -> Iterator[tuple[list[str], int]]:
    """The records of a CSV file and where each one ends, in bytes; not the last one where a kill
    has cut it off."""
    end, cut = 0, False

    def lines(file: io.BufferedReader) -> Iterator[str]:
        nonlocal end, cut
        for data in file:
            end += len(data)
            cut = not data.endswith(b"\n")
            yield data.decode("utf-8", NAME_ERRORS)

    try:
        with path.open("rb") as file:
            records = csv.reader(lines(file), strict=True)
            try:
                for values in records:
                    if not cut:
                        yield values, end
            except csv.Error as error:
                if file.read(1):
                    raise DataError(
                        f"{path}, line {records.line_num}: {error}; was it changed?"
                    ) from error
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_write(path, error) from error


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [
            {**row, "path": os.fsdecode(row["path"])} for row in pq.read_table(path).to_pylist()
        ]
    except (pa.ArrowException, OSError) as error:
        raise FrosterError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
