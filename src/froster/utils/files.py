"""Files that are whole or not there, whatever ends the process that writes them: files and folders
that appear at once, lines appended one by one, CSV, and locks."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from froster.errors import DataError, UsageError, WriteError
from froster.utils import strict_json as json
from froster.utils.address import as_path

Entry = TypeVar("Entry")

NAME_ERRORS = "surrogateescape"
"""How Python holds the bytes of a file name that is no UTF-8; written so, they are those bytes
again."""
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_PATIENCE = 0.2
"""Seconds to wait for a lock: its last holder may just be removing the file."""


def cannot_write(path: Path, error: Exception) -> WriteError:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return WriteError(f"cannot write {path}: {cause}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses in the block is a WriteError that names `path`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def absolute(path: str | Path | None) -> str | None:
    """The whole path, for a file that another command will read from another folder."""
    return None if path is None else str(as_path(path).absolute())


def refuse_current(path: Path) -> None:
    """Raises UsageError where `path` is the current folder or one above it, which the shell would
    lose."""
    with suppress(FileNotFoundError):  # it is gone already
        if Path.cwd().is_relative_to(os.path.realpath(path)):
            raise UsageError(
                f"{path} is the folder that you are in, or one above it, and would be replaced:"
                " choose another --out"
            )


def _named(path: Path) -> Path:
    """The same place by a path that ends in a name, as `.` and `..` do not. Raises UsageError
    for /, which has none."""
    if path.name in ("", ".."):
        path = Path(os.path.realpath(path))
    if not path.name:
        raise UsageError(f"{path} is the root of all folders: choose another --out")
    return path


def _flush(path: Path) -> None:
    """Onto the disk, not only into its cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder that appears at `path` whole or not at all. Raises FrosterError when it cannot
    be written."""
    refuse_current(path)
    path = _named(path)
    part = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _flush(file)
        _replace_folder(part, path)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        library = type(error).__module__.startswith(("safetensors", "torch"))
        if isinstance(error, OSError) or (library and isinstance(error, Exception)):
            raise cannot_write(path, error) from error
        raise


def _replace_folder(part: Path, path: Path) -> None:
    """Renames over an old folder, which is out of sight before the new one takes its name."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(part, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when the block ends without an error."""
    path = _named(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _flush(part)
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def write_text(path: Path, text: str, errors: str = "backslashreplace") -> None:
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", errors=errors)


def write_json(path: Path, values: Any, indent: int | None = 2) -> None:
    write_text(path, json.dumps(values, indent=indent) + "\n")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Records that end in \\n. Cells with a line end of any kind are quoted (Python 3.12 and before
    leave \\r bare)."""
    records = []
    for row in rows:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\r\n").writerow(row)
        records.append(buffer.getvalue().removesuffix("\r\n") + "\n")
    return "".join(records)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """The whole file or nothing; the first row is the header. File names in it keep their bytes."""
    with atomic_file(path) as part:
        part.write_bytes(csv_text(rows).encode("utf-8", NAME_ERRORS))


@contextmanager
def exclusive(path: Path, message: str) -> Iterator[None]:
    """Holds the lock file `path`. Raises UsageError with `message` while another process holds it.

    The lock is the system's and ends with the process, however that ends; a file that is left
    behind locks nothing. Where the file system has no such locks, nothing is locked.
    """
    lock = FileLock(path, timeout=_PATIENCE, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UsageError(message) from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise cannot_write(path, error) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            path.unlink()
        lock.release()


def sole_writer(folder: Path) -> AbstractContextManager[None]:
    """Held as long as a command writes into a folder that it has claimed. Raises UsageError while
    another one does."""
    return exclusive(folder / ".lock", _busy(folder))


def sole_maker(path: Path) -> AbstractContextManager[None]:
    """The same for a file or folder that appears whole, or is made of several: its lock lies beside
    it."""
    real = Path(os.path.realpath(path))
    return exclusive(real.parent / f".{real.name}.lock", _busy(path))


def _busy(path: Path) -> str:
    return f"another froster is writing {path}: wait until it ends, or choose another --out"


def claim_folder(path: Path, marker: str, again: str) -> None:
    """Makes an output folder, or takes one over that has the file `marker`: a run of the same kind
    left it. Raises UsageError for a file and any other folder (`again` says what to do),
    WriteError."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; --out needs a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).exists():
        raise UsageError(f"{path} exists and holds something else: {again}")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        if not (path / marker).exists():
            (path / marker).touch()


class Appender:
    """A file that text is appended to. Each `add` is one call of the system, so that no
    interruption comes between its halves. Raises WriteError where it cannot be written, also
    where the disk is full."""

    def __init__(self, path: Path, keep: int | None = None) -> None:
        """`keep`: bytes of an existing file that are kept; a kill has cut off what follows them."""
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            if keep is not None:
                os.ftruncate(self._file, keep)

    def add(self, text: str) -> None:
        data = text.encode("utf-8", NAME_ERRORS)
        with writing(self.path):
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Onto the disk, not only into its cache."""
        try:
            with writing(self.path):
                os.fsync(self._file)
        finally:
            os.close(self._file)


def json_line(entry: Any) -> str:
    """One line of JSON. Bytes of file names that are no text are written as JSON writes halves of
    characters, \\udcXX, which every reader of Python gives back as they were."""
    text = json.dumps(entry, ensure_ascii=False)
    return (text if text.isprintable() else json.dumps(entry)) + "\n"


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file with their ends, without a last one that a kill has cut off. None where
    there is no file."""
    try:
        with path.open("rb") as file:
            for data in file:
                if data.endswith(b"\n"):
                    yield data
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def line_object(data: bytes, path: object, number: int) -> dict[str, Any]:
    """The object of JSON on a line. Raises DataError where there is none."""
    try:
        entry = json.loads(data)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise DataError(
            f"{path}, line {number}: not an object of JSON; it was not written by froster, or"
            " changed since"
        )
    return entry


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of all whole lines, and how many bytes these are. Raises DataError for a whole
    line that is none."""
    entries: list[dict[str, Any]] = []
    length = 0
    for number, data in enumerate(whole_lines(path), 1):
        length += len(data)
        entries.append(line_object(data, path, number))
    return entries, length


def read_entries(
    path: Path, kind: type[Entry], is_current: Callable[[Entry], bool]
) -> dict[str, Entry]:
    """The dataclasses of type `kind` in a journal by their `path`, the last of each, as far as they
    are still true. What is cut off or of another form is passed over."""
    entries: dict[str, Entry] = {}
    for data in whole_lines(path):
        try:
            entry = kind(**json.loads(data))
        except (ValueError, TypeError):
            continue
        if is_current(entry):
            entries[entry.path] = entry  # type: ignore[attr-defined]
    return entries


@contextmanager
def journal(path: Path, entries: Iterable[Any]) -> Iterator[Callable[[Any], None]]:
    """Starts a journal anew with these dataclasses; what is yielded adds one more."""
    with atomic_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.writelines(json_line(dataclasses.asdict(entry)) for entry in entries)
    appender = Appender(path)
    try:
        yield lambda entry: appender.add(json_line(dataclasses.asdict(entry)))
    finally:
        appender.close()
