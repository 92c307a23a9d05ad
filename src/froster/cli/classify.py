"""`froster classify`: which label fits each video, shown or written to a file that a stopped run
goes on with."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from froster.cli.common import announce, how_to_calibrate, load_model, mention, spare_cores
from froster.data.listing import ListedVideo, Listing, list_videos
from froster.data.shards import Shard, parse_shard
from froster.errors import UsageError
from froster.evaluation.calibration import NONE, with_none
from froster.inference.batch import answers
from froster.inference.failures import Failures
from froster.inference.identity import digest
from froster.inference.origin import check_origin
from froster.inference.recognizer import DEFAULT_MODEL, Classification, Recognizer
from froster.inference.results import Results, Row, check_suffix, open_results
from froster.text.labels import check_labels, label_file, read_label_set, split_labels
from froster.utils import strict_json as json
from froster.utils.files import sole_maker
from froster.utils.progress import console, output, progress, working
from froster.utils.text import short_names

FEW = 8
"""Videos for which it does not pay to start processes."""
FORM = 2
"""Of the rows of a file of results: 1 had no answer and no cosine, and said "none" of models that
were not calibrated."""


@dataclass(frozen=True)
class Reading:
    """How videos are read and answered, which changes no answer."""

    workers: int | None
    batch_size: int | None
    limit: float
    top: int
    truncate: bool

    def of(self, model: Recognizer, videos: int) -> dict[str, Any]:
        """With what is not said chosen. A batch of one on a CPU, where more are no faster and rows
        the same to the bit."""
        batch = self.batch_size or (8 if model.device.type == "cuda" else 1)
        workers = (
            self.workers if self.workers is not None else 0 if videos <= FEW else spare_cores()
        )
        return {**dataclasses.asdict(self), "batch_size": batch, "workers": workers}


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
        report = write_all(recognizer, names, listing, part, part.file(out), reading, retry_failed)
        report["calibrated"] = recognizer.calibration.fitted is not None
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
        for batch in answers(recognizer, names, videos, **reading.of(recognizer, len(videos))):
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


def shown(row: Row) -> dict[str, Any]:
    """A row as it is printed: with every score the probability, which leaves room for "none of
    these" where there is a rule."""
    found = Classification(row["labels"], row["scores"], row["none"], row["cosine"])
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


def write_all(
    recognizer: Recognizer,
    names: list[str],
    listing: Listing,
    part: Shard,
    out: Path,
    reading: Reading,
    retry: bool,
) -> dict[str, Any]:
    """Adds the rows that `out` lacks, and says what there is now. Failures of earlier runs are left
    alone but with `retry`."""
    config = recognizer.config.to_dict()
    made = {
        "made_by": "froster classify",
        "rows": FORM,
        "model": digest(recognizer),
        "precision": str(recognizer.dtype).removeprefix("torch."),
        "labels": names,
        **{name: config[name] for name in ("sampling", "views", "fusion")},
        "top": reading.top,
        "truncate": reading.truncate,
        "calibration": recognizer.calibration.rule,
        "root": os.path.realpath(listing.root),
        "shard": f"{part.index}/{part.count}",
    }
    begun = any(path.exists() for path in (out, out.with_name(f"{out.name}.rows.jsonl")))
    with sole_maker(out):
        check_origin(out, made, begun)
        results = open_results(out, min(reading.top, len(names)))
        failures = Failures(out.with_name(f"{out.name}.failures.jsonl"), results.done)
        mine = part.of(listing)
        todo = [
            video
            for video in mine
            if video.key not in results.done and (retry or video.key not in failures.causes)
        ]
        try:
            work(recognizer, names, mine, todo, results, failures, reading)
        finally:
            results.close()
            failures.close(results.done)
        results.finish()
    failed = [video.key for video in mine if video.key in failures.causes]
    report = {
        "out": str(out),
        "videos": len(mine),
        "rows": sum(video.key in results.done for video in mine),
    }
    report |= {"new": sum(video.key in results.done for video in todo), "failed": len(failed)}
    report |= {"failures": str(failures.path) if failed else None, "shard": made["shard"]}
    return {**report, "passed_over": dict(listing.passed_over)}


def work(
    recognizer: Recognizer,
    names: list[str],
    mine: list[ListedVideo],
    todo: list[ListedVideo],
    results: Results,
    failures: Failures,
    reading: Reading,
) -> None:
    with progress() as bars:
        bar = bars.add_task("classify", total=len(mine), completed=len(mine) - len(todo), note="")
        for batch in answers(recognizer, names, todo, **reading.of(recognizer, len(todo))):
            results.add([answer.row for answer in batch if answer.row is not None])
            for answer in batch:
                if answer.row is None:
                    failures.add(answer.video.key, answer.error)
            bars.update(
                bar,
                advance=len(batch),
                note=f"{len(failures.causes)} failed" if failures.causes else "",
            )
