"""Peak memory of a training step, each contender in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import torch

from benchmarks.setup import FRAMES, clips, labels, name_of, precisions, scene
from benchmarks.timing import Row, Spread

GOAL = 0.5
CLIPS = 2


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    classes = 5 if toy else 100
    wanted = [("ours", name_of(dtype)) for dtype in precisions(toy)]
    peaks = {
        (who, dtype): in_a_process(who, dtype, classes, toy)
        for who, dtype in [*wanted, ("theirs", "float32")]
    }
    theirs = peaks["theirs", "float32"]
    rows = []
    for who, dtype in wanted:
        ratio = Spread.of([peaks[who, dtype] / theirs])
        what = f"peak memory of a training step, {CLIPS} clips, {classes} described classes"
        values = Spread.of([peaks[who, dtype]]), Spread.of([theirs])
        rows.append(
            Row(
                what,
                f"froster, {dtype}",
                "(a) released recipe, float32",
                *values,
                "GB",
                ratio,
                GOAL,
                at_most=True,
            )
        )
    return rows, ["The largest resident size of a process that takes two steps."]


def in_a_process(who: str, dtype: str, classes: int, toy: bool) -> float:
    """GB"""
    given = json.dumps({"who": who, "dtype": dtype, "classes": classes, "toy": toy})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", given],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def main(who: str, dtype: str, classes: int, toy: bool) -> None:
    from benchmarks.baselines import ReleasedStep
    from benchmarks.step import TEMPLATE, OurStep

    stage = scene(toy)
    step = (OurStep if who == "ours" else ReleasedStep)(
        stage, labels(classes), FRAMES, getattr(torch, dtype)
    )
    for _ in range(2):
        step(clips(CLIPS, stage.image_size), torch.arange(CLIPS), TEMPLATE)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
