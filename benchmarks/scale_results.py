"""A million rows of results: going on with them, and writing the file whole.

Before is the code of commit 89bc652 on the same rows: its files are taken from the history and run
in turn with ours, each in a process of its own. Seconds are processor time, megabytes what the
process takes above its imports.
"""

from __future__ import annotations

import json
import shutil
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
KINDS = (".jsonl", ".csv", ".parquet", "/")
SECONDS, MEGABYTES = 3.0, 300.0
"""Goals of going on."""
_MEASURED = """
import json, sys, time
from pathlib import Path
from froster.inference.results import ResultFile
{imports}
out, rows, finish = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "finish"

def peak():
    "kB of this process alone; ru_maxrss begins with what the parent had"
    (line,) = [x for x in open("/proc/self/status") if x.startswith("VmHWM")]
    return int(line.split()[1])

start = peak()
begun = time.process_time()
results = ResultFile({out}, 5)
if not finish:
    todo = [key for key in (f"train/some class/video-{{i:09d}}.mp4" for i in range(rows)) if key not in results.done]
    assert not todo, todo[:3]
results.close()
if finish:
    results.finish()
seconds = time.process_time() - begun
print(json.dumps([seconds, (peak() - start) / 1024]))
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


def fill(out: Path | str, count: int) -> None:
    results = ResultFile(out, 5, Shard())
    several: list[ResultRow] = []
    for row in rows(count):
        several.append(row)
        if len(several) == 1000:
            results.add(several)
            several = []
    results.add(several)
    results.close()


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
    """Going on, for each kind of place, and the writing of a file whole from its last rows (of a
    tenth of them)."""
    count = TOY if toy else ROWS
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "former").mkdir()
        source = former(root / "former")
        places: dict[int, Path] = {}
        for size in (count // 10, count):
            places[size] = root / f"{size}.jsonl"
            fill(places[size], size)
        for suffix in KINDS:
            lines += of_kind(suffix, root, places[count // 10], places[count], count, source)
    return lines


def of_kind(
    suffix: str, root: Path, few: Path, many: Path, count: int, source: Path | None
) -> list[Line]:
    """The lines of one kind of place; `few` and `many` are files of JSON lines with `count // 10`
    and `count` rows."""
    kind = "Parquet parts" if suffix == "/" else suffix
    out = f"{root}/{count}/" if suffix == "/" else root / f"{count}{suffix}"
    lines: list[Line] = []
    if suffix == "/":
        fill(out, count)
    elif suffix != ".jsonl":
        tenth = root / f"{count // 10}{suffix}"
        before = None
        for code in (source, None) if source else (None,):
            shutil.copy(few, tenth.with_name(f"{tenth.name}.rows.jsonl"))
            after = measured(tenth, count // 10, "finish", code)
            before = after if code else before
            tenth.unlink()
        lines += pair(f"{kind}: {count // 10:,} rows written whole", before, after)
        shutil.copy(many, root / f"{count}{suffix}.rows.jsonl")
        lines += pair(f"{kind}: {count:,} rows written whole", None, measured(out, count, "finish"))
    before = measured(out, count, "resume", source) if source and suffix != "/" else None
    after = measured(out, count, "resume")
    return lines + pair(f"{kind}: going on with {count:,} rows", before, after, count == ROWS)


def pair(
    what: str, before: list[float] | None, after: list[float], goal: bool = False
) -> list[Line]:
    """The line of the time and that of the memory."""
    lines = []
    for place, (unit, limit) in enumerate((("CPU s", SECONDS), ("MB", MEGABYTES))):
        earlier = before[place] if before else None
        lines.append(Line(what, unit, earlier, after[place], limit if goal else None))
    print(*lines, sep="\n", flush=True)
    return lines
