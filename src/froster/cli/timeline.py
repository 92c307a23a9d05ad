"""`froster timeline`: which label when, over a whole video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from froster.cli.classify import given_labels
from froster.cli.common import announce, how_to_calibrate, load_model, there
from froster.inference.recognizer import DEFAULT_MODEL
from froster.inference.timeline import Scan, Timeline
from froster.report.lanes import clock
from froster.report.timeline import check_outputs, write
from froster.utils import strict_json as json
from froster.utils.interrupt import Interrupted
from froster.utils.progress import console, output, progress


def run(
    video: str,
    *,
    labels: str | None,
    labels_file: Path | None,
    model: str | None,
    window: float | None,
    stride: float | None,
    min_segment: float,
    out: Sequence[Path] | None,
    batch_size: int,
    truncate: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster timeline` does; the options are described there. What was found is
    written on Ctrl-C too."""
    there(video)
    names = given_labels(labels, labels_file)
    outputs = list(out or [])
    check_outputs(outputs)
    recognizer = load_model(model, device, precision)
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
    except Interrupted:
        if not scan.logits:
            raise
        stopped = True
    found = scan.result()
    about = {"video": video, "model": model or DEFAULT_MODEL}
    for path in outputs:
        write(found, path, about)
    if as_json:
        print(json.dumps({**about, **found.to_dict()}))
    else:
        show(found)
        if (hint := how_to_calibrate(recognizer, model)) is not None:
            console.print(hint, soft_wrap=True)
    remarks(found, outputs)
    if stopped:
        at = clock(found.end, found.end)
        raise Interrupted(
            f"stopped at {at} of the video; what was found until then is"
            f" {'written' if outputs else 'above'}"
        )


def follow(scan: Scan, video: str) -> None:
    """The scan, with a bar in seconds of the video. Where the file states no length, its bytes tell
    how much is left."""
    with progress() as bars:
        bar = bars.add_task("timeline, seconds of video", total=None, note="")
        for seen in scan.run(video):
            stream = scan.stream
            total = stream.duration if stream else None
            if stream and total is None and stream.share:
                total = seen / stream.share
            bars.update(
                bar,
                completed=round(seen),
                total=None if total is None else max(round(total), round(seen)),
            )
        bars.update(bar, total=round(seen), completed=round(seen))


def show(found: Timeline) -> None:
    table = Table("from", "to", "label", "score", "", box=None, pad_edge=False)
    for segment in found.segments:
        bar = "█" * round(20 * segment.score)
        start, end = clock(segment.start, found.end), clock(segment.end, found.end)
        table.add_row(start, end, segment.label, f"{100 * segment.score:.1f} %", bar)
    output.print(table)


def remarks(found: Timeline, outputs: Sequence[Path]) -> None:
    """What is wrong with the file, and where the results are."""
    if found.damaged:
        console.print(
            f"damaged: {found.damaged} packets or frames could not be decoded and were passed over"
        )
    if (
        found.complete
        and found.stated is not None
        and found.stated - found.end > max(1.0, 0.02 * found.stated)
    ):
        console.print(
            f"the file states {found.stated:.1f} s but ends at {found.end:.1f} s: it was cut, or is"
            " damaged"
        )
    if outputs:
        console.print(f"written: {'   '.join(map(str, outputs))}")
