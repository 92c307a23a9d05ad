"""Runs the code of docs/tutorial.md, block by block, in one folder.

    python docs/run_tutorial.py FOLDER [--write]

`--write` puts the outputs into the page. The tests run the same, and compare what is said with what
stands there.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("tutorial.md")
CLIPS = Path(__file__).with_name("assets") / "clips"
BLOCK = re.compile(r"```(python|sh)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A block of code, what the page says that it prints, and what it did print."""

    code: str
    shown: str | None
    printed: str
    seconds: float


def run(page: str, folder: Path, python: Sequence[str] = (sys.executable,)) -> list[Step]:
    """Runs every ```python and ```sh block of a page. Raises CalledProcessError where one fails."""
    programs = folder / ".bin"
    programs.mkdir(parents=True)
    shutil.copytree(CLIPS, folder / "clips")  # as the page asks of its reader
    froster = programs / "froster"
    froster.write_text(f'#!/bin/sh\nexec {shlex.join(python)} -m froster "$@"\n')
    froster.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "LC_ALL": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",  # the nano CLIP is too small for more
    }
    steps = []
    for language, code, shown in BLOCK.findall(page):
        began = time.monotonic()
        call = (
            [*python, "-c", code]
            if language == "python"
            else ["bash", "-euo", "pipefail", "-c", code]
        )
        done = subprocess.run(
            call, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, code, done.stdout)
        steps.append(Step(code, shown or None, tidy(done.stdout), time.monotonic() - began))
    return steps


def tidy(printed: str) -> str:
    """Without progress (bars, and the line of what takes longer than a second), blanks at the ends of
    lines, and empty lines at either end."""
    lines = [line.split("\r")[-1].rstrip() for line in printed.splitlines()]
    progress = re.compile("[━╸]| …$")
    return "\n".join(line for line in lines if not progress.search(line)).strip("\n") + "\n"


def words(text: str) -> list[str]:
    """What is said, without numbers, what follows from them, the bars of a table and the breaks of
    lines: it differs between machines."""
    told = re.sub(
        r"within\s+the\s+error|the\s+same\s+videos\s+right"
        r"|a\s+(gain|loss)\s+beyond\s+two\s+standard\s+errors",
        "#",
        text,
    )
    return re.sub(r"[+-]?\d[\d.:,]*|[█▏▎▍▌▋▊▉]+", "#", told).replace("# ", " ").split()


def write(page: str, steps: list[Step]) -> str:
    """The page with what was printed."""
    printed = iter(steps)

    def block(found: re.Match[str]) -> str:
        step, text = next(printed), found.group(0)
        return (
            text
            if found.group(3) is None
            else text[: found.start(3) - found.start()] + step.printed + "```\n"
        )

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    try:
        found = run(text, given.folder.resolve())
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd}\n{error.output}")
    if given.write:
        PAGE.write_text(write(text, found), encoding="utf-8")
    else:
        print("\n".join(f"{step.code}\n{step.printed}({step.seconds:.1f} s)\n" for step in found))
