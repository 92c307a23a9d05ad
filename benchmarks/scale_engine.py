"""The engine with videos that do not exist: what a row costs, and what the driver keeps of it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.scale import Line, peak
from froster.utils.engine import run as run_engine
from froster.utils.work import End, Engine, Means, Work

RUN = "import sys; from benchmarks.scale_engine import measure; measure(sys.argv[1], int(sys.argv[2]))"


@dataclass(frozen=True)
class Virtual:
    path: str


class Videos(Sequence[Any]):
    """So many, each made when it is taken."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: Any) -> Virtual:
        if number >= self.count:
            raise IndexError
        return Virtual(f"video{number:08d}.mp4")


def nothing(path: str) -> Iterator[int]:
    yield len(path)


class Counted:
    """A store that counts."""

    def __init__(self) -> None:
        self.rows = 0

    def has(self, row: Virtual) -> bool:
        return False

    def has_failed(self, row: Virtual) -> bool:
        return False

    def add(self, ends: Sequence[End[Virtual, int]]) -> None:
        self.rows += len(ends)

    def close(self) -> None: ...


def measure(engine: str, count: int) -> None:
    """Prints seconds and MB of memory above the start."""
    store, start = Counted(), peak()
    name: Any = engine
    clocks = time.perf_counter(), time.process_time()
    run_engine(Work[Virtual, int](nothing), Videos(count), store, Means(Engine(name), 0))
    wall, cpu = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
    assert store.rows == count
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": max(0.0, peak() - start)}))


def run_apart(engine: str, count: int) -> dict[str, float]:
    path = os.pathsep.join(p or os.getcwd() for p in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", RUN, engine, str(count)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
    )
    values: dict[str, float] = json.loads(done.stdout)
    return values


def run(toy: bool) -> list[Line]:
    """The lines of `python -m benchmarks.scale engine`."""
    engines: dict[str, Sequence[int]] = {"local": [10_000, 100_000, 1_000_000]}
    if importlib.util.find_spec("ray") is not None:
        engines["ray"] = [10_000, 100_000]
    lines = []
    for engine, counts in ({"local": [1000]} if toy else engines).items():
        for count in counts:
            values = run_apart(engine, count)
            what = f"{engine}, {count:,} virtual videos"
            note = "" if engine == "local" else "with the start of a local cluster"
            cost = 1e6 * values["cpu"] / count
            lines.append(Line(f"{what}: CPU of the driver a row", "µs", None, cost, note=note))
            lines.append(Line(f"{what}: memory of the driver", "MB", None, values["memory"]))
            lines.append(Line(f"{what}: wall", "s", None, values["wall"], note=note))
    return lines
