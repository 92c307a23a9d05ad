"""An index on disk: embeddings in safetensors and what they are of in JSON lines, in parts that
appear whole.

    index.json            what the embeddings were made with
    0001.safetensors      segments (n, E) and videos (m, E), unit length
    0001.jsonl            a line a video, in that order: the fields of `IndexEntry`
    failures.jsonl        what could not be read

A later line for a path takes the place of an earlier one. A .safetensors without its .jsonl was not
finished.
"""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from froster.encoders.reading import read_safetensors
from froster.errors import CheckpointError, DataError, UsageError
from froster.utils import strict_json as json
from froster.utils.address import as_path, is_address, located
from froster.utils.files import (
    atomic_file,
    atomic_folder,
    json_line,
    read_lines,
    write_json,
    write_text,
)
from froster.utils.tensors import save_tensors
from froster.video.container import FileState, file_state

DTYPES = {"float16": torch.float16, "float32": torch.float32}
ABOUT, FAILURES = "index.json", "failures.jsonl"


@dataclass(frozen=True)
class IndexEntry:
    """One indexed video."""

    path: str
    """Below the index's root with /, or the whole path, or an address."""
    size: int
    mtime: int
    """Nanoseconds; with the size it tells whether the file is still the same."""
    seconds: float
    frames: int
    damaged: int
    starts: Sequence[float]
    """Of its segments, in seconds from the start of the video; the first one starts with the first
    frame."""
    ends: Sequence[float]

    def is_current(self, root: Path) -> bool:
        return self.state(root) == (self.size, self.mtime)

    def named_as_file(self, root: Path) -> IndexEntry:
        """Earlier versions wrote signs that cannot be printed as escapes (`\\u202f`): here as the
        file is called, if it is there and has that size."""
        if "\\" not in self.path or not self.is_gone(root):
            return self
        for as_character in (True, False):
            entry = dataclasses.replace(self, path=_without_escapes(self.path, as_character))
            state = entry.state(root)
            if state is not None and state.size == self.size:
                return entry
        return self

    def is_gone(self, root: Path) -> bool:
        """Whether there is no such file. A folder that may not be read, or a disk that does not
        answer, does not say so."""
        try:
            file = self.file(root)
            file_state(file) if is_address(file) else file.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return True  # ValueError: no file can have such a name
        except OSError as error:
            return error.errno == errno.ENAMETOOLONG
        return False

    def file(self, root: Path) -> Path:
        return located(root, self.path)

    def state(self, root: Path) -> FileState | None:
        """None where that cannot be had."""
        try:
            return file_state(self.file(root))
        except (OSError, ValueError):
            return None


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


@dataclass(frozen=True)
class EntryPlace:
    """Where a video's embeddings lie."""

    part: str
    video: int
    first: int
    """Of its segments."""
    entry: IndexEntry

    @property
    def rows(self) -> slice:
        """Of its segments."""
        return slice(self.first, self.first + len(self.entry.starts))


class Store:
    """An index that exists. Raises DataError where it cannot be read. `root`: where its videos lie
    now, if elsewhere."""

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.folder = folder
        try:
            self.about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            self.root = root if root is not None else as_path(self.about["root"])
            self.dtype, self.model = str(self.about["dtype"]), str(self.about["model"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            cause = f"not an index of froster index ({ABOUT}: {error!r})"
            raise DataError(f"{folder}: {cause}") from None
        self.places: dict[str, EntryPlace] = {}
        for name in self._parts():
            self._add_part(folder / f"{name}.jsonl")

    @classmethod
    def create(cls, folder: Path, about: dict[str, Any]) -> Store:
        """A new, empty one. Raises UsageError where the folder holds something else."""
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is no index: choose another --out")
        write_json(folder / ABOUT, about, indent=1)
        return cls(folder)

    @property
    def source(self) -> str:
        """The name of the model, as `froster.load` takes it."""
        return str(self.about["source"])

    @property
    def seconds(self) -> float:
        """Of a segment."""
        return float(self.about["segment"])

    @property
    def segments(self) -> int:
        return sum(len(place.entry.starts) for place in self.places.values())

    def add(self, videos: Sequence[tuple[IndexEntry, Tensor, Tensor]]) -> None:
        """Entries with the embeddings of their segments (n, E) and of the video (E,), as a new
        part."""
        if not videos:
            return
        name = f"{max(map(int, self._parts()), default=0) + 1:04d}"
        dtype = DTYPES[self.dtype]
        tensors = {
            "segments": torch.cat([segments for _, segments, _ in videos]).to(dtype),
            "videos": torch.stack([video for _, _, video in videos]).to(dtype),
        }
        with atomic_file(self.folder / f"{name}.safetensors") as part:
            save_tensors(tensors, part)
        write_text(
            self.folder / f"{name}.jsonl",
            "".join(json_line(dataclasses.asdict(entry)) for entry, _, _ in videos),
        )
        self._place(name, [entry for entry, _, _ in videos])

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Raises DataError naming the file."""
        try:
            return read_safetensors(self.folder / f"{part}.safetensors")
        except CheckpointError as error:
            raise DataError(str(error)) from None

    def by_part(self) -> dict[str, list[EntryPlace]]:
        """What is valid in each part."""
        parts: dict[str, list[EntryPlace]] = {}
        for place in self.places.values():
            parts.setdefault(place.part, []).append(place)
        return dict(sorted(parts.items(), key=lambda part: int(part[0])))

    def without(self, keys: Iterable[str]) -> Store:
        """Written anew without these videos, and without what later entries have replaced."""
        gone = set(keys)
        with atomic_folder(self.folder) as part:
            new = Store.create(part, self.about)
            for name, places in self.by_part().items():
                tensors = self.tensors(name)
                segments, videos = tensors["segments"], tensors["videos"]
                kept = [place for place in places if place.entry.path not in gone]
                new.add([(p.entry, segments[p.rows], videos[p.video]) for p in kept])
            failures = self.folder / FAILURES
            if failures.exists():
                write_text(part / FAILURES, failures.read_text(encoding="utf-8"))
        return Store(self.folder)

    def _parts(self) -> list[str]:
        """Their names in the order in which they were written: 9999 comes before 10000."""
        names = [path.stem for path in self.folder.glob("*.jsonl")]
        return sorted((name for name in names if re.fullmatch(r"[0-9]+", name)), key=int)

    def _add_part(self, path: Path) -> None:
        lines, _ = read_lines(path)
        try:
            entries = [IndexEntry(**entry).named_as_file(self.root) for entry in lines]
            self._place(path.stem, entries)
        except TypeError as error:
            raise DataError(f"{path}: not of this version of froster ({error})") from None

    def _place(self, part: str, entries: Sequence[IndexEntry]) -> None:
        first = 0
        for number, entry in enumerate(entries):
            self.places[entry.path] = EntryPlace(part, number, first, entry)
            first += len(entry.starts)
