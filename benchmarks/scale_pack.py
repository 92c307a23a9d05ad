"""Videos as they came against their training form, as files and as tar shards: clips a processor
second, bytes, and what packing costs.

Videos are every eighth of shared/videos/originals beside the repository (a made 320x240 clip where
there are none), and one made 1280x720 clip.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.clips import HD, UCF, write_clip
from benchmarks.scale import Line
from froster.data.dataset import VideoDataset
from froster.data.listing import list_videos
from froster.data.manifest import Item, read_rows
from froster.data.pack import PackOptions, pack
from froster.data.pack_folder import PACKED
from froster.utils.work import Means
from froster.video.sampling import Sampling

ORIGINALS = Path(__file__).resolve().parents[2] / "shared" / "videos" / "originals"
EVERY, ROUNDS, SIZE = 8, 2, 224
"""Of the originals every so many is measured."""


def run(toy: bool) -> list[Line]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        hd = folder / "hd.mp4"
        given = sorted(ORIGINALS.glob("*.*"))[::EVERY]
        if toy or not given:
            given = [write_clip(folder / "small.avi", UCF)]
        if not toy:
            write_clip(hd, HD)
        lines = measured(
            "originals of shared/videos", given[: 2 if toy else None], folder / "a", toy
        )
        return lines if toy else lines + measured("1280x720 h264, 10 s", [hd], folder / "b", toy)


def measured(what: str, files: Sequence[Path], folder: Path, toy: bool) -> list[Line]:
    """The lines of one sort of video."""
    listing = list_videos(files, base=folder)
    rows: list[tuple[str, dict[str, str]]] = [(key, {}) for key in listing.keys]
    began = time.process_time()
    report = pack(listing, rows, folder / "files", PackOptions(), Means())
    seconds = (time.process_time() - began) / len(files)
    pack(listing, rows, folder / "tar", PackOptions(10**9), Means())
    sources = {"files": list(files)}
    for name in ("files", "tar"):
        manifest = folder / name / PACKED
        sources[f"packed {name}"] = [path for path, _ in read_rows(manifest)]
    rates = clips_a_second(sources, 1 if toy else ROUNDS)
    before = rates["files"]
    size = f"{report['bytes'] / 1e6:.1f} of {report['source_bytes'] / 1e6:.1f} MB"
    likeness = f"PSNR {report['psnr']} dB, least {report['least_psnr']}"
    return [
        Line(f"{what}: training clips, packed files", "clips/s", before, rates["packed files"]),
        Line(f"{what}: training clips, packed shards", "clips/s", before, rates["packed tar"]),
        Line(
            f"{what}: bytes", "MB", report["source_bytes"] / 1e6, report["bytes"] / 1e6, note=size
        ),
        Line(f"{what}: packing", "s a file", None, seconds, note=likeness),
    ]


def clips_a_second(sources: dict[str, list[Path]], rounds: int) -> dict[str, float]:
    """Of a training clip of every video, read and augmented, by turns, a processor second."""
    spent = dict.fromkeys(sources, 0.0)
    for epoch in range(rounds):
        for name, paths in sources.items():
            items = [Item(path, "ab"[n % 2]) for n, path in enumerate(paths)]
            dataset = VideoDataset(items, ["a", "b"], Sampling("dense"), SIZE, train=True)
            dataset.set_epoch(epoch)
            began = time.process_time()
            for number in range(len(dataset)):
                error = dataset[number].error
                if error:
                    raise RuntimeError(error)
            spent[name] += time.process_time() - began
    return {name: rounds * len(sources[name]) / seconds for name, seconds in spent.items()}
