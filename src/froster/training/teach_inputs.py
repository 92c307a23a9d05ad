"""What the videos are to `froster teach`: kept features of their views, or what an index has of
their segments; and the networks' answers to them, for which nothing is decoded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from froster.data.manifest import Item, Place
from froster.encoders.last_map import LastMap
from froster.encoders.model import unit
from froster.errors import DataError, UsageError
from froster.evaluation.metrics import Predictions, predictions_of
from froster.inference.batch import ReadOptions
from froster.inference.features import (
    FeatureStore,
    KeptViews,
    Request,
    about_features,
    keep,
    views_of,
)
from froster.inference.index import check_model
from froster.inference.recognizer import Recognizer
from froster.inference.store import IndexEntry, Store
from froster.methods import VideoCLIP
from froster.training.measure import TOGETHER, ClassSource
from froster.training.options import TeachOptions
from froster.training.reporter import Reporter
from froster.utils.address import located, whole_name


@dataclass
class Inputs:
    """By the place of an item: its video, and which part of it."""

    taught: dict[Place, Tensor]
    """(V, T, D) kept features, of which the first views are those of the test; or (n, E) unit
    embeddings of an index."""
    tested: dict[Place, Tensor]
    errors: dict[Place, str]
    """'file: cause' of those that could not be read."""
    from_index: bool = False
    note: str = ""
    """How much was computed, and where it is kept."""
    store: dict[str, Any] = field(default_factory=dict)
    """The same for the report."""

    def videos(
        self, network: VideoCLIP, place: Place, tested: bool
    ) -> Float[Tensor, "views embed"]:
        """Embeddings as the network compares them with texts."""
        x = (self.tested if tested else self.taught)[place].float()
        x = x.to(network.clip.logit_scale.device)
        if self.from_index:
            return x
        return network.pool_frames(LastMap(network.clip.visual).embed(x)).video


def kept_inputs(
    model: Recognizer,
    train: Sequence[Item],
    test: Sequence[Item],
    marks: Mapping[Path, str | None],
    asked: TeachOptions,
    reporter: Reporter,
) -> Inputs:
    """The features of the videos in the store of `asked.features`, or kept nowhere; what is not
    there is computed."""
    count, folder = model.config.views, asked.features
    views = KeptViews(model.view_reader())
    store = FeatureStore(folder, about_features(model, views.to_dict(), torch.float16))
    both = tuple(views_of(count, asked.views))
    requests = [
        *(Request(item.path, marks[item.path], both, item.span) for item in train),
        *(Request(item.path, marks[item.path], both[:count], item.span) for item in test),
    ]
    options = ReadOptions(workers=asked.workers)
    kept = keep(model, store, requests, views, options=options, working=partial(reporter.bar))
    taught, tested = {}, {}
    for i, x in kept.features.items():
        place = requests[i].path, requests[i].span
        if i < len(train):
            taught[place] = x
        tested[place] = x[:count]
    errors = {(requests[i].path, requests[i].span): error for i, error in kept.errors.items()}
    note = f"features of frames: {kept.new} clips computed"
    if folder is not None:
        note += f", {kept.old} kept from before; {store.bytes / 1e6:.1f} MB in {folder}"
    where = None if folder is None else str(folder)
    about = {"folder": where, "new": kept.new, "kept": kept.old, "bytes": store.bytes}
    return Inputs(taught, tested, errors, note=note, store=about)


def index_inputs(
    model: Recognizer, index: Path, train: Sequence[Item], test: Sequence[Item]
) -> Inputs:
    """The embeddings that an index has of the videos' segments. Raises UsageError where it is of
    another model."""
    store = Store(index)
    if store.merge_tokens:
        raise UsageError(
            f"{index} is of merged tokens, which a model that is taught does not see: make an index"
            " without --merge-tokens, or take --method prolip, which reads the videos"
        )
    check_model(store, model)
    keys = {whole_name(located(store.root, key)): key for key in store.files()}
    wanted = {item.path: keys.get(whole_name(item.path)) for item in (*train, *test)}
    videos = store.videos(filter(None, wanted.values()))
    tested, errors = {}, {}
    for item in (*train, *test):
        key = wanted[item.path]
        if key is None:
            errors[item.place] = f"{item.path}: not in the index {index}"
            continue
        vectors = videos[key].vectors.float()
        tested[item.place] = unit(vectors[segments_in(videos[key].entry, item.span)])
    taught = {item.place: tested[item.place] for item in train if item.place in tested}
    note = f"embeddings of {len(tested)} videos from {index}"
    return Inputs(taught, tested, errors, True, note, {"index": str(index)})


def segments_in(entry: IndexEntry, span: tuple[float, float] | None) -> list[int]:
    """The segments of a video that lie in a part of it, or the one that has the most of it."""
    pairs = list(zip(entry.starts, entry.ends, strict=True))
    if span is None:
        return list(range(len(pairs)))
    inside = [i for i, (s, e) in enumerate(pairs) if span[0] <= (s + e) / 2 < span[1]]
    common = [min(e, span[1]) - max(s, span[0]) for s, e in pairs]
    return inside or [max(range(len(pairs)), key=common.__getitem__)]


def check_teachable(inputs: Inputs, items: Sequence[Item], classes: Sequence[str]) -> list[Item]:
    """The videos that can teach. Raises DataError where a class has none, or nothing tells any two
    of them apart."""
    readable = [item for item in items if item.place in inputs.taught]
    lost = sorted(set(classes) - {item.label for item in readable})
    if lost:
        first = next(iter(inputs.errors.values()), "")
        raise DataError(
            f"no video of {', '.join(lost[:3])} ({len(lost)} classes) could be read; the first:"
            f" {first}"
        )
    first_rows = inputs.taught[readable[0].place].float()
    if all(
        torch.allclose(x.float().mean(0), first_rows.mean(0), atol=1e-4)
        for x in (inputs.taught[item.place] for item in readable)
    ):
        raise DataError(
            f"all {len(readable)} videos have the same features, so that nothing tells"
            f" {classes[0]} from {classes[1]}: are they videos, and does the model see anything?"
        )
    return readable


@torch.no_grad()
def predictions(
    model: Recognizer,
    inputs: Inputs,
    items: Sequence[Item],
    classes: Sequence[str],
    source: ClassSource,
    also: Sequence[str] = (),
) -> Predictions:
    """Of the videos among `classes`, and among these and the labels `also` together."""
    together = {TOGETHER: [*classes, *also]} if also else {}
    labels = [list(classes), *together.values()]
    sets = [source(names) for names in labels]
    rows: list[Tensor | None] = []
    for item in items:
        if item.place in inputs.errors:
            rows.append(None)
            continue
        video = inputs.videos(model.model, item.place, True)
        logits = torch.cat([model.model.logits(video, c) for c in sets], dim=-1).float().cpu()
        rows.append(logits.mean(0, keepdim=True) if inputs.from_index else logits)
    count = next((len(row) for row in rows if row is not None), 1)
    unread = torch.full((count, sum(map(len, labels))), float("nan"))
    return predictions_of(
        labels[0],
        torch.tensor([labels[0].index(item.label) for item in items]),
        torch.stack([unread if row is None else row for row in rows]),
        model.config.fusion,
        [(i, inputs.errors[item.place]) for i, item in enumerate(items) if rows[i] is None],
        [str(item.path) for item in items],
        together,
    )
