"""`speed.json`, the rows of every part with the machine they came from, and `speed.md`, the same to
read."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Row


def update(
    folder: Path,
    part: str,
    rows: list[Row],
    notes: list[str],
    *,
    rounds: int | None = None,
    toy: bool = False,
) -> None:
    """Put one part's rows in the place of its earlier ones, print them, and write the table anew."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "speed.json"
    parts: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    parts[part] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "toy": toy,
        "rounds": rounds,
        "rows": [row.to_dict() for row in rows],
        "notes": notes,
    }
    file.write_text(json.dumps(parts, indent=1) + "\n")
    (folder / "speed.md").write_text(markdown(parts))
    print("\n".join([*(table(rows) if rows else ()), *notes]), flush=True)


def machine() -> str:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next(
            (line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu
        )
    features = [
        name
        for name, found in (
            ("AMX", torch.cpu._is_amx_tile_supported()),  # type: ignore[attr-defined]
            ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported()),  # type: ignore[attr-defined]
        )
        if found
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{cpu}, {cores} cores, {' and '.join(features) or 'no bfloat16 unit'}{gpu}; torch"
        f" {torch.__version__}"
    )


def table(rows: list[Row]) -> list[str]:
    lines = [
        "| what | ours | against | ours | theirs | ratio | goal | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        goal = "" if row.goal is None else f"{'≤ ' if row.at_most else '≥ '}{row.goal:g}"
        verdict = {None: "", True: "reached", False: "**not reached**"}[row.reached]
        theirs = f"{row.against_value} {row.unit}" if row.against_value else ""
        cells = [
            row.what,
            row.ours,
            row.against,
            f"{row.ours_value} {row.unit}",
            theirs,
            str(row.ratio),
            goal,
            verdict,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, *(f"\n{row.what}, {row.ours}: {row.note}" for row in rows if row.note)]


def markdown(parts: dict[str, Any]) -> str:
    lines = [
        "# Speed",
        "",
        (
            "Ratios within one run: contenders take turns, the figure is the median of the turns,"
            " smallest and largest in brackets; where there are none, there was one turn. Seconds"
            " are those of a shared machine and mean little by themselves. Every section is written"
            " by the command above it; `speed.json` has the numbers."
        ),
    ]
    for name, part in parts.items():
        rows = [Row.from_dict(values) for values in part["rows"]]
        size = " (toy size: it says nothing)" if part["toy"] else ""
        rounds = f" --rounds {part['rounds']}" if part.get("rounds") else ""
        lines += ["", f"## {name}{size}", "", f"    python -m benchmarks {name}{rounds}", ""]
        lines += [f"{part['date']}, {part['machine']}", ""]
        lines += [*(table(rows) if rows else ()), *(f"\n{note}" for note in part["notes"])]
    return "\n".join(lines) + "\n"
