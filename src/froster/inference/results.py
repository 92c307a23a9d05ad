"""Rows of results, what failed beside them, and what they were made with.

    results.csv                 a row a video; also .jsonl, .ndjson or .parquet
    results.csv.rows.jsonl      the newest rows, until a run has ended and the file is written whole
    results.csv.failures.jsonl  path and cause of each video that could not be read
    results.csv.run.json        model, labels and options

JSON lines take the rows as they come and need no second file. A folder (`results/`) or an address
(`s3://bucket/results/`) holds Parquet parts (`parts.py`). Whatever stops a run, the next one goes
on with the rows that are there; of these it keeps the names alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.data.shards import Shard
from froster.errors import UsageError
from froster.inference.parts import PART_SECONDS, PartFolder, next_name
from froster.inference.row_file import LINES, RowFile, rows_file
from froster.inference.row_table import require_pyarrow
from froster.utils import strict_json as json
from froster.utils.address import is_address
from froster.utils.files import (
    Appender,
    atomic_file,
    exclusive,
    json_line,
    line_object,
    sole_maker,
    whole_lines,
    write_json,
)
from froster.utils.folder import Folder, is_folder

ResultRow = dict[str, Any]
"""path, label, score, labels and scores (the best `top`, best first), answer (the label, or None
where none fits), none (how likely that is; None of a model without a rule for it), cosine (of the
label, or None), seconds and frames (of the video), damaged; groups (their scores) of labels in
groups, answers and thresholds of multi-label ones."""
SUFFIXES = (*LINES, ".csv", ".parquet")
RUN, FAILURES = "_run.json", "_failures/"
"""In a folder of parts."""
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


def place_of(out: str | Path, shard: Shard = Shard()) -> Path | str:  # noqa: B008
    """Where a shard's rows go: a file of its own, or the folder of parts that it shares with the
    others, as a text that ends in `/`. An address, an existing folder and what ends in `/` is a
    folder."""
    if is_folder(out):
        return str(out).rstrip("/" + os.sep) + "/"
    return shard.file(Path(out))


def failures_of(out: Path | str) -> Path | str:
    """Where the failures of that place go."""
    return out + FAILURES if isinstance(out, str) else out.with_name(f"{out.name}.failures.jsonl")


def sole_writer_of(out: Path | str, shard: Shard) -> AbstractContextManager[None]:
    """Held as long as a shard writes to its place. Raises UsageError while another process does;
    at an address nothing is held."""
    if isinstance(out, Path):
        return sole_maker(out)
    if is_address(out):
        return nullcontext()
    part = f"{out}, shard {shard.index} of {shard.count}"
    busy = f"another froster is writing {part}: wait until it ends, or choose another --out"
    return exclusive(Path(out) / f".{shard.index}-of-{shard.count}.lock", busy)


def check_suffix(path: str | Path) -> None:
    """Raises UsageError on a file of another kind, or of one that is not installed, and on a folder
    that holds something else."""
    place = place_of(path)
    suffix = Path(place).suffix.lower()
    if isinstance(place, str):
        if is_address(place) and suffix in SUFFIXES and suffix != ".parquet":
            raise UsageError(
                f"{path}: at an address --out is a folder of Parquet parts, such as"
                f" {place.removesuffix(suffix + '/')}/"
            )
        folder = Path(place)
        if folder.is_file():
            raise UsageError(f"{path} is a file; where --out ends in / it must be a folder")
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        if RUN not in names and any(not name.startswith(".") for name in names):
            raise UsageError(
                f"{path} is a folder that holds something else; --out must end in"
                f" {', '.join(SUFFIXES)}, or be a new folder of Parquet parts"
            )
    elif suffix not in SUFFIXES:
        raise UsageError(
            f"--out must end in {', '.join(SUFFIXES)}, or in / as a folder of Parquet parts, not"
            f" {place.name!r}"
        )
    if isinstance(place, str) or suffix == ".parquet":
        require_pyarrow()


class ResultFile:
    """The rows of a file or of a folder of parts. It goes on where an earlier run ended; what a
    kill has cut off is dropped. A row has at most `top` labels."""

    def __init__(
        self,
        path: Path | str,
        top: int,
        shard: Shard = Shard(),  # noqa: B008
    ) -> None:
        self.path = place_of(path)
        self._rows: PartFolder | RowFile
        if isinstance(self.path, str):
            self._rows = PartFolder(Folder(self.path), shard)
        else:
            self._rows = RowFile(self.path, top)
        self.done = self._rows.done
        "the paths of all rows"

    def add(self, rows: Sequence[ResultRow]) -> None:
        """After this nothing but the disk itself can lose the rows of a file; a folder may lack
        those of the last minute. A row whose path is done is not added again."""
        new = {row["path"]: row for row in rows if row["path"] not in self.done}
        self._rows.add(list(new.values()))

    def close(self) -> None:
        self._rows.close()

    def finish(self) -> None:
        """Writes the file whole, once its last row is there, or joins small parts."""
        self._rows.finish()


class Failures:
    """`{"path": …, "error": …}` a line, kept from run to run. `causes` has the cause of each path;
    what is `done` has not failed."""

    def __init__(self, path: Path | str, done: Container[str]) -> None:
        self.path = path
        self._lines = _LinesInParts(path) if isinstance(path, str) else _LinesInFile(path)
        self.causes: dict[str, str] = {}
        count = 0
        for count, line in enumerate(self._lines.all(), 1):
            entry = line_object(line, path, count)
            if "path" in entry:
                self.causes[str(entry["path"])] = str(entry.get("error", ""))
        self._drop(done)
        if len(self.causes) < count:
            self._write()

    def add(self, key: str, cause: str) -> None:
        self._lines.add(json_line({"path": key, "error": cause}))
        self.causes[key] = cause

    def close(self, done: Container[str]) -> None:
        self._lines.close()
        if self._drop(done):
            self._write()

    def _drop(self, done: Container[str]) -> bool:
        kept = {key: cause for key, cause in self.causes.items() if key not in done}
        dropped = len(kept) < len(self.causes)
        self.causes = kept
        return dropped

    def _write(self) -> None:
        """One line for each that has failed, and no file where none has."""
        self._lines.replace(json_line({"path": k, "error": e}) for k, e in self.causes.items())


class _LinesInFile:
    """Lines in a local file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._length = 0
        self._appender: Appender | None = None

    def all(self) -> Iterator[bytes]:
        for line in whole_lines(self._path):
            self._length += len(line)
            yield line

    def add(self, line: str) -> None:
        if self._appender is None:
            self._appender = Appender(self._path, keep=self._length)
        self._appender.add(line)

    def close(self) -> None:
        if self._appender is not None:
            self._appender.close()

    def replace(self, lines: Iterable[str]) -> None:
        self._length = 0
        with atomic_file(self._path) as part, part.open("wb") as file:
            for line in lines:
                self._length += file.write(line.encode())
        if not self._length:
            self._path.unlink()


class _LinesInParts:
    """Lines in files of a folder that appear whole."""

    def __init__(self, address: str) -> None:
        self._folder = Folder(address)
        self._waiting: list[str] = []
        self._written = time.monotonic()
        self._files = self._folder.names()
        self._name = next_name(self._files, "", ".jsonl")

    def all(self) -> Iterator[bytes]:
        for name in self._files:
            yield from (self._folder.content(name) or b"").splitlines(keepends=True)

    def add(self, line: str) -> None:
        self._waiting.append(line)
        if time.monotonic() - self._written > PART_SECONDS:
            self.close()

    def close(self) -> None:
        if self._waiting:
            self._write(self._waiting)
        self._waiting, self._written = [], time.monotonic()

    def replace(self, lines: Iterable[str]) -> None:
        old, self._files = self._files, []
        if several := list(lines):
            self._write(several)
        for name in old:
            self._folder.remove(name)

    def _write(self, lines: Sequence[str]) -> None:
        name = self._name()
        self._folder.write(name, "".join(lines).encode())
        self._files.append(name)


def check_made_alike(out: Path | str, made: dict[str, Any]) -> None:
    """Writes `<out>.run.json` (`_run.json` in a folder) at the first run; later raises UsageError
    where that says otherwise, so that rows of two kinds never come into the same place. The shards
    of a folder may change."""
    place = place_of(out)
    if isinstance(place, str):
        made = {name: value for name, value in made.items() if name != "shard"}
        folder = Folder(place)
        path, text = folder / RUN, folder.content(RUN)
        begun = text is None and any(name.endswith(".parquet") for name in folder.names())
    else:
        file = place.with_name(f"{place.name}.run.json")
        path, begun = str(file), place.exists() or rows_file(place).exists()
        try:
            text = file.read_bytes()
        except FileNotFoundError:
            text = None
        except OSError:
            text = b""
    if text is None:
        if begun:
            name = path.rpartition("/")[2]
            raise UsageError(
                f"{out} exists, and no {name} says what it was made with: choose another --out"
            )
        if isinstance(place, str):
            folder.write(RUN, (json.dumps(made, indent=1) + "\n").encode())
        else:
            write_json(file, made, indent=1)
        return
    try:
        earlier = json.loads(text)
    except ValueError:
        earlier = None
    if not isinstance(earlier, dict):
        raise UsageError(f"{path}: cannot be read; choose another --out")
    gone = dict.fromkeys(sorted(earlier.keys() - made.keys()))
    for name, value in {**gone, **json.loads(json.dumps(made))}.items():
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
