"""An index on disk: embeddings in safetensors and what they are of in JSON lines, in parts that appear whole.

    index.json            what the embeddings were made with
    0001.safetensors      segments (n, E) and videos (m, E), unit length
    0001.jsonl            a line a video, in that order: path, size, mtime, seconds, frames, damaged, starts, ends
    failures.jsonl        what could not be read

A later line for a path takes the place of an earlier one. A .safetensors without its .jsonl was not finished.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

import froster.strict_json as json
from froster.errors import DataError, UsageError
from froster.files import atomic_file, atomic_folder, write_text
from froster.journal import line, read_lines

DTYPES = {"float16": torch.float16, "float32": torch.float32}
ABOUT = "index.json"


@dataclass(frozen=True)
class Entry:
    """One indexed video."""

    path: str
    """Below the index's root with /, or the whole path."""
    size: int
    mtime: int
    """Nanoseconds; with the size it tells whether the file is still the same."""
    seconds: float
    frames: int
    damaged: int
    starts: Sequence[float]
    """Of its segments, in seconds from the start of the video; the first one starts with the first frame."""
    ends: Sequence[float]

    def is_current(self, root: Path) -> bool:
        status = self.status(root)
        return status is not None and (status.st_size, status.st_mtime_ns) == (self.size, self.mtime)

    def status(self, root: Path) -> os.stat_result | None:
        """None where the file is gone."""
        try:
            return (root / self.path).stat()
        except OSError:
            return None


@dataclass(frozen=True)
class Place:
    """Where a video's embeddings lie."""

    part: str
    video: int
    first: int
    """Of its segments."""
    entry: Entry


class Store:
    """An index that is there. Raises DataError where it cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            self.root = Path(self.about["root"])
            self.dtype, self.model = str(self.about["dtype"]), str(self.about["model"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder}: not an index of froster index ({ABOUT}: {error!r})") from None
        self.places: dict[str, Place] = {}
        for path in sorted(folder.glob("[0-9]*.jsonl")):
            self._read(path)

    @classmethod
    def create(cls, folder: Path, about: dict[str, Any]) -> Store:
        """A new one, with nothing in it. Raises UsageError where the folder holds something else."""
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is no index: choose another --out")
        write_text(folder / ABOUT, json.dumps(about, indent=1) + "\n")
        return cls(folder)

    @property
    def segments(self) -> int:
        return sum(len(place.entry.starts) for place in self.places.values())

    def add(self, videos: Sequence[tuple[Entry, Tensor, Tensor]]) -> None:
        """Entries with their segments' embeddings (n, E) and their own (E,), as a part of their own."""
        if not videos:
            return
        name = f"{max((int(path.stem) for path in self.folder.glob('[0-9]*.jsonl')), default=0) + 1:04d}"
        dtype = DTYPES[self.dtype]
        tensors = {
            "segments": torch.cat([segments for _, segments, _ in videos]).to(dtype),
            "videos": torch.stack([video for _, _, video in videos]).to(dtype),
        }
        with atomic_file(self.folder / f"{name}.safetensors") as part:
            part.write_bytes(save(tensors))  # save_file would keep it from everybody else
        write_text(self.folder / f"{name}.jsonl", "".join(line(dataclasses.asdict(entry)) for entry, _, _ in videos))
        self._place(name, [entry for entry, _, _ in videos])

    def tensors(self, part: str) -> dict[str, Tensor]:
        path = self.folder / f"{part}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error

    def by_part(self) -> dict[str, list[Place]]:
        """What is valid in each part."""
        parts: dict[str, list[Place]] = {}
        for place in self.places.values():
            parts.setdefault(place.part, []).append(place)
        return dict(sorted(parts.items()))

    def without(self, keys: Iterable[str]) -> Store:
        """Written anew without these videos, and without what later entries have replaced."""
        gone = set(keys)
        with atomic_folder(self.folder) as part:
            write_text(part / ABOUT, json.dumps(self.about, indent=1) + "\n")
            new = Store(part)
            for name, places in self.by_part().items():
                tensors = self.tensors(name)
                new.add([
                    (place.entry, tensors["segments"][place.first :][: len(place.entry.starts)], tensors["videos"][place.video])
                    for place in places
                    if place.entry.path not in gone
                ])  # fmt: skip
            failures = self.folder / "failures.jsonl"
            if failures.exists():
                write_text(part / failures.name, failures.read_text(encoding="utf-8"))
        return Store(self.folder)

    def _read(self, path: Path) -> None:
        lines, _ = read_lines(path)
        try:
            self._place(path.stem, [Entry(**entry) for entry in lines])
        except TypeError as error:
            raise DataError(f"{path}: not of this version of froster ({error})") from None

    def _place(self, part: str, entries: Sequence[Entry]) -> None:
        first = 0
        for number, entry in enumerate(entries):
            self.places[entry.path] = Place(part, number, first, entry)
            first += len(entry.starts)
