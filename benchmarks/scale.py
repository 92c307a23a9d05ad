"""How far one machine reaches, and what is beyond it: `python -m benchmarks.scale PART …` measures
the parts that are named (all without a name), keeps their lines in docs/results/scale.json and
writes docs/results/scale.md, a table of before and after.

Times are processor seconds of one thread unless a line says otherwise; memory is what the process
takes above its start.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PARTS = {
    "data": "manifests, splits and near-duplicates",
    "results": "rows of results and going on with them",
    "index": "the index and its search",
    "engine": "work over many videos, by the local pool and by Ray",
    "remote": "videos read at an address",
    "pack": "videos in their training form",
    "train": "training on many processes",
}


@dataclass(frozen=True)
class Line:
    """One figure."""

    what: str
    unit: str
    before: float | None
    """At commit 89bc652, or as `note` says; None where it could not be done."""
    after: float
    goal: float | None = None
    at_most: bool = True
    """The goal is an upper bound, else a lower one."""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.after <= self.goal if self.at_most else self.after >= self.goal


def peak() -> float:
    """Megabytes that this process has had at most. `ru_maxrss` begins with what its parent had, so
    it is asked only where there is nothing better."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def table(lines: Sequence[Line]) -> str:
    """In Markdown."""
    rows = ["| what | unit | before | after | goal | |", "|---|---|---|---|---|---|"]
    for line in lines:
        before = "–" if line.before is None else f"{line.before:.3g}"
        goal, mark = "", ""
        if line.goal is not None:
            goal = f"{'≤' if line.at_most else '≥'} {line.goal:.3g}"
            mark = "reached" if line.reached else "**not reached**"
        after = f"{line.after:.3g}"
        cells = [line.what, line.unit, before, after, goal, f"{mark} {line.note}".strip()]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def write(out: Path, measured: dict[str, list[Line]]) -> None:
    """Replaces the parts that were measured; keeps the others."""
    file = out / "scale.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    kept |= {part: [asdict(line) for line in lines] for part, lines in measured.items()}
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = ["# Scale", "", "Written by `python -m benchmarks.scale`.", ""]
    for part in (name for name in PARTS if name in kept):
        lines = [Line(**values) for values in kept[part]]
        text += [f"## {part}: {PARTS[part]}", "", table(lines), ""]
    (out / "scale.md").write_text("\n".join(text), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--toy", action="store_true", help="little data, to try the script itself")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args(arguments)
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in args.parts or PARTS:
        print(f"== {part}: {PARTS[part]}", flush=True)
        lines = importlib.import_module(f"benchmarks.scale_{part}").run(args.toy)
        print(table(lines), flush=True)
        write(args.out, {part: lines})


if __name__ == "__main__":
    main()
