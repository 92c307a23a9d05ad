"""`froster pack`: videos in a form that training reads fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from froster.cli import options
from froster.cli.common import batch_bar, engine_of, show_result, show_shard, start_torch
from froster.cli.options import number, option
from froster.errors import UsageError
from froster.utils.address import is_address
from froster.utils.progress import console, output

SHOWN = 20
"""Videos that were not packed, printed one by one."""


def pack(
    videos: options.Videos = None,
    /,
    *,
    out: Annotated[Path, option("Folder of the pack; what is in it unchanged is passed over.")],
    files_from: options.FilesFrom = None,
    root: options.ListRoot = None,
    tar: Annotated[bool, option("Tar shards with offset tables, in place of a file a video.")] = (
        False
    ),
    tar_size: Annotated[float, number("Gigabytes of a shard, about.", 1e-6, 1e6)] = 1.0,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    workers: options.Inspectors = None,
    time_limit: options.TimeLimit = 300,
    engine: options.EngineName = "local",
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Write videos small, without sound and with close key frames: training reads them several
    times as fast.

    Example: froster pack videos/ --out packed
    """
    start_torch()
    from froster.data import pack as packing
    from froster.data.diagnose import labels_of, rows_of
    from froster.data.listing import MANIFESTS, list_videos
    from froster.data.pack_folder import unpacked
    from froster.data.shards import parse_shard
    from froster.inference.results import BatchProgress
    from froster.utils.pool import cores
    from froster.utils.work import Means

    part, by = parse_shard(shard), engine_of(engine, address, None)
    sources = [unpacked(source) for source in videos or []]
    base = root
    if base is None and len(sources) == 1 and sources[0].suffix.lower() in MANIFESTS:
        base = sources[0].parent
    listing = list_videos(sources, files_from=files_from, root=root, base=base)
    check_out(out, sources)
    for note in listing.notes():
        console.tell(note)
    rows = rows_of(listing, labels_of(listing), sources, root)
    settings = packing.PackOptions(round(tar_size * 1e9) if tar else None, retry_failed)
    processes = cores() if workers is None else workers
    means = Means(by, processes if engine == "local" else workers, time_limit)
    with batch_bar("pack") as on_progress:
        report = packing.pack(
            listing,
            rows,
            out,
            settings,
            means,
            part,
            lambda *counts: on_progress(BatchProgress(*counts)),
        )
    if part.count > 1:
        show_result(report, as_json, show_shard)
        if report["errors"]:
            raise SystemExit(1)
        return
    show_result(report, as_json, show)
    if report["failed"]:
        raise SystemExit(1)


def check_out(out: Path, sources: list[Path]) -> None:
    """Raises UsageError where `out` lies in a folder of videos, or is one: they would be packed
    again by the next call."""
    for source in sources:
        if is_address(source):
            continue
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise UsageError(f"{out} lies in {source}, which is packed: choose another --out")


def show(report: dict[str, Any]) -> None:
    for what, lines in (("kept as it is", "originals"), ("not packed", "failures")):
        for line in report[lines][:SHOWN]:
            console.tell(f"{what}: {line['path']}: {line['why']}")
        if (more := len(report[lines]) - SHOWN) > 0:
            console.tell(f"{what}: {more} more, see {report['pack']}/packed.jsonl")
    kept = len(report["originals"])
    counts = [
        f"{report['videos']} videos",
        f"{report['hours']:.2f} h",
        f"{report['bytes'] / 1e9:.2f} GB of {report['source_bytes'] / 1e9:.2f} GB",
        *([f"{report['shards']} shards"] if report["shards"] else []),
        *([f"{kept} kept as they are"] if kept else []),
        *([f"{report['failed']} failed"] if report["failed"] else []),
    ]
    output.print(f"{report['pack']}: {', '.join(counts)}")
    if report["psnr"] is not None:
        output.print(
            f"likeness to the originals: PSNR {report['psnr']:.1f} dB on average,"
            f" {report['least_psnr']:.1f} dB at least"
        )
    output.print(f"froster train --data {report['pack']} …")
