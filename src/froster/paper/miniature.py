"""The programme on the rendered world: every run of the tables with the nano CLIP, seed by seed.

Base classes of the world stand for the training data, its novel classes for the novel ones; near,
mid and far for the three cross-dataset tests. A run trains on its seed's own `shots` videos a
class; test videos are fixed, and scored at the end of a run alone.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from froster.data.loader import batches
from froster.encoders.preprocessing import normalise
from froster.errors import UsageError
from froster.evaluation.metrics import ensemble, harmonic_mean
from froster.inference.recognizer import Recognizer
from froster.paper.cells import Cell, PaperTable, Protocol
from froster.paper.programme import PaperRun, RunSource, tuned
from froster.paper.tables import PICTURED, TABLES
from froster.text.sentences import with_descriptions
from froster.training.batches import steps_of_epoch
from froster.training.fine_tune import FineTuning
from froster.training.plan import ema_beta_of
from froster.utils import strict_json as json
from froster.utils.files import write_json
from froster.utils.interrupt import check
from froster.world.clips import WorldClips
from froster.world.sets import SETS, render_set, sentences

TEST_SETS = ("base", "novel", "near", "mid", "far")
STANDS_FOR = {"UCF*": "near", "HMDB*": "mid", "K600": "far"}
"""A column of the paper -> the set of the world that stands for it."""
BATCH = 32

NOT_HERE = (
    "ER-ZASR is not in miniature: its ResNets and its BERT are of real videos and English, and"
    " froster rehearse needs their files"
)

Logits = dict[str, Tensor]
"""Test set -> logits (N, K)."""


class Miniature(RunSource):
    """One network of a seed serves both protocols. Frozen CLIP is measured once, in
    `cells/frozen.json`, as soon as any run is made."""

    published = False
    columns: Sequence[str] = tuple(STANDS_FOR.values())
    training_classes = SETS["base"].classes

    def __init__(self, base: Recognizer, out: Path, seeds: int, shots: int, videos: int) -> None:
        """`shots`: training videos a base class; `videos`: of each test set, or a few more."""
        self.base, self.out, self.seeds = base, out, seeds
        self.sizes = {"shots": shots, "videos": videos}
        self.tests: dict[str, WorldClips] = {}
        self.frozen: dict[str, Logits] = {}

    def check(self) -> None:
        stored = self.record(self.frozen_run) or self.sizes
        if other := {name: stored[name] for name in self.sizes if stored[name] != self.sizes[name]}:
            raise UsageError(
                f"the runs in {self.out} have {other}: go on with these, or choose another --out"
            )

    frozen_run = PaperRun(None, "cross-dataset", "world", 0)

    def runs_of(self, cell: Cell | None, protocol: Protocol) -> list[PaperRun]:
        if cell is None:
            return [self.frozen_run]
        return [PaperRun(cell, "cross-dataset", "world", seed) for seed in range(self.seeds)]

    def runs(self, table: PaperTable) -> list[PaperRun]:
        cells = dict.fromkeys(row.cell for row in table.rows if row.cell and row.cell.on_clip)
        return [run for cell in cells for run in self.runs_of(cell, table.protocol)]

    def notes(self, names: Sequence[str]) -> list[str]:
        cells = [row.cell for name in names for row in TABLES[name].rows if row.cell is not None]
        return [] if all(cell.on_clip for cell in cells) else [NOT_HERE]

    def path(self, run: PaperRun) -> Path:
        name = f"{run.cell.key}_seed-{run.number}" if run.cell else "frozen"
        return self.out / "cells" / f"{name}.json"

    def make(self, run: PaperRun, bars: Progress) -> dict[str, Any]:
        assert run.cell is not None
        self.open(bars)
        final = logits_of(self.train(run.cell, run.number, bars), self.tests)
        logits = {}
        for labels, of_sets in final.items():
            logits[f"final, {labels}"] = of_sets
            logits[f"ensemble, {labels}"] = {
                name: ensemble(self.frozen[labels][name], x) for name, x in of_sets.items()
            }
        cell = dataclasses.asdict(run.cell)
        return {"cell": cell, "seed": run.number, **self.sizes, **self.measured(logits)}

    def open(self, bars: Progress) -> None:
        """Render the test videos and score them with frozen CLIP, once."""
        if self.tests:
            return
        bar = bars.add_task("render the tests", total=len(TEST_SETS), note="")
        tests = {}
        for name in TEST_SETS:
            videos = render_set(name, videos_of_class(name, self.sizes["videos"]), split="test")
            tests[name] = WorldClips(videos, self.base.config.sampling, train=False)
            bars.update(bar, advance=1, note=name)
        self.frozen = logits_of(self.base, tests)
        self.tests = tests
        if not self.is_done(self.frozen_run):
            logits = {f"frozen, {labels}": of_sets for labels, of_sets in self.frozen.items()}
            record = {**self.sizes, **self.measured(logits)}
            write_json(self.path(self.frozen_run), record, indent=None)

    def train(self, cell: Cell, seed: int, bars: Progress) -> Recognizer:
        """The network that a run ends with."""
        method, preset = cell.setting(self.base, seed=seed)
        videos = render_set("base", self.sizes["shots"], seed, "train")
        train_set = WorldClips(videos, self.base.config.sampling, train=True, seed=seed)
        loss, recipe = cell.loss(method), preset.recipe
        if loss.teacher == "ema":
            steps = recipe.epochs * steps_of_epoch(recipe, len(train_set))
            loss = dataclasses.replace(loss, ema_beta=ema_beta_of(steps))
        how = FineTuning(method, loss, recipe, preset, name=f"{cell.key} {seed}")
        labels = texts(self.training_classes, cell.described)
        with tempfile.TemporaryDirectory() as folder:
            return tuned(self.base, how, train_set, labels, Path(folder), bars)[0]

    def measured(self, logits: Mapping[str, Logits]) -> dict[str, dict[str, Any]]:
        """What is stored of the logits by kind of weights and labels: the accuracies, with the
        harmonic mean of base and novel, and the right answers of every class."""
        results, correct = {}, {}
        for kind, of_sets in logits.items():
            scores, right = {}, {}
            for name, x in of_sets.items():
                labels = self.tests[name].videos.labels
                hits = labels[x.argmax(1) == labels]
                right[name] = torch.bincount(hits, minlength=x.shape[1]).tolist()
                scores[name] = 100 * (x.argmax(1) == labels).float().mean().item()
            results[kind] = {**scores, "hm": harmonic_mean(scores["base"], scores["novel"])}
            correct[kind] = right
        return {"results": results, "correct": correct}

    def scores(self, run: PaperRun, kind: str) -> dict[str, float]:
        record = self.record(run)
        return record["results"][kind] if record else {}

    def class_scores(self, run: PaperRun, kind: str) -> dict[str, dict[str, float]]:
        record, scores = self.record(run), {}
        for name, counts in record["correct"][kind].items() if record else ():
            videos = videos_of_class(name, record["videos"])
            rights = zip(SETS[name].classes, counts, strict=True)
            scores[name] = {label: 100 * right / videos for label, right in rights}
        return scores

    def networks(self, train: bool, bars: Progress) -> dict[str, Recognizer]:
        """Trained again, for records hold no weights, unless the pictures exist."""
        if not train or (self.out / f"fig4_{TEST_SETS[0]}.png").exists():
            return {}
        self.open(bars)
        return {name: self.train(cell, 0, bars) for name, cell in PICTURED.items()}

    def samples(self) -> Iterator[tuple[str, str, Tensor]]:
        for name, clips in self.tests.items():
            frames = clips[0].frames
            assert frames is not None
            label = SETS[name].classes[int(clips.videos.labels[0])]
            yield name, f"{name}: {label}", frames[0]

    def effort(self) -> str:
        paths = (self.out / "cells").glob("*_seed-*.json")
        seconds = [json.loads(path.read_text())["seconds"] for path in paths]
        return (
            f"{len(seconds)} runs, {sum(seconds) / 3600:.1f} hours of wall time in all, one thread"
            " each, on shared cores."
        )


def texts(classes: list[str], described: bool) -> list[str]:
    return with_descriptions(classes, sentences()) if described else classes


def videos_of_class(name: str, videos: int) -> int:
    """Test videos of each class, so that the set has `videos` or a few more."""
    return -(-videos // len(SETS[name].classes))


@torch.no_grad()
def logits_of(model: Recognizer, tests: Mapping[str, WorldClips]) -> dict[str, Logits]:
    """Logits of every test video for plain and for described labels, from one pass."""
    logits: dict[str, Logits] = {"plain": {}, "described": {}}
    for name, clips in tests.items():
        classes = {
            labels: model.class_embeddings(texts(SETS[name].classes, labels == "described"))
            for labels in logits
        }
        parts: dict[str, list[Tensor]] = {labels: [] for labels in logits}
        starts = range(0, len(clips), BATCH)
        for batch in batches(clips, [range(i, min(i + BATCH, len(clips))) for i in starts]):
            check()
            frames = normalise(batch.frames[:, 0].to(model.device), model.preprocessing)
            features = model.model.encode(frames)
            for labels, embeddings in classes.items():
                scores = model.model.logits(features.video, embeddings, features.context)
                parts[labels].append(scores.cpu())
        for labels in logits:
            logits[labels][name] = torch.cat(parts[labels])
    return logits
