"""`froster distance`: how far apart two label sets are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from froster.cli.common import announce, load_model
from froster.errors import UsageError
from froster.report.distance import Nearest, folded, nearest, similarity_histogram, text_features
from froster.text.labels import check_labels, label_file, read_label_set, split_labels
from froster.utils import strict_json as json
from froster.utils.progress import console, output


def run(
    first: str,
    second: str,
    *,
    model: str | None,
    out: Path | None,
    truncate: bool,
    device: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """Everything `froster distance` does; the options are described there."""
    if out is not None and out.suffix.lower() != ".png":
        raise UsageError(f"--out is a .png, not {out.name}")
    titles = [title_of(first, "A"), title_of(second, "B")]
    if titles[0] == titles[1]:
        titles = [f"{title} ({letter})" for title, letter in zip(titles, "AB", strict=True)]
    sets = [label_set(first), label_set(second)]
    recognizer = load_model(model, device, precision)
    announce(recognizer, model)
    features = [text_features(recognizer, names, truncate) for names in sets]
    report = measure(titles, sets, features)
    if out is not None:
        shown = {f"{titles[i]} → {titles[1 - i]}": whole(sets, features, i) for i in (0, 1)}
        similarity_histogram(shown, out)
    if as_json:
        print(json.dumps(report))
    else:
        show(report)
        if out is not None:
            console.print(f"drawn: {out}")


def label_set(text: str) -> list[str]:
    """A file of labels, the name of a packaged data set, or names between commas. Descriptions are
    left out."""
    if (file := label_file(text)) is not None:
        labels = read_label_set(file)
    elif (packaged := packaged_set(text)) is not None:
        labels = packaged
    elif re.search(r"[,;\n]", text):
        labels = split_labels(text)
        check_labels(labels)
    else:
        raise UsageError(
            f"{text!r} is neither a file of labels nor a data set"
            f" ({', '.join(packaged_names()) or 'none packaged'}); "
            f'names between commas are a set too, with a comma behind a single one ("{text},")'
        )
    names = [label.partition(":")[0].strip() for label in labels]
    check_labels(names)
    return names


def title_of(text: str, letter: str) -> str:
    if (file := label_file(text)) is not None:
        return file.stem
    return text.lower() if packaged_set(text) is not None else letter


def packaged_names() -> tuple[str, ...]:
    try:
        from froster.data.names import DATASETS
    except ImportError:
        return ()
    return DATASETS


def packaged_set(text: str) -> list[str] | None:
    """The class names of a data set as a text tower is asked for them, or None."""
    if text.lower() not in packaged_names():
        return None
    from froster.data.names import classes, readable

    spelt: Callable[[str], str] = readable
    return [spelt(name) for name in classes(text.lower())]


def whole(sets: list[list[str]], features: list[Tensor], i: int) -> Nearest:
    """Every name of set i with its nearest of the other one."""
    found = nearest(sets[i], features[i], sets[1 - i], features[1 - i])
    assert found is not None
    return found


def measure(titles: list[str], sets: list[list[str]], features: list[Tensor]) -> dict[str, Any]:
    directions: list[dict[str, Any]] = []
    for i in (0, 1):
        found = whole(sets, features, i)
        apart = nearest(
            sets[i], features[i], sets[1 - i], features[1 - i], overlap=False, spelt=folded
        )
        farthest = int(found.similarity.argmin())
        directions.append(
            {
                "from": titles[i],
                "to": titles[1 - i],
                "released": released(found),
                "released_without_overlap": None if apart is None else released(apart),
                "hausdorff": found.hausdorff,
                "farthest": {"name": found.names[farthest], "nearest": found.nearest[farthest]},
            }
        )
    return {
        "sets": [
            {"name": title, "labels": len(names)} for title, names in zip(titles, sets, strict=True)
        ],
        "overlap": [name for name in sets[0] if folded(name) in set(map(folded, sets[1]))],
        "directions": directions,
        "hausdorff": max(direction["hausdorff"] for direction in directions),
    }


def released(found: Nearest) -> dict[str, Any]:
    """The three numbers of the released code."""
    return {
        "names": len(found.names),
        "mean_of_max": found.mean,
        "max_of_max": found.largest,
        "min_of_max": found.smallest,
    }


def show(report: dict[str, Any]) -> None:
    table = Table(
        "cosine with the nearest name",
        "names",
        "mean",
        "largest",
        "smallest",
        box=None,
        pad_edge=False,
    )
    for direction in report["directions"]:
        way = f"{direction['from']} → {direction['to']}"
        for row, note in (("released", ""), ("released_without_overlap", " without equal names")):
            values = direction[row]
            cells = (
                [f"{values[key]:.4f}" for key in ("mean_of_max", "max_of_max", "min_of_max")]
                if values
                else ["-"] * 3
            )
            table.add_row(way + note, str(values["names"]) if values else "0", *cells)
    output.print(table)
    for direction in report["directions"]:
        far = direction["farthest"]
        output.print(
            f"Hausdorff distance {direction['from']} → {direction['to']} (1 - cosine):"
            f" {direction['hausdorff']:.4f}, from {far['name']!r} to its nearest,"
            f" {far['nearest']!r}"
        )
    output.print(
        f"Hausdorff distance, the larger of both: {report['hausdorff']:.4f}; equal names:"
        f" {len(report['overlap'])}"
    )
