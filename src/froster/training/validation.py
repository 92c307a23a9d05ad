"""What a training run gains and loses, epoch by epoch, on a few videos that neither train nor test.

`base`, the accuracy on watched videos of the training classes, may stop the run. What is kept of
CLIP is shown beside it and chooses nothing: the accuracy on some videos of novel classes and how
often the model answers there as frozen CLIP does; without novel classes, how often it does so among
labels that have nothing to do with the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from rich.progress import Progress

from froster.data.public import classes, readable
from froster.evaluation.metrics import Predictions, percent
from froster.inference.recognizer import Recognizer
from froster.training.change import Change, changes
from froster.training.fine_tune import EvalSet, Row, measure

FOREIGN = 40
"""Labels that were not trained on, where there are no novel classes."""
TITLES = {"base": "base", "novel": "novel", "hm": "HM"}


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
    """Measures a student after an epoch, and tells it in a line. Frozen CLIP is measured once,
    before the first.

    `sets` holds "base", the watched videos, and "novel" or, of the watched videos among foreign
    labels, "foreign".
    """

    def __init__(
        self,
        base: Recognizer,
        sets: Sequence[EvalSet],
        bars: Progress,
        workers: int,
        truncate: bool,
    ):
        self.base, self.sets, self.bars, self.workers, self.truncate = (
            base,
            sets,
            bars,
            workers,
            truncate,
        )
        self.frozen: dict[str, Predictions] | None = None

    def __call__(self, student: Recognizer, epoch: int) -> dict[str, float]:
        if self.frozen is None:
            self.frozen = self.measure(self.base)
        student.model.eval()  # the next epoch sets it to training again
        with torch.no_grad():
            found = self.measure(student)
        found_changes = changes(self.frozen, found)
        other = "novel" if "novel" in found else "foreign"
        values: dict[str, float] = {"epoch": epoch}
        for name, value in found_changes.items():
            values |= {
                name: value.after,
                f"{name}_frozen": value.before,
                f"{name}_error": value.error,
            }
        together_before, together_after = (Row("", "", p).generalised for p in (self.frozen, found))
        together = {name: (value, together_after[name]) for name, value in together_before.items()}
        for name, (frozen, own) in together.items():
            values |= {f"{name}_together": own, f"{name}_together_frozen": frozen}
        values["agreement"] = agreement(self.frozen[other], found[other])
        if other == "foreign":
            values["foreign"] = len(found[other].classes)
        self.bars.console.print(
            line(epoch, found_changes, together, values["agreement"], values.get("foreign"))
        )
        return values

    def measure(self, model: Recognizer) -> dict[str, Predictions]:
        found = measure(model, self.sets, self.bars, "watch", self.workers, self.truncate)
        self.bars.remove_task(self.bars.task_ids[-1])
        return found


def line(
    epoch: int,
    found: Mapping[str, Change],
    together: Mapping[str, tuple[float, float]],
    agreement: float,
    foreign: float | None,
) -> str:
    """`epoch 2: gained 31.0 -> 50.0 (+19.0 ± 7.5, a gain beyond two standard errors) on 40 base
    videos (chance 8.3); kept …`"""
    told = {
        name: f"{value} on {value.videos} {name} videos (chance {value.chance:.1f})"
        for name, value in found.items()
    }
    where = "" if foreign is None else f" among {foreign:.0f} other labels"
    kept = [
        *([told["novel"]] if "novel" in told else []),
        f"{agreement:.0f} % as CLIP answers{where}",
    ]
    asked = [
        f"{TITLES[name]} {before:.1f} -> {after:.1f}" for name, (before, after) in together.items()
    ]
    together_words = f"; asked together: {', '.join(asked)}" if asked else ""
    return f"epoch {epoch}: gained {told['base']}; kept {', '.join(kept)}{together_words}"
