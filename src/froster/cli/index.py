"""`froster index`: the embeddings of many videos, segment by segment, for `froster search`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from froster.cli.classify import FEW
from froster.cli.common import announce, load_model, mention, spare_cores
from froster.data.listing import ListedVideo, list_videos
from froster.errors import UsageError
from froster.inference.failures import Failures
from froster.inference.identity import digest
from froster.inference.index import build
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer
from froster.inference.store import ABOUT, DTYPES, Store
from froster.methods import VideoCLIP
from froster.utils import strict_json as json
from froster.utils.files import absolute, refuse_current, sole_maker
from froster.utils.progress import console, output, progress


def run(
    videos: Sequence[Path],
    out: Path,
    model: str | None,
    *,
    files_from: Path | None,
    root: Path | None,
    segment: float | None,
    dtype: str | None,
    prune: bool,
    retry_failed: bool,
    workers: int | None,
    batch_size: int | None,
    limit: float,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster index` does; the options are described there."""
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"--dtype must be float16 or float32, not {dtype!r}")
    earlier = Store(out) if (out / ABOUT).exists() else None
    if prune:
        refuse_current(out)
        if earlier is not None:
            check_root(earlier)
    listing = list_videos(
        videos, files_from=files_from, root=root, base=earlier.root if earlier else None
    )
    mention(listing)
    recognizer = load_model(
        model or (earlier.about["source"] if earlier else None), device, precision
    )
    check_comparable(recognizer)
    announce(recognizer, model)
    with sole_maker(out):
        store = opened(out, recognizer, model, os.path.abspath(listing.root), segment, dtype)
        current = {video.key for video in listing if is_current(store, video)}
        failures = Failures(out / "failures.jsonl", current)
        todo = [video for video in listing if video.key not in current]
        if not retry_failed:
            todo = [video for video in todo if video.key not in failures.causes]
        earlier_keys = set(store.places)
        batch = batch_size or (32 if recognizer.device.type == "cuda" else 4)
        processes = workers if workers is not None else 0 if len(todo) <= FEW else spare_cores()
        with progress() as bars:
            bar = bars.add_task(
                "index", total=len(listing), completed=len(listing) - len(todo), note=""
            )

            def on_end(video: ListedVideo, error: str) -> None:
                if error:
                    failures.add(video.key, error)
                bars.update(
                    bar, advance=1, note=f"{len(failures.causes)} failed" if failures.causes else ""
                )

            try:
                build(
                    recognizer,
                    store,
                    todo,
                    workers=processes,
                    batch_size=batch,
                    limit=limit,
                    on_end=on_end,
                )
            finally:
                failures.close({video.key for video in todo if is_current(store, video)})
        added = [video.key for video in todo if is_current(store, video)]
        changed = sum(key in earlier_keys for key in added)
        gone = [key for key, place in store.places.items() if place.entry.is_gone(store.root)]
        if prune:
            check_root(store)  # once more: a disk may have gone while the videos were read
            store = store.without(gone)
    failed = [video.key for video in listing if video.key in failures.causes]
    report = {"index": str(out), "videos": len(store.places), "segments": store.segments}
    report |= {"new": len(added) - changed, "changed": changed, "gone": gone, "failed": len(failed)}
    report["passed_over"] = dict(listing.passed_over)
    show(report, prune, as_json)
    if failed:
        raise typer.Exit(1)


def check_comparable(model: Recognizer) -> None:
    """Raises UsageError for the networks that do not compare a video with one embedding of a text."""
    if type(model.model).classes is not VideoCLIP.classes:
        name = model.config.method.name
        raise UsageError(
            f"{name} has no one embedding of a text, so its videos cannot be indexed: use another"
            " model"
        )


def check_root(store: Store) -> None:
    """Raises UsageError where the folder of the videos is not there, as on a disk that is not
    mounted: all would be gone."""
    if not os.path.isdir(store.root):
        raise UsageError(
            f"{store.root}, the folder of the videos in {store.folder}, is not there (a disk that"
            " is not mounted?): --prune would take them all out"
        )


def opened(
    out: Path,
    model: Recognizer,
    source: str | None,
    root: str,
    segment: float | None,
    dtype: str | None,
) -> Store:
    """The index to add to, made if it is not there. Raises UsageError where it was made with
    another model or otherwise."""
    if not (out / ABOUT).exists():
        given = source or DEFAULT_MODEL
        about = {
            "made_by": "froster index",
            "model": digest(model),
            "source": absolute(given) if Path(given).exists() else given,
            "segment": segment or 4.0,
            "frames": model.config.sampling.frames,
            "dtype": dtype or "float16",
            "root": root,
        }
        return Store.create(out, about)
    store = Store(out)
    check_model(store, model)
    for name, value in (("segment", segment), ("dtype", dtype)):
        if value is not None and value != store.about[name]:
            raise UsageError(
                f"{out} was made with --{name} {store.about[name]}: leave --{name} out, or choose"
                " another --out"
            )
    return store


def check_model(store: Store, model: Recognizer) -> None:
    if store.model != digest(model) or store.about["frames"] != model.config.sampling.frames:
        raise UsageError(
            f"{store.folder} was made by another model ({store.about['source']}): pass that one"
            " with --model"
        )


def is_current(store: Store, video: ListedVideo) -> bool:
    place = store.places.get(video.key)
    return place is not None and place.entry.is_current(store.root)


def show(report: dict[str, Any], pruned: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    failed = (
        f"; {report['failed']} failed, see {report['index']}/failures.jsonl"
        if report["failed"]
        else ""
    )
    output.print(
        f"{report['index']}: {report['videos']} videos, {report['segments']} segments "
        f"({report['new']} new, {report['changed']} changed){failed}"
    )
    if report["gone"]:
        what = "taken out" if pruned else "still in the index, --prune takes them out"
        console.print(
            f"{len(report['gone'])} videos are gone, {what}: {', '.join(report['gone'][:3])}"
        )
