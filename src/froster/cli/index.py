"""`froster index`: the embeddings of many videos, segment by segment, for `froster search`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import FEW, announce, load_model, mention, name_of, spare_cores
from froster.cli.options import MACHINE, number, option, seconds
from froster.errors import UsageError
from froster.utils import strict_json as json
from froster.utils.progress import console, output, progress

if TYPE_CHECKING:
    from froster.data.listing import ListedVideo
    from froster.inference.recognizer import Recognizer
    from froster.inference.store import Store


def index(
    videos: options.Videos = None,
    /,
    *,
    out: Annotated[
        Path, option("Folder of the index; unchanged videos that it has are passed over.")
    ],
    files_from: options.FilesFrom = None,
    root: options.ListRoot = None,
    model: options.Model = None,
    segment: Annotated[float | None, seconds("Length of a segment; default: 4.", 0.1)] = None,
    dtype: Annotated[
        Literal["float16", "float32"] | None, option("Of the embeddings; default: float16.")
    ] = None,
    prune: Annotated[bool, option("Take out videos that are gone.")] = False,
    retry_failed: options.RetryFailed = False,
    workers: options.Workers = None,
    batch_size: Annotated[
        int | None, number("Segments a batch; default: 4, or 32 on a GPU.", 1, group=MACHINE)
    ] = None,
    time_limit: options.TimeLimit = 300,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Make or extend an index of videos, segment by segment, for froster search.

    Example: froster index videos/ --out index --model nano
    """
    from froster.data.listing import list_videos
    from froster.inference.failures import Failures
    from froster.inference.index import build
    from froster.inference.store import ABOUT, Store
    from froster.utils.files import refuse_current, sole_maker

    earlier = Store(out) if (out / ABOUT).exists() else None
    if prune:
        refuse_current(out)
        if earlier is not None:
            check_root(earlier)
    base = earlier.root if earlier else None
    listing = list_videos(videos or [], files_from=files_from, root=root, base=base)
    mention(listing)
    source = model or (earlier.about["source"] if earlier else None)
    recognizer = load_model(source, device, precision)
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
        if workers is None:
            workers = 0 if len(todo) <= FEW else spare_cores()
        with progress() as bars:
            done = len(listing) - len(todo)
            bar = bars.add_task("index", total=len(listing), completed=done, note="")

            def on_end(video: ListedVideo, error: str) -> None:
                if error:
                    failures.add(video.key, error)
                note = f"{len(failures.causes)} failed" if failures.causes else ""
                bars.update(bar, advance=1, note=note)

            try:
                build(
                    recognizer,
                    store,
                    todo,
                    workers=workers,
                    batch_size=batch,
                    limit=time_limit,
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
    report = {
        "index": str(out),
        "videos": len(store.places),
        "segments": store.segments,
        "new": len(added) - changed,
        "changed": changed,
        "gone": gone,
        "failed": len(failed),
        "passed_over": dict(listing.passed_over),
    }
    if as_json:
        print(json.dumps(report))
    else:
        show(report, prune)
    if failed:
        raise SystemExit(1)


def check_comparable(model: Recognizer) -> None:
    """Raises UsageError for the networks that do not compare a video with one embedding of a text."""
    from froster.methods import VideoCLIP

    if type(model.model).classes is not VideoCLIP.classes:
        name = model.config.method.name
        raise UsageError(
            f"{name} has no one embedding of a text, so its videos cannot be indexed: use another"
            " model"
        )


def check_root(store: Store) -> None:
    """Raises UsageError where the folder of the videos does not exist, as on a disk that is not
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
    """The index to add to, made if it does not exist. Raises UsageError where it was made with
    another model or otherwise."""
    from froster.inference.identity import digest
    from froster.inference.store import ABOUT, Store
    from froster.utils.files import absolute

    if not (out / ABOUT).exists():
        given = name_of(source)
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
    from froster.inference.identity import digest

    if store.model != digest(model) or store.about["frames"] != model.config.sampling.frames:
        raise UsageError(
            f"{store.folder} was made by another model ({store.about['source']}): pass that one"
            " with --model"
        )


def is_current(store: Store, video: ListedVideo) -> bool:
    place = store.places.get(video.key)
    return place is not None and place.entry.is_current(store.root)


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
