"""Seconds until `froster --help` has printed, and until `import froster` is done."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.timing import Row, Spread, interleave

GOAL = 0.3


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    commands = {
        "froster --help": [sys.executable, "-m", "froster", "--help"],
        "import froster": [sys.executable, "-c", "import froster"],
    }
    bare = [sys.executable, "-c", "pass"]
    times = interleave(
        {name: lambda c=command: call(c) for name, command in {**commands, "bare": bare}.items()},
        rounds or 11,
    )
    python = Spread.of(times["bare"])
    return [
        Row(
            name,
            "froster",
            "an empty Python",
            Spread.of(times[name]),
            python,
            "s",
            Spread.of(times[name]),
            GOAL,
            at_most=True,
        )
        for name in commands
    ], ["The column of the ratio holds the seconds themselves: the goal is one of seconds."]


def call(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
