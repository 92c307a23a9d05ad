"""`froster classify`: which label fits each video."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from froster.commands.common import load_model
from froster.errors import UsageError, VideoError
from froster.progress import output, progress
from froster.recognizer import DEFAULT_MODEL, Recognizer
from froster.text.prompts import check_labels, read_labels, split_labels


def run(
    videos: Sequence[Path],
    labels: str | None,
    labels_file: Path | None,
    model: str | None,
    *,
    views: int | None,
    sampling: str | None,
    top: int,
    truncate: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Print the labels of every video. A video that cannot be read is listed with its cause, and the exit code is 1."""
    names = given_labels(labels, labels_file)
    recognizer = load_model(model, device, precision, sampling=sampling, views=views)
    results = []
    recognizer.class_embeddings(names, truncate)
    with progress(quiet=len(videos) == 1) as bars:
        bar = bars.add_task("classify", total=len(videos), note="")
        for video in videos:
            bars.update(bar, note=video.name[:40])
            results.append(classify_one(recognizer, video, names, top, truncate))
            bars.update(bar, advance=1, note="")
    if as_json:
        print(json.dumps({"model": model or DEFAULT_MODEL, "labels": names, "results": results}))
    else:
        show(results)
    if any("error" in result for result in results):
        raise typer.Exit(1)


def given_labels(labels: str | None, labels_file: Path | None) -> list[str]:
    if (labels is None) == (labels_file is None):
        raise UsageError('give the labels, either --labels "a, b, c" or --labels-file FILE')
    names = read_labels(labels_file) if labels_file is not None else split_labels(labels or "")
    check_labels(names)
    return names


def classify_one(
    recognizer: Recognizer, video: Path, names: list[str], top: int, truncate: bool
) -> dict[str, Any]:
    try:
        found = recognizer.classify(video, names, truncate=truncate)
    except VideoError as error:
        return {"video": str(video), "error": str(error)}
    scores = [{"label": label, "score": score} for label, score in zip(found.labels, found.scores, strict=True)]
    return {"video": str(video), "label": found.label, "scores": scores[:top]}


def show(results: list[dict[str, Any]]) -> None:
    table = Table("video", "label", "score", "", box=None, pad_edge=False)
    for result in results:
        name = Path(result["video"]).name
        if "error" in result:
            table.add_row(name, result["error"], "", "", style="red")
        for i, entry in enumerate(result.get("scores", [])):
            bar = "█" * round(20 * entry["score"])
            style = "bold" if i == 0 else "dim"
            table.add_row(name if i == 0 else "", entry["label"], f"{100 * entry['score']:.1f} %", bar, style=style)
    output.print(table)

