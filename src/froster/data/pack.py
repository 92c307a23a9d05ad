"""Videos in their training form, as files or as tar shards: a folder that is data like any other,
made once, going on wherever it was stopped."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from froster.data.listing import Listing
from froster.data.pack_folder import PACK, PACKED
from froster.data.pack_store import JOURNAL, STAGING, Pack, PackStore
from froster.data.pack_video import FORM, PackedVideo, ending
from froster.data.shards import Shard, shard_files
from froster.errors import DataError, UsageError
from froster.utils import strict_json as json
from froster.utils.engine import OnProgress, run
from froster.utils.files import (
    NAME_ERRORS,
    claim_folder,
    sole_maker,
    sole_writer,
    write_csv,
    write_json,
)
from froster.utils.work import Means

COLUMNS = ("packed_from", "source_fingerprint", "fingerprint", "psnr", "note")
"""What the manifest says beside the columns of the source's."""
_DIGITS = 16


@dataclass(frozen=True)
class PackOptions:
    shard_bytes: int | None = None
    """None: a file a video."""
    retry_failed: bool = False


def pack(
    listing: Listing,
    rows: Sequence[tuple[str, Mapping[str, str]]],
    out: Path,
    options: PackOptions,
    means: Means,
    part: Shard = Shard(),  # noqa: B008
    on_progress: OnProgress = lambda done, total, failed: None,
) -> dict[str, Any]:
    """Packs every video of `listing` into the folder `out`, whose manifest has `rows`, each a key
    of the listing and the columns of the source.

    Each video is kept as soon as it is packed, and only those that are new or have changed are
    packed by the next call; shards are made of the videos in the order of the listing. Of several
    processes each packs the videos of its `part` into the same folder, and a call without one joins
    what they have done. On a cluster the actors write to `out`, which all machines must share.

    Raises UsageError where `out` holds something else, or was packed otherwise, or while another
    process writes the same part of it; DataError where not one video can be packed; WriteError.
    """
    again = "choose another --out, or one that froster pack has made"
    claim_folder(out, PACK, again)
    parts = shard_files(out / JOURNAL) if part.count == 1 else []
    with ExitStack() as locks:
        locks.enter_context(
            sole_writer(out) if part.count == 1 else sole_maker(part.file(out / JOURNAL))
        )
        for file in parts:  # which must have ended
            locks.enter_context(sole_maker(file))
        for mark in (out / PACK, part.file(out / PACK)):
            state = _claimed(mark, options.shard_bytes is not None)
        mine = listing if part.count == 1 else part.of(listing)
        names = packed_names([video.key for video in listing])
        store = PackStore(out, mine, names, state, options.shard_bytes, part, parts)
        store.forget_failures(options.retry_failed)
        with store.opened():
            run(Pack(), store.jobs(means.engine.name != "local"), store, means, on_progress)
        failed = sum(bool(row.error) for row in store.rows.values())
        if part.count > 1:
            report = {"part": str(part.file(out / JOURNAL)), "shard": str(part)}
            return {**report, "videos": len(mine), "errors": failed}
        for folder in out.glob(f"{STAGING}.*"):
            shutil.rmtree(folder, ignore_errors=True)
        if failed == len(listing):
            first = store.rows[listing[0].key]
            raise DataError(f"not one of {len(listing)} videos can be packed: {first.error}")
        _write_manifest(out / PACKED, rows, store.rows)
    return _report(out, [store.rows[video.key] for video in listing])


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
    parts = key.replace("\\", "/").replace("://", "/").replace(":", "").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _claimed(mark: Path, tar: bool) -> dict[str, Any]:
    """What the mark of the folder, or of a part of it, says, which is written where it is new.
    Raises UsageError where it was packed in another form."""
    out, text = mark.parent, mark.read_text(encoding="utf-8") if mark.exists() else ""
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
            # Of the columns only the path may hold bytes that are no UTF-8.
            source = key.encode(errors=NAME_ERRORS).decode(errors="backslashreplace")
            lines.append([place, *cells, source, *prints, psnr, row.note])
    write_csv(path, lines)


def _report(out: Path, rows: Sequence[PackedVideo]) -> dict[str, Any]:
    good = [row for row in rows if not row.error]
    levels = [row.psnr for row in good if row.psnr is not None]
    return {
        "pack": str(out),
        "manifest": str(out / PACKED),
        "videos": len(good),
        "packed": len(levels),
        "failed": len(rows) - len(good),
        "shards": len(list(out.glob("*.tar"))),
        "source_bytes": sum(row.size for row in good),
        "bytes": sum(row.packed_size for row in good),
        "hours": round(sum(row.seconds for row in good) / 3600, 3),
        "psnr": round(sum(levels) / len(levels), 2) if levels else None,
        "least_psnr": min(levels, default=None),
        "originals": [{"path": row.path, "why": row.note} for row in good if row.note],
        "failures": [{"path": row.path, "why": row.error} for row in rows if row.error],
    }
