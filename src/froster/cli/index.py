"""`froster index`: the embeddings of many videos, segment by segment, for `froster search`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import (
    announce,
    batch_bar,
    device_of,
    engine_of,
    load_model,
    mention,
    show_result,
)
from froster.cli.options import MACHINE, number, option, seconds
from froster.utils.progress import console, output


def index(
    videos: options.Videos = None,
    /,
    *,
    out: Annotated[Path, option("Folder of the index; unchanged videos in it are passed over.")],
    files_from: options.FilesFrom = None,
    root: options.ListRoot = None,
    model: options.Model = None,
    segment: Annotated[float | None, seconds("Length of a segment; default: 4.", 0.1)] = None,
    dtype: Annotated[
        Literal["float16", "float32"] | None, option("Of the embeddings; default: float16.")
    ] = None,
    prune: Annotated[bool, option("Take out videos that are gone.")] = False,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    workers: options.Workers = None,
    batch_size: Annotated[
        int | None, number("Segments a batch; default: 4, or 32 on a GPU.", 1, group=MACHINE)
    ] = None,
    time_limit: options.TimeLimit = 300,
    device: options.Device = None,
    precision: options.Precision = "auto",
    engine: options.EngineName = "local",
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Make or extend an index of videos, segment by segment, for froster search.

    Example: froster index videos/ --out index --model nano
    """
    from froster.data.listing import list_videos
    from froster.data.shards import parse_shard
    from froster.inference import index as indexing
    from froster.inference.batch import ReadOptions

    part, by = parse_shard(shard), engine_of(engine, address, device)
    out = part.file(out)
    earlier = indexing.open_index(out)
    if prune:
        indexing.check_prunable(out, earlier)
    base = earlier.root if earlier else None
    listing = list_videos(videos or [], files_from=files_from, root=root, base=base)
    mention(listing)
    device = device or device_of(part)
    source = model or (earlier.source if earlier else None)
    recognizer = load_model(source, device, precision)
    indexing.check_comparable(recognizer)
    announce(recognizer, model)
    with batch_bar("index") as on_progress:
        report = indexing.index(
            recognizer,
            listing,
            out,
            settings=indexing.IndexSettings(segment, dtype, prune, retry_failed),
            options=ReadOptions(workers, batch_size, time_limit, engine=by),
            shard=part,
            on_progress=on_progress,
        )
    show_result(report, as_json, lambda report: show(report, prune))
    if report["failed"]:
        raise SystemExit(1)


def show(report: dict[str, Any], pruned: bool) -> None:
    failed = ""
    if report["failed"]:
        failed = f"; {report['failed']} failed, see {report['index']}/failures.jsonl"
    output.print(
        f"{report['index']}: {report['videos']} videos, {report['segments']} segments "
        f"({report['new']} new, {report['changed']} changed){failed}"
    )
    if report["gone"]:
        what = "taken out" if pruned else "still in the index, --prune takes them out"
        first = ", ".join(report["gone"][:3])
        console.print(f"{len(report['gone'])} videos are gone, {what}: {first}")
