"""Shards: one part of the videos for each of several processes or jobs, which need not talk to each
other."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol, TypeVar

from froster.errors import UsageError


class _Named(Protocol):
    @property
    def key(self) -> str: ...


Keyed = TypeVar("Keyed", bound=_Named)

_PLACES = {
    "torchrun": ("RANK", "WORLD_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    "Cloud Run": ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
}
"""Number and count of a process, in the order in which they are believed."""
_ARRAYS = {
    "Slurm": tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP")),
    "Grid Engine": ("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
}
"""Number of a job in an array, the first, the last and the step."""


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, videos: Sequence[Keyed]) -> list[Keyed]:
        """By their names (`key`) alone, so that a file that comes later moves no other one."""
        names = (video.key.encode("utf-8", "surrogateescape") for video in videos)
        digests = (int.from_bytes(blake2b(name, digest_size=8).digest(), "big") for name in names)
        return [v for v, n in zip(videos, digests, strict=True) if n % self.count == self.index]

    def file(self, out: Path) -> Path:
        """`results.csv` -> `results.0-of-4.csv`."""
        if self.count == 1:
            return out
        return out.with_name(f"{out.stem}.{self.index}-of-{self.count}{out.suffix}")


def shard_files(out: Path) -> list[Path]:
    """Those that shards of any count have written for `out`, by name."""
    pattern = re.compile(rf"{re.escape(out.stem)}\.\d+-of-\d+{re.escape(out.suffix)}")
    files = out.parent.iterdir() if out.parent.is_dir() else ()
    return sorted(file for file in files if pattern.fullmatch(file.name))


def parse_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """`"1/4"` (the second of four), `"auto"` (what torchrun, srun or a job array says) or None
    (all)."""
    if text is None:
        return Shard()
    if text == "auto":
        return _of_environment(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UsageError(f"--shard is I/N with 0 <= I < N, such as 0/4, or auto; not {text!r}")
    return Shard(int(match[1]), int(match[2]))


def _of_environment(environment: Mapping[str, str]) -> Shard:
    """The process of the job of the array."""
    numbers = {name: int(value) for name, value in environment.items() if value.isdecimal()}
    shard, known = Shard(), False
    for names in _ARRAYS.values():
        if not known and numbers.keys() >= set(names):
            task, first, last, step = (numbers[name] for name in names)
            shard, known = Shard((task - first) // step, (last - first) // step + 1), True
            if environment.get("SLURM_ARRAY_TASK_COUNT", str(shard.count)) != str(shard.count):
                raise UsageError("--shard auto: the job array has gaps; pass --shard I/N")
    for number, count in _PLACES.values():
        if number in numbers and count in numbers:
            index = shard.index * numbers[count] + numbers[number]
            return Shard(index, shard.count * numbers[count])
    if not known:
        raise UsageError(
            f"--shard auto: no sign of {', '.join([*_PLACES, *_ARRAYS])} here; pass --shard I/N"
        )
    return shard
