"""Contenders timed in turn within one run, and the rows of `docs/results/speed.md` that come of it.

Shared machines drift, so no absolute time is compared with one of another run: contenders take
turns (A B C A B C …) and a ratio is the median of the ratios within each turn, with the smallest
and the largest beside it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.low == self.high:
            return short(self.median)
        return f"{short(self.median)} ({short(self.low)}–{short(self.high)})"


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured for us and for another, and how they compare."""

    what: str
    ours: str
    """Which of our ways, e.g. "froster, bfloat16"."""
    against: str
    ours_value: Spread
    against_value: Spread | None
    unit: str
    ratio: Spread
    """As the goal counts it: above 1 is good, except for memory and start-up times."""
    goal: float | None = None
    at_most: bool = False
    """The goal is an upper bound."""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.ratio.median <= self.goal if self.at_most else self.ratio.median >= self.goal

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "reached": self.reached}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        fields = {name: value for name, value in values.items() if name != "reached"}
        for name in ("ours_value", "against_value", "ratio"):
            fields[name] = fields[name] and Spread(**fields[name])
        return cls(**fields)


def short(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    warmup: int = 1,
    sync: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every contender in every round, by the clock. `sync` waits for a device to
    finish."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-warmup, rounds):
        for name, run in contenders.items():
            gc.collect()
            began = clock()
            run()
            if sync is not None:
                sync()
            if turn >= 0:
                seconds[name].append(clock() - began)
    return seconds


def compare(
    what: str,
    seconds: Mapping[str, Sequence[float]],
    ours: str,
    against: str,
    goal: float | None = None,
    note: str = "",
) -> Row:
    """How many times faster `ours` is, turn by turn."""
    ratio = Spread.of([b / a for a, b in zip(seconds[ours], seconds[against], strict=True)])
    mine, other = Spread.of(seconds[ours]), Spread.of(seconds[against])
    return Row(what, ours, against, mine, other, "s", ratio, goal, note=note)
