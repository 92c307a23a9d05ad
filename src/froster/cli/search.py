"""`froster search`: where in indexed videos something can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from froster.cli import options
from froster.cli.common import check_exists, load_model
from froster.cli.index import check_comparable, check_model
from froster.cli.options import number, option, switch
from froster.cli.output import print_table
from froster.errors import DataError, UsageError
from froster.text.labels import check_labels
from froster.utils import strict_json as json
from froster.utils.progress import console, working

if TYPE_CHECKING:
    from torch import Tensor

    from froster.inference.recognizer import Recognizer
    from froster.inference.search import Hit
    from froster.inference.store import Store


def search(
    index: Annotated[Path, option("Folder that froster index wrote.")],
    text: Annotated[str | None, option('What to look for: "a person surfing".')] = None,
    /,
    *,
    video: Annotated[Path | None, option("Look for what is like this video.")] = None,
    model: Annotated[options.Model, option("The index's model, if it lies elsewhere now.")] = None,
    root: Annotated[Path | None, option("Folder of the videos, if they lie elsewhere now.")] = None,
    top: Annotated[int, number("Answers.", 1)] = 10,
    by_video: Annotated[bool, option("The best answer of each video alone.")] = False,
    join: Annotated[
        bool, switch("Neighbouring segments that fit nearly as well are one answer.", "join")
    ] = True,
    thumbnails: Annotated[
        Path | None, option("A sheet of pictures (.png, .jpg), or a folder for them.")
    ] = None,
    truncate: options.Truncate = False,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Where in the videos of an index is this to be seen? Every segment is compared.

    Example: froster search index "a person surfing" --thumbnails found.png
    """
    if (text is None) == (video is None):
        raise UsageError('say what to look for: a text, "a person surfing", or --video FILE')
    if text is not None:
        check_labels([text])
    if video is not None:
        check_exists(video)
    from froster.inference import search as searching
    from froster.inference.store import Store
    from froster.report import sheet

    if thumbnails is not None:
        sheet.check_target(thumbnails)
    store = Store(index, root)
    if not store.places:
        raise DataError(f"{index}: there is no video in this index yet")
    recognizer = load_model(model or store.about["source"], device, precision)
    check_comparable(recognizer)
    check_model(store, recognizer)
    copies: list[str] = []
    if text is not None:
        query = recognizer.embed_text([text], truncate)[0]
    elif video is not None:
        with working(f"reading {video.name}"):
            query = embed_video(recognizer, video, float(store.about["segment"]))
        copies = copies_of(video, store)
    hits = searching.search(store, query, top, join=join, by_video=by_video, without=copies)
    if thumbnails is not None:
        with working("reading the pictures"):
            sheet.thumbnails(hits, store.root, thumbnails, text or f"like {video}")
    if as_json:
        report = {"query": text or str(video), "videos": len(store.places)}
        report |= {"segments": store.segments, "hits": [entry(hit, store) for hit in hits]}
        print(json.dumps(report))
        return
    rows = [
        (place, f"{hit.score:.3f}", sheet.span(hit), hit.entry.path)
        for place, hit in enumerate(hits, 1)
    ]
    print_table(("", "score", "when", "video"), rows)
    if copies:
        console.print(f"{video} is in the index itself and is left out")
    if thumbnails is not None:
        console.print(f"pictures: {thumbnails}")


def entry(hit: Hit, store: Store) -> dict[str, object]:
    return {
        "video": str(hit.path(store.root)),
        "score": hit.score,
        "start": hit.start,
        "end": hit.end,
        "best": list(hit.best),
    }


def copies_of(video: Path, store: Store) -> list[str]:
    """The paths under which the index has this very file: that it is like itself is no answer."""
    size = video.stat().st_size
    entries = [place.entry for place in store.places.values() if place.entry.size == size]
    paths = [(entry.path, store.root / entry.path) for entry in entries]
    return [name for name, path in paths if path.exists() and path.samefile(video)]


def embed_video(recognizer: Recognizer, video: Path, seconds: float) -> Tensor:
    """The mean of its segments, as a video of the index has it."""
    import torch

    from froster.encoders.model import unit
    from froster.video.windows import ReadSegments, VideoSegment

    config = recognizer.config
    read = ReadSegments(
        config.sampling.frames, recognizer.image_size, seconds, recognizer.preprocessing
    )
    clips = [part.clip for part in read(str(video)) if isinstance(part, VideoSegment)]
    return unit(
        torch.cat([recognizer.embed_clips(torch.from_numpy(clip)[None]) for clip in clips]).mean(0)
    )
