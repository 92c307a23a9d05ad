"""`froster` with a fault at a chosen place, as a process of its own.

    python faulty.py MODULE:NAME[:CALL] kill|interrupt|fill=FOLDER -- ARGUMENTS OF FROSTER

The fault comes just before the function (or method) is called for the CALL-th time: the process is
killed, gets a Ctrl-C, or the disk that FOLDER lies on is filled to the last byte.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from froster.cli import main


def fill(folder: Path) -> None:
    with (folder / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def happen(fault: str) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        fill(Path(fault.removeprefix("fill=")))


def arm(place: str, fault: str) -> None:
    module, name, *number = place.split(":")
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, left = getattr(owner, last), [int(number[0]) if number else 1]

    def faulty(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            happen(fault)
        return real(*arguments, **options)

    setattr(owner, last, faulty)


if __name__ == "__main__":
    arm(sys.argv[1], sys.argv[2])
    sys.argv = ["froster", *sys.argv[4:]]
    main()
