"""`froster index`: the embeddings of many videos, segment by segment, for `froster search`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import (
    announce,
    batch_bar,
    device_of,
    engine_of,
    listed,
    load_model,
    show_result,
    start_torch,
)
from froster.cli.options import MACHINE, number, option, seconds
from froster.utils.progress import console, output, working

SHOWN = 3
"""Failures that are named."""


def index(
    videos: options.Videos = None,
    /,
    *,
    out: Annotated[
        str,
        option(
            "Folder of the index, or its address (s3://…); unchanged videos in it are passed over."
        ),
    ],
    files_from: options.FilesFrom = None,
    root: options.ListRoot = None,
    model: options.Model = None,
    merge_tokens: options.MergeTokens = None,
    segment: Annotated[float | None, seconds("Length of a segment; default: 4.", 0.1)] = None,
    dtype: Annotated[
        Literal["float16", "float32"] | None, option("Of the embeddings; default: float16.")
    ] = None,
    prune: Annotated[bool, option("Take out videos that are gone.")] = False,
    approximate: Annotated[
        bool | None,
        option(
            "Make a search index (IVF_HNSW_SQ), so that a search need not compare every segment;"
            " --no-approximate takes it away.",
            negative="--no-approximate",
        ),
    ] = None,
    convert: Annotated[
        bool, option("Make an index of froster 0.1 one of this version, in its place.")
    ] = False,
    shard: options.Shard = None,
    retry_failed: options.RetryFailed = False,
    workers: options.Workers = None,
    batch_size: Annotated[
        int | None, number("Segments a batch; default: 4, or 32 on a GPU.", 1, group=MACHINE)
    ] = None,
    time_limit: options.TimeLimit = 300,
    device: options.Device = None,
    precision: options.Precision = "auto",
    runtime: options.Runtime = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    as_json: options.Json = False,
) -> None:
    """Make or extend an index of videos, segment by segment, for froster search.

    Several processes may write to one index. Example: froster index videos/ --out index
    --model nano
    """
    from froster.data.shards import parse_shard

    part = parse_shard(shard)
    start_torch()
    from froster.inference import index as indexing
    from froster.inference.approximate import PAYS_FROM, is_estimated
    from froster.inference.batch import ReadOptions
    from froster.inference.old_index import convert as convert_index
    from froster.inference.store import Store

    by = engine_of(engine, address, "cpu" if runtime else device)
    device = device or device_of(part)
    report: dict[str, Any] = {"index": out}
    if convert:
        report |= convert_index(Path(out))
    recognizer = None
    if videos or files_from is not None or not (convert or approximate is not None):
        earlier = indexing.open_index(out)
        if prune:
            indexing.check_prunable(out, earlier)
        base = earlier.root if earlier else None
        listing = listed(videos, files_from, root, base)
        if merge_tokens is None and earlier:
            merge_tokens = earlier.merge_tokens
        source = model or (earlier.source if earlier else None)
        recognizer = load_model(
            source, device, precision, runtime=runtime, merge_tokens=merge_tokens
        )
        indexing.check_comparable(recognizer)
        announce(recognizer, model)
        with batch_bar("index") as on_progress:
            report |= indexing.index(
                recognizer,
                listing,
                out,
                settings=indexing.IndexSettings(segment, dtype, prune, retry_failed),
                options=ReadOptions(workers, batch_size, time_limit, engine=by),
                shard=part,
                on_progress=on_progress,
            )
    if approximate is not None:
        store = Store(out)
        recognizer = recognizer or load_model(
            model or store.source, device, precision, merge_tokens=store.merge_tokens
        )
        with working("making the search index" if approximate else "taking it away"):
            report["recall"] = indexing.search_index(recognizer, store, approximate)
    elif report.get("segments", 0) > PAYS_FROM:
        report["slow"] = not is_estimated(Store(out))
    show_result(report, as_json, lambda report: show(report, prune))
    if report.get("failed"):
        raise SystemExit(1)


def show(report: dict[str, Any], pruned: bool) -> None:
    if "videos" in report:
        added = ""
        if "new" in report:
            added = f" ({report['new']} new, {report['changed']} changed)"
        failed = f"; {report['failed']} failed" if report.get("failed") else ""
        output.print(
            f"{report['index']}: {report['videos']} videos, {report['segments']} segments"
            f"{added}{failed}"
        )
    if report.get("slow"):
        console.print(
            f"a search compares all {report['segments']} segments: froster index --out"
            f" {report['index']} --approximate makes it faster, with estimated answers"
        )
    if report.get("recall"):
        recall = report["recall"]
        output.print(
            f"searches are estimated: recall at 10 of {recall['text']:.3f} for texts and"
            f" {recall['video']:.3f} for videos, in {recall['cells']} cells,"
            f" {recall['candidates']} candidates an answer"
        )
    failures = report.get("failures", {})
    for path, error in list(failures.items())[:SHOWN]:
        console.tell(f"{path}: {error.removeprefix(f'{path}: ')}")
    if len(failures) > SHOWN:
        console.tell(f"and {len(failures) - SHOWN} more: --json names all")
    if report.get("gone"):
        what = "taken out" if pruned else "still in the index, --prune takes them out"
        first = ", ".join(report["gone"][:3])
        console.print(f"{len(report['gone'])} videos are gone, {what}: {first}")
