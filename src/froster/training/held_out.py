"""The videos of a training run as the network reads them, and what is said of them before it
begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.progress import Progress

from froster.data.dataset import VideoDataset
from froster.data.fingerprint import file_fingerprints
from froster.data.manifest import Item
from froster.data.splits import Split, evenly
from froster.errors import UsageError
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.inference.seen import Seen, counted, written
from froster.methods.recipe import Preset
from froster.text.sentences import with_descriptions
from froster.training import advice
from froster.training.fine_tune import EvalSet, asked_together
from froster.training.validation import foreign_labels
from froster.utils.progress import working
from froster.video.augment import Augment
from froster.video.sampling import Sampling

WATCHED_NOVEL = 100


def novel_by_column(items: Sequence[Item], column: str) -> list[str]:
    """The classes whose rows say "novel" in `column`. Raises UsageError where a class says both or
    neither."""
    columns = sorted({name for item in items for name in item.columns})
    if column.lower() not in columns:
        raise UsageError(f"there is no column {column!r}; there is {', '.join(columns) or 'none'}")
    said: dict[str, set[str]] = {}
    for item in items:
        said.setdefault(item.label, set()).add(item.columns.get(column.lower(), "").lower())
    for label, words in said.items():
        if words not in ({"base"}, {"novel"}):
            raise UsageError(
                f"column {column!r} must say base or novel for class {label!r}, it says"
                f" {sorted(words)}"
            )
    return [label for label, words in said.items() if words == {"novel"}]


def dataset(
    model: Recognizer,
    sampling: Sampling,
    items: Sequence[Item],
    classes: list[str],
    *,
    views: int = 1,
    augment: Augment | None = None,
    seed: int = 0,
) -> VideoDataset:
    """Videos as the network reads them: random clips where an augmentation is given, else the views
    of a test."""
    size = model.clip.config.vision.image_size
    train = augment is not None
    return VideoDataset(
        items,
        classes,
        sampling,
        size,
        views=views,
        train=train,
        seed=seed,
        augment=augment or Augment(),
        how=model.preprocessing,
    )


def eval_sets(
    model: Recognizer, setting: Preset | ModelConfig, parts: Split, sentences: dict[str, str]
) -> list[EvalSet]:
    """Base and novel test videos, each against its own classes, and against the classes of both
    where there are both."""
    sets = [
        EvalSet(
            name,
            dataset(model, setting.sampling, items, classes, views=setting.views),
            classes,
            with_descriptions(classes, sentences),
            [str(item.path) for item in items],
        )
        for name, items, classes in (
            ("base", parts.base_test, parts.base),
            ("novel", parts.novel_test, parts.novel),
        )
        if items and len(classes) > 1
    ]
    return asked_together(sets)


def watch_sets(
    model: Recognizer, setting: Preset, parts: Split, sentences: dict[str, str], seed: int
) -> list[EvalSet]:
    """What is measured after every epoch, one clip a video; empty where no video is held out for
    it."""
    if not parts.watch:
        return []
    once = dataclasses.replace(setting, views=1)
    some = dataclasses.replace(
        parts, base_test=parts.watch, novel_test=evenly(parts.novel_test, WATCHED_NOVEL, seed)
    )
    sets = eval_sets(model, once, some, sentences)
    if len(sets) == 1:
        names = foreign_labels(parts.base)
        unlabelled = [
            dataclasses.replace(item, label=names[0]) for item in parts.watch
        ]  # their answers are compared alone
        sets.append(EvalSet("foreign", dataset(model, setting.sampling, unlabelled, names), names))
    return sets


def warnings(
    model: Recognizer,
    parts: Split,
    sentences: dict[str, str],
    truncate: bool,
    look: bool,
    bars: Progress,
    workers: int,
) -> list[str]:
    """Everything that `advice` has to say; with `look` it also opens every video."""
    found = [
        *advice.few_clips(parts.train),
        *advice.imbalance(parts.train),
        *advice.missing_tests(parts),
    ]
    found += advice.same_labels(
        model, with_descriptions(parts.base + parts.novel, sentences), truncate
    )
    if look:
        test = [*parts.base_test, *parts.novel_test, *parts.watch]
        bar = bars.add_task("compare videos", total=len(parts.train) + len(test), note="")
        found += advice.near_duplicates(
            parts.train, test, workers, lambda n: bars.update(bar, advance=n)
        )
        bars.remove_task(bar)
    return found


def trained_before(start: Seen | None, parts: Split) -> list[str]:
    """Test videos that the model which is started from has learnt from already."""
    if start is None:
        return []
    test = [*parts.base_test, *parts.novel_test]
    with working("looking for training videos", len(test)) as advance:
        trained, _ = counted(start.parts(test, advance))
    if not trained:
        return []
    return [
        f"{trained} of {len(test)} test videos trained the model that this run starts from, so the"
        " test is too easy"
    ]


def marks(parts: Split, start: Seen | None, bars: Progress) -> dict[str, str]:
    """What a run's report says of the videos that its model has seen, those of its start among
    them."""
    bar = bars.add_task(
        "note the training videos", total=len(parts.train) + len(parts.watch), note=""
    )
    before = start or Seen(frozenset(), frozenset())
    trained, watched = (
        written([*file_fingerprints(items, lambda n: bars.update(bar, advance=n)), *known])
        for items, known in ((parts.train, before.trained), (parts.watch, before.watched))
    )
    return {"trained_on": trained, "watched_by": watched}
