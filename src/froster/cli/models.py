"""`froster models`: encoders that have a short name, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from froster.cli import options
from froster.cli.options import MACHINE, option
from froster.encoders.known import DEFAULT_MODEL, KNOWN, KnownEncoder, hub_id_of, known_encoder
from froster.encoders.licence import restriction
from froster.errors import UsageError
from froster.utils import strict_json as json
from froster.utils.progress import console, output, print_table, working

if TYPE_CHECKING:
    from froster.inference.speeds import Speed

SHOWN = ("K400", "UCF101", "HMDB51", "ImageNet")
COLUMNS = ("name", "size", "px", "M weights", "GB", "frames/s", *SHOWN, "licence", "", "hub")
LEFT_OUT = ("hub", "M weights", "size", "HMDB51", "UCF101", "frames/s")
"""Of these the first that a terminal is too narrow for."""


def models(
    name: Annotated[str | None, option("One of them: all that is known, with the sources.")] = None,
    /,
    *,
    measure: Annotated[
        str | None,
        option(
            "Time this machine's image tower of one of them, with random weights, and keep the"
            " figure.",
            metavar="NAME",
            group=MACHINE,
        ),
    ] = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    as_json: options.Json = False,
) -> None:
    """The encoders that --model knows by a short name: size, cost, licence, accuracy.

    Example: froster models --measure clip-b16
    """
    if name is not None and measure is not None:
        raise UsageError("give one name: to be shown, or after --measure")
    asked = measure if name is None else name
    chosen = list(KNOWN) if asked is None else [one(asked)]
    if measure is not None:
        time_it(chosen[0], device, precision)
    speeds, cached = speeds_kept(), cached_repositories()
    if as_json:
        facts = [facts_of(known, speeds, cached) for known in chosen]
        print(json.dumps({"encoders": facts, "default": DEFAULT_MODEL}))
    elif len(chosen) == 1:
        show(chosen[0], speeds, cached)
    else:
        columns, rows = fitting(list(COLUMNS), [row(known, speeds, cached) for known in chosen])
        print_table(columns, rows, wide=True)
        output.print()
        for line in notes():
            output.print(line, soft_wrap=True)


def one(name: str) -> KnownEncoder:
    """Raises CheckpointError on a name that is none, with the nearest."""
    if name == "nano":
        raise UsageError("nano comes with froster: froster models lists what is on the hub")
    known = known_encoder(hub_id_of(name))
    if known is None:
        raise UsageError(f"{name}: not one of the encoders that froster models lists")
    return known


def time_it(known: KnownEncoder, device: str | None, precision: str) -> None:
    from froster.inference.tower_speed import measure

    with working(f"measuring {known.name}"):
        speed = measure(known, device, precision)
    console.tell(
        f"{known.name}: {speed.frames_per_second:.3g} frames a second through the image tower on"
        f" {speed.device} in {speed.precision} with {speed.threads} threads; random weights,"
        " nothing was downloaded or decoded"
    )


def speeds_kept() -> dict[str, Speed]:
    from froster.inference.speeds import measured

    return measured()


def cached_repositories() -> set[str]:
    """The hub ids of which weights are in the hub's cache. Nothing is asked of the network."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, ValueError, OSError):
        return set()
    return {
        repo.repo_id
        for repo in repos
        if repo.repo_type == "model"
        and any(
            file.file_name.endswith((".safetensors", ".bin", ".pt"))
            for revision in repo.revisions
            for file in revision.files
        )
    }


def row(known: KnownEncoder, speeds: dict[str, Speed], cached: Iterable[str]) -> list[object]:
    speed = speeds.get(known.name)
    percents = [known.percent(data) for data in SHOWN]
    return [
        known.name,
        f"{known.family} {known.size}",
        known.pixels,
        f"{known.image_millions:.0f} + {known.text_millions:.0f}",
        f"{known.float32_bytes / 1e9:.1f}",
        "" if speed is None else f"{speed.frames_per_second:.3g}",
        *("" if percent is None else f"{percent:.1f}" for percent in percents),
        known.licence + ("*" if restriction(known.licence) else ""),
        "here" if known.hub_id in cached else "",
        known.hub_id,
    ]


def fitting(columns: list[str], rows: list[list[object]]) -> tuple[list[str], list[list[object]]]:
    """As many columns as the terminal is wide; all of them where the table goes to a file."""
    for name in LEFT_OUT:
        widths = (max(map(len, map(str, cells))) for cells in zip(columns, *rows, strict=True))
        if not output.is_terminal or sum(width + 2 for width in widths) <= output.width:
            break
        place = columns.index(name)
        columns = [*columns[:place], *columns[place + 1 :]]
        rows = [[*cells[:place], *cells[place + 1 :]] for cells in rows]
    return columns, rows


def notes() -> Iterable[str]:
    yield f"Without --model it is {DEFAULT_MODEL}. froster models NAME: all that is known of one."
    yield (
        "M weights: image + text tower. GB: in float32, downloaded and in memory. frames/s:"
        " measured here (froster models --measure NAME). here: in the hub's cache."
    )
    yield (
        "Zero-shot top-1, in percent, as their sources measured it, not froster (which NAME names)."
    )
    limits = {known.licence: restriction(known.licence) for known in KNOWN}
    yield "* " + "; ".join(f"{licence}: {limit}" for licence, limit in limits.items() if limit)


def show(known: KnownEncoder, speeds: dict[str, Speed], cached: set[str]) -> None:
    """All that is known of one."""
    speed, limit = speeds.get(known.name), restriction(known.licence)
    place = "in the hub's cache" if known.hub_id in cached else "not in the hub's cache"
    measured = (
        f"froster models --measure {known.name} measures it"
        if speed is None
        else f"{speed.stated()} with {speed.threads} threads, {speed.date}"
    )
    rows = [
        ("hub", f"{known.hub_id} ({place})"),
        ("family", f"{known.family} {known.size}, {known.pixels} px"),
        ("weights", f"{known.image_millions:g} M image, {known.text_millions:g} M text"),
        ("float32", f"{known.float32_bytes / 1e9:.2f} GB"),
        ("licence", known.licence + (f", {limit}" if limit else "")),
        ("frames/s", measured),
        *((figure.data, f"{figure.percent:g} % ({figure.source})") for figure in known.figures),
    ]
    print_table(("", ""), [(known.name, ""), *rows], ["bold"], wide=True)


def facts_of(known: KnownEncoder, speeds: dict[str, Speed], cached: set[str]) -> dict[str, Any]:
    speed = speeds.get(known.name)
    return {
        **asdict(known),
        "restriction": restriction(known.licence) or None,
        "float32_bytes": known.float32_bytes,
        "measured": asdict(speed) if speed else None,
        "cached": known.hub_id in cached,
    }
