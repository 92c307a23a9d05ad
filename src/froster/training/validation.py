"""What a training run gains and loses, epoch by epoch, on a few videos that neither train nor test.

`base`, the accuracy on validation videos of the training classes, may stop the run. What is kept of
CLIP chooses nothing: the accuracy on some videos of novel classes and how often the model answers
them as frozen CLIP does; without novel classes, that among labels that were not trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from froster.data.public import classes, key, readable
from froster.data.splits import Split, evenly
from froster.evaluation.metrics import Predictions, percent
from froster.inference.recognizer import Recognizer
from froster.methods.recipe import Preset
from froster.training.measure import (
    Change,
    EvalRow,
    EvalSet,
    Measuring,
    changes,
    class_source,
    eval_sets,
    measure,
    scored,
    scorer_of,
    texts_of,
    video_dataset,
    videos_of,
)

FOREIGN = 40
"""Labels that were not trained on, where there are no novel classes."""
MOST_NOVEL = 100
"""Novel videos that are measured after every epoch."""
TITLES = {"base": "base", "novel": "novel", "hm": "HM"}


def foreign_labels(labels: Sequence[str], askable: Sequence[str] | None = None) -> list[str]:
    """Labels of which none is among `labels`, spread over the alphabet: names of Kinetics-400
    classes, or of those that are `askable`. Empty where there is no choice between two."""
    known = {key(name) or name for name in labels}
    every = [readable(name) for name in classes("k400")] if askable is None else sorted(askable)
    names = [name for name in every if (key(name) or name) not in known]
    return names[:: max(1, len(names) // FOREIGN)][:FOREIGN] if len(names) > 1 else []


def labels_beside(model: Recognizer, labels: Sequence[str], closed: bool = False) -> list[str]:
    """The `foreign_labels` that a model can be asked for: one with a file of class embeddings has
    those of the file, and a closed set none."""
    askable = None if model.class_file is None else model.class_file.names
    return foreign_labels(labels, [] if closed else askable)


def agreement(first: Predictions, second: Predictions) -> float:
    """How many readable videos get the same answer from both, per cent."""
    kept = ~(first.logits.isnan().any(1) | second.logits.isnan().any(1))
    same = first.logits[kept].argmax(1) == second.logits[kept].argmax(1)
    return percent(same) if len(same) else 0.0


def validation_sets(
    model: Recognizer,
    setting: Preset,
    parts: Split,
    sentences: dict[str, str],
    seed: int,
    closed: bool = False,
) -> list[EvalSet]:
    """What is measured after every epoch, one clip a video; empty without validation videos.
    `closed`: what is trained knows the training classes alone."""
    if not parts.validation:
        return []
    once, novel = dataclasses.replace(setting, views=1), evenly(parts.novel_test, MOST_NOVEL, seed)
    some = dataclasses.replace(parts, base_test=parts.validation, novel_test=novel)
    sets = eval_sets(model, once, some, sentences)
    names = labels_beside(model, parts.base, closed) if len(sets) == 1 else []
    if names:
        # Any label will do: what is compared are answers.
        items = [dataclasses.replace(item, label=names[0]) for item in parts.validation]
        sets.append(EvalSet("foreign", video_dataset(model, once, items, names), names))
    return sets


class Validator:
    """Measures a student after an epoch, and frozen CLIP before the first, and says it in a line.
    `sets`: "base", the validation videos, and "novel", or the same videos in "foreign", where there
    are other labels to ask for."""

    def __init__(self, base: Recognizer, sets: Sequence[EvalSet], how: Measuring | None = None):
        self.base, self.sets, self.how = base, sets, how or Measuring()
        self.frozen: dict[str, Predictions] | None = None

    def __call__(self, student: Recognizer, epoch: int) -> dict[str, float]:
        """What `metrics.jsonl` and checkpoints hold of an epoch: accuracies in per cent."""
        if self.frozen is None:
            self.frozen = self.measure(self.base)
        student.model.eval()  # the next epoch sets it to training again
        with torch.no_grad():
            tuned = self.measure(student)
        by_set = changes(self.frozen, tuned)
        values: dict[str, float] = {"epoch": epoch}
        for name, change in by_set.items():
            values |= {name: change.after, f"{name}_frozen": change.before}
            values[f"{name}_error"] = change.error
        before, after = (EvalRow("", "", p).generalised for p in (self.frozen, tuned))
        together = {name: (before[name], after[name]) for name in before}
        for name, (frozen, now) in together.items():
            values |= {f"{name}_together": now, f"{name}_together_frozen": frozen}
        other = "novel" if "novel" in tuned else "foreign"
        if other in tuned:
            values["agreement"] = agreement(self.frozen[other], tuned[other])
            if other == "foreign":
                values["foreign"] = len(tuned[other].classes)
        self.how.reporter.say(epoch_line(values, by_set, together))
        return values

    def measure(self, model: Recognizer) -> dict[str, Predictions]:
        name, how = "validation videos", self.how
        if [s.name for s in self.sets] != ["base", "foreign"]:
            return measure(model, self.sets, how, name, keep=False)
        base, foreign = self.sets  # the same videos, whose features serve both
        with how.reporter.bar(f"evaluate {name}", videos_of([base]), keep=False) as bar:
            classes = [
                class_source(model, texts_of([s]), how.truncate)(s.classes) for s in self.sets
            ]
            both = dataclasses.replace(base, also={foreign.name: foreign.classes})
            (measured,) = scored([scorer_of(model, classes)], both, how, bar)
        return {base.name: measured, foreign.name: measured.also.pop(foreign.name)}


def epoch_line(
    values: Mapping[str, float],
    by_set: Mapping[str, Change],
    together: Mapping[str, tuple[float, float]],
) -> str:
    """`epoch 2: gained 31.0 -> 50.0 (+19.0 ± 7.5, a gain beyond two standard errors) on 40 base
    videos (chance 8.3); kept …`"""
    words = {
        name: f"{change} on {change.videos} {name} videos (chance {change.chance:.1f})"
        for name, change in by_set.items()
    }
    among = f" among {values['foreign']:.0f} other labels" if "foreign" in values else ""
    kept = [words["novel"]] if "novel" in words else []
    if "agreement" in values:
        kept.append(f"{values['agreement']:.0f} % as CLIP answers{among}")
    asked = [
        f"{TITLES[name]} {before:.1f} -> {after:.1f}" for name, (before, after) in together.items()
    ]
    line = f"epoch {values['epoch']}: gained {words['base']}"
    line += f"; kept {', '.join(kept)}" if kept else ""
    return f"{line}; asked together: {', '.join(asked)}" if asked else line
