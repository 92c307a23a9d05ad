"""Rows of results in a file, what failed beside it, and what they were made with.

    results.csv                 a row a video; also .jsonl, .ndjson or .parquet
    results.csv.rows.jsonl      the newest rows, until a run has ended and the file is written whole
    results.csv.failures.jsonl  path and cause of each video that could not be read
    results.csv.run.json        model, labels and options

JSON lines take the rows as they come and need no second file. Whatever stops a run, the next one
goes on with the rows that are there.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.errors import DataError, FrosterError, UsageError, install
from froster.evaluation.calibration import NONE
from froster.utils import strict_json as json
from froster.utils.files import (
    NAME_ERRORS,
    Appender,
    atomic_file,
    cannot_write,
    json_line,
    read_lines,
    write_csv,
    write_json,
    write_text,
)
from froster.utils.text import is_text

ResultRow = dict[str, Any]
"""path, label, score, labels and scores (the best `top`, best first), answer (the label, or None
where none fits), none (how likely that is; None of a model without a rule for it), cosine (of the
label, or None), seconds and frames (of the video), damaged; groups (their scores) of labels in
groups, answers and thresholds of multi-label ones."""
LINES = (".jsonl", ".ndjson")
SUFFIXES = (*LINES, ".csv", ".parquet")
_SHOWN = 60


@dataclass(frozen=True)
class BatchProgress:
    """How far work on many videos has come."""

    done: int
    """Videos that have ended, those of earlier runs among them."""
    total: int
    failed: int


OnProgress = Callable[[BatchProgress], None]


def ignore_progress(progress: BatchProgress) -> None:
    """The default callback."""


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


class ResultFile:
    """The rows of a file. It goes on where an earlier run ended; a line that a kill has cut off is
    dropped. A row has at most `top` labels."""

    def __init__(self, path: Path, top: int) -> None:
        self.path, self._columns = path, _columns(top)
        self._kind = path.suffix.lower()
        self._earlier: dict[str, Any] = {}  # path -> a record of the file's own kind
        if self._kind == ".csv":
            self._earlier = _read_csv(path, self._columns)
        elif self._kind == ".parquet":
            self._earlier = _read_parquet(path)
        self._journal = rows_file(path)
        rows, length = read_lines(self._journal)
        self.done = {*self._earlier, *(str(row.get("path")) for row in rows)}
        "the paths of all rows"
        self._appender = Appender(self._journal, keep=length)

    def add(self, rows: Sequence[ResultRow]) -> None:
        """After this nothing but the disk itself can lose the rows."""
        self._appender.add("".join(map(json_line, rows)))
        self.done.update(row["path"] for row in rows)

    def close(self) -> None:
        self._appender.close()

    def finish(self) -> None:
        """Writes the file whole, once its last row is there."""
        if self._journal == self.path:
            return
        rows = {row["path"]: row for row in read_lines(self._journal)[0]}
        # A kill may have come after the file was written and before its rows were taken away.
        if not self.path.exists() or not rows.keys() <= self._earlier.keys():
            if self._kind == ".csv":
                records = {path: _record(row, self._columns) for path, row in rows.items()}
                write_csv(self.path, [self._columns, *(self._earlier | records).values()])
            else:
                _write_parquet(self.path, self._earlier | rows)
        with contextlib.suppress(OSError):
            self._journal.unlink()


def rows_file(out: Path) -> Path:
    """Where the rows of `out` are added."""
    return out if out.suffix.lower() in LINES else out.with_name(f"{out.name}.rows.jsonl")


def _columns(top: int) -> list[str]:
    """Of CSV: the best label and its score, then those of the next places."""
    places = [name for i in range(2, top + 1) for name in (f"label_{i}", f"score_{i}")]
    return [
        "path",
        "label",
        "score",
        *places,
        *["answer", "none", "cosine", "seconds", "frames", "damaged"],
    ]


def _record(row: ResultRow, columns: Sequence[str]) -> list[str]:
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


def _read_csv(path: Path, columns: list[str]) -> dict[str, list[str]]:
    """The records by their path, without the header. Raises DataError where they are not ours."""
    try:
        text = path.read_bytes().decode("utf-8", NAME_ERRORS)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise cannot_write(path, error) from error
    text = text[: text.rfind("\n") + 1]  # an earlier version could be killed within a line
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        records = list(reader)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; was it changed?") from error
    if any(len(record) != len(columns) for record in records) or records[:1] not in ([], [columns]):
        names = ", ".join(columns[:3])
        raise DataError(f"{path}: a row is not of the columns {names} …: was it changed?")
    return {record[0]: record for record in records[1:]}


def _read_parquet(path: Path) -> dict[str, ResultRow]:
    if not path.exists():
        return {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise FrosterError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    return {name: {**row, "path": name} for row in rows for name in [os.fsdecode(row["path"])]}


def _write_parquet(path: Path, rows: dict[str, ResultRow]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    strings, floats = pa.list_(pa.string()), pa.list_(pa.float64())
    best = {"label": pa.string(), "score": pa.float64(), "labels": strings, "scores": floats}
    best |= {"answer": pa.string(), "none": pa.float64(), "cosine": pa.float64()}
    video = {"seconds": pa.float64(), "frames": pa.int64(), "damaged": pa.int64()}
    # Texts of Parquet are UTF-8. Where a name is not, the column holds the bytes of all names.
    text = all(map(is_text, rows))
    schema = pa.schema({"path": pa.string() if text else pa.binary(), **best, **video})
    table = [row if text else {**row, "path": os.fsencode(name)} for name, row in rows.items()]
    with atomic_file(path) as part:
        pq.write_table(pa.Table.from_pylist(table, schema=schema), part)


class Failures:
    """`{"path": …, "error": …}` a line, kept from run to run. `causes` has the cause of each path;
    what is `done` has not failed."""

    def __init__(self, path: Path, done: Container[str]) -> None:
        self.path = path
        entries, self._length = read_lines(path)
        self.causes = {
            str(entry["path"]): str(entry.get("error", "")) for entry in entries if "path" in entry
        }
        self._drop(done)
        if len(self.causes) < len(entries):
            self._write()
        self._appender: Appender | None = None

    def add(self, key: str, cause: str) -> None:
        if self._appender is None:
            self._appender = Appender(self.path, keep=self._length)
        self._appender.add(json_line({"path": key, "error": cause}))
        self.causes[key] = cause

    def close(self, done: Container[str]) -> None:
        if self._appender is not None:
            self._appender.close()
        if self._drop(done):
            self._write()

    def _drop(self, done: Container[str]) -> bool:
        kept = {key: cause for key, cause in self.causes.items() if key not in done}
        dropped = len(kept) < len(self.causes)
        self.causes = kept
        return dropped

    def _write(self) -> None:
        """One line for each that has failed, and no file where none has."""
        text = "".join(json_line({"path": k, "error": e}) for k, e in self.causes.items())
        if text:
            write_text(self.path, text)
        else:
            self.path.unlink(missing_ok=True)
        self._length = len(text.encode())


def check_made_alike(out: Path, made: dict[str, Any]) -> None:
    """Writes `<out>.run.json` at the first run; later raises UsageError where that says otherwise,
    so that rows of two kinds never come into the same file."""
    path = out.with_name(f"{out.name}.run.json")
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(earlier, dict):
            raise ValueError
    except FileNotFoundError:
        if out.exists() or rows_file(out).exists():
            raise UsageError(
                f"{out} exists, and no {path.name} says what it was made with: choose another --out"
            ) from None
        write_json(path, made, indent=1)
        return
    except (OSError, ValueError):
        raise UsageError(f"{path}: cannot be read; choose another --out") from None
    for name, value in json.loads(json.dumps(made)).items():
        if earlier.get(name) != value:
            before, now = (_short(x) for x in (earlier.get(name), value))
            hint = "" if before != now else " (another one of that length)"
            raise UsageError(
                f"{out} was begun with {name} {before}, now it is {now}{hint}: take the same, or"
                " choose another --out"
            )


def _short(value: object) -> str:
    """Of a long list, how long it is."""
    if isinstance(value, list):
        return f"list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " …"
