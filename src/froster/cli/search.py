"""`froster search`: where in indexed videos something can be seen."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.table import Table

from froster.cli.common import load_model, there
from froster.cli.index import check_comparable, check_model
from froster.encoders.model import unit
from froster.errors import DataError, UsageError
from froster.inference.recognizer import Recognizer
from froster.inference.search import Hit, search
from froster.inference.store import Store
from froster.report.sheet import check_target, span, thumbnails
from froster.text.labels import check_labels
from froster.utils import strict_json as json
from froster.utils.progress import console, output, working
from froster.video.windows import ReadSegments, VideoSegment


def run(
    index: Path,
    text: str | None,
    *,
    video: Path | None,
    model: str | None,
    root: Path | None,
    top: int,
    by_video: bool,
    join: bool,
    pictures: Path | None,
    truncate: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster search` does; the options are described there."""
    if (text is None) == (video is None):
        raise UsageError('say what to look for: a text, "a person surfing", or --video FILE')
    if text is not None:
        check_labels([text])
    if video is not None:
        there(video)
    if pictures is not None:
        check_target(pictures)
    store = Store(index, root)
    if not store.places:
        raise DataError(f"{index}: there is no video in this index yet")
    recognizer = load_model(model or store.about["source"], device, precision)
    check_comparable(recognizer)
    check_model(store, recognizer)
    if text is not None:
        query = recognizer.embed_text([text], truncate)[0]
    else:
        assert video is not None
        with working(f"reading {video.name}"):
            query = embed_video(recognizer, video, float(store.about["segment"]))
    own = [] if video is None else itself(store, video, store.root)
    hits = search(store, query, top, join=join, by_video=by_video, without=own)
    if pictures is not None:
        with working("reading the pictures"):
            thumbnails(hits, store.root, pictures, text or f"like {video}")
    if as_json:
        found = [
            {
                "video": str(hit.path(store.root)),
                "score": hit.score,
                "start": hit.start,
                "end": hit.end,
                "best": list(hit.best),
            }
            for hit in hits
        ]
        print(
            json.dumps(
                {
                    "query": text or str(video),
                    "videos": len(store.places),
                    "segments": store.segments,
                    "hits": found,
                }
            )
        )
        return
    show(hits)
    if own:
        console.print(f"{video} is in the index itself and is left out")
    if pictures is not None:
        console.print(f"pictures: {pictures}")


def itself(store: Store, video: Path, root: Path) -> list[str]:
    """The paths under which the index has this very file: that it is like itself is no answer."""
    size = video.stat().st_size
    entries = [place.entry for place in store.places.values() if place.entry.size == size]
    paths = [(entry.path, root / entry.path) for entry in entries]
    return [name for name, path in paths if path.exists() and path.samefile(video)]


def embed_video(recognizer: Recognizer, video: Path, seconds: float) -> torch.Tensor:
    """The mean of its segments, as a video of the index has it."""
    work = ReadSegments(
        recognizer.config.sampling.frames, recognizer.image_size, seconds, recognizer.preprocessing
    )
    segments = [part for part in work(str(video)) if isinstance(part, VideoSegment)]
    return unit(
        torch.cat(
            [recognizer.embed_clips(torch.from_numpy(part.clip)[None]) for part in segments]
        ).mean(0)
    )


def show(hits: list[Hit]) -> None:
    table = Table("", "score", "when", "video", box=None, pad_edge=False)
    for number, hit in enumerate(hits, 1):
        table.add_row(str(number), f"{hit.score:.3f}", span(hit), hit.entry.path)
    output.print(table)
