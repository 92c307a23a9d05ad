"""`froster search`: where in indexed videos something can be seen."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from froster.cli import options
from froster.cli.common import check_exists, load_model, start_torch
from froster.cli.options import number, option, switch
from froster.errors import UsageError
from froster.text.labels import check_labels
from froster.utils import strict_json as json
from froster.utils.progress import console, print_table, working


def search(
    index: Annotated[str, option("Folder that froster index wrote, or its address (s3://…).")],
    text: Annotated[str | None, option('What to look for: "a person surfing".')] = None,
    /,
    *,
    video: Annotated[
        Path | None, options.ADDRESS, option("Look for what is like this video.")
    ] = None,
    model: Annotated[options.Model, option("The index's model, if it lies elsewhere now.")] = None,
    root: Annotated[Path | None, option("Folder of the videos, if they lie elsewhere now.")] = None,
    top: Annotated[int, number("Answers.", 1)] = 10,
    by_video: Annotated[bool, option("The best answer of each video alone.")] = False,
    where: Annotated[
        str | None, option('Only segments that meet this condition, in SQL: "start > 60".')
    ] = None,
    exact: Annotated[
        bool, option("Compare every segment, also where the index has a search index.")
    ] = False,
    join: Annotated[bool, switch("Neighbouring segments are one answer.", "join")] = True,
    thumbnails: Annotated[Path | None, option("Pictures: a .png, a .jpg, or a folder.")] = None,
    clips: Annotated[
        Path | None, option("Folder to which the answers are cut, without sound.")
    ] = None,
    truncate: options.Truncate = False,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Where in the videos of an index is this to be seen?

    Example: froster search index "a person surfing" --thumbnails found.png
    """
    if (text is None) == (video is None):
        raise UsageError('say what to look for: a text, "a person surfing", or --video FILE')
    if text is not None:
        check_labels([text])
    if video is not None:
        check_exists(video)
    start_torch()
    from froster.inference import search as searching
    from froster.inference.index import check_not_empty
    from froster.inference.segment_files import check_outputs
    from froster.inference.store import Store
    from froster.report import thumbnails as pictures

    if thumbnails is not None:
        pictures.check_target(thumbnails)
    check_outputs([], clips)
    store = Store(index, root)
    check_not_empty(store)
    if where is not None:
        store.table.check(where)
    recognizer = load_model(
        model or store.source, device, precision, merge_tokens=store.merge_tokens
    )
    with working(f"reading {video.name}") if video else nullcontext():
        result = searching.search(
            store,
            text,
            video=video,
            model=recognizer,
            top=top,
            join=join,
            by_video=by_video,
            where=where,
            exact=exact,
            truncate=truncate,
        )
    if thumbnails is not None:
        with working("reading the pictures"):
            title = text or f"like {video}"
            pictures.thumbnails(result.hits, store.root, thumbnails, title)
    files = []
    if clips is not None:
        with working("cutting the clips"):
            files = searching.cut_hits(result.hits, store.root, clips)
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    rows = [
        (place, f"{hit.score:.3f}", pictures.span(hit), hit.entry.path)
        for place, hit in enumerate(result.hits, 1)
    ]
    print_table(("", "score", "when", "video"), rows)
    if result.estimated:
        console.print("estimated: not every segment was compared (--exact compares all)")
    if result.left_out:
        console.print(f"{video} is in the index itself and is left out")
    if thumbnails is not None:
        console.print(f"pictures: {thumbnails}")
    if clips is not None:
        console.print(f"clips: {len(files)} in {clips}")
