"""An index in a folder or an object store: a Lance table with a row a segment, to which several
processes may write at once.

    segments.lance        path, video (fingerprint), segment, segments, start, end, vector (unit
                          length), what is known of the file, and the columns of the manifest
    failures.lance        path and error of what could not be read

What all of the index was made with is in the metadata of the first.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from froster.errors import DataError, UsageError, VideoError
from froster.inference.scan import all_scores
from froster.inference.tables import (
    COLUMNS,
    FACTS,
    LanceTable,
    file_name,
    manifest_row,
    one_of_them,
    quoted,
    text_name,
    vector_rows,
)
from froster.utils import strict_json as json
from froster.utils.address import as_path, is_address, located
from froster.video.container import FileState, file_state

if TYPE_CHECKING:
    import pyarrow as pa

SEGMENTS = "segments.lance"
ABOUT = b"froster"
OLD = "index.json"
"""An index of froster 0.1 has this file."""
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
SAMPLE = 4096
"""Segments by which the spread of the scores is told."""
COMPACTED = 64
"""Parts after which small ones are joined."""


@dataclass(frozen=True)
class IndexedFile:
    """What tells whether a video is still the one that was indexed."""

    path: str
    """Below the index's root with /, or the whole path, or an address."""
    size: int
    mtime: int
    """Nanoseconds; with the size it tells whether the file is still the same."""

    def is_current(self, root: Path) -> bool:
        return self.state(root) == (self.size, self.mtime)

    def is_gone(self, root: Path) -> bool:
        """Whether there is no such file; what cannot be read does not say so."""
        try:
            file_state(self.file(root))
        except (OSError, ValueError, VideoError) as error:  # ValueError: no file has such a name
            if isinstance(error, VideoError):  # no such member; or its table cannot be read
                return error.__cause__ is None
            return not isinstance(error, OSError) or error.errno in _NOT_THERE
        return False

    def file(self, root: Path) -> Path:
        return located(root, self.path)

    def state(self, root: Path) -> FileState | None:
        try:
            return file_state(self.file(root))
        except (OSError, ValueError, VideoError):
            return None


@dataclass(frozen=True)
class IndexEntry(IndexedFile):
    """One indexed video."""

    seconds: float
    frames: int
    damaged: int
    starts: Sequence[float]
    """Of its segments, in seconds from the start of the video; the first one starts with the first
    frame."""
    ends: Sequence[float]
    video: str | None = None
    """Fingerprint of the file's content."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Its row of the manifest, without the path."""


@dataclass(frozen=True)
class IndexedVideo:
    """A video with its segments, in their order."""

    entry: IndexEntry
    batch: str
    """What was written at once."""
    rows: list[int]
    """Their addresses in the table."""
    vectors: Float[Tensor, "segments embed"]
    """As they are stored; none where they were not asked for."""


def place_of(index: str | Path) -> Path | str:
    """A folder, or an address."""
    return index if isinstance(index, str) and is_address(index) else Path(index)


def table_at(index: str | Path, name: str) -> str:
    """The address of one of its tables."""
    if is_address(str(index)):
        return f"{str(index).rstrip('/')}/{name}"
    return os.path.join(os.path.realpath(index), name)  # a link may lead to what is not there yet


class Store:
    """An index that exists. Raises DataError where it cannot be read. `root`: where its videos lie
    now, if elsewhere."""

    def __init__(self, folder: str | Path, root: Path | None = None) -> None:
        self.folder = place_of(folder)
        refuse_old(self.folder)
        if not LanceTable.exists(table_at(self.folder, SEGMENTS)):
            raise DataError(f"{folder}: not an index of froster index (no {SEGMENTS})")
        self.table = LanceTable(table_at(self.folder, SEGMENTS))
        try:
            self.about: dict[str, Any] = json.loads(self.table.schema.metadata[ABOUT])
            self.root = root if root is not None else as_path(self.about["root"])
            self.dtype, self.model = str(self.about["dtype"]), str(self.about["model"])
            self.merge_tokens = int(self.about.get("merge_tokens", 0))
            self.dimensions = int(self.table.schema.field("vector").type.list_size)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{folder}: not an index of froster index ({error!r})") from None
        self._added = 0
        self._sample: tuple[list[int], Tensor] | None = None

    @classmethod
    def create(cls, folder: str | Path, about: Mapping[str, Any], dimensions: int) -> Store:
        """A new, empty one. Raises UsageError where the folder holds something else."""
        import pyarrow as pa

        place = place_of(folder)
        refuse_old(place)
        if isinstance(place, Path) and (
            place.is_file() or (place.is_dir() and any(not _is_ours(p) for p in place.iterdir()))
        ):
            raise UsageError(f"{folder} exists and is no index: choose another --out")
        kinds = {
            **dict.fromkeys(("path", "video", "batch"), pa.string()),
            **dict.fromkeys(("segment", "segments", "frames", "damaged"), pa.int32()),
            **dict.fromkeys(("start", "end", "seconds"), pa.float64()),
            **dict.fromkeys(("size", "mtime"), pa.int64()),
            "vector": pa.list_(getattr(pa, about["dtype"])(), dimensions),
        }
        schema = pa.schema([(name, kinds[name]) for name in COLUMNS])
        schema = schema.with_metadata({ABOUT: json.dumps(dict(about))})
        LanceTable.create(table_at(place, SEGMENTS), schema)
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
        return self.table.count()

    @property
    def count(self) -> int:
        """Of videos."""
        return self.table.count("segment = 0")

    @property
    def columns(self) -> list[str]:
        """Those of manifests."""
        return [name for name in self.table.schema.names if name not in COLUMNS]

    def files(self) -> dict[str, IndexedFile]:
        """Of all videos, by their paths."""
        table = self.table.rows(("path", "size", "mtime"), "segment = 0")
        files: dict[str, IndexedFile] = {}
        for path, *state in zip(*(table[i].to_pylist() for i in range(3)), strict=True):
            name = file_name(path)
            if name not in files or files[name].mtime <= state[1]:
                files[name] = IndexedFile(name, *state)
        return files

    def videos(
        self, paths: Iterable[str] | None = None, *, vectors: bool = True
    ) -> dict[str, IndexedVideo]:
        """Those of these paths, or all, in the order in which they were added."""
        names = [name for name in (*COLUMNS, *self.columns) if vectors or name != "vector"]
        conditions: Sequence[str | None] = [None]
        if paths is not None:
            conditions = list(one_of_them("path", [text_name(path) for path in paths]))
        videos: dict[str, IndexedVideo] = {}
        for condition in conditions:
            videos |= _videos(self.table.rows(names, condition), self.columns)
        return videos

    def add(self, videos: Sequence[tuple[IndexEntry, Tensor]]) -> None:
        """Entries with the embeddings of their segments (n, E), in place of earlier ones of these
        paths. Raises WriteError."""
        if not videos:
            return
        self.remove([entry.path for entry, _ in videos])
        self.table.append(self._rows(videos))
        self._added += 1
        if self._added % COMPACTED == 0:
            self.table.compact()

    def remove(self, paths: Iterable[str]) -> None:
        """Raises WriteError."""
        self.table.delete(one_of_them("path", [text_name(path) for path in paths]))
        self._sample = None

    def relabel(self, columns: Mapping[str, Mapping[str, str]]) -> int:
        """Rows of manifests, by path, take the place of what the index has of them. Returns of how
        many videos they are new."""
        import pyarrow as pa

        self._sample = None
        new = {path: manifest_row(row) for path, row in columns.items()}
        known = [name for name in self.columns if any(name in row for row in new.values())]
        rows = [
            {**row, **texts}
            for row in self.table.rows(("path", *known), "segment = 0").to_pylist()
            for texts in [new.get(file_name(row["path"]), {})]
            if any(row.get(name) != value for name, value in texts.items())
        ]
        if rows:
            names = sorted({name for row in rows for name in row} - {"_rowaddr"})
            schema = pa.schema([(name, pa.string()) for name in names])
            self.table.update("path", pa.Table.from_pylist(rows, schema))
        return len(rows)

    def drop_doubles(self) -> None:
        """Of a video that two processes have added at once, one stays."""
        table = self.table.rows(("path", "batch"), "segment = 0")
        paths, batches = table["path"].to_pylist(), table["batch"].to_pylist()
        if len(set(paths)) == len(paths):
            return
        seen: dict[str, list[str]] = {}
        for path, batch in zip(paths, batches, strict=True):
            seen.setdefault(path, []).append(batch)
        twice = [path for path, of_path in seen.items() if len(of_path) > 1]
        for path, video in self.videos(map(file_name, twice), vectors=False).items():
            name = quoted(text_name(path))
            self.table.delete([f"path = {name} AND batch <> '{video.batch}'"])

    def vectors(self, rows: Sequence[int]) -> Float[Tensor, "rows embed"]:
        """By the numbers of the rows."""
        return vector_rows(self.table.take(rows, ["vector"])["vector"], self.dimensions).float()

    def closest(
        self,
        query: Float[Tensor, " embed"],
        count: int,
        where: str | None,
        *,
        candidates: int = 1,
        walk: int = 1,
        **search: Any,
    ) -> tuple[Tensor, list[int], list[str]]:
        """Scores (n), addresses and paths of the segments that fit best, the best first.
        `candidates`, `walk`: those of a search index for each (`approximate`)."""
        exact = where is None and search.get("use_index") is False
        scored = all_scores(self.table, query) if exact and self.segments else None
        if scored is not None and self._are_right(scored[0], query):
            scores, numbers = scored[0].topk(min(count, len(scored[0])))
            rows, paths = scored[1][numbers.numpy()], self.table.take(numbers.tolist(), ["path"])
        else:
            many = {"k": count * candidates, "ef": count * walk * 3 // 2}
            how = {"column": "vector", "q": query.numpy(), "metric": "cosine", **many, **search}
            names = ("path", "vector", "_distance")
            paths = self.table.rows(names, where, nearest=how, prefilter=where is not None)
            # Lance has rounded the query to the type of the vectors, or to 8 bits.
            scores = vector_rows(paths["vector"], self.dimensions).float() @ query
            rows = paths["_rowaddr"].to_numpy()
        order = np.lexsort((rows, -scores.numpy()))[:count]
        texts = paths["path"].take(order).to_pylist()
        return scores[order], rows[order].tolist(), [file_name(text) for text in texts]

    def spread(self, query: Float[Tensor, " embed"]) -> float:
        """Standard deviation of the scores of all segments, or of `SAMPLE` of them at equal
        distances."""
        return float((self._sampled()[1] @ query).std(unbiased=False))

    def _are_right(self, scores: Float[Tensor, " rows"], query: Float[Tensor, " embed"]) -> bool:
        """Whether they are those of the vectors that Lance reads, at the rows of the sample."""
        rows, vectors = self._sampled()
        return torch.allclose(scores[rows], vectors @ query, rtol=0, atol=1e-4)

    def _sampled(self) -> tuple[list[int], Tensor]:
        """Some rows and their vectors."""
        if self._sample is None:
            count = self.segments
            rows = np.linspace(0, count - 1, min(count, SAMPLE)).round().astype(int).tolist()
            self._sample = rows, self.vectors(rows)
        return self._sample

    def _rows(self, videos: Sequence[tuple[IndexEntry, Tensor]]) -> pa.Table:
        import pyarrow as pa

        counts = [len(entry.starts) for entry, _ in videos]
        entries, batch = [entry for entry, _ in videos], uuid.uuid4().hex[:12]
        owner = pa.array(np.repeat(np.arange(len(videos)), counts))
        texts = [manifest_row(entry.columns) for entry in entries]
        of_videos = {
            "path": [text_name(entry.path) for entry in entries],
            "video": [entry.video for entry in entries],
            "batch": [batch] * len(entries),
            "segments": counts,
            **{name: [getattr(entry, name) for entry in entries] for name in FACTS},
        }
        schema = self.table.schema
        table = {
            name: pa.array(values, schema.field(name).type).take(owner)
            for name, values in of_videos.items()
        }
        table["segment"] = pa.array([i for n in counts for i in range(n)], pa.int32())
        table["start"] = pa.array([start for entry in entries for start in entry.starts])
        table["end"] = pa.array([end for entry in entries for end in entry.ends])
        numbers = torch.cat([rows for _, rows in videos]).float().numpy().reshape(-1)
        kind = np.float16 if self.dtype == "float16" else np.float32
        flat = pa.array(numbers.astype(kind))
        table["vector"] = pa.FixedSizeListArray.from_arrays(flat, self.dimensions)
        for name in dict.fromkeys(name for row in texts for name in row):
            table[name] = pa.array([row.get(name) for row in texts], pa.string()).take(owner)
        return pa.table(table)


def refuse_old(folder: str | Path) -> None:
    """Raises DataError on an index of froster 0.1."""
    if isinstance(folder, Path) and (folder / OLD).is_file():
        raise DataError(
            f"{folder} is an index of froster 0.1: froster index --convert --out {folder} makes it"
            " one of this version, and nothing is embedded again"
        )


def _is_ours(path: Path) -> bool:
    """Failures may come before the first video."""
    return path.suffix == ".lance" or path.name.startswith(".")


def _videos(table: pa.Table, columns: Sequence[str]) -> Iterator[tuple[str, IndexedVideo]]:
    """By path; of two that two processes have added, the newer one."""
    dimensions = (
        table.schema.field("vector").type.list_size if "vector" in table.schema.names else 0
    )
    vectors = vector_rows(table["vector"], dimensions) if dimensions else torch.empty(len(table), 0)
    of = {name: table[name].to_pylist() for name in table.schema.names if name != "vector"}
    groups: dict[tuple[str, str], list[int]] = {}
    for row, group in enumerate(zip(of["path"], of["batch"], strict=True)):
        groups.setdefault(group, []).append(row)
    newest: dict[str, tuple[int, str]] = {}
    for (path, batch), rows in groups.items():
        key = (of["mtime"][rows[0]], batch)
        newest[path] = max(newest.get(path, key), key)
    for (path, batch), rows in groups.items():
        if newest[path][1] != batch:
            continue
        rows.sort(key=lambda row: of["segment"][row])
        first = rows[0]
        entry = IndexEntry(
            file_name(path),
            **{name: of[name][first] for name in FACTS},
            starts=[of["start"][row] for row in rows],
            ends=[of["end"][row] for row in rows],
            video=of["video"][first],
            columns={name: of[name][first] for name in columns if of[name][first] is not None},
        )
        places = [of["_rowaddr"][row] for row in rows]
        yield entry.path, IndexedVideo(entry, batch, places, vectors[rows])
