"""`froster watch`: which label now, from a camera, a stream or a file that plays."""

from __future__ import annotations

import contextlib
from pathlib import Path

from froster.cli.classify import given_labels, labels_file_of
from froster.cli.common import announce, load_model, there
from froster.inference.label_file import LabelFile
from froster.inference.watch import Sighting, Watch
from froster.utils import strict_json as json
from froster.utils.interrupt import Interrupted
from froster.utils.progress import console
from froster.utils.text import printable
from froster.video.live import Policy, StreamSource


def run(
    source: str,
    *,
    labels: str | None,
    labels_file: Path | None,
    model: str | None,
    window: float | None,
    stride: float | None,
    stall: float,
    reconnect: float,
    tries: int,
    seconds: float | None,
    limit: int | None,
    truncate: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Print a line a stride until the source, `seconds` or `limit` ends, or Ctrl-C comes."""
    where = StreamSource(source)
    if where.is_file or where.is_camera:
        there(source)  # before a model is loaded, or downloaded
    labels, labels_file = labels_file_of(labels, labels_file)
    names = given_labels(labels, labels_file)
    recognizer = load_model(model, device, precision)
    announce(recognizer, model)

    def note(text: str) -> None:
        if as_json:
            print(json.dumps({"event": text}), flush=True)
        else:
            console.print(text)

    policy = Policy(stall, reconnect, tries or None)
    lines = 0
    with contextlib.ExitStack() as stack:
        watch = Watch(
            recognizer,
            source,
            names,
            window=window,
            stride=stride,
            truncate=truncate,
            seconds=seconds,
            policy=policy,
            on_note=note,
        )
        stack.enter_context(watch)
        if labels_file is not None:
            stack.callback(LabelFile(labels_file, names, watch.relabel, watch.live.notes.put).close)
        try:
            for seen in watch:
                print(json.dumps(report(seen)) if as_json else printable(line(seen)), flush=True)
                lines += 1
                if lines == limit:
                    break
        except Interrupted:
            raise Interrupted(f"stopped; {summary(lines, watch)}") from None
    console.print(summary(lines, watch))


def report(seen: Sighting) -> dict[str, object]:
    return {
        "time": round(seen.time, 3),
        "label": seen.label,
        "answer": seen.answer,
        "score": round(seen.score, 4),
        "calibrated": seen.calibrated,
        "none": None if seen.none is None else round(seen.none, 4),
        "cosine": None if seen.cosine is None else round(seen.cosine, 4),
        "lag": round(seen.lag, 3),
        "dropped": seen.dropped,
        "skipped": seen.skipped,
        "scores": {
            label: round(score, 4) for label, score in zip(seen.labels, seen.scores, strict=True)
        },
    }


def line(seen: Sighting) -> str:
    behind = (
        f"   dropped {seen.dropped}, skipped {seen.skipped}" if seen.dropped or seen.skipped else ""
    )
    return (
        f"{seen.time:9.1f} s   {100 * seen.score:3.0f} %   {seen.label}   (lag {seen.lag:.2f}"
        f" s){behind}"
    )


def summary(lines: int, watch: Watch) -> str:
    again = watch.live.connections - 1
    return (
        f"{lines} lines, {watch.live.dropped} frames dropped, {watch.skipped} strides skipped, "
        f"{max(0, again)} reconnection{'' if again == 1 else 's'}"
    )
