"""The habits of a training set, seen by a frozen CLIP: a frame a video, a scene word a frame."""

from __future__ import annotations

import dataclasses
import random
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from importlib.resources import files

import torch

from froster.data.dataset import VideoDataset
from froster.data.items import Item, at, label_set, labels_of, where_in
from froster.data.loader import batches
from froster.data.splits import evenly
from froster.errors import DataError, UsageError
from froster.evaluation.habits import Habits, best_words, check_sources, habits
from froster.inference.recognizer import Recognizer
from froster.text.prompts import Prompting
from froster.training.measure import Measuring
from froster.video.sampling import Sampling

MOST = 2000
"""Videos that are looked at, of every class as many as of the others: one standard error of their
accuracy is 1.1 points at most."""
CLASSES = 24
"""At most; of more so many are drawn, of which scenes tell as much as of those that the rule was
measured with: hundreds of classes share a few scenes, and a word tells one of them at best."""
AT_ONCE = 32
PROMPT = Prompting(("a photo taken {}.",), "plain")
MIDDLE = Sampling("uniform", frames=1)
SOURCES = ("group", "recording", "source_video", "youtube_id")
"""Columns of a manifest that say which video a clip was cut from; the first that says something."""
NAMED_SOURCES = (re.compile(r"(v_.+_g\d+)_c\d+"), re.compile(r"(.{11})_\d{6}_\d{6}"))
"""The same in names of files, which come first: UCF101's groups, and Kinetics' ids before the
seconds."""


def scene_words() -> list[str]:
    """The shipped list, each as it ends "a photo taken …"."""
    text = (files("froster.text") / "data" / "scenes.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def source_of(item: Item) -> Hashable:
    """What clips of one video have in common; of a clip that says nothing its path."""
    for pattern in NAMED_SOURCES:
        if match := pattern.fullmatch(item.path.stem):
            return match[1]
    columns = (item.columns[column] for column in SOURCES if item.columns.get(column))
    return next(columns, str(item.path))


def two_sources(items: Sequence[Item]) -> list[tuple[str, Hashable]]:
    """The labels with the sources of their clips, of each label two at most."""
    labels = labels_of(items)
    pairs: dict[tuple[int, Hashable], None] = {}
    wanted = [2] * len(labels.values)
    for place, code in enumerate(labels.codes.tolist()):
        if wanted[code]:
            pair = code, source_of(items[place])
            wanted[code] -= pair not in pairs
            pairs[pair] = None
    return [(labels.values[code], source) for code, source in pairs]


def check_model(model: Recognizer) -> None:
    """Raises UsageError unless it is a CLIP that embeds frames, and texts, as it is."""
    if not model.model.frames_apart or model.config.method.closed:
        raise UsageError(
            f"habits are measured by a frozen CLIP, not by one that is {model.config.method.name}"
        )
    if model.class_file is not None:
        raise UsageError("habits need a text tower, whose place --classes takes")


def measure_habits(model: Recognizer, items: Sequence[Item], how: Measuring) -> Habits:
    """Opens the middle frame of every video, of `MOST` at most. Raises UsageError on a model that
    is no frozen CLIP, DataError in one sentence where there is too little to measure."""
    check_model(model)
    pairs = two_sources(items)
    check_sources([label for label, _ in pairs], [source for _, source in pairs])
    sources = Counter(label for label, _ in pairs)
    names = [label for label, n in sources.items() if n > 1]
    if len(names) > CLASSES:
        how.reporter.say(f"habits are looked for in {CLASSES} of {len(names)} classes, drawn")
        names = random.Random("habits").sample(names, CLASSES)
    several = evenly(at(items, where_in(labels_of(items), names)), MOST, 0)
    classes = label_set(several)
    if len(classes) < 2:
        raise DataError("only one class has clips of two videos, so there is none to compare with")
    words = scene_words()
    reader = model.with_network(model.model, dataclasses.replace(model.config, prompting=PROMPT))
    embeddings = reader.embed_text(words)
    dataset = VideoDataset(
        several, classes, MIDDLE, model.image_size, train=False, how=model.preprocessing
    )
    order = [range(i, min(i + AT_ONCE, len(several))) for i in range(0, len(several), AT_ONCE)]
    frames, rows = [], []
    with how.reporter.bar("look at scenes", len(several), keep=False) as bar:
        for batch in batches(dataset, order, how.workers):
            if len(batch.labels):
                frames.append(model.embed_clips(batch.frames[:, 0]))
                rows += batch.indices.tolist()
            bar(len(batch.labels) + len(batch.errors))
    if not rows:
        raise DataError(f"none of the {len(several)} videos can be read")
    readable = [several[row] for row in rows]
    best = best_words(torch.cat(frames), embeddings)
    labels = [item.label for item in readable]
    return habits(words, best.tolist(), labels, list(map(source_of, readable)))
