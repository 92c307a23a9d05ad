"""Seconds of `froster demo` after installation, and the accuracy that it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Row, Spread

GOAL = 100.0


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    seconds, found = [], {}
    for _ in range(rounds or 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            command = [
                sys.executable,
                "-m",
                "froster",
                "demo",
                "--out",
                str(Path(folder) / "demo"),
                "--json",
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds.append(time.perf_counter() - began)
            found = json.loads(done.stdout)
    spread = Spread.of(seconds)
    row = Row(
        "froster demo --out demo", "froster", "", spread, None, "s", spread, GOAL, at_most=True
    )
    accuracy = [
        f"{r['method']} {r['base']:.1f} / {r['novel']:.1f} / {r['hm']:.1f}" for r in found["rows"]
    ]
    return [row], [
        "The column of the ratio holds the seconds themselves.",
        f"Accuracy, base / novel / harmonic mean: {'; '.join(accuracy)}.",
    ]
