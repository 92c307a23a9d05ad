"""`froster distance`: how far apart two label sets are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from froster.cli import options
from froster.cli.common import announce, check_png, load_model, show_result
from froster.cli.options import option
from froster.errors import UsageError
from froster.text.label_set import read_names
from froster.text.labels import check_labels, label_file, split_labels
from froster.utils.progress import console, output, print_table

if TYPE_CHECKING:
    from torch import Tensor

    from froster.report.distance import Nearest


def distance(
    first: Annotated[
        str, option("File of labels, data set (k400 …), or names between commas.", metavar="A")
    ],
    second: Annotated[str, option("The other set, likewise.", metavar="B")],
    /,
    *,
    model: options.Model = None,
    out: Annotated[Path | None, option("Draw the nearest similarities, a .png.")] = None,
    truncate: options.Truncate = False,
    device: options.Device = None,
    precision: options.Precision = "float32",
    as_json: options.Json = False,
) -> None:
    """How far apart two label sets are: the released code's similarity and the Hausdorff distance,
    both ways.

    Example: froster distance ucf101 k400 --out distance.png
    """
    from froster.report.distance import similarity_histogram, text_features

    check_png(out)
    titles = [title_of(first, "A"), title_of(second, "B")]
    if titles[0] == titles[1]:
        titles = [f"{title} ({letter})" for title, letter in zip(titles, "AB", strict=True)]
    sets = [label_set(first), label_set(second)]
    recognizer = load_model(model, device, precision)
    announce(recognizer, model)
    features = [text_features(recognizer, names, truncate) for names in sets]
    report, drawn = compare(titles, sets, features)
    if out is not None:
        similarity_histogram(drawn, out)
    show_result(report, as_json, show)
    if out is not None and not as_json:
        console.print(f"drawn: {out}")


def label_set(text: str) -> list[str]:
    """A file of labels, the name of a packaged data set, or names between commas. Descriptions are
    left out."""
    from froster.data.public import DATASETS

    packaged = packaged_set(text)
    if (file := label_file(text)) is not None:
        labels = read_names(file)
    elif packaged is not None:
        labels = packaged
    elif re.search(r"[,;\n]", text):
        labels = split_labels(text)
        check_labels(labels)
    else:
        raise UsageError(
            f"{text!r} is neither a file of labels nor a data set ({', '.join(DATASETS)}); "
            f'names between commas are a set too, with a comma behind a single one ("{text},")'
        )
    names = [label.partition(":")[0].strip() for label in labels]
    check_labels(names)
    return names


def title_of(text: str, letter: str) -> str:
    if (file := label_file(text)) is not None:
        return file.stem
    return text.lower() if packaged_set(text) is not None else letter


def packaged_set(text: str) -> list[str] | None:
    """The class names of a data set as a text tower is asked for them, or None."""
    from froster.data.public import DATASETS, classes, readable

    if text.lower() not in DATASETS:
        return None
    return [readable(name) for name in classes(text.lower())]


def compare(
    titles: list[str], sets: list[list[str]], features: list[Tensor]
) -> tuple[dict[str, Any], dict[str, Nearest]]:
    """Both directions between two label sets with their text features (K, E): the report, and what
    is drawn of each."""
    from froster.report.distance import folded, nearest

    directions: list[dict[str, Any]] = []
    drawn = {}
    for i in (0, 1):
        pair = sets[i], features[i], sets[1 - i], features[1 - i]
        names, apart = nearest(*pair), nearest(*pair, overlap=False, spelt=folded)
        assert names is not None
        drawn[f"{titles[i]} → {titles[1 - i]}"] = names
        far = int(names.similarity.argmin())
        directions.append(
            {
                "from": titles[i],
                "to": titles[1 - i],
                "released": names.released(),
                "released_without_overlap": apart and apart.released(),
                "hausdorff": names.hausdorff,
                "farthest": {"name": names.names[far], "nearest": names.nearest[far]},
            }
        )
    others = set(map(folded, sets[1]))
    report = {
        "sets": [
            {"name": title, "labels": len(names)} for title, names in zip(titles, sets, strict=True)
        ],
        "overlap": [name for name in sets[0] if folded(name) in others],
        "directions": directions,
        "hausdorff": max(direction["hausdorff"] for direction in directions),
    }
    return report, drawn


def show(report: dict[str, Any]) -> None:
    rows = []
    for direction in report["directions"]:
        way = f"{direction['from']} → {direction['to']}"
        for key, note in (("released", ""), ("released_without_overlap", " without equal names")):
            values = direction[key] or {"names": 0}
            cells = (values.get(key) for key in ("mean_of_max", "max_of_max", "min_of_max"))
            numbers = ("-" if value is None else f"{value:.4f}" for value in cells)
            rows.append([way + note, values["names"], *numbers])
    print_table(("cosine with the nearest name", "names", "mean", "largest", "smallest"), rows)
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
