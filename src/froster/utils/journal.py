"""Lines appended to a file one by one, so that whatever stops a run, what it had finished is there
for the next."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from froster.errors import DataError
from froster.utils import strict_json as json
from froster.utils.files import cannot_write, write_text

Entry = TypeVar("Entry")


class Appender:
    """A file that text is appended to. Each `add` is one call of the system, so that no
    interruption comes between its halves. Raises FrosterError where it cannot be written, also
    where the disk is full."""

    def __init__(self, path: Path, keep: int | None = None) -> None:
        """`keep` is how many bytes of what is there are kept: whatever follows them a kill has cut
        off."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            if keep is not None:
                os.ftruncate(self._file, keep)
        except OSError as error:
            raise cannot_write(path, error) from error

    def add(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")  # names of files are bytes
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Onto the disk, not only into its cache."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        finally:
            os.close(self._file)


def line(entry: Any) -> str:
    """One line of JSON. Bytes of file names that are no text are written as JSON writes halves of
    characters, \\udcXX, which every reader of Python gives back as they were."""
    text = json.dumps(entry, ensure_ascii=False)
    return (text if text.isprintable() else json.dumps(entry)) + "\n"


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of all whole lines, and how many bytes these are. Raises DataError for a whole
    line that is none."""
    entries: list[dict[str, Any]] = []
    length = 0
    for number, data in enumerate(whole_lines(path), 1):
        length += len(data)
        try:
            entry = json.loads(data)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise DataError(
                f"{path}, line {number}: not an object of JSON; it was not written by froster, or"
                " changed since"
            )
        entries.append(entry)
    return entries, length


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file with their ends; not the last one where a kill has cut it off. None where
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


def read_entries(
    path: Path, kind: type[Entry], is_current: Callable[[Entry], bool]
) -> dict[str, Entry]:
    """The dataclasses of type `kind` in a journal by their `path`, the last of each, where they are
    still true.

    What is cut off or of another form is passed over: it is done once more.
    """
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
    write_text(path, "".join(line(dataclasses.asdict(entry)) for entry in entries))
    appender = Appender(path)
    try:
        yield lambda entry: appender.add(line(dataclasses.asdict(entry)))
    finally:
        appender.close()
