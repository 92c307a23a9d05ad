"""Models measured on sets of videos: the rows of a results table, and what a training changed, in
numbers and in words that claim no more than these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from froster.data.dataset import VideoDataset
from froster.data.items import Item, Items
from froster.data.manifest import read_items
from froster.data.splits import Split
from froster.evaluation.metrics import (
    Predictions,
    Scorer,
    evaluate,
    harmonic_mean,
    harmonic_mean_error,
    paired_error,
)
from froster.evaluation.probes import Probe
from froster.evaluation.spread import ALONE, Spread
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.methods.recipe import Preset
from froster.text.sentences import with_descriptions
from froster.training.distributed import by_rank_0
from froster.training.options import LabelledOptions
from froster.training.reporter import Bar, Reporter

TOGETHER = "together"
"""`Predictions.also` has the labels of base and novel classes under this name."""


@dataclass(frozen=True)
class EvalSet:
    """Videos that are scored against their own classes only, as the base-to-novel protocol does."""

    name: str
    dataset: Dataset
    classes: list[str]
    texts: list[str] | None = None
    """What the model is asked for, one text a class, where it is more than the class's name."""
    videos: list[str] | None = None
    """Names for the predictions file."""
    also: Mapping[str, list[str]] = field(default_factory=dict)
    """Other sets of labels that the same features are scored among (`Predictions.also`), such as
    `TOGETHER`: who asks does not know of which kind a video is."""


def asked_together(sets: Sequence[EvalSet]) -> list[EvalSet]:
    """The same sets, of which "base" and "novel", if both exist, are also scored among the labels
    of both."""
    classes = {s.name: s.classes for s in sets}
    if not {"base", "novel"} <= classes.keys():
        return list(sets)
    also = {TOGETHER: [*classes["base"], *classes["novel"]]}
    return [dataclasses.replace(s, also=also) if s.name in ("base", "novel") else s for s in sets]


def video_dataset(
    model: Recognizer, setting: Preset | ModelConfig, items: Sequence[Item], classes: list[str]
) -> VideoDataset:
    """Videos as the network reads them for a test."""
    return VideoDataset(
        items,
        classes,
        setting.sampling,
        model.image_size,
        views=setting.views,
        train=False,
        how=model.preprocessing,
    )


def training_dataset(
    model: Recognizer,
    setting: Preset,
    items: Sequence[Item],
    classes: list[str],
    seed: int,
    draws: int | None = None,
) -> VideoDataset:
    """`draws`: so many different clips of a video."""
    return VideoDataset(
        items,
        classes,
        setting.sampling,
        model.image_size,
        train=True,
        seed=seed,
        augment=setting.augment,
        how=model.preprocessing,
        draws=draws,
    )


def eval_sets(
    model: Recognizer, setting: Preset | ModelConfig, parts: Split, sentences: dict[str, str]
) -> list[EvalSet]:
    """Base and novel test videos, each against its own classes, and against those of both."""
    sets = []
    for name, items, classes in (
        ("base", parts.base_test, parts.base),
        ("novel", parts.novel_test, parts.novel),
    ):
        if items and len(classes) > 1:
            texts, names = with_descriptions(classes, sentences), [str(item.path) for item in items]
            dataset = video_dataset(model, setting, items, classes)
            sets.append(EvalSet(name, dataset, classes, texts, names))
    return asked_together(sets)


@dataclass
class EvalRow:
    """One line of a results table: a set of weights, measured on every evaluation set."""

    method: str
    weights: str
    predictions: dict[str, Predictions] = field(repr=False)

    def top1(self, name: str) -> float | None:
        return self.predictions[name].top(1) if name in self.predictions else None

    @property
    def hm(self) -> float | None:
        base, novel = self.top1("base"), self.top1("novel")
        return harmonic_mean(base, novel) if base is not None and novel is not None else None

    @property
    def together(self) -> EvalRow | None:
        """The same videos among the labels of base and novel together, if these were asked for."""
        asked = {
            name: p.also[TOGETHER] for name, p in self.predictions.items() if TOGETHER in p.also
        }
        return EvalRow(self.method, self.weights, asked) if asked else None

    @property
    def generalised(self) -> dict[str, float]:
        """base, novel and hm among the labels of both, if these were asked for."""
        columns = self.together.columns() if self.together else {}
        return {name: value for name, value in columns.items() if value is not None}

    def error(self, name: str) -> float | None:
        """One standard error of test sampling of a set; for "hm" propagated from base and novel."""
        if name != "hm":
            return self.predictions[name].error if name in self.predictions else None
        base, novel = (self.predictions.get(part) for part in ("base", "novel"))
        if base is None or novel is None:
            return None
        return harmonic_mean_error(base.top(1), novel.top(1), base.error, novel.error)

    def columns(self) -> dict[str, float | None]:
        return {"base": self.top1("base"), "novel": self.top1("novel"), "hm": self.hm}

    def to_dict(self) -> dict[str, Any]:
        """Per cent; `cross` holds every set beside base and novel."""
        cross = {
            name: p.top(1) for name, p in self.predictions.items() if name not in ("base", "novel")
        }
        return {
            "method": self.method,
            "weights": self.weights,
            **self.columns(),
            "standard_error": {name: self.error(name) for name in self.columns()},
            **({"generalised": self.generalised} if self.together else {}),
            **({"cross": cross} if cross else {}),
        }


@dataclass(frozen=True)
class Measuring:
    """How videos are measured."""

    workers: int = 0
    truncate: bool = False
    """Cut labels that are too long for the text tower, in place of refusing them."""
    reporter: Reporter = field(default_factory=Reporter)
    batch_size: int | None = None
    """Videos at a time; None: as many as have 32 views together."""
    spread: Spread = ALONE
    """Over which processes: where it is over several, all of them must measure the same."""


def measure(
    model: Recognizer,
    sets: Sequence[EvalSet],
    how: Measuring | None = None,
    what: str = "videos",
    keep: bool = True,
) -> dict[str, Predictions]:
    """Predictions of one model on every set. `what`: beside the bar, which stays with `keep`."""
    return measure_many([model], sets, how, what, keep)[0]


def measure_many(
    models: Sequence[Recognizer],
    sets: Sequence[EvalSet],
    how: Measuring | None = None,
    what: str = "videos",
    keep: bool = True,
) -> list[dict[str, Predictions]]:
    """The same for several models, which all see a video from one decode."""
    how = how or Measuring()
    results: list[dict[str, Predictions]] = [{} for _ in models]

    def sources(*some: EvalSet) -> list[ClassSource]:
        return [class_source(model, texts_of(some), how.truncate) for model in models]

    several = [s for s in sets if s.also]
    shared = sources(*several) if several else []
    sources_of = [shared if s.also else sources(s) for s in sets]
    with how.reporter.bar(f"evaluate {what}", videos_of(sets), keep) as bar:
        for s, classes in zip(sets, sources_of, strict=True):
            bar(0, s.name)
            scorers = [
                scorer_of(model, [source(names) for names in (s.classes, *s.also.values())])
                for model, source in zip(models, classes, strict=True)
            ]
            predictions = scored(scorers, s, how, bar)
            for result, of_set in zip(results, predictions, strict=True):
                result[s.name] = of_set
        bar(0, "")
    return results


def videos_of(sets: Sequence[EvalSet]) -> int:
    return sum(len(s.dataset) for s in sets)  # type: ignore[arg-type, misc]


def texts_of(sets: Sequence[EvalSet]) -> dict[str, str]:
    """Label -> what the model is asked for."""
    texts = {label: label for s in sets for labels in s.also.values() for label in labels}
    for s in sets:
        texts |= zip(s.classes, s.texts or s.classes, strict=True)
    return texts


ClassSource = Callable[[Sequence[str]], Tensor]
"""From a set of labels to their class embeddings."""


def class_source(model: Recognizer, texts: Mapping[str, str], truncate: bool) -> ClassSource:
    """Texts are encoded once for all sets, unless an embedding depends on the other classes."""
    if not model.model.shared_prompts:
        return lambda labels: model.class_embeddings([texts[name] for name in labels], truncate)
    place = {label: i for i, label in enumerate(texts)}
    every = model.class_embeddings(list(texts.values()), truncate)
    return lambda labels: every[..., [place[name] for name in labels], :]


def scorer_of(model: Recognizer, classes: Sequence[Tensor], probe: Probe | None = None) -> Scorer:
    """Scores videos among the first set of classes, and among the others by the same features."""
    first, *others = classes
    return Scorer(model.inference, first, model.dtype, model.config.fusion, others, probe)


def scored(scorers: Sequence[Scorer], s: EvalSet, how: Measuring, bar: Bar) -> list[Predictions]:
    """A set's videos by several scorers, from one decode."""
    return evaluate(
        scorers,
        s.dataset,
        s.classes,
        names=s.videos,
        batch_size=how.batch_size,
        workers=how.workers,
        on_videos=bar,
        also=s.also,
        spread=how.spread,
    )


CHANGE_WORDS = {"base": "gained on base classes", "novel": "kept on novel classes"}


@dataclass(frozen=True)
class Change:
    """Top-1 accuracy before and after, in per cent."""

    before: float
    after: float
    error: float
    """One standard error of the difference, in points."""
    videos: int
    classes: int

    @property
    def gain(self) -> float:
        return self.after - self.before

    @property
    def chance(self) -> float:
        return 100 / self.classes

    @property
    def kind(self) -> str:
        """good or bad where the difference is beyond two standard errors, else ""."""
        return "" if abs(self.gain) <= 2 * self.error else "good" if self.gain > 0 else "bad"

    @property
    def words(self) -> str:
        if not self.error:
            return "the same videos right"
        beyond = {"good": "a gain", "bad": "a loss"}.get(self.kind)
        return f"{beyond} beyond two standard errors" if beyond else "within the error"

    @property
    def points(self) -> str:
        return f"{self.gain:+.1f} ± {self.error:.1f}"

    def __str__(self) -> str:
        return f"{self.before:.1f} -> {self.after:.1f} ({self.points}, {self.words})"

    @property
    def among(self) -> str:
        return f"{self.videos} videos among {self.classes} labels, chance {self.chance:.1f}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "gain": self.gain, "chance": self.chance, "words": self.words}


def change(before: Predictions, after: Predictions) -> Change:
    """Of two models on the same videos among the same classes."""
    size = len(after.labels), len(after.classes)
    return Change(before.top(1), after.top(1), paired_error(before, after), *size)


def changes(
    before: Mapping[str, Predictions], after: Mapping[str, Predictions]
) -> dict[str, Change]:
    """Of the base and the novel classes, as far as they were measured."""
    names = [name for name in ("base", "novel") if name in before and name in after]
    return {name: change(before[name], after[name]) for name in names}


def changes_of(before: EvalRow, after: EvalRow) -> dict[str, Any]:
    """For a report: base and novel classes, and, under "together", among the labels of both."""
    by_set = changes(before.predictions, after.predictions)
    report: dict[str, Any] = {name: c.to_dict() for name, c in by_set.items()}
    if before.together and after.together:
        report["together"] = changes_of(before.together, after.together)
    return report


def change_lines(before: EvalRow, after: EvalRow) -> list[str]:
    """The same in lines."""
    by_set = changes(before.predictions, after.predictions)
    lines = [f"{CHANGE_WORDS[name]}: {c} on {c.among}" for name, c in by_set.items()]
    if before.together and after.together:
        asked = changes(before.together.predictions, after.together.predictions)
        labels = asked["base"]
        lines.append(
            f"asked for all {labels.classes} labels together (chance {labels.chance:.1f}): "
            + "; ".join(f"{name} {c}" for name, c in asked.items())
            + f"; harmonic mean {before.together.hm:.1f} -> {after.together.hm:.1f}"
        )
    return lines


def load_reported(
    name: str,
    asked: LabelledOptions,
    reporter: Reporter,
    device: str | None = None,
    merge_tokens: int = 0,
) -> Recognizer:
    """The model of that name, whose own long jobs are reported too. `device`: not the one that was
    asked for."""
    with reporter.bar(f"loading {name}", None, keep=False):
        model = load(
            name,
            classes=asked.classes,
            device=device or asked.device,
            precision=asked.precision,
            merge_tokens=merge_tokens,
        )
    model.working = partial(reporter.bar, keep=False)
    return model


def labelled_videos(data: Path, asked: LabelledOptions, reporter: Reporter) -> Items:
    """Says what of the data is not taken, before a model is loaded."""
    items = read_items(
        data,
        labels_json=asked.labels_json,
        root=asked.root,
        where=dict(asked.where),
        once=by_rank_0,
    )
    for line in items.notes():
        reporter.say(line)
    return items
