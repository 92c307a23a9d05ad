"""ER-ZASR from labelled videos and files of weights to a tested head. Its first stage is in
`streams.py`; in its second the head and the last layers of the BERT are trained on what that has
stored."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from froster.data.manifest import Item
from froster.encoders.checkpoints import strict_load, unwrap
from froster.encoders.layouts import locate
from froster.encoders.precision import pick_device
from froster.encoders.reading import State, read_file
from froster.errors import CheckpointError, DataError
from froster.evaluation.metrics import Predictions
from froster.methods.bert import Bert, read_bert
from froster.methods.er_zasr import ElaborativeRehearsal, Texts, learning_rate, losses, union
from froster.text.definitions import WordPieces, class_texts, read_concepts, read_definitions
from froster.training.options import RehearsalOptions
from froster.training.streams import Extracted, Stored, Streams, check_concepts, extract
from froster.utils.files import atomic_file
from froster.utils.interrupt import check
from froster.utils.progress import Working, silently
from froster.utils.tensors import cpu_state, save_tensors, seed_of

SHOWN = 5
"""Objects of a video whose texts are read."""
TRAINED_LAYERS = 2
CLIP_NORM = 10.0
AT_ONCE = 64
"""Texts, where nothing is trained."""


@dataclass(frozen=True)
class VideoSet:
    """Videos of one set of classes, as they are stored."""

    features: list[Stored]
    labels: list[int]
    classes: list[str]
    """The elaborated text of each class."""


class Rehearsal:
    """A network with what its texts are made of."""

    def __init__(
        self,
        network: ElaborativeRehearsal,
        pieces: WordPieces,
        concepts: Sequence[str],
        device: torch.device,
        fusion: Literal["late", "early"] = "late",
    ):
        self.network = network.to(device)
        self.pieces, self.concepts, self.device, self.fusion = pieces, concepts, device, fusion
        pieces.limit(network.bert.context)

    def tokens(self, texts: Sequence[str]) -> Texts:
        return Texts(*(part.to(self.device) for part in self.pieces(texts)))

    def shown(self, videos: Sequence[Stored]) -> list[list[str]]:
        """The texts of each video's likeliest objects."""
        return [[self.concepts[i] for i in v.objects[:SHOWN].tolist()] for v in videos]

    def inputs(self, videos: Sequence[Stored]) -> tuple[Tensor, Texts]:
        """Features, and the objects of each video as one text."""
        features = torch.stack([video.video for video in videos]).to(self.device)
        return features, self.tokens([" ".join(texts) for texts in self.shown(videos)])

    def loss(
        self, videos: Sequence[Stored], targets: Tensor, classes: Texts, others: Any
    ) -> Tensor:
        """Of a batch: the sum of all terms."""
        texts, shown = union(self.shown(videos), others)
        pairs = self.network(*self.inputs(videos))
        scores = pairs.times(self.network.texts(classes))
        among = pairs.times(self.network.texts(self.tokens(texts)))
        terms = losses(scores, targets, among, shown.to(self.device), self.fusion)
        return torch.stack(list(terms.values())).sum()

    @torch.no_grad()
    def scores(self, videos: VideoSet, working: Working = silently) -> Tensor:
        """(videos, classes)."""
        self.network.eval()
        chunks = range(0, len(videos.classes), AT_ONCE)
        texts = [self.tokens(videos.classes[i : i + AT_ONCE]) for i in chunks]
        classes = torch.cat([self.network.texts(some) for some in texts])
        rows = []
        with working(f"scores of {len(videos.features)} videos", len(videos.features)) as advance:
            for start in range(0, len(videos.features), AT_ONCE):
                check()
                some = videos.features[start : start + AT_ONCE]
                pairs = self.network(*self.inputs(some)).times(classes)
                rows.append(pairs.early() if self.fusion == "early" else pairs.late())
                advance(len(some))
        return torch.cat(rows).cpu()

    def accuracy(self, videos: VideoSet) -> float:
        """Top-1 in per cent."""
        right = self.scores(videos).argmax(1) == torch.tensor(videos.labels)
        return 100 * float(right.float().mean())


def new_network(
    bert: State, heads: int, features: int, width: int, seed: int
) -> ElaborativeRehearsal:
    """A head at its random start on a pretrained BERT."""
    torch.manual_seed(seed_of(seed))
    return ElaborativeRehearsal(Bert.of(bert, heads), features, width)


def given_network(state: State, heads: int) -> ElaborativeRehearsal:
    """A trained one, from weights under the authors' names. Raises CheckpointError."""
    state = {n: t for n, t in state.items() if not n.startswith("txt_backbone.bert.pooler.")}
    try:
        network = ElaborativeRehearsal.for_weights(state, heads)
    except (LookupError, ValueError) as error:
        raise CheckpointError(f"no head of ER-ZASR: {error} is missing") from None
    strict_load(network, state)
    return network


def learns(network: ElaborativeRehearsal) -> None:
    """Let the head and the last layers of the BERT have gradients, and nothing else."""
    network.requires_grad_(True)
    network.bert.freeze_all_but(TRAINED_LAYERS)


def train(
    model: Rehearsal,
    videos: VideoSet,
    options: RehearsalOptions,
    validation: VideoSet | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda epoch: None,
    working: Working = silently,
) -> list[dict[str, Any]]:
    """Every epoch's loss and validation accuracy. The network ends with the weights of the best
    epoch by validation, or of the last one without."""
    network, rng = model.network, random.Random(options.seed)
    learns(network)
    bert = [weight for weight in network.bert.parameters() if weight.requires_grad]
    others = {id(weight) for weight in network.bert.parameters()}
    head = [weight for weight in network.parameters() if id(weight) not in others]
    groups: list[dict[str, Any]] = [
        {"params": head, "weight_decay": options.weight_decay},
        {"params": bert},
    ]
    optimizer = torch.optim.Adam(groups, lr=options.lr)
    count, size = len(videos.features), options.batch_size
    per_epoch = -(-count // size)
    classes, targets = model.tokens(videos.classes), torch.tensor(videos.labels)
    records: list[dict[str, Any]] = []
    best: tuple[float, State] | None = None
    torch.manual_seed(seed_of(options.seed))
    for epoch in range(options.epochs):
        network.train()
        order = rng.sample(range(count), count)
        total = 0.0
        with working(f"epoch {epoch + 1}", per_epoch) as advance:
            for step, (start, end) in enumerate(pairwise([*range(0, count, size), count])):
                check()
                rows = order[start:end]
                batch = [videos.features[row] for row in rows]
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(
                        epoch * per_epoch + step,
                        options.epochs * per_epoch,
                        per_epoch if options.epochs > 1 else 0,
                        options.lr,
                        size,
                    )
                drawn = draw_negatives(model, batch, options.negatives, rng)
                loss = model.loss(batch, targets[rows].to(model.device), classes, drawn)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*head, *bert], CLIP_NORM)
                optimizer.step()
                total += float(loss.detach()) * len(rows)
                advance(1)
        accuracy = model.accuracy(validation) if validation is not None else None
        records.append({"epoch": epoch + 1, "loss": total / count, "validation": accuracy})
        tell(records[-1])
        if accuracy is not None and (best is None or accuracy > best[0]):
            best = accuracy, cpu_state(network)
    if best is not None:
        network.load_state_dict(best[1])
    network.eval()
    return records


def draw_negatives(
    model: Rehearsal, batch: Sequence[Stored], count: int, rng: random.Random
) -> list[list[str]]:
    """Concepts for each video that are none of its own."""
    if not count:
        return []
    drawn = []
    for shown in model.shown(batch):
        some = rng.sample(model.concepts, min(count + len(shown), len(model.concepts)))
        drawn.append([text for text in some if text not in shown][:count])
    return drawn


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
