"""`froster classify`: which label fits each video, shown or written to a file that a stopped run
goes on with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from froster.cli.common import announce, how_to_calibrate, load_model, mention
from froster.data.listing import Listing, list_videos
from froster.data.shards import Shard, parse_shard
from froster.errors import UsageError
from froster.evaluation.calibration import NONE, with_none
from froster.inference.batch import Reading, answers, classify, row_classification
from froster.inference.recognizer import DEFAULT_MODEL, Recognizer
from froster.inference.results import BatchProgress, ResultRow, check_suffix
from froster.text.prompts import check_labels, label_file, read_label_set, split_labels
from froster.utils import strict_json as json
from froster.utils.printable import short_names
from froster.utils.progress import console, output, progress, working


def run(
    videos: Sequence[Path],
    labels: str | None,
    labels_file: Path | None,
    model: str | None,
    *,
    files_from: Path | None,
    root: Path | None,
    out: Path | None,
    shard: str | None,
    retry_failed: bool,
    reading: Reading,
    views: int | None,
    sampling: str | None,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster classify` does. A video that cannot be read is listed with its cause, and
    the exit code is 1."""
    part = parse_shard(shard)
    if out is not None:
        check_suffix(out)
    elif part.count > 1 or retry_failed:
        raise UsageError("--shard and --retry-failed are about a file of results: give --out")
    names = given_labels(labels, labels_file)
    listing = list_videos(videos, files_from=files_from, root=root)
    mention(listing)
    recognizer = load_model(
        model, device or own_device(part), precision, sampling=sampling, views=views
    )
    recognizer.class_embeddings(names, reading.truncate)  # once for all videos
    if out is None:
        failed = print_all(recognizer, names, listing, reading, model, as_json)
    else:
        announce(recognizer, model)
        with progress() as bars:
            bar = bars.add_task("classify", total=None, note="")

            def on_progress(now: BatchProgress) -> None:
                note = f"{now.failed} failed" if now.failed else ""
                bars.update(bar, completed=now.done, total=now.total, note=note)

            report = classify(
                recognizer,
                listing,
                names,
                out,
                reading=reading,
                shard=part,
                retry_failed=retry_failed,
                on_progress=on_progress,
            )
        failed = report["failed"] > 0
        if as_json:
            print(json.dumps(report))
        else:
            why = f"; {report['failed']} failed, see {report['failures']}" if failed else ""
            output.print(f"{report['out']}: {report['rows']} of {report['videos']} videos{why}")
            tell_how_to_calibrate(recognizer, model)
    if failed:
        raise typer.Exit(1)


def given_labels(labels: str | None, labels_file: Path | None) -> list[str]:
    if (labels is None) == (labels_file is None):
        raise UsageError('give the labels, either --labels "a, b, c" or --labels-file FILE')
    labels, labels_file = labels_file_of(labels, labels_file)
    if labels_file is not None:
        return read_label_set(labels_file)
    names = split_labels(labels or "")
    check_labels(names)
    return names


def labels_file_of(labels: str | None, labels_file: Path | None) -> tuple[str | None, Path | None]:
    """The two options, with a file that was given as `--labels` in its own place, which is said."""
    if labels is None or labels_file is not None or (file := label_file(labels)) is None:
        return labels, labels_file
    console.print(f"--labels {file}: read as a file of labels", soft_wrap=True)
    return None, file


def own_device(part: Shard) -> str | None:
    """The GPU that torchrun gives this process, where there is one."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if part.count > 1 and local.isdecimal() and torch.cuda.is_available():
        return f"cuda:{int(local) % torch.cuda.device_count()}"
    return None


def print_all(
    recognizer: Recognizer,
    names: list[str],
    videos: Listing,
    reading: Reading,
    model: str | None,
    as_json: bool,
) -> bool:
    """Shows the answers to all videos; whether some failed."""
    results: list[dict[str, Any]] = []
    one = len(videos) == 1
    with (
        progress(quiet=one) as bars,
        working(f"reading {videos[0].path.name}", None) if one else nullcontext(),
    ):
        bar = bars.add_task("classify", total=len(videos), note="")
        for batch in answers(recognizer, names, videos, reading):
            for answer in batch:
                result: dict[str, Any] = {"video": str(answer.video.path)}
                if answer.row is None:
                    result["error"] = f"{answer.video.path}: {answer.error}"
                else:
                    result |= shown(answer.row)
                results.append(result)
            bars.update(bar, advance=len(batch), note=batch[-1].video.path.name[:40])
    calibrated = recognizer.calibration.fitted is not None
    if as_json:
        about = {"model": model or DEFAULT_MODEL, "labels": names, "calibrated": calibrated}
        print(json.dumps({**about, "passed_over": dict(videos.passed_over), "results": results}))
    else:
        show(results)
        tell_how_to_calibrate(recognizer, model)
    return any("error" in result for result in results)


def tell_how_to_calibrate(recognizer: Recognizer, model: str | None) -> None:
    if (hint := how_to_calibrate(recognizer, model)) is not None:
        console.tell(hint)


def shown(row: ResultRow) -> dict[str, Any]:
    """A row as it is printed: with every score the probability, which leaves room for "none of
    these" where there is a rule."""
    found = row_classification(row)
    entries = zip(found.labels, found.scores, found.probabilities, strict=True)
    scores = [
        {"label": label, "score": score, "probability": probability}
        for label, score, probability in entries
    ]
    return {
        "label": found.label,
        "answer": found.answer,
        "none": found.none,
        "cosine": found.cosine,
        "scores": scores,
    }


def show(results: list[dict[str, Any]]) -> None:
    """The labels and "none of these", the likeliest first, the answer in bold; without a none rule
    the scores, and the best label's cosine. Then what failed."""
    ruled = any(result.get("none") is not None for result in results)
    cosines = not ruled and any(result.get("cosine") is not None for result in results)
    columns = [
        "video",
        "label",
        "probability" if ruled else "score",
        "",
        *(["cosine"] if cosines else []),
    ]
    table = Table(*columns, box=None, pad_edge=False)
    names = short_names([result["video"] for result in results])
    for name, result in zip(names, results, strict=True):
        if "error" in result:
            continue
        rows = with_none(
            [(entry["label"], entry["probability"]) for entry in result["scores"]], result["none"]
        )
        for i, (label, probability) in enumerate(rows):
            bar = "█" * round(20 * probability)
            style = "bold" if label == (result["answer"] or NONE) else "dim"
            cosine = [f"{result['cosine']:.3f}" if i == 0 else ""] if cosines else []
            table.add_row(
                name if i == 0 else "",
                label,
                f"{100 * probability:.1f} %",
                bar,
                *cosine,
                style=style,
            )
    if table.row_count:
        output.print(table)
    for result in results:
        if "error" in result:
            console.print(result["error"], style="red", soft_wrap=True)
