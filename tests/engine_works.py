"""Works for the tests of engines, in a module that other processes can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.errors import UsageError, VideoError
from froster.utils.work import End, Work


@dataclass(frozen=True)
class Video:
    path: str


def read(path: str) -> Iterator[Any]:
    """What the name says."""
    if path.startswith("crash"):
        os._exit(139)
    if path.startswith("fail"):
        raise VideoError(f"{path}: no frame can be decoded")
    if path.startswith("wrong"):
        _, _, awaited = path.partition(" after ")
        while awaited and not os.path.exists(awaited):
            time.sleep(0.05)
        raise UsageError("nobody can do this")
    if path.startswith("slow"):
        time.sleep(0.3)
    yield len(path)


class Lengths(Work[Video, str]):
    """The length of each name, written once more for each time that it is computed."""

    batch_size = 2

    def __init__(self, journal: Path | None = None, in_order: bool = False) -> None:
        super().__init__(read)
        self.journal, self.in_order = journal, in_order

    def compute(self, parts: list[Any]) -> Sequence[Any]:
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write("".join(f"{os.getpid()}\n" for _ in parts))
        return [f"{part} letters" for part in parts]

    def finish(self, row: Video, kept: list[Any]) -> str | None:
        if row.path.startswith("deadly"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().finish(row, kept)


class Memory:
    """A store that keeps all, with what it held before."""

    def __init__(self, before: Sequence[str] = ()) -> None:
        self.before, self.ends, self.closed = set(before), list[End[Video, str]](), 0

    def has(self, row: Video) -> bool:
        return row.path in self.before

    def has_failed(self, row: Video) -> bool:
        return any(end.row is row and end.result is None for end in self.ends)

    def add(self, ends: Sequence[End[Video, str]]) -> None:
        self.ends += ends

    def close(self) -> None:
        self.closed += 1


class Journal:
    """A store in a file: a name a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = set(path.read_text().splitlines()) if path.exists() else set()

    def has(self, row: Video) -> bool:
        return row.path in self.before

    def has_failed(self, row: Video) -> bool:
        return False

    def add(self, ends: Sequence[End[Video, str]]) -> None:
        with self.path.open("a") as file:
            file.write("".join(f"{end.row.path}\n" for end in ends))

    def close(self) -> None: ...
