"""What large jobs cost on paper, from rates that were measured: `python -m benchmarks.plan` writes
docs/results/plan.md.

A machine is what gpu.json was measured on, a GPU and 16 cores. The GPU's rates are those of gpu.json,
the decoding rates those of scale.json (pack) and of speed.json (decode), a core each; prices are
stated and may be given. That a job takes as long as the slower of reading and computing is checked
by a simulation of readers, window and GPU, with videos that take more or less long.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "docs" / "results"
CORES = 16
SEGMENTS = 3
"""Of a clip of ten seconds, in an index of segments of four."""
VECTOR_BYTES = 1200
"""A segment in an index of 512 float16 (measured: 1.03 to 1.2 GB a million)."""


@dataclass(frozen=True)
class Rates:
    """Measured."""

    train: float
    """Clips a second of a training step on a GPU."""
    embed: float
    """Clips a second of a forward pass on a GPU."""
    read: float
    """Training clips a second of a core, from files as they come."""
    read_packed: float
    """The same from packed files."""
    decode: float
    """Videos of ten seconds at 720p that a core decodes whole a second."""


@dataclass(frozen=True)
class Prices:
    machine: float = 4.0
    """Of an hour of a machine, in dollars."""
    stored: float = 0.023
    """Of a gigabyte a month."""


@dataclass(frozen=True)
class Job:
    name: str
    videos: float
    computed: float
    """Seconds of a GPU for a video."""
    read: float
    """Seconds of a core for a video."""
    machines: int
    gigabytes: float
    """Written."""


def measured() -> Rates:
    gpu = {row["what"]: row for row in _json("gpu.json")["rows"]}
    speed = {row["what"]: row for row in _json("speed.json")["decode"]["rows"]}
    pack = next(line for line in _json("scale.json")["pack"] if "packed files" in line["what"])
    train = next(
        row for what, row in gpu.items() if what.startswith("training step, FROSTER, comp")
    )
    return Rates(
        train["clips_s"],
        gpu["forward, vclip, compiled, batch 64"]["clips_s"],
        pack["before"],
        pack["after"],
        1 / speed["720p h264, uniform"]["ours_value"]["median"],
    )


def _json(name: str) -> dict:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def jobs(rates: Rates) -> list[Job]:
    lines = []
    for name, videos, machines in (("Kinetics-400", 240e3, 8), ("Kinetics-700", 545e3, 8)):
        for source, read in (("files", rates.read), ("packed", rates.read_packed)):
            what = f"{name}, 22 epochs, {source}"
            lines.append(Job(what, 22 * videos, 1 / rates.train, 1 / read, machines, 6.0))
    for videos in (1e6, 100e6):
        machines = 1 if videos < 1e7 else 64
        indexed = SEGMENTS / rates.embed, 1 / rates.decode
        size = videos * SEGMENTS * VECTOR_BYTES / 1e9
        lines.append(Job(f"index {videos:,.0f} videos", videos, *indexed, machines, size))
        rows = videos * 200 / 1e9
        lines.append(
            Job(
                f"classify {videos:,.0f} videos",
                videos,
                3 / rates.embed,
                indexed[1],
                machines,
                rows,
            )
        )
    return lines


def hours(job: Job) -> float:
    """The slower of reading and computing."""
    seconds = max(job.computed, job.read / CORES) * job.videos / job.machines
    return seconds / 3600


def simulated(job: Job, videos: int = 20_000, window: int = 64, seed: int = 0) -> float:
    """Seconds a video of one machine: its cores read videos, which take more or less long (twice or
    half as long is common), at most `window` ahead of a GPU that takes them one by one."""
    rng = random.Random(seed)
    free = [0.0] * CORES
    ready, gpu = 0.0, 0.0
    ends: list[float] = []
    for number in range(videos):
        begin = heapq.heappop(free)
        if number >= window:
            begin = max(begin, ends[number - window])
        ready = begin + job.read * rng.lognormvariate(-0.245, 0.7)
        heapq.heappush(free, ready)
        gpu = max(gpu, ready) + job.computed
        ends.append(gpu)
    return gpu / videos


def table(lines: Sequence[Job], prices: Prices) -> str:
    rows = [
        "| job | machines | hours | bound by | simulated / paper | $ | GB | $ a month |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for job in lines:
        paper = max(job.computed, job.read / CORES)
        bound = "GPU" if job.computed >= job.read / CORES else "reading"
        time = hours(job)
        cost = time * job.machines * prices.machine
        month = job.gigabytes * prices.stored
        cells = [
            job.name,
            str(job.machines),
            f"{time:,.2g}" if time < 10 else f"{time:,.0f}",
            bound,
        ]
        cells += [f"{simulated(job) / paper:.2f}", f"{cost:,.0f}"]
        cells += [f"{job.gigabytes:,.1f}", f"{month:,.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--machine", type=float, default=Prices.machine, help="$ an hour")
    parser.add_argument("--stored", type=float, default=Prices.stored, help="$ a GB a month")
    parser.add_argument("--out", type=Path, default=HERE / "plan.md")
    args = parser.parse_args(arguments)
    rates, prices = measured(), Prices(args.machine, args.stored)
    text = f"""# Large jobs on paper

Written by `python -m benchmarks.plan` from measured rates: a training step of FROSTER {rates.train:.0f}
clips a second and a forward pass {rates.embed:.0f} on a GPU ([gpu](gpu.md)), {rates.read:.1f} training clips a
second of a core from files and {rates.read_packed:.1f} from packed ones ([scale](scale.md)), {rates.decode:.1f} videos
of ten seconds at 720p decoded whole ([speed](speed.md)). A machine has a GPU and {CORES} cores and
costs ${prices.machine:g} an hour, a stored gigabyte ${prices.stored:g} a month; these prices are stated, not measured.
The fifth column is a simulation of the readers, their window and the GPU, with videos that
take more or less long, against the rule that the slower of the two decides.

{table(jobs(rates), prices)}

Not counted: the transfer of the videos, the start of a cluster, machines that fail (a row of work is
done again, or what came after the last checkpoint). {math.ceil(rates.train / rates.read)} cores would feed a training step
from files,
{math.ceil(rates.train / rates.read_packed)} from packed ones.
"""
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
