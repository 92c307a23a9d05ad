"""Videos in their training form, as files or as tar shards: a folder that is data like any other,
made once, going on wherever it was stopped."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tarfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.progress import Progress

from froster.data.diagnose import labels_of
from froster.data.inspect import state_of
from froster.data.listing import MANIFESTS, ListedVideo, Listing
from froster.data.manifest import read_rows
from froster.data.pack_folder import PACK, PACKED
from froster.data.pack_video import FORM, PackedVideo, ToPack, ending, pack_video
from froster.errors import DataError, UsageError
from froster.utils import pool
from froster.utils import strict_json as json
from froster.utils.files import (
    NAME_ERRORS,
    atomic_file,
    claim_folder,
    journal,
    json_line,
    read_entries,
    sole_writer,
    write_csv,
    write_json,
    write_text,
)
from froster.video.tar_shards import table_of

JOURNAL = "packed.jsonl"
"""A `PackedVideo` a line: fingerprints of source and packed file."""
STAGING = ".staging"
"""Where packed videos wait for the rest of their shard."""
COLUMNS = ("packed_from", "source_fingerprint", "fingerprint", "psnr", "note")
"""What the manifest says beside the columns of the source's."""
_DIGITS = 16


@dataclass(frozen=True)
class PackOptions:
    shard_bytes: int | None = None
    """None: a file a video."""
    workers: int = 0
    time_limit: float = pool.SECONDS_OF_SILENCE
    retry_failed: bool = False


def pack(
    listing: Listing,
    rows: Sequence[tuple[str, Mapping[str, str]]],
    out: Path,
    options: PackOptions,
    bars: Progress,
) -> dict[str, Any]:
    """Packs every video of `listing` into the folder `out`, whose manifest has `rows`, each a key
    of the listing and the columns of the source.

    Each video is kept as soon as it is packed, and only those that are new or have changed are
    packed by the next call; shards are made of the videos in the order of the listing. Raises
    UsageError where `out` holds something else, or was packed otherwise, or while another process
    writes it; DataError where not one video can be packed; WriteError.
    """
    again = "choose another --out, or one that froster pack has made"
    claim_folder(out, PACK, again)
    with sole_writer(out):
        state = _claimed(out, options.shard_bytes is not None)
        folder = _Folder(out, listing, state, options)
        folder.fill(bars)
        usable = [row for video in listing if not (row := folder.rows[video.key]).error]
        if not usable:
            first = folder.rows[listing[0].key]
            raise DataError(f"not one of {len(listing)} videos can be packed: {first.error}")
        _write_manifest(out / PACKED, rows, folder.rows)
    return _report(out, [folder.rows[video.key] for video in listing], folder.shards)


def rows_of(
    listing: Listing, sources: Sequence[Path], root: Path | None
) -> list[tuple[str, Mapping[str, str]]]:
    """The rows of the manifest to come: of a video in a manifest all that it has there, for it may
    be labelled more than once; of any other one, with its folder's name for a label where all lie
    in one."""
    labels = labels_of(listing)
    many = defaultdict(list)
    for source in sources:
        if source.suffix.lower() in MANIFESTS and source.is_file():
            for path, fields in read_rows(source, root):
                many[os.path.abspath(path)].append(fields)
    return [
        (video.key, fields)
        for video in listing
        for fields in many.get(os.path.abspath(video.path), [labels[video.key]])
    ]


def packed_names(keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of each video by its key: its name as a packed file, which differs from that of the source by
    its ending alone, and its name as the original. Raises UsageError where two have one name."""
    originals = {key: _relative(key) for key in keys}
    plain = {
        key: str(PurePosixPath(name).with_suffix(ending(name))) for key, name in originals.items()
    }
    count = Counter(plain.values())
    names = {
        key: plain[key] if count[plain[key]] == 1 or plain[key] == name else name + ending(name)
        for key, name in originals.items()
    }
    twice = [name for name, number in Counter(names.values()).items() if number > 1]
    if twice:
        raise UsageError(f"two videos would be packed as {twice[0]}: rename one of them")
    return {key: (names[key], originals[key]) for key in keys}


def _relative(key: str) -> str:
    return key.replace("\\", "/").replace(":", "").lstrip("/")


def _claimed(out: Path, tar: bool) -> dict[str, Any]:
    """What the mark of the folder says, which is written where it is new. Raises UsageError where
    it was packed in another form."""
    mark = out / PACK
    text = mark.read_text(encoding="utf-8")
    state: dict[str, Any] = {"version": 1, "form": FORM, "tar": tar, "shards": 0}
    if not text:
        write_json(mark, state)
        return state
    try:
        before = json.loads(text)
        shards = int(before["shards"])
        same = before == {**state, "shards": shards}
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{mark} was not written by froster pack: choose another --out") from error
    if before.get("form") == FORM and before.get("tar") != tar:
        was = "shards: give --tar" if before.get("tar") else "files: leave --tar out"
        raise UsageError(f"{out} was packed as {was}, or choose another --out")
    if not same:
        raise UsageError(
            f"{out} was packed in another form than this froster's: choose another --out"
        )
    return before


class _Folder:
    """A pack that is being made."""

    def __init__(
        self, out: Path, listing: Listing, state: dict[str, Any], options: PackOptions
    ) -> None:
        self.out, self.options, self.shards = out, options, int(state["shards"])
        self._state, self._listing = state, listing
        self._names = packed_names([video.key for video in listing])
        self._place = out / STAGING if options.shard_bytes is not None else out
        self._sound_shards: dict[str, bool] = {}
        self._waiting: list[PackedVideo] = []
        "packed videos of the next shard"
        self._waiting_bytes = self._next = 0
        paths = {video.key: video.path for video in listing}
        self._known = read_entries(
            out / JOURNAL, PackedVideo, lambda row: row.path in paths and self._is_whole(row)
        )
        self.rows = {
            key: row
            for key, row in self._known.items()
            if (row.size, row.mtime) == (state_of(paths[key]) or (0, 0))
            and not (row.error and options.retry_failed)
        }

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

    def fill(self, bars: Progress) -> None:
        """Packs what is not packed yet."""
        todo = [video for video in self._listing if video.key not in self.rows]
        bar = bars.add_task("pack", total=len(self._listing), completed=len(self.rows), note="")
        failed = sum(bool(row.error) for row in self.rows.values())
        jobs = [self._job(video) for video in todo]
        workers, limit = self.options.workers, self.options.time_limit
        with journal(self.out / JOURNAL, self.rows.values()) as keep:
            for event in pool.run(pack_video, jobs, workers, limit=limit):
                key = todo[event.task].key
                if not event.done:
                    names = dict(zip(jobs[event.task][1:3], self._names[key], strict=True))
                    packed = names.get(event.part.packed, event.part.packed)
                    row = dataclasses.replace(event.part, path=key, packed=packed)
                elif event.error and key not in self.rows:
                    state = state_of(todo[event.task].path) or (0, 0)
                    row = PackedVideo(key, *state, error=event.error)
                else:
                    continue
                self.rows[key] = row
                keep(row)
                failed += bool(row.error)
                bars.update(bar, advance=1, note=f"{failed} failed" if failed else "")
                self._make_shards(keep)
            self._make_shards(keep, last=True)

    def _job(self, video: ListedVideo) -> ToPack:
        packed, original = (str(self._place / name) for name in self._names[video.key])
        return ToPack(str(video.path), packed, original, self._known.get(video.key))

    def _make_shards(self, keep: Any, last: bool = False) -> None:
        """Of the videos that are packed up to the first that is not, as many shards as they fill;
        the `last` one need not be full."""
        most = self.options.shard_bytes
        if most is None:
            return
        videos = self._listing
        while self._next < len(videos) and (row := self.rows.get(videos[self._next].key)):
            self._next += 1
            if not row.error and not row.shard:
                self._waiting.append(row)
                self._waiting_bytes += row.packed_size
            if self._waiting_bytes >= most:
                self._close_shard(keep)
        if last:
            if self._waiting:
                self._close_shard(keep)
            shutil.rmtree(self._place, ignore_errors=True)

    def _close_shard(self, keep: Any) -> None:
        name = f"{self.shards:05d}.tar"
        write_shard(self.out / name, self._place, self._waiting)
        for row in self._waiting:
            row = dataclasses.replace(row, shard=name)
            self.rows[row.path] = row
            keep(row)
        self.shards += 1
        write_json(self.out / PACK, {**self._state, "shards": self.shards})
        for row in self._waiting:
            (self._place / row.packed).unlink(missing_ok=True)
        self._waiting, self._waiting_bytes = [], 0


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


def _write_manifest(
    path: Path, rows: Sequence[tuple[str, Mapping[str, str]]], packed: Mapping[str, PackedVideo]
) -> None:
    """CSV: path (in this folder), the columns of the sources, and `COLUMNS`."""
    names = dict.fromkeys(name for _, fields in rows for name in fields)
    given = [name for name in names if name not in ("path", *COLUMNS)]
    lines: list[list[object]] = [["path", *given, *COLUMNS]]
    for key, fields in rows:
        row = packed[key]
        if not row.error:
            place = f"{row.shard}/{row.packed}" if row.shard else row.packed
            psnr = "" if row.psnr is None else f"{row.psnr:.2f}"
            prints = [row.sha256[:_DIGITS], row.packed_sha256[:_DIGITS]]
            cells = [fields.get(name, "") for name in given]
            lines.append([place, *cells, key, *prints, psnr, row.note])
    write_csv(path, lines)


def _report(out: Path, rows: Sequence[PackedVideo], shards: int) -> dict[str, Any]:
    good = [row for row in rows if not row.error]
    levels = [row.psnr for row in good if row.psnr is not None]
    return {
        "pack": str(out),
        "manifest": str(out / PACKED),
        "videos": len(good),
        "packed": len(levels),
        "failed": len(rows) - len(good),
        "shards": shards,
        "source_bytes": sum(row.size for row in good),
        "bytes": sum(row.packed_size for row in good),
        "hours": round(sum(row.seconds for row in good) / 3600, 3),
        "psnr": round(sum(levels) / len(levels), 2) if levels else None,
        "least_psnr": min(levels, default=None),
        "originals": [{"path": row.path, "why": row.note} for row in good if row.note],
        "failures": [{"path": row.path, "why": row.error} for row in rows if row.error],
    }
