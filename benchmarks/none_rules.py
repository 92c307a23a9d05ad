"""What tells best that a video's label is not among those asked for? AUROC of five statistics, on
the rendered world.

    python -m benchmarks.none_rules [--set novel] [--videos 10]

Every video is scored among K labels with its own, and among K others. Nothing is fitted here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from froster.evaluation.calibration import leave_out, sizes
from froster.evaluation.reliability import auroc
from froster.inference.recognizer import load
from froster.training.measure import EvalSet, Measuring, measure
from froster.training.reporter import Drawn
from froster.utils.progress import progress
from froster.world.clips import WorldClips
from froster.world.sets import SETS, render_set

STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "energy": lambda logits: logits.logsumexp(-1),
    "largest cosine": lambda logits: logits.amax(-1),
    "energy at 10 times the temperature": lambda logits: (logits / 10).logsumexp(-1),
    "largest less the mean": lambda logits: logits.amax(-1) - logits.mean(-1),
    "largest soft-max": lambda logits: logits.softmax(-1).amax(-1),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="nano")
    parser.add_argument("--set", default="novel", choices=SETS)
    parser.add_argument("--videos", type=int, default=10, help="test videos a class")
    args = parser.parse_args()
    model, videos = load(args.model), render_set(args.set, args.videos)
    with progress(quiet=True) as bars:
        test = EvalSet(
            args.set, WorldClips(videos, model.config.sampling, train=False), videos.classes
        )
        found = measure(model, [test], Measuring(reporter=Drawn(bars)), args.set)[args.set]
    counts = sizes(len(videos.classes))
    print("| statistic | " + " | ".join(f"{count} labels" for count in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for name, statistic in STATISTICS.items():
        cells = []
        for count in counts:
            own, others = (
                statistic(side.double()) for side in leave_out(found.logits, found.labels, count)
            )
            cells.append(
                f"{auroc(own, others):.0f}" if count > 1 or torch.ne(own, others).any() else "–"
            )
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
