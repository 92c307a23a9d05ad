"""An index of froster 0.1 becomes one of this version; nothing is embedded again.

    index.json            what the embeddings were made with
    0001.safetensors      segments (n, E) and videos (m, E), unit length
    0001.jsonl            a line a video, in that order
    failures.jsonl        what could not be read

A later line for a path takes the place of an earlier one. A .safetensors without its .jsonl was not
finished.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from froster.encoders.reading import read_safetensors
from froster.errors import CheckpointError, DataError, UsageError
from froster.inference.failed import FailureTable
from froster.inference.store import OLD, IndexEntry, Store
from froster.utils import strict_json as json
from froster.utils.files import read_lines, sole_maker

_PART = 20_000
"""Segments that are written at once."""
_NEW = ".converted"
"""The folder in which the index lies until it is whole."""


def convert(folder: Path) -> dict[str, int]:
    """In its place; a kill leaves the old one. Returns how many videos and segments it has. Raises
    UsageError where it is not one of froster 0.1, DataError where it cannot be read."""
    if not (folder / OLD).is_file():
        raise UsageError(f"{folder} is no index of froster 0.1: there is nothing to convert")
    with sole_maker(folder):
        shutil.rmtree(folder / _NEW, ignore_errors=True)
        store = _converted(folder)
        result = {"videos": store.count, "segments": store.segments}
        for table in (folder / _NEW).iterdir():  # a kill may have left some of them
            shutil.rmtree(folder / table.name, ignore_errors=True)
            table.rename(folder / table.name)
        parts = _parts(folder)
        (folder / OLD).unlink()  # from here on it is the new one
        for name in parts:
            (folder / f"{name}.jsonl").unlink()
            (folder / f"{name}.safetensors").unlink()
        (folder / "failures.jsonl").unlink(missing_ok=True)
        (folder / _NEW).rmdir()
    return result


def _converted(folder: Path) -> Store:
    try:
        about: dict[str, Any] = json.loads((folder / OLD).read_text(encoding="utf-8"))
        root = Path(about["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: not an index of froster index ({OLD}: {error!r})") from None
    last = {entry.path: name for name, entries in _entries(folder, root) for entry in entries}
    store: Store | None = None
    done: list[tuple[IndexEntry, Tensor]] = []
    for name, entries in _entries(folder, root):
        try:
            rows = read_safetensors(folder / f"{name}.safetensors")["segments"]
        except (CheckpointError, KeyError) as error:
            raise DataError(f"{folder / name}.safetensors: {error}") from None
        if store is None:
            store = Store.create(folder / _NEW, about, rows.shape[1])
        of_part = {entry.path: number for number, entry in enumerate(entries)}
        for number, entry in enumerate(entries):
            count = len(entry.starts)
            vectors, rows = rows[:count], rows[count:]
            if last[entry.path] == name and of_part[entry.path] == number:
                done.append((entry, vectors))
        if sum(len(entry.starts) for entry, _ in done) > _PART:
            store.add(done)
            done = []
    if store is None:
        raise DataError(f"{folder}: there is no video in this index: remove it, and index anew")
    store.add(done)
    failures = FailureTable(folder / _NEW, ())
    for line in read_lines(folder / "failures.jsonl")[0]:
        failures.add(str(line.get("path")), str(line.get("error", "")))
    failures.close(())
    return store


def _parts(folder: Path) -> list[str]:
    """Their names in the order in which they were written: 9999 comes before 10000."""
    names = [path.stem for path in folder.glob("*.jsonl")]
    return sorted((name for name in names if re.fullmatch(r"[0-9]+", name)), key=int)


def _entries(folder: Path, root: Path) -> Iterator[tuple[str, list[IndexEntry]]]:
    for name in _parts(folder):
        path = folder / f"{name}.jsonl"
        try:
            entries = [IndexEntry(**line) for line in read_lines(path)[0]]
        except TypeError as error:
            raise DataError(f"{path}: not of this version of froster ({error})") from None
        yield name, [named_as_file(entry, root) for entry in entries]


def named_as_file(entry: IndexEntry, root: Path) -> IndexEntry:
    """The first versions wrote signs that cannot be printed as escapes (`\\u202f`): with the name
    of the file, if it is there and has that size."""
    if "\\" not in entry.path or not entry.is_gone(root):
        return entry
    for as_character in (True, False):
        renamed = dataclasses.replace(entry, path=_without_escapes(entry.path, as_character))
        state = renamed.state(root)
        if state is not None and state.size == entry.size:
            return renamed
    return entry


def _without_escapes(path: str, as_character: bool) -> str:
    """`\\xa0` was written for the character of that number and for the byte."""

    def meant(match: re.Match[str]) -> str:
        kind, digits = match[0][1], match[0][2:]
        if not digits:
            return {"t": "\t", "n": "\n", "r": "\r"}[kind]
        number = int(digits, 16)
        if number > 0x10FFFF:
            return match[0]
        return chr(number if as_character or kind != "x" or number < 0x80 else 0xDC00 + number)

    return re.sub(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[tnr])", meant, path)
