"""A million rows of results: going on with them, and writing the file whole.

Before is the code of commit 89bc652 on the same rows: its files are taken from the history and run
in turn with ours, each in a process of its own. Seconds are processor time, megabytes what the
process takes above its imports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.scale import Line
from froster.data.shards import Shard
from froster.inference.results import ResultFile, ResultRow

ROWS, TOY = 1_000_000, 2_000
BEFORE = "89bc652"
SECONDS, MEGABYTES = 3.0, 300.0
"""Goals of going on."""
_MEASURED = """
import json, resource, sys, time
from pathlib import Path
from froster.inference.results import ResultFile
{imports}
out, rows, finish = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "finish"
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begun = time.process_time()
results = ResultFile({out}, 5)
if not finish:
    todo = [key for key in (f"train/some class/video-{{i:09d}}.mp4" for i in range(rows)) if key not in results.done]
    assert not todo, todo[:3]
results.close()
if finish:
    results.finish()
seconds = time.process_time() - begun
top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, (top - start) / 1024]))
"""
"""Of a file that has all rows: what a run does before its first video, or after its last."""


def rows(count: int) -> Iterator[ResultRow]:
    labels = [f"class number {i}" for i in range(400)]
    for i in range(count):
        best = [labels[(i * 7 + j * 31) % 400] for j in range(5)]
        scores = [0.5 / (j + 1) + (i * 31 % 9973) * 1e-6 for j in range(5)]
        yield {
            "path": f"train/some class/video-{i:09d}.mp4",
            "label": best[0],
            "score": scores[0],
            "labels": best,
            "scores": scores,
            "answer": best[0],
            "none": 0.125,
            "cosine": 0.25 + i % 977 * 1e-5,
            "seconds": 10.01,
            "frames": 300,
            "damaged": 0,
        }


def fill(out: Path | str, count: int, finish: bool) -> None:
    results = ResultFile(out, 5, Shard())
    several: list[ResultRow] = []
    for row in rows(count):
        several.append(row)
        if len(several) == 1000:
            results.add(several)
            several = []
    results.add(several)
    results.close()
    if finish:
        results.finish()


def measured(out: Path | str, count: int, what: str, source: Path | None = None) -> list[float]:
    """Seconds and megabytes in a process of its own, of our code or that of `source`."""
    where = "Path(out)" if source or not str(out).endswith("/") else "out"
    code = _MEASURED.format(
        out=where, imports="" if str(out).endswith("l") else "import pyarrow.parquet"
    )
    path = source or Path(__file__).parents[1] / "src"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(out), str(count), what],
        env={"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(x) for x in json.loads(ended.stdout)]


def former(folder: Path) -> Path | None:
    """The source of before, where this is a checkout with that commit."""
    root = Path(__file__).parents[1]
    archive = subprocess.run(
        ["git", "-C", str(root), "archive", BEFORE, "src/froster"], capture_output=True
    )
    if archive.returncode:
        return None
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder / "src"


def run(toy: bool) -> list[Line]:
    """Going on, for each kind of place, and the writing of a file whole from its last rows."""
    count = TOY if toy else ROWS
    lines = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "former").mkdir()
        source = former(root / "former")
        for suffix in (".jsonl", ".csv", ".parquet", "/"):
            kind = suffix if suffix != "/" else "Parquet parts"
            out = f"{root}/{count}{suffix}" if suffix == "/" else root / f"{count}{suffix}"
            fill(out, count, finish=False)
            if suffix in (".csv", ".parquet"):
                journal = root / f"{count}{suffix}.rows.jsonl"
                kept = journal.read_bytes() if source else b""
                before = [None, None]
                if source:
                    before = measured(out, count, "finish", source)
                    Path(out).unlink()
                    journal.write_bytes(kept)
                del kept
                after = measured(out, count, "finish")
                lines += pair(f"{kind}: written whole", before, after, None)
            before = (
                measured(out, count, "resume", source) if source and suffix != "/" else [None] * 2
            )
            after = measured(out, count, "resume")
            lines += pair(f"{kind}: going on with {count:,} rows", before, after, not toy)
    return lines


def pair(what: str, before: list, after: list, goal: bool | None) -> list[Line]:
    units = (("CPU s", SECONDS), ("MB", MEGABYTES))
    return [
        Line(what, unit, b, a, limit if goal else None)
        for (unit, limit), b, a in zip(units, before, after, strict=True)
    ]
