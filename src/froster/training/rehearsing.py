"""ER-ZASR from labelled videos and files of weights to a tested head: both stages in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from froster.data.manifest import Item
from froster.encoders.checkpoints import unwrap
from froster.encoders.layouts import locate
from froster.encoders.precision import pick_device
from froster.encoders.reading import read_file
from froster.errors import CheckpointError, DataError
from froster.evaluation.metrics import Predictions
from froster.methods.bert import read_bert
from froster.text.definitions import WordPieces, class_texts, read_concepts, read_definitions
from froster.training.options import RehearsalOptions
from froster.training.rehearsal import Rehearsal, VideoSet, given_network, new_network, train
from froster.training.streams import Extracted, Streams, check_concepts, extract
from froster.utils.files import atomic_file
from froster.utils.progress import Working, silently
from froster.utils.tensors import cpu_state, save_tensors

WEIGHTS = "model.safetensors"
"""Of a repository of the hub."""


@dataclass(frozen=True)
class Parts:
    """The files that ER-ZASR is made of; `bit` and `bert` may be ids of the hub."""

    tsm: Path
    bit: Path
    bert: Path
    concepts: Path
    definitions: Path
    head: Path | None = None


@dataclass(frozen=True)
class Running:
    """On what it runs, and whom it tells how far it has come."""

    device: str | None = None
    workers: int = 0
    tell: Callable[[dict[str, Any]], None] = lambda epoch: None
    working: Working = silently


@dataclass(frozen=True)
class Result:
    model: Rehearsal
    report: dict[str, Any]
    predictions: Predictions | None
    """Of the novel videos."""

    def save(self, path: Path) -> None:
        """The head and its BERT, under the names of the authors' code."""
        with atomic_file(path) as part:
            save_tensors(cpu_state(self.model.network), part)


def rehearse(
    sets: Mapping[str, Sequence[Item]],
    parts: Parts,
    features: Path,
    options: RehearsalOptions,
    running: Running = Running(),
    labels: Sequence[str] | None = None,
) -> Result:
    """`sets` are labelled videos: "base" to train on, "validation" to choose the epoch, "novel" to
    test on. Features are kept below `features`. `labels`: of the novel classes; default: those that
    its videos have.

    Raises CheckpointError, DataError where definitions or concepts do not fit, or where no video of
    a set can be read.
    """
    place, working = pick_device(running.device), running.working
    local = dataclasses.replace(parts, bit=on_disk(parts.bit), bert=on_disk(parts.bert))
    definitions, concepts = read_definitions(parts.definitions), read_concepts(parts.concepts)
    classes = {name: sorted({item.label for item in items}) for name, items in sets.items()}
    if labels is not None:
        classes["novel"] = list(labels)
    texts = {name: class_texts(definitions, names) for name, names in classes.items()}
    pieces, (bert, heads) = WordPieces(local.bert), read_bert(local.bert)
    trained = None
    if parts.head is not None:
        trained = given_network(unwrap(read_file(parts.head)[1]), heads).float()
    streams = Streams(local.tsm, local.bit)
    extracted = {
        name: extract(items, streams, features, place, running.workers, working)
        for name, items in sets.items()
    }
    videos = {
        name: stored_videos(name, items, extracted[name], classes[name], texts[name])
        for name, items in sets.items()
    }
    every = [stored for part in videos.values() for stored in part.features]
    check_concepts(concepts, every)
    width = len(every[0].video)
    if trained is not None and trained.features != width:
        raise CheckpointError(
            f"{parts.head} reads features of width {trained.features}, {parts.tsm} makes {width}"
        )
    network = trained or new_network(bert, heads, width, options.width, options.seed)
    model = Rehearsal(network, pieces, concepts, place, options.fusion)
    epochs = []
    if options.epochs:
        epochs = train(
            model, videos["base"], options, videos.get("validation"), running.tell, working
        )
    predictions = None
    if "novel" in sets:
        predictions = predict(model, sets["novel"], extracted["novel"], videos["novel"], classes)
    report = {
        "method": "er-zasr",
        "options": dataclasses.asdict(options),
        "files": {name: value and str(value) for name, value in vars(parts).items()},
        "streams": streams.fingerprint,
        "classes": classes,
        "videos": {name: len(part.features) for name, part in videos.items()},
        "computed": sum(part.computed for part in extracted.values()),
        "unreadable": [error for part in extracted.values() for _, error in part.errors],
        "epochs": epochs,
        "novel": predictions and predictions.summary(),
    }
    return Result(model, report, predictions)


def on_disk(path: Path) -> Path:
    """A file or a folder, from the hub where it is the id of a repository."""
    return locate(path.as_posix(), WEIGHTS)


def stored_videos(
    name: str, items: Sequence[Item], extracted: Extracted, classes: list[str], texts: list[str]
) -> VideoSet:
    """Those that could be read. Raises DataError where there is none."""
    readable = [
        (stored, classes.index(item.label))
        for item, stored in zip(items, extracted.stored, strict=True)
        if stored is not None
    ]
    if not readable:
        raise DataError(
            f"none of the {len(items)} {name} videos can be read: {extracted.errors[0][1]}"
        )
    features, labels = zip(*readable, strict=True)
    return VideoSet(list(features), list(labels), texts)


def predict(
    model: Rehearsal,
    items: Sequence[Item],
    extracted: Extracted,
    videos: VideoSet,
    classes: Mapping[str, list[str]],
) -> Predictions:
    """Scores of every novel video, none for the unreadable ones."""
    logits = torch.full((len(items), len(classes["novel"])), float("nan"))
    readable = [place for place, stored in enumerate(extracted.stored) if stored is not None]
    logits[readable] = model.scores(videos)
    return Predictions(
        classes=classes["novel"],
        labels=torch.tensor([classes["novel"].index(item.label) for item in items]),
        logits=logits,
        views=logits[:, None],
        errors=extracted.errors,
        names=[str(item.path) for item in items],
    )
