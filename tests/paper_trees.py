"""Tiny data sets in their official layouts, made of the real clips of the research data."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from golden import shared


def ucf_clips(count: int) -> list[Path]:
    """Small real videos, all different, longer than what a dense clip covers."""
    with shared("videos", "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("clips/ucf101")]
    return [
        shared("videos", row["path"]) for row in rows if int(row["frames"]) > 5 * float(row["fps"])
    ][:count]


def original(name: str) -> Path:
    return shared("videos", "originals", name)


def put(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def ucf_lists(
    folder: Path, names: Sequence[str], tests: Sequence[Sequence[str]], end: str = "\r\n"
) -> Path:
    """ucfTrainTestlist: each of three splits tests the given names and trains on the others."""
    write(folder / "classInd.txt", "1 ApplyEyeMakeup", end=end)
    for n, test in enumerate(tests, 1):
        write(
            folder / f"trainlist0{n}.txt",
            *(f"{name} 1" for name in names if name not in test),
            end=end,
        )
        write(folder / f"testlist0{n}.txt", *test, end=end)
    return folder


def hmdb_lists(folder: Path, codes: dict[str, dict[str, str]]) -> Path:
    """testTrainMulti_7030_splits: class -> file -> its code in the three splits, as "120"."""
    for name, files in codes.items():
        for n in range(3):
            write(
                folder / f"{name}_test_split{n + 1}.txt",
                *(f"{file} {code[n]} " for file, code in files.items()),
            )
    return folder


def kinetics_csv(path: Path, *rows: str) -> Path:
    return write(path, "label,youtube_id,time_start,time_end,split", *rows)


def ssv2_json(folder: Path, **splits: list[tuple[str, str]]) -> Path:
    """Template with [placeholders] of each id, by split."""
    for split, entries in splits.items():
        rows = [
            {
                "id": name,
                "label": template.replace("[something]", "a cup"),
                "template": template,
                "placeholders": ["a cup"],
            }
            for name, template in entries
        ]
        write(folder / f"something-something-v2-{split}.json", json.dumps(rows))
    labels = {
        template.replace("[", "").replace("]", ""): "0"
        for entries in splits.values()
        for _, template in entries
    }
    write(folder / "something-something-v2-labels.json", json.dumps(labels))
    write(folder / "something-something-v2-test.json", json.dumps([{"id": "999"}]))
    return folder
