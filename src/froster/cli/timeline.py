"""`froster timeline`: which label when, over a whole video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from froster.cli import options
from froster.cli.common import (
    announce,
    given_labels,
    listed,
    load_model,
    name_of,
    start_torch,
    tell_how_to_calibrate,
)
from froster.cli.options import MACHINE, number, option, seconds
from froster.errors import VideoError
from froster.utils import strict_json as json
from froster.utils.interrupt import Interrupted
from froster.utils.progress import console, output, print_table

if TYPE_CHECKING:
    from froster.inference.timeline import Timeline

SHORTER = "Shorter segments become part of a neighbour; with --multi-label they are left out."
SHOWN = 6
"""Files that are named; the others are counted."""


def timeline(
    videos: options.Videos = None,
    /,
    *,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    template: options.Templates = None,
    multi_label: options.MultiLabel = False,
    files_from: options.FilesFrom = None,
    root: options.ListRoot = None,
    out: Annotated[
        list[Path] | None,
        option(
            ".json, .csv, .srt, .vtt, .png, or for a label tool .activitynet.json,"
            " .labelstudio.json, .fiftyone.json, .eaf, .cvat.xml; may be repeated."
        ),
    ] = None,
    clips: Annotated[
        Path | None, option("Folder to which the segments are cut, without sound.")
    ] = None,
    window: options.Window = None,
    stride: options.Stride = None,
    min_segment: Annotated[float, seconds(SHORTER, 0)] = 0.0,
    model: options.Model = None,
    merge_tokens: options.MergeTokens = None,
    batch_size: Annotated[int, number("Windows a batch.", 1, group=MACHINE)] = 8,
    truncate: options.Truncate = False,
    device: options.Device = None,
    precision: options.Precision = "auto",
    runtime: options.Runtime = None,
    as_json: options.Json = False,
) -> None:
    """Which of these labels when? Segments with start, end, label and score, over videos of any
    length.

    Example: froster timeline holiday.mp4 --labels "surfing, skiing, cooking" --out holiday.srt
    --out holiday.png
    """
    names = given_labels(labels, labels_file)
    listing = listed(videos, files_from, root)
    start_torch()
    from froster.inference.segment_files import (
        VideoTimeline,
        check_outputs,
        clip_folders,
        cut_clips,
        form_of,
        write_timelines,
    )
    from froster.inference.timeline import Scan, follow

    outputs = out or []
    check_outputs(outputs, clips)
    several = len(listing) > 1
    places = clip_folders(listing.keys, clips) if clips else {}
    recognizer = load_model(
        *(model, device, precision), templates=template, runtime=runtime, merge_tokens=merge_tokens
    )
    announce(recognizer, model)
    about = {"model": name_of(model)}
    results: list[VideoTimeline] = []
    errors: list[dict[str, str]] = []
    written: list[Path] = []
    stopped: Interrupted | None = None
    for video in listing:
        scan = Scan(
            recognizer,
            names,
            window=window,
            stride=stride,
            shortest=min_segment,
            batch_size=batch_size,
            truncate=truncate,
            multi_label=multi_label,
        )
        try:
            follow(scan, video.path)
        except Interrupted as error:  # what was found until then is written
            stopped = error
            if not scan.logits:
                break
        except VideoError as error:
            if not several:
                raise
            errors.append({"video": str(video.path), "error": str(error)})
            continue
        results.append(VideoTimeline(video.path, video.key, scan.result()))
        for path in outputs:
            if several and not form_of(path).several:  # at once: the rest may take hours
                written += write_timelines(results[-1:], path, about, several)
        written += cut_clips(results[-1], places[video.key]) if clips else []
        if not as_json:
            show(results[-1].timeline, str(video.path) if several else "")
        remark(results[-1].timeline, str(video.path) if several else "")
        if stopped:
            break
    if stopped and not results:
        raise stopped
    for path in outputs:
        if results and (form_of(path).several or not several):
            written += write_timelines(results, path, about, several)
    if as_json:
        rows = [{"video": str(one.path), **about, **one.timeline.to_dict()} for one in results]
        print(json.dumps({**about, "results": [*rows, *errors]} if several else rows[0]))
    else:
        tell_how_to_calibrate(recognizer, model)
    for entry in errors:
        console.print(entry["error"], style="red", soft_wrap=True)
    tell_files(written)
    if stopped:
        end = results[-1].timeline.end
        raise Interrupted(
            f"stopped at {clock(end, end)} of {'the last' if several else 'the'} video; what was"
            f" found until then is {'written' if outputs else 'above'}"
        )
    if errors:
        raise SystemExit(1)


def show(timeline: Timeline, title: str) -> None:
    rows = []
    for segment in timeline.segments:
        times = (clock(second, timeline.end) for second in (segment.start, segment.end))
        score = segment.score
        rows.append((*times, segment.label, f"{100 * score:.1f} %", "█" * round(20 * score)))
    if title:
        output.print(title)
    if rows or timeline.thresholds is None:
        print_table(("from", "to", "label", "score", ""), rows)
    else:
        console.print("no label reaches its threshold anywhere")


def remark(timeline: Timeline, name: str) -> None:
    """What is wrong with the file."""
    name = f"{name}: " if name else ""
    if timeline.damaged:
        console.print(f"{name}damaged: {timeline.damaged} packets or frames could not be decoded")
    stated = timeline.stated or 0.0
    if timeline.complete and stated - timeline.end > max(1.0, 0.02 * stated):
        ends = f"the file states {stated:.1f} s but ends at {timeline.end:.1f} s"
        console.print(f"{name}{ends}: it was cut, or is damaged")


def tell_files(written: Sequence[Path]) -> None:
    if written:
        more = f"   and {len(written) - SHOWN} more" if len(written) > SHOWN else ""
        console.print(f"written: {'   '.join(map(str, written[:SHOWN]))}{more}")


def clock(seconds: float, longest: float) -> str:
    from froster.inference.lanes import clock

    return clock(seconds, longest)
