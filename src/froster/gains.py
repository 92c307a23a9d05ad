"""What a training run gains and loses, epoch by epoch, on a few videos that neither train nor test.

`base`, the accuracy on watched videos of the training classes, may stop the run. What is kept of CLIP is shown beside it
and chooses nothing: the accuracy on some videos of novel classes and how often the model answers there as frozen CLIP
does; without novel classes, how often it does so among labels that have nothing to do with the training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from rich.progress import Progress

from froster.evaluation import Predictions, percent
from froster.experiment import EvalSet, measure
from froster.paper.names import classes, readable
from froster.recognizer import Recognizer

FOREIGN = 40
"""Labels that were not trained on, where there are no novel classes."""


def foreign_labels(own: Sequence[str], count: int = FOREIGN) -> list[str]:
    """Names of Kinetics-400 classes, spread over the alphabet, of which none is among `own`."""
    taken = {name.casefold() for name in own}
    names = [name for name in map(readable, classes("k400")) if name.casefold() not in taken]
    return names[:: len(names) // count][:count]


def agreement(first: Predictions, second: Predictions) -> float:
    """How many readable videos get the same answer from both, per cent."""
    readable = ~(first.logits.isnan().any(1) | second.logits.isnan().any(1))
    same = first.logits[readable].argmax(1) == second.logits[readable].argmax(1)
    return percent(same) if len(same) else 0.0


class Watcher:
    """Measures a student after an epoch, and tells it in a line. Frozen CLIP is measured once, before the first.

    `sets` holds "base", the watched videos, and "novel" or, of the watched videos among foreign labels, "foreign".
    """

    def __init__(self, base: Recognizer, sets: Sequence[EvalSet], bars: Progress, workers: int, truncate: bool):
        self.base, self.sets, self.bars, self.workers, self.truncate = base, sets, bars, workers, truncate
        self.frozen: dict[str, Predictions] | None = None

    def __call__(self, student: Recognizer, epoch: int) -> dict[str, float]:
        if self.frozen is None:
            self.frozen = self.measure(self.base)
        student.model.eval()  # the next epoch sets it to training again
        with torch.no_grad():
            found = self.measure(student)
        values = {"epoch": epoch, "base": found["base"].top(1), "base_frozen": self.frozen["base"].top(1)}
        if "novel" in found:
            values |= {"novel": found["novel"].top(1), "novel_frozen": self.frozen["novel"].top(1)}
        other = "novel" if "novel" in found else "foreign"
        values["agreement"] = agreement(self.frozen[other], found[other])
        if other == "foreign":
            values["foreign"] = len(found[other].classes)
        self.bars.console.print(line(values, {s.name: len(s.videos or []) for s in self.sets}))
        return values

    def measure(self, model: Recognizer) -> dict[str, Predictions]:
        found = measure(model, self.sets, self.bars, "watch", self.workers, self.truncate)
        self.bars.remove_task(self.bars.task_ids[-1])
        return found


def line(values: dict[str, float], videos: dict[str, int]) -> str:
    """`epoch 2: gained 31.0 -> 50.0 (+19.0) on 40 base videos; kept …`"""
    change = lambda name: (  # noqa: E731
        f"{values[f'{name}_frozen']:.1f} -> {values[name]:.1f} ({values[name] - values[f'{name}_frozen']:+.1f}) "
        f"on {videos[name]} {name} videos"
    )
    kept = f"{change('novel')}, " if "novel" in values else ""
    where = "" if "novel" in values else f" among {values['foreign']:.0f} other labels"
    return f"epoch {values['epoch']:.0f}: gained {change('base')}; kept {kept}{values['agreement']:.0f} % as CLIP answers{where}"
