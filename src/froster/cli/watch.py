"""`froster watch`: which label now, from a camera, a stream or a file that plays."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from froster.cli import options
from froster.cli.common import (
    announce,
    check_exists,
    given_labels,
    labels_file_of,
    load_model,
    start_torch,
)
from froster.cli.options import number, option, seconds
from froster.utils import strict_json as json
from froster.utils.address import refuse_address
from froster.utils.interrupt import Interrupted
from froster.utils.progress import console
from froster.utils.text import printable

if TYPE_CHECKING:
    from froster.inference.watch import Watch, WatchResult


def watch(
    source: Annotated[str, option("rtsp://…, http://…, /dev/video0, or a file.")],
    /,
    *,
    labels: options.Labels = None,
    labels_file: Annotated[options.LabelsFile, option("Read again whenever it changes.")] = None,
    template: options.Templates = None,
    window: options.Window = None,
    stride: options.Stride = None,
    stall: Annotated[float, seconds("Without a frame, after which to reconnect.", 0.1)] = 10.0,
    reconnect: Annotated[float, seconds("To the first new try; then twice as many each.", 0)] = 1.0,
    tries: Annotated[int, number("Tries in a row before giving up; 0: never give up.", 0)] = 0,
    seconds: Annotated[float | None, seconds("Stop after this time.", 0)] = None,
    limit: Annotated[int | None, number("Stop after this many lines.", 1)] = None,
    out: Annotated[Path | None, option("Add each line to a .jsonl or .csv.")] = None,
    webhook: Annotated[
        str | None, option("POST each line to this address, signed by FROSTER_WEBHOOK_SECRET.")
    ] = None,
    model: options.Model = None,
    merge_tokens: options.MergeTokens = None,
    truncate: options.Truncate = False,
    device: options.Device = None,
    precision: options.Precision = "auto",
    runtime: options.Runtime = None,
    as_json: Annotated[options.Json, option("Print one JSON object a line.")] = False,
) -> None:
    """Which of these labels now? A line a stride, from a camera, a stream or a file that plays at
    its own speed.

    Example: froster watch rtsp://camera.local/live --labels-file labels.txt --model runs/first
    --json
    """
    start_torch()
    from froster.inference.sinks import SECRET, AnswerLog, Webhook, check_log, entry_of
    from froster.inference.watch import LabelFile, Watch
    from froster.video.live import Policy, StreamSource

    where = StreamSource(source)
    if where.is_file or where.is_camera:
        check_exists(source)  # before a model is loaded, or downloaded
    if out is not None:
        check_log(out)
    refuse_address(labels_file)
    labels, labels_file = labels_file_of(labels, labels_file)
    names = given_labels(labels, labels_file)
    recognizer = load_model(
        *(model, device, precision), templates=template, runtime=runtime, merge_tokens=merge_tokens
    )
    announce(recognizer, model)

    def note(text: str) -> None:
        if as_json:
            print(json.dumps({"event": text}), flush=True)
        else:
            console.print(text)

    lines = 0
    with contextlib.ExitStack() as stack:
        sinks: list[AnswerLog | Webhook] = []
        if out is not None:
            sinks.append(AnswerLog(out))
            stack.callback(sinks[-1].close)
        if webhook is not None:
            hook = Webhook(webhook, note)
            sinks.append(hook)
            stack.callback(hook.close)
            if not hook.secret:
                note(f"webhook: requests are not signed, as {SECRET} is not set")
        watch = Watch(
            recognizer,
            source,
            names,
            window=window,
            stride=stride,
            truncate=truncate,
            seconds=seconds,
            policy=Policy(stall, reconnect, tries or None),
            on_note=note,
        )
        stack.enter_context(watch)
        if labels_file is not None:
            follow = LabelFile(labels_file, names, watch.relabel, watch.live.notes.put)
            stack.callback(follow.close)
        try:
            for answer in watch:
                text = json.dumps(answer.to_dict()) if as_json else printable(line(answer))
                print(text, flush=True)
                entry = entry_of(answer, source) if sinks else {}
                for sink in sinks:
                    sink.send(entry)
                lines += 1
                if lines == limit:
                    break
        except Interrupted:
            raise Interrupted(f"stopped; {summary(lines, watch)}") from None
    console.print(summary(lines, watch))


def line(answer: WatchResult) -> str:
    behind = ""
    if answer.dropped or answer.skipped:
        behind = f"   dropped {answer.dropped}, skipped {answer.skipped}"
    score = f"{100 * answer.score:3.0f} %"
    return f"{answer.time:9.1f} s   {score}   {answer.label}   (lag {answer.lag:.2f} s){behind}"


def summary(lines: int, watch: Watch) -> str:
    again = max(0, watch.live.connections - 1)
    return (
        f"{lines} lines, {watch.live.dropped} frames dropped, {watch.skipped} strides skipped,"
        f" {again} reconnection{'' if again == 1 else 's'}"
    )
