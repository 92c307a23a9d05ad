"""`froster timeline`: which label when, over a whole video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from froster.cli import options
from froster.cli.common import (
    announce,
    check_exists,
    given_labels,
    load_model,
    name_of,
    print_table,
    show_result,
    tell_how_to_calibrate,
)
from froster.cli.options import MACHINE, number, option, seconds
from froster.utils.interrupt import Interrupted
from froster.utils.progress import console

if TYPE_CHECKING:
    from froster.inference.timeline import Timeline


def timeline(
    video: Annotated[str, option("A video file of any length.")],
    /,
    *,
    labels: options.Labels = None,
    labels_file: options.LabelsFile = None,
    template: options.Templates = None,
    out: Annotated[
        list[Path] | None, option("A .json, .csv, .srt, .vtt or .png (a picture); may be repeated.")
    ] = None,
    window: options.Window = None,
    stride: options.Stride = None,
    min_segment: Annotated[float, seconds("Shorter segments become part of a neighbour.", 0)] = 0.0,
    model: options.Model = None,
    batch_size: Annotated[int, number("Windows a batch.", 1, group=MACHINE)] = 8,
    truncate: options.Truncate = False,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """Which of these labels when? Segments with start, end, label and score, over a video of any
    length.

    Example: froster timeline holiday.mp4 --labels "surfing, skiing, cooking" --out holiday.srt
    --out holiday.png
    """
    check_exists(video)
    names = given_labels(labels, labels_file)
    from froster.inference.lanes import clock, draw_timeline
    from froster.inference.subtitles import check_outputs, write_timeline
    from froster.inference.timeline import Scan, follow

    outputs = out or []
    check_outputs(outputs)
    recognizer = load_model(model, device, precision, templates=template)
    announce(recognizer, model)
    scan = Scan(
        recognizer,
        names,
        window=window,
        stride=stride,
        shortest=min_segment,
        batch_size=batch_size,
        truncate=truncate,
    )
    stopped = False
    try:
        follow(scan, video)
    except Interrupted:  # what was found until then is written
        if not scan.logits:
            raise
        stopped = True
    result = scan.result()
    about = {"video": video, "model": name_of(model)}
    for path in outputs:
        if path.suffix.lower() == ".png":
            draw_timeline(result, Path(video).name, path)
        else:
            write_timeline(result, path, about)
    show_result({**about, **result.to_dict()}, as_json, lambda _: show(result))
    if not as_json:
        tell_how_to_calibrate(recognizer, model)
    remark(result, outputs)
    if stopped:
        at = clock(result.end, result.end)
        raise Interrupted(
            f"stopped at {at} of the video; what was found until then is"
            f" {'written' if outputs else 'above'}"
        )


def show(timeline: Timeline) -> None:
    from froster.inference.lanes import clock

    rows = []
    for segment in timeline.segments:
        times = (clock(second, timeline.end) for second in (segment.start, segment.end))
        score = segment.score
        rows.append((*times, segment.label, f"{100 * score:.1f} %", "█" * round(20 * score)))
    print_table(("from", "to", "label", "score", ""), rows)


def remark(timeline: Timeline, outputs: Sequence[Path]) -> None:
    """What is wrong with the file, and where the results are."""
    if timeline.damaged:
        console.print(f"damaged: {timeline.damaged} packets or frames could not be decoded")
    stated = timeline.stated or 0.0
    if timeline.complete and stated - timeline.end > max(1.0, 0.02 * stated):
        ends = f"the file states {stated:.1f} s but ends at {timeline.end:.1f} s"
        console.print(f"{ends}: it was cut, or is damaged")
    if outputs:
        console.print(f"written: {'   '.join(map(str, outputs))}")
