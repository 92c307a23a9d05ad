"""The programme on the rendered world: every run of the tables with the nano CLIP, seed by seed.

Base classes of the world stand for the training data, its novel classes for the novel ones; near,
mid and far for the three cross-dataset tests; in base-swapped the base classes have each other's
habits. A run trains on its seed's own `shots` videos a class; test videos are fixed, and scored at
the end of a run alone.

Videos are rendered once and kept in `videos/` beside the runs, which may be removed afterwards;
what frozen CLIP says of the test videos is kept there too.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from safetensors.torch import load_file
from torch import Tensor

from froster.encoders.preprocessing import normalise
from froster.errors import UsageError
from froster.evaluation.metrics import ensemble, harmonic_mean
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.recognizer import Recognizer
from froster.methods import Method
from froster.methods.recipe import Preset
from froster.paper.cells import Cell, PaperTable, Protocol
from froster.paper.programme import PaperRun, RunSource, read_record, tuned
from froster.paper.tables import PICTURED, TABLES
from froster.text.sentences import with_descriptions
from froster.training.batches import steps_of_epoch
from froster.training.fine_tune import FineTuning
from froster.training.plan import ema_beta_of
from froster.utils.files import atomic_file, write_json
from froster.utils.interrupt import check
from froster.utils.pool import cores
from froster.utils.tensors import save_tensors
from froster.world.clips import WorldClips
from froster.world.habits import Strength
from froster.world.sets import SETS, sentences
from froster.world.stock import once, stocked

TEST_SETS = ("base", "base-swapped", "novel", "near", "mid", "far")
STANDS_FOR = {"UCF*": "near", "HMDB*": "mid", "K600": "far"}
"""A column of the paper -> the set of the world that stands for it."""
HABITS = 0.9
RATE = 1e-4
"""How often a video keeps each habit, and the rate of CLIP's weights: chosen on frozen CLIP and on
VCLIP tuned alone (`docs/results`)."""
BATCH = {"cpu": 32}
"""Videos that are scored at once, by kind of device."""
LARGE_BATCH = 224

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
    fields: Sequence[str] = ("shots", "videos", "results", "correct")

    def __init__(
        self,
        base: Recognizer,
        out: Path,
        seeds: int,
        shots: int,
        videos: int,
        habits: float = HABITS,
        rate: float = RATE,
    ) -> None:
        """`shots`: training videos a base class; `videos`: of each test set, or a few more;
        `habits`: how often a video keeps each habit of its class; `rate`: of CLIP's weights."""
        self.base, self.out, self.seeds = base, out, seeds
        self.sizes = {"shots": shots, "videos": videos, "habits": habits, "rate": rate}
        self.settings = {
            **self.sizes,
            "precision": base.precision,
            "clip": weights_fingerprint(base)[:12],
        }
        self.strength = Strength(habits, habits, habits, habits)
        self.tests: dict[str, WorldClips] = {}
        self.frames: dict[str, Tensor] = {}
        self.frozen: dict[str, Logits] = {}

    def check(self) -> None:
        """Older runs, which do not say what CLIP they start from, are taken for this one's."""
        for path in sorted((self.out / "cells").glob("*.json")):
            stored = {"precision": "float32"} | read_record(path, self.fields)
            if other := {k: stored[k] for k, v in self.settings.items() if stored.get(k, v) != v}:
                raise UsageError(
                    f"the runs in {self.out} have {other}: go on with these, or choose another"
                    " --out"
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
        self.check()  # another process may have begun here with other settings meanwhile
        final = logits_of(self.train(run.cell, run.number, bars), self.frames)
        logits = {}
        for labels, of_sets in final.items():
            logits[f"final, {labels}"] = of_sets
            logits[f"ensemble, {labels}"] = {
                name: ensemble(self.frozen[labels][name], x) for name, x in of_sets.items()
            }
        cell = dataclasses.asdict(run.cell)
        return {"cell": cell, "seed": run.number, **self.settings, **self.measured(logits)}

    def open(self, bars: Progress) -> None:
        """Render the test videos and score them with frozen CLIP, once."""
        if self.tests:
            return
        stored = self.record(self.frozen_run)
        if stored and "habits" not in stored:
            raise UsageError(
                f"the runs in {self.out} are of the world without habits: choose another --out"
            )
        bar = bars.add_task("render the tests", total=len(TEST_SETS), note="")
        tests = {}
        for name in TEST_SETS:
            per_class = videos_of_class(name, int(self.sizes["videos"]))
            videos = stocked(self.stock, name, per_class, strength=self.strength, workers=cores())
            tests[name] = WorldClips(videos, self.base.config.sampling, train=False)
            bars.update(bar, advance=1, note=name)
        self.frames = on_device(self.base, tests)
        self.frozen = self.frozen_logits()
        self.tests = tests
        path = self.path(self.frozen_run)
        path.parent.mkdir(parents=True, exist_ok=True)
        once(path, lambda: write_json(path, self.frozen_record(), indent=None))

    def frozen_record(self) -> dict[str, Any]:
        logits = {f"frozen, {labels}": of_sets for labels, of_sets in self.frozen.items()}
        return {**self.settings, **self.measured(logits)}

    @property
    def stock(self) -> Path:
        return self.out / "videos"

    def frozen_logits(self) -> dict[str, Logits]:
        """Frozen CLIP's, which a process that came before may have left."""
        parts = (self.settings[name] for name in ("clip", "videos", "habits"))
        path = self.stock / f"frozen_{'_'.join(map(str, parts))}.safetensors"
        once(path, lambda: self.save_frozen_logits(path))
        stored: dict[str, Logits] = {}
        for name, x in load_file(path).items():
            kind, _, test = name.partition("/")
            stored.setdefault(kind, {})[test] = x
        return stored

    def save_frozen_logits(self, path: Path) -> None:
        logits = logits_of(self.base, self.frames)
        flat = {f"{kind}/{name}": x for kind, of in logits.items() for name, x in of.items()}
        with atomic_file(path) as part:
            save_tensors(flat, part)

    def train(self, cell: Cell, seed: int, bars: Progress) -> Recognizer:
        """The network that a run ends with."""
        method, preset = cell.setting(self.base, seed=seed)
        preset = at_rate(preset, method, self.sizes["rate"])
        shots = int(self.sizes["shots"])
        videos = stocked(self.stock, "base", shots, seed, "train", self.strength, cores())
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
            if name == "base-swapped":  # base's classes again
                continue
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
        seconds = [read_record(path, ("seconds",))["seconds"] for path in paths]
        return f"{len(seconds)} runs, {sum(seconds) / 3600:.1f} hours of wall time in all."


def at_rate(preset: Preset, method: Method, rate: float) -> Preset:
    """The preset with this rate of CLIP's weights; that of a method's new weights stays."""
    recipe = preset.recipe
    changes: dict[str, Any] = {"lr": rate, "new_scale": recipe.new_scale * recipe.lr / rate}
    if not method.trains_clip:
        changes = {"clip_lr": rate}
    return dataclasses.replace(preset, recipe=dataclasses.replace(recipe, **changes))


def texts(classes: list[str], described: bool) -> list[str]:
    return with_descriptions(classes, sentences()) if described else classes


def videos_of_class(name: str, videos: int) -> int:
    """Test videos of each class, so that the set has `videos` or a few more."""
    return -(-videos // len(SETS[name].classes))


def on_device(model: Recognizer, tests: Mapping[str, WorldClips]) -> dict[str, Tensor]:
    """Test set -> one clip of every video (N, T, 3, H, W), uint8, where the model is."""
    return {name: clips.single_views().to(model.device) for name, clips in tests.items()}


@torch.no_grad()
def logits_of(model: Recognizer, tests: Mapping[str, Tensor]) -> dict[str, Logits]:
    """Logits of every test clip (`on_device`) for plain and for described labels, from one pass."""
    logits: dict[str, Logits] = {"plain": {}, "described": {}}
    size = BATCH.get(model.device.type, LARGE_BATCH)
    for name, clips in tests.items():
        classes = {
            labels: model.class_embeddings(texts(SETS[name].classes, labels == "described"))
            for labels in logits
        }
        parts: dict[str, list[Tensor]] = {labels: [] for labels in logits}
        for some in clips.split(size):
            check()
            frames = normalise(some, model.preprocessing)
            features = model.model.encode(frames)
            for labels, embeddings in classes.items():
                scores = model.model.logits(features.video, embeddings, features.context)
                parts[labels].append(scores)
        for labels in logits:
            logits[labels][name] = torch.cat(parts[labels]).cpu()
    return logits
