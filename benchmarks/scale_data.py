"""Manifests, splits and near-duplicates of a million and of a hundred thousand videos, each in a
process of its own: `python -m benchmarks scale data`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.scale import Line, peak
from froster.data.likeness import Likeness, pairs
from froster.data.listing import list_videos
from froster.data.manifest import Item, read_items
from froster.data.splits import split

ROWS, CLASSES = 1_000_000, 400
VIDEOS, TWINS = 100_000, 5_000
BEFORE: dict[str, tuple[float, str]] = {
    "csv s": (55.4, "before: at 89bc652"),
    "csv MB": (1101, "before: at 89bc652"),
    "split.csv s": (22.7, ""),
    "split.csv MB": (973, "before: read alone"),
    "list": (51.2, "before: at 89bc652"),
    "list MB": (1247, "before: at 89bc652"),
    "any s": (125, "before: estimated from 30,000"),
    "any MB": (2000, "before: estimated from 30,000"),
    "one camera s": (36000, "before: estimated from 2,000"),
}
"""The same work at 4fec9ec where no other is named, with what is to be said of it."""
_FOLDERS = 1000


def run(toy: bool) -> list[Line]:
    rows, videos = (3000, 400) if toy else (ROWS, VIDEOS)
    lines: list[Line] = []

    def add(name: str, what: str, unit: str, after: float, goal: float | None) -> None:
        before, note = BEFORE.get(name, (None, ""))
        lines.append(Line(what, unit, before, after, None if toy else goal, note=note))

    with tempfile.TemporaryDirectory() as made:
        write_manifests(Path(made), rows)
        for form in ("csv", "split.csv", "parquet"):
            if form == "parquet" and not (Path(made) / "m.parquet").exists():
                continue
            used = measured(toy, "start", str(Path(made) / f"m.{form}"))
            column = "a split column" if form == "split.csv" else "no split column, half novel"
            what = f"{rows:,} rows of .{form.rpartition('.')[2]}, {column}: read, checked, split, "
            add(f"{form} s", f"{what}first batch asked for", "s", used["seconds"], 10)
            add(f"{form} MB", f"{what}memory", "MB", used["megabytes"], 500)
        used = measured(toy, "list", str(Path(made) / "m.csv"))
        micro = used["seconds"] / rows * 1e6
        add("list", "`list_videos` of a manifest", "µs a row", micro, 10)
        add("list MB", "… memory", "MB", used["megabytes"], 500)
    used = measured(toy, "split", str(rows))
    add("split", f"split of {rows:,} videos of 4,000 classes", "s", used["seconds"], 10)
    for kind in ("any", "one camera", "smooth"):
        used = measured(toy, "near", str(videos), kind)
        what = f"near-duplicates among {videos:,} videos of one length, {kind}"
        add(f"{kind} s", what, "s", used["seconds"], 60)
        add(f"{kind} MB", "… memory", "MB", used["megabytes"], None)
        share = used["found"] / used["planted"]
        lines.append(Line("… planted pairs that are found", "share", None, share, 1, False))
    return lines


def measured(toy: bool, *stage: str) -> dict[str, float]:
    """Processor seconds and megabytes of a stage, by a new process unless it is a toy."""
    if toy:
        return main(*stage)
    command = [sys.executable, "-m", "benchmarks.scale_data", *stage]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def write_manifests(folder: Path, rows: int) -> None:
    """Of as many different paths, that lead by links to a thousandth as many empty files."""
    (folder / "files").mkdir()
    names = [f"video_{number:05d}_of_a_folder.mp4" for number in range(rows // _FOLDERS)]
    for name in names:
        (folder / "files" / name).touch()
    rng = random.Random(0)
    table = []
    for number in range(_FOLDERS):
        (folder / f"folder_{number:04d}").symlink_to("files", target_is_directory=True)
        for name in names:
            label = f"class {rng.randrange(CLASSES)}"
            word = rng.choice(["train"] * 8 + ["val", "test"])
            table.append((f"folder_{number:04d}/{name}", label, word, f"{rng.getrandbits(60):x}"))
    for form, columns in (("csv", (0, 1, 3)), ("split.csv", (0, 1, 2, 3))):
        with (folder / f"m.{form}").open("w") as file:
            for row in (("path", "label", "split", "youtube_id"), *table):
                file.write(",".join(row[column] for column in columns) + "\n")
    try:
        from pyarrow import csv, parquet
    except ImportError:
        return
    parquet.write_table(csv.read_csv(folder / "m.csv"), folder / "m.parquet")


def signatures(
    count: int, twins: int, *, seed: int = 0, kind: str = "any", noise: float = 0.7
) -> list[Likeness]:
    """Of `count` different videos of one length, and of a copy of the first `twins` of them, whose
    motion has up to `noise` of its size added: with 0.75 the correlation falls below 0.8.

    They show anything, or ("one camera") look alike and differ by what moves; or ("smooth") the
    motion has few directions, as that of real videos; or ("still") nothing moves in half of them.
    """
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 256, (1 if kind == "one camera" else count, 64), dtype=np.uint8)
    bits = np.broadcast_to(bits, (count, 64))
    axes = rng.standard_normal((64, 2048), np.float32)
    videos, copies = [], []
    for number in range(count):
        motion = rng.standard_normal(2048, np.float32) * 20
        if kind == "smooth":
            motion = rng.standard_normal(64, np.float32) @ axes * 3
        if kind == "still" and number % 2:
            motion *= 0
        videos.append(_likeness(bits[number], motion))
        if number < twins:
            added = rng.standard_normal(2048, np.float32) * motion.std()
            flips = rng.integers(0, 256, 64, dtype=np.uint8)
            flips &= rng.integers(0, 256, 64, dtype=np.uint8)
            flips &= rng.integers(0, 256, 64, dtype=np.uint8)
            copies.append(_likeness(bits[number] ^ flips, motion + rng.uniform(0.2, noise) * added))
    return [*videos, *copies]


def _likeness(bits: np.ndarray, motion: np.ndarray) -> Likeness:
    return Likeness(8.0, bits.tobytes(), motion.round().clip(-127, 127).astype(np.int8).tobytes())


def start(manifest: str) -> None:
    """All that comes before the first clip is opened."""
    from froster.data.dataset import VideoDataset
    from froster.methods.recipe import FROSTER
    from froster.training.batches import epoch_batches
    from froster.video.sampling import Sampling

    parts = split(read_items(manifest), novel_fraction=0.5, validation=0.1)
    sampling = Sampling("uniform", 8)
    dataset = VideoDataset(parts.train, parts.base, sampling, 224, train=True)
    next(epoch_batches(dataset, FROSTER.recipe, 0))


def _load_torch() -> None:
    from froster.methods.recipe import FROSTER  # noqa: F401
    from froster.training.batches import epoch_batches  # noqa: F401


def main(stage: str, *values: str) -> dict[str, float]:
    _load_torch()
    result: dict[str, float] = {}
    work: Callable[[], object]
    if stage == "near":
        videos, kind = int(values[0]), values[1]
        twins = max(10, videos * TWINS // VIDEOS)
        known = signatures(videos, twins, kind=kind)
        result["planted"] = twins

        def work() -> None:
            result["found"] = sum(pair.second - pair.first == videos for pair in pairs(known))

    elif stage == "split":
        path = Path("x.mp4")
        items = [Item(path, f"class {i % 4000}") for i in range(int(values[0]))]
        work = lambda: split(items, novel_fraction=0.5, validation=0.1)  # noqa: E731
    elif stage == "list":
        work = lambda: list_videos([Path(values[0])])  # noqa: E731
    else:
        work = lambda: start(values[0])  # noqa: E731
    before, begun = peak(), time.process_time()
    work()
    result |= {"seconds": time.process_time() - begun, "megabytes": max(0.0, peak() - before)}
    return result


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
