"""The programme on the real data sets: what each run trains on, what it is tested on, and how.

The data are manifests that `froster prepare` wrote, one a data set, `DATA/k400.csv` and so on. A
run that was stopped goes on at its last epoch.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torch import Tensor

from froster.data.dataset import VideoDataset
from froster.data.public import classes, readable
from froster.errors import DataError, UsageError
from froster.evaluation.metrics import Predictions, Scorer, evaluate
from froster.inference.fingerprint import weights_fingerprint
from froster.inference.recognizer import Recognizer, load
from froster.methods import Method
from froster.methods.recipe import Preset, as_now
from froster.paper import er_zasr
from froster.paper.cells import Cell, PaperTable, Protocol
from froster.paper.programme import PaperRun, RunSource, read_record, tuned
from froster.paper.protocols import CrossSet, Options
from froster.paper.real_data import COLUMN_OF, CROSS_TESTS, RealData, TestSet
from froster.paper.tables import PICTURED, TABLES
from froster.text.sentences import read_descriptions, with_descriptions
from froster.training.fine_tune import FineTuning, use_of_weights
from froster.training.measure import training_dataset, video_dataset
from froster.training.rehearsal import Running
from froster.utils.files import write_json
from froster.video.sampling import Sampling

SENTENCES = {"k400": "kinetics400", "k600": "kinetics600"}
"""Data sets whose sentences are shipped under another name."""
CROSS_RECIPE = {"epochs": 22, "batch_size": 64}
NOVEL_RECIPE: dict[str, dict[str, Any]] = {
    "k400": {},
    "hmdb51": {},
    "ucf101": {"batch_size": 64},
    "ssv2": {"average_from": None},
}
"""What the released scripts change of FROSTER's setting (12 epochs of batch 32, averaged from the
second) by data set."""
OFFICIAL_RECIPE: dict[tuple[str, Protocol], dict[str, Any]] = {
    ("xclip", "base-to-novel"): {"epochs": 50, "lr": 2e-6},
    ("finetuned", "cross-dataset"): {"epochs": 10, "lr": 8e-6, "batch_size": 256},
}
"""Where a paper trains its method differently on few videos and on all of K400; its preset is the
other of the two."""


class RealProgramme(RunSource):
    """Records are `OUT/runs/<run>.json`, trained models `OUT/models/<run>`."""

    published = True
    columns: Sequence[str] = ("UCF*", "HMDB*", "K600")
    fields: Sequence[str] = ("job", "notes", "tests")

    def __init__(
        self, base: Recognizer, data: RealData, out: Path, seeds: int, workers: int = 0
    ) -> None:
        """`seeds`: of cross-dataset runs; `workers`: processes that read videos."""
        self.base, self.data, self.out = base, data, out
        self.seeds, self.workers = seeds, workers
        self.training_classes = [readable(name) for name in classes("k400")]

    def check(self) -> None:
        """All records of a folder share the CLIP and the options. A setting that an older version
        did not store is taken as it was then."""
        data = self.data
        wanted = {
            "clip": weights_fingerprint(self.base),
            "lists": str(data.lists) if data.lists else None,
            **use_of_weights(self.base),
            **dataclasses.asdict(data.options),
        }
        path = self.out / "runs" / "settings.json"
        if not path.exists():
            write_json(path, wanted, indent=1)
            return
        stored = as_now(read_record(path, ()), wanted)
        if changed := [name for name in wanted if stored.get(name) != wanted[name]]:
            raise UsageError(
                f"the runs in {self.out} were made with another {', '.join(changed)}: go on with"
                " the same, or choose another --out"
            )

    def runs_of(self, cell: Cell | None, protocol: Protocol) -> list[PaperRun]:
        """Frozen CLIP does not depend on training videos or seeds: it is measured once."""
        counts = {"k400": self.seeds}
        if protocol == "base-to-novel":
            counts = {name: self.data.num_training_sets(name) for name in COLUMN_OF}
        return [
            PaperRun(cell, protocol, dataset, number)
            for dataset, count in counts.items()
            for number in range(1, (count if cell else 1) + 1)
        ]

    def all_runs(self, table: PaperTable) -> list[PaperRun]:
        """The runs of a table, whether the data allow them or not."""
        cells = dict.fromkeys(row.cell for row in table.rows if not row.quoted)
        return [run for cell in cells for run in self.runs_of(cell, table.protocol)]

    def runs(self, table: PaperTable) -> list[PaperRun]:
        return [run for run in self.all_runs(table) if self._is_possible(run)]

    def _is_possible(self, run: PaperRun) -> bool:
        has = self.data.has
        if run.cell and not run.cell.on_clip and er_zasr.missing_files(self.data.root):
            return False
        if run.protocol == "base-to-novel":
            return has(run.dataset)
        return any(map(has, CROSS_TESTS)) and (run.cell is None or has("k400"))

    def path(self, run: PaperRun) -> Path:
        return self.out / "runs" / f"{run.key}.json"

    def _model(self, run: PaperRun) -> Path:
        return self.out / "models" / run.key

    def is_done(self, run: PaperRun) -> bool:
        """There is a record, and it has every test that the data allow: a data set may have been
        prepared since."""
        record = self.record(run)
        if not record or run.protocol == "base-to-novel":
            return bool(record)
        tests = next(iter(record["tests"].values()))
        return all(test.name in tests for test in self.data.cross_tests)

    def _tests(self, run: PaperRun, kind: str) -> dict[str, dict[str, Any]]:
        """Test set -> what was measured; empty where there is no record."""
        return self.record(run).get("tests", {}).get(kind, {})

    def scores(self, run: PaperRun, kind: str) -> dict[str, float]:
        return {name: test["top1"] for name, test in self._tests(run, kind).items()}

    def class_scores(self, run: PaperRun, kind: str) -> dict[str, dict[str, float]]:
        return {
            name: test["per_class"]
            for name, test in self._tests(run, kind).items()
            if name.rstrip("123 ") in self.columns
        }

    def make(self, run: PaperRun, bars: Progress) -> dict[str, Any]:
        """What an earlier call trained is not trained again."""
        if run.cell is not None and not run.cell.on_clip:
            return self.rehearse(run, bars)
        tests, notes = self.data.tests_of(run)
        models, unreadable = {"frozen": self.base}, {}
        if run.cell is not None:
            if not self._model(run).is_dir():
                unreadable = self.train(run, notes, bars)
            models["final"] = self._load(run)
        summaries: dict[str, dict[str, Any]] = {}
        bar = bars.add_task(f"evaluate {run.key}", total=sum(len(t.items) for t in tests), note="")
        for test in tests:
            measured = self.measure(run, test, models, lambda n: bars.update(bar, advance=n))
            for kind, summary in measured.items():
                summaries.setdefault(kind, {})[test.name] = summary
        shutil.rmtree(self.out / "work" / run.key, ignore_errors=True)
        return {
            "job": dataclasses.asdict(run),
            "notes": notes,
            "unreadable_in_training": unreadable,
            "tests": summaries,
        }

    def rehearse(self, run: PaperRun, bars: Progress) -> dict[str, Any]:
        """The run of ER-ZASR, which has encoders of its own."""
        tests, notes = self.data.tests_of(run)
        notes = [*notes, "ER-ZASR: the last epoch, and our sentences as definitions"]
        items, names = self.data.training_of(run)
        model, unreadable = self._model(run), {}
        running = Running(str(self.base.device), self.workers)
        bar = bars.add_task(f"evaluate {run.key}", total=len(tests), note="streams and head")
        if not (model / er_zasr.HEAD).is_file():
            known = definitions(run.dataset, names)
            unreadable = er_zasr.train(self.data, items, known, model, run.number, running)
        summaries = {}
        for test in tests:
            known = definitions(test.dataset, test.classes)
            predictions = er_zasr.test(self.data, test, known, model, running)
            summaries[test.name] = summary_of(predictions)
            bars.update(bar, advance=1, note=test.name)
        kind = f"final, {run.cell.labels if run.cell else 'plain'}"
        return {
            "job": dataclasses.asdict(run),
            "notes": notes,
            "unreadable_in_training": unreadable,
            "tests": {kind: summaries},
        }

    def _load(self, run: PaperRun) -> Recognizer:
        base = self.base
        return load(self._model(run), device=str(base.device), precision=base.precision)

    def train(self, run: PaperRun, notes: list[str], bars: Progress) -> dict[str, int]:
        """Train and save the model of a run. Returns the videos that could not be read, by
        reason."""
        assert run.cell is not None
        base = self.base
        method, preset = setting(run, base, self.data.options)
        items, names = self.data.training_of(run)
        train_set = training_dataset(base, preset, items, names, run.number)
        recipe = dataclasses.replace(preset.recipe, workers=self.workers, precision=base.precision)
        how = FineTuning(method, run.cell.loss(method), recipe, preset, name=run.key)
        labels = texts(run.dataset, names, run.cell.described)
        model, trained = tuned(base, how, train_set, labels, self.out / "work" / run.key, bars)
        report = {"job": run.key, "notes": notes, "unreadable_in_training": trained.unreadable}
        model.save(self._model(run), report)
        return trained.unreadable

    def measure(
        self,
        run: PaperRun,
        test: TestSet,
        models: dict[str, Recognizer],
        on_videos: Callable[[int], None],
    ) -> dict[str, dict[str, Any]]:
        """Kind -> summary: "final, plain" and so on for all weights, their sum with frozen CLIP,
        and both kinds of labels, from one decode. Raises DataError where not one video can be
        read."""
        videos = self.test_videos(test, *clips_of(run, self.base, self.data.options))
        asked = {
            labels: texts(test.dataset, test.classes, labels == "described")
            for labels in ("plain", "described")
        }
        kinds = [(weights, labels) for weights in models for labels in asked]
        scorers = [
            Scorer(m.inference, m.class_embeddings(asked[labels]), m.dtype, m.config.fusion)
            for m, labels in ((models[weights], labels) for weights, labels in kinds)
        ]
        results = evaluate(
            scorers,
            videos,
            test.classes,
            names=[str(item.path) for item in test.items],
            workers=self.workers,
            on_videos=on_videos,
        )
        errors = results[0].errors
        if len(errors) == len(test.items):
            count, first = len(errors), errors[0][1]
            raise DataError(
                f"{test.name}: none of its {count} videos can be read; the first: {first}"
            )
        predictions = dict(zip(map(", ".join, kinds), results, strict=True))
        if "final" in models:
            for labels in asked:
                frozen, final = predictions[f"frozen, {labels}"], predictions[f"final, {labels}"]
                predictions[f"ensemble, {labels}"] = frozen.ensemble(final, "logit")
        return {kind: summary_of(p) for kind, p in predictions.items()}

    def test_videos(self, test: TestSet | CrossSet, sampling: Sampling, views: int) -> VideoDataset:
        config = dataclasses.replace(self.base.config, sampling=sampling, views=views)
        return video_dataset(self.base, config, test.items, test.classes)

    def networks(self, train: bool, bars: Progress) -> dict[str, Recognizer]:
        runs = {name: self.runs_of(cell, "cross-dataset")[0] for name, cell in PICTURED.items()}
        return {name: self._load(run) for name, run in runs.items() if self._model(run).is_dir()}

    def samples(self) -> Iterator[tuple[str, str, Tensor]]:
        """The first readable test video of each data set."""
        config = self.base.config.sampling
        sampling = self.data.options.frames_of(config.frames, config.rate)
        for test in self.data.cross_tests:
            if test.number == 1 and test.column in self.columns:
                videos = self.test_videos(test, sampling, views=1)
                for sample in map(videos.__getitem__, range(len(videos))):
                    if sample.frames is not None:
                        label = test.classes[sample.label]
                        yield test.dataset, f"{test.column}: {label}", sample.frames[0]
                        break

    def notes(self, names: Sequence[str]) -> list[str]:
        """What the options mean for these tables, and what the runs had to say of their data."""
        notes: dict[str, None] = {}
        for protocol in sorted({TABLES[name].protocol for name in names}):
            for dataset in COLUMN_OF if protocol == "base-to-novel" else CROSS_TESTS:
                words = self.data.options.words(dataset, protocol)
                notes |= dict.fromkeys(f"{protocol}, {dataset}: {line}" for line in words)
        for path in sorted((self.out / "runs").glob("*.json")):
            if path.name == "settings.json":
                continue
            record = read_record(path, self.fields)
            data = f"{record['job']['dataset']}, {record['job']['protocol']}"
            notes |= dict.fromkeys(f"{data}: {line}" for line in record["notes"])
            # All kinds of weights and labels see the same videos.
            tests = next(iter(record["tests"].values()))
            if unreadable := sum(len(test["errors"]) for test in tests.values()):
                line = f"{unreadable} test videos could not be read and count as wrong"
                notes[f"{path.stem}: {line}"] = None
        return list(notes)


def summary_of(predictions: Predictions) -> dict[str, Any]:
    return {**predictions.summary(), "errors": [message for _, message in predictions.errors]}


def setting(run: PaperRun, base: Recognizer, options: Options) -> tuple[Method, Preset]:
    """FROSTER's runs take clips and mirror images as the options say, other papers' as these do."""
    assert run.cell is not None
    is_froster = run.cell.preset == "froster"
    changes: dict[str, Any] = {}
    if is_froster:
        crossed = run.protocol == "cross-dataset"
        changes = CROSS_RECIPE if crossed else NOVEL_RECIPE[run.dataset]
    elif run.cell.preset == "official":
        changes = OFFICIAL_RECIPE.get((run.cell.method, run.protocol), {})
    method, preset = run.cell.setting(base, seed=run.number, **changes)
    if is_froster:
        sampling = options.frames_of(preset.sampling.frames, preset.sampling.rate)
        preset = dataclasses.replace(preset, sampling=sampling)
    return method, dataclasses.replace(preset, augment=options.augment(run.dataset, preset.augment))


def clips_of(run: PaperRun, base: Recognizer, options: Options) -> tuple[Sampling, int]:
    """How clips are taken in the test, and how many of a video."""
    if run.cell is not None:
        preset = setting(run, base, options)[1]
        return preset.sampling, preset.views
    config = base.config
    return options.frames_of(config.sampling.frames, config.sampling.rate), config.views


def texts(dataset: str, names: list[str], described: bool) -> list[str]:
    if not described:
        return names
    return with_descriptions(names, read_descriptions(SENTENCES.get(dataset, dataset)))


def definitions(dataset: str, names: list[str]) -> dict[str, str]:
    """Of ER-ZASR's classes: the sentences."""
    labels = texts(dataset, names, described=True)
    return {name: label.partition(": ")[2] for name, label in zip(names, labels, strict=True)}
