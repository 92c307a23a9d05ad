"""`froster prepare`: a manifest of a data set in its official layout, every file verified."""

from pathlib import Path
from typing import Annotated, Any, Literal

from froster.cli import options
from froster.cli.common import engine_of, show_result, show_shard
from froster.cli.options import option
from froster.utils.progress import console, output, print_table, progress


def prepare(
    name: Annotated[Literal["k400", "k600", "ucf101", "hmdb51", "ssv2"], option("The data set.")],
    /,
    *,
    videos: Annotated[Path, option("Folder of the videos, as downloaded.")],
    out: Annotated[Path, option("Manifest to write (.csv); its reports lie beside it.")],
    annotations: Annotated[
        Path | None, option("Folder of annotation files, or of lists; default: split folders.")
    ] = None,
    shard: options.Shard = None,
    workers: options.Inspectors = None,
    engine: options.EngineName = "local",
    address: options.Address = None,
    resume: Annotated[bool, option("Keep the checks of an earlier run.")] = False,
    as_json: options.Json = False,
) -> None:
    """Make and verify the manifest of a data set in its official layout.

    Example: froster prepare ucf101 --videos UCF-101 --annotations ucfTrainTestlist --out ucf101.csv
    """
    from froster.data import prepare as preparing
    from froster.data.shards import parse_shard
    from froster.utils.pool import cores
    from froster.utils.work import Means

    part, by = parse_shard(shard), engine_of(engine, address, None)
    means = Means(by, cores() if workers is None and engine == "local" else workers)
    with progress() as bars:
        report = preparing.prepare(
            name, videos, annotations, out, means=means, resume=resume, bars=bars, shard=part
        )
    show_result(report, as_json, show if part.count == 1 else show_shard)


def show(report: dict[str, Any]) -> None:
    from froster.data.prepare import CATEGORIES

    output.print(
        f"{report['manifest']}: {report['videos']} of {report['listed']} listed clips"
        f" ({counted(report['splits'])})"
    )
    rows = [
        (name, count, CATEGORIES[name], Path(report["reports"].get(name, "")).name)
        for name, count in report["counts"].items()
    ]
    print_table(("", "clips", "meaning", "list"), rows)
    if report["missing_by_split"]:
        console.print(f"missing: {counted(report['missing_by_split'])}")
    if report["unlisted"]:
        console.print(f"{report['unlisted']} videos are not in the annotations and left out")
    if absent := report["classes_without_videos"]:
        first = ", ".join(absent[:5])
        more = " …" if len(absent) > 5 else ""
        console.print(f"{len(absent)} classes have no video: {first}{more}")
    for note in report["notes"]:
        console.print(note)


def counted(splits: dict[str, int]) -> str:
    """`{"train": 3, "test": 1}` -> "3 train, 1 test"."""
    return ", ".join(f"{count} {name}" for name, count in splits.items())
