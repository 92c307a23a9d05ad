"""A pack that is being made: what each video has become, in a journal that a stopped run goes on
with, and the tar shards that they fill."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from froster.data.inspect import state_of
from froster.data.listing import ListedVideo
from froster.data.pack_folder import PACK
from froster.data.pack_video import PackedVideo, ToPack, pack_video
from froster.data.shards import Shard
from froster.errors import UsageError
from froster.utils import strict_json as json
from froster.utils.address import as_path
from froster.utils.files import (
    NAME_ERRORS,
    atomic_file,
    journal,
    json_line,
    read_entries,
    write_json,
    write_text,
)
from froster.utils.work import End, Work
from froster.video.tar_shards import table_of

JOURNAL = "packed.jsonl"
"""A `PackedVideo` a line: fingerprints of source and packed file."""
STAGING = ".staging"
"""Where packed videos wait for the rest of their shard."""


class Pack(Work[ToPack, PackedVideo]):
    """From a video to its packed file, which the reader writes."""

    def __init__(self) -> None:
        super().__init__(pack_video)

    def task(self, row: ToPack) -> ToPack:
        return row


class PackStore:
    """The pack `out`, or a part of it that one of several processes makes."""

    def __init__(
        self,
        out: Path,
        videos: Sequence[ListedVideo],
        names: Mapping[str, tuple[str, str]],
        state: Mapping[str, Any],
        shard_bytes: int | None,
        part: Shard,
        parts: Sequence[Path],
    ) -> None:
        """`names`: of each video, by its key, as a packed file and as the original. `parts`: the
        journals of other processes, of which it goes on with what they have done."""
        self.out, self._videos, self._names, self._part = out, videos, names, part
        self._state, self._shards, self._most = state, int(state["shards"]), shard_bytes
        self._journal, self._mark = part.file(out / JOURNAL), part.file(out / PACK)
        self._place = out if shard_bytes is None else part.file(out / STAGING)
        self._sound_shards: dict[str, bool] = {}
        self._waiting: list[PackedVideo] = []
        "packed videos of the next shard"
        self._waiting_bytes = self._next = 0
        paths = {video.key: video.path for video in videos}
        self.rows: dict[str, PackedVideo] = {}
        "of the videos as they are now, by their keys"
        self._known: dict[str, PackedVideo] = {}
        "of them as they were"
        for file in (self._journal, *parts):
            known = read_entries(
                file, PackedVideo, lambda row: row.path in paths and self._is_whole(row)
            )
            self._known = known | self._known
            self.rows |= {
                key: row
                for key, row in known.items()
                if (row.size, row.mtime) == (state_of(paths[key]) or (0, 0))
            }
        self._shared = False
        self._keep: Callable[[PackedVideo], None] = lambda row: None

    def forget_failures(self, forget: bool) -> None:
        """So that they are tried again."""
        if forget:
            self.rows = {key: row for key, row in self.rows.items() if not row.error}

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The journal. What is packed by its end is put into shards."""
        with journal(self._journal, self.rows.values()) as self._keep:
            yield
            self._make_shards(last=True)

    def jobs(self, shared: bool) -> Sequence[ToPack]:
        """Of each video; `shared` where other machines do them."""
        self._shared = shared
        return _Jobs(self._videos, self._names, os.path.abspath(self._place), self._known)

    def has(self, row: ToPack) -> bool:
        return row.key in self.rows

    def has_failed(self, row: ToPack) -> bool:
        return bool(self.rows[row.key].error)

    def add(self, ends: Sequence[End[ToPack, PackedVideo]]) -> None:
        for end in ends:
            job, result = end.row, end.result
            if result is None:
                row = PackedVideo(
                    job.key, *(state_of(as_path(job.source)) or (0, 0)), error=end.error
                )
            else:
                names = dict(zip((job.packed, job.original), self._names[job.key], strict=True))
                packed = names.get(result.packed, result.packed)
                row = dataclasses.replace(result, path=job.key, packed=packed)
                if self._shared and not self._is_whole(row):
                    raise UsageError(
                        f"{self.out} is another folder on the machines of the cluster: give --out"
                        " one that all of them share, or pack with --engine local"
                    )
            self.rows[job.key] = row
            self._keep(row)
        self._make_shards()

    def close(self) -> None:
        """The journal is closed by `opened`, when the last shard is in it."""

    def _is_whole(self, row: PackedVideo) -> bool:
        """Whether what the row says is still there."""
        if row.error:
            return True
        if row.packed not in self._names[row.path]:
            return False
        if row.shard:
            if row.shard not in self._sound_shards:
                self._sound_shards[row.shard] = is_sound(self.out / row.shard)
            return self._sound_shards[row.shard]
        return (state_of(self._place / row.packed) or (0, 0))[0] == row.packed_size

    def _make_shards(self, last: bool = False) -> None:
        """Of the videos that are packed up to the first that is not, as many shards as they fill;
        the `last` one need not be full."""
        if self._most is None:
            return
        videos = self._videos
        while self._next < len(videos) and (row := self.rows.get(videos[self._next].key)):
            self._next += 1
            if not row.error and not row.shard:
                self._waiting.append(row)
                self._waiting_bytes += row.packed_size
            if self._waiting_bytes >= self._most:
                self._close_shard()
        if last:
            if self._waiting:
                self._close_shard()
            shutil.rmtree(self._place, ignore_errors=True)

    def _close_shard(self) -> None:
        name = self._part.file(Path(f"{self._shards:05d}.tar")).name
        write_shard(self.out / name, self._place, self._waiting)
        self._shards += 1  # before a row names the shard: its number is never taken again
        write_json(self._mark, {**self._state, "shards": self._shards})
        for row in self._waiting:
            row = dataclasses.replace(row, shard=name)
            self.rows[row.path] = row
            self._keep(row)
        for row in self._waiting:
            (self._place / row.packed).unlink(missing_ok=True)
        self._waiting, self._waiting_bytes = [], 0


class _Jobs(Sequence[Any]):
    """Made when they are asked for."""

    def __init__(
        self,
        videos: Sequence[ListedVideo],
        names: Mapping[str, tuple[str, str]],
        place: str,
        known: Mapping[str, PackedVideo],
    ) -> None:
        self._videos, self._names, self._place, self._known = videos, names, place, known

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, number: Any) -> Any:
        video = self._videos[number]
        packed, original = (os.path.join(self._place, name) for name in self._names[video.key])
        earlier = self._known.get(video.key)
        return ToPack(str(video.path), packed, original, earlier, video.key)


def write_shard(shard: Path, folder: Path, rows: Sequence[PackedVideo]) -> None:
    """A tar file of packed videos below `folder`, and its offset table. Raises WriteError."""
    lines = []
    with atomic_file(shard) as part:
        with tarfile.open(
            part, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors=NAME_ERRORS
        ) as tar:
            for row in rows:
                info = tarfile.TarInfo(row.packed)
                info.size = row.packed_size
                with (folder / row.packed).open("rb") as file:
                    tar.addfile(info, file)
                offset = tar.offset - -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                place = {"offset": offset, "size": info.size, "crc32": row.crc32}
                lines.append(json_line({"name": row.packed, **place}))
        size = part.stat().st_size
    write_text(
        Path(table_of(str(shard))), json_line({"shard": shard.name, "bytes": size}) + "".join(lines)
    )


def is_sound(shard: Path) -> bool:
    """Whether a shard is as long as its offset table says."""
    try:
        with open(table_of(str(shard)), encoding="utf-8") as table:
            return bool(json.loads(table.readline())["bytes"] == shard.stat().st_size)
    except (OSError, ValueError, TypeError, KeyError):
        return False
