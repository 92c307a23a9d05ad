"""Shards: one part of the videos for each of several processes or jobs, which need not talk to each
other."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from froster.data.listing import ListedVideo
from froster.errors import UsageError

_PLACES = {
    "torchrun": ("RANK", "WORLD_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    "Cloud Run": ("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
}
"""Number and count of a process, in the order in which they are believed."""
_ARRAYS = {
    "Slurm": (
        "SLURM_ARRAY_TASK_ID",
        "SLURM_ARRAY_TASK_MIN",
        "SLURM_ARRAY_TASK_MAX",
        "SLURM_ARRAY_TASK_STEP",
    ),
    "Grid Engine": ("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
}
"""Number of a job in an array, the first, the last and the step."""


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`."""

    index: int = 0
    count: int = 1

    def takes(self, key: str) -> bool:
        """By the name alone, so that a file that comes later moves no other one."""
        name = key.encode("utf-8", "surrogateescape")
        return (
            int.from_bytes(blake2b(name, digest_size=8).digest(), "big") % self.count == self.index
        )

    def of(self, videos: Sequence[ListedVideo]) -> list[ListedVideo]:
        return [video for video in videos if self.takes(video.key)]

    def file(self, out: Path) -> Path:
        """`results.csv` -> `results.0-of-4.csv`."""
        return (
            out
            if self.count == 1
            else out.with_name(f"{out.stem}.{self.index}-of-{self.count}{out.suffix}")
        )


def parse_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """`"1/4"` (the second of four), `"auto"` (what torchrun, srun or a job array says) or None
    (all)."""
    if text is None:
        return Shard()
    if text == "auto":
        return _of_environment(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UsageError(
            f"--shard is I/N with I from 0 to N - 1, such as 0/4, or auto; not {text!r}"
        )
    return Shard(int(match[1]), int(match[2]))


def _of_environment(environment: Mapping[str, str]) -> Shard:
    """The process of the job of the array."""
    whole, known = Shard(), False
    for names in _ARRAYS.values():
        if all(environment.get(name, "").isdecimal() for name in names):
            task, first, last, step = (int(environment[name]) for name in names)
            whole, known = Shard((task - first) // step, (last - first) // step + 1), True
            if environment.get("SLURM_ARRAY_TASK_COUNT", str(whole.count)) != str(whole.count):
                raise UsageError(
                    "--shard auto: the job array has gaps, and their videos would be left out; pass"
                    " --shard I/N"
                )
            break
    for number, count in _PLACES.values():
        if environment.get(number, "").isdecimal() and environment.get(count, "").isdecimal():
            index, of = int(environment[number]), int(environment[count])
            whole, known = Shard(whole.index * of + index, whole.count * of), True
            break
    if not known:
        raise UsageError(
            f"--shard auto: no sign of {', '.join([*_PLACES, *_ARRAYS])} here; pass --shard I/N"
        )
    return whole
