"""The programme on the real data sets: what each run trains on and is tested on, run by run,
resumable.

The data are manifests that `froster prepare` wrote, one a data set, `DATA/k400.csv` and so on. A
run that has a record is not run again; a run that was stopped goes on at its last epoch.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.progress import Progress

from froster.data.dataset import VideoDataset
from froster.data.manifest import Item, read_items
from froster.data.names import classes as official_classes
from froster.data.names import partition, published_clips
from froster.data.splits import Split
from froster.encoders.model import CLIPConfig
from froster.errors import DataError, FrosterError, UsageError
from froster.evaluation.metrics import Predictions, Scorer, evaluate
from froster.inference.recognizer import Recognizer, load
from froster.methods import Method
from froster.methods.recipe import Preset, as_now
from froster.paper.cells import Cell
from froster.paper.cost import test_flops, training_flops
from froster.paper.protocols import (
    CrossSet,
    Options,
    base_to_novel_sets,
    cross_dataset,
    cross_training,
)
from froster.paper.tables import Protocol, Table
from froster.text.sentences import read_descriptions, with_descriptions
from froster.training.fine_tune import (
    fine_tune,
    halfway,
    use_of_weights,
    weights_digest,
    with_weights,
)
from froster.utils import strict_json as json
from froster.utils.files import write_text

SHORT = {"k400": "K400", "hmdb51": "HMDB", "ucf101": "UCF", "ssv2": "SSv2"}
"""Data sets of base-to-novel, in the paper's order -> their columns."""
CROSS_TESTS = ("ucf101", "hmdb51", "k600")
SENTENCES = {"k400": "kinetics400", "k600": "kinetics600"}
"""Data sets whose sentences are shipped under another name."""
K400_CLIPS = 240_000
"""About as many of its training videos can be had."""
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


@dataclass(frozen=True)
class Job:
    """One training run, or one measurement of frozen CLIP."""

    cell: Cell | None
    protocol: Protocol
    dataset: str
    number: int
    """Training set of base-to-novel, or the seed of a cross-dataset run; from 1."""

    @property
    def key(self) -> str:
        return f"{self.cell.key if self.cell else 'frozen'}_{self.protocol}_{self.dataset}_{self.number}"


@dataclass(frozen=True)
class Test:
    name: str
    """Column of the table, with the number of the split where there are several."""
    dataset: str
    classes: list[str]
    items: list[Item]


@dataclass
class Data:
    """The prepared manifests of a folder, read when they are first asked for."""

    root: Path
    options: Options
    lists: Path | None = None

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise UsageError(
                f"there is no folder {self.root}: --data-root holds the manifests of froster"
                " prepare"
            )
        self._items: dict[str, list[Item]] = {}

    def path(self, dataset: str) -> Path:
        return self.root / f"{dataset}.csv"

    def there(self, dataset: str) -> bool:
        return self.path(dataset).is_file()

    def items(self, dataset: str) -> list[Item]:
        if dataset not in self._items:
            self._items[dataset] = list(read_items(self.path(dataset)))
        return self._items[dataset]

    def missing(self, protocols: set[Protocol]) -> list[str]:
        """What these protocols need and the folder lacks."""
        needed = {"base-to-novel": tuple(SHORT), "cross-dataset": ("k400", *CROSS_TESTS)}
        names = dict.fromkeys(name for protocol in sorted(protocols) for name in needed[protocol])
        return [name for name in names if not self.there(name)]

    def splits(self, dataset: str) -> list[Split]:
        return base_to_novel_sets(dataset, self.items(dataset), self.options, self.given(dataset))

    def given(self, dataset: str) -> list[Path] | None:
        """The lists of training videos, `LISTS/<dataset>/*train*.csv` or `.txt`, one a training
        set, in the order of their names; None for a data set without a folder, whose videos are
        drawn."""
        if self.lists is None or not (self.lists / dataset).is_dir():
            return None
        folder = self.lists / dataset
        found = sorted(
            p
            for p in folder.glob("*train*")
            if p.suffix in (".csv", ".txt") and "idx2cls" not in p.name
        )
        if not found:
            raise UsageError(f"there are no training lists (*train*.csv or .txt) in {folder}")
        return found

    def sets(self, dataset: str) -> int:
        given = self.given(dataset) if self.there(dataset) else None
        return len(given) if given else self.options.base_sets

    @cached_property
    def cross_tests(self) -> list[CrossSet]:
        return cross_dataset(
            {name: self.items(name) for name in CROSS_TESTS if self.there(name)}, self.options
        )

    def of(self, job: Job) -> tuple[list[str], list[Item], list[Test], list[str]]:
        """Classes and videos that a job learns, what it is tested on, and what is to be said of
        them."""
        if job.protocol == "base-to-novel":
            split, column = self.splits(job.dataset)[job.number - 1], SHORT[job.dataset]
            tests = [
                Test(f"{column} base", job.dataset, split.base, split.base_test),
                Test(f"{column} novel", job.dataset, split.novel, split.novel_test),
            ]
            return split.base, split.train, tests, split.notes
        tests = [Test(one.name, one.dataset, one.classes, one.items) for one in self.cross_tests]
        notes = [
            f"{one.name}: {len(one.items)} videos, published {one.published}"
            for one in self.cross_tests
            if len(one.items) != one.published
        ]
        if job.cell is None:
            return [], [], tests, notes
        train, names = cross_training(self.items("k400"))
        return names, train, tests, notes


def jobs_of(table: Table, data: Data, seeds: int, everything: bool = False) -> list[Job]:
    """The jobs of a table that the data allow; `everything`: also those that they do not."""
    cells = dict.fromkeys(row.cell for row in table.rows if not row.quoted)
    jobs = []
    for cell in cells:
        if table.protocol == "base-to-novel":
            names = [name for name in SHORT if everything or data.there(name)]
            jobs += [
                Job(cell, table.protocol, name, n)
                for name in names
                for n in numbers(cell, data.sets(name))
            ]
        elif everything or (
            any(map(data.there, CROSS_TESTS)) and (cell is None or data.there("k400"))
        ):
            jobs += [Job(cell, table.protocol, "k400", n) for n in numbers(cell, seeds)]
    return jobs


def numbers(cell: Cell | None, count: int) -> range:
    """Frozen CLIP does not depend on training videos or seeds: it is measured once."""
    return range(1, count + 1 if cell is not None else 2)


def setting(job: Job, base: Recognizer, options: Options) -> tuple[Method, Preset]:
    """FROSTER's runs take clips and mirror images as the options say, other papers' as these do."""
    assert job.cell is not None
    changes: dict[str, Any] = {"seed": job.number}
    if job.cell.preset == "froster":
        changes |= CROSS_RECIPE if job.protocol == "cross-dataset" else NOVEL_RECIPE[job.dataset]
    else:
        changes |= OFFICIAL_RECIPE.get((job.cell.method, job.protocol), {})
    method, preset = job.cell.setting(base, **changes)
    if job.cell.preset == "froster":
        preset = dataclasses.replace(
            preset, sampling=options.frames_of(preset.sampling.frames, preset.sampling.rate)
        )
    return method, dataclasses.replace(preset, augment=options.augment(job.dataset, preset.augment))


def texts(dataset: str, names: list[str], described: bool) -> list[str]:
    return (
        with_descriptions(names, read_descriptions(SENTENCES.get(dataset, dataset)))
        if described
        else names
    )


def run_job(
    job: Job, base: Recognizer, data: Data, out: Path, bars: Progress, workers: int
) -> dict[str, Any]:
    """Train (or take frozen CLIP, or what an earlier call trained) and measure on every test set:
    the record of the run."""
    classes, items, tests, notes = data.of(job)
    size = base.clip.config.vision.image_size
    unreadable: dict[str, int] = {}
    models = {"frozen": base}
    sampling, views = (
        data.options.frames_of(base.config.sampling.frames, base.config.sampling.rate),
        base.config.views,
    )
    if job.cell is not None:
        method, preset = setting(job, base, data.options)
        sampling, views = preset.sampling, preset.views
        saved = out / "models" / job.key
        if not saved.is_dir():
            train_set = VideoDataset(
                items,
                classes,
                sampling,
                size,
                train=True,
                seed=job.number,
                augment=preset.augment,
                how=base.preprocessing,
            )
            recipe = dataclasses.replace(preset.recipe, workers=workers, precision=base.precision)
            student, trained = fine_tune(
                base,
                method,
                job.cell.loss(method),
                recipe,
                train_set,
                texts(job.dataset, classes, job.cell.described),
                out / "work" / job.key,
                bars,
                job.key,
                preset=preset,
            )
            final = (
                halfway(base, student, trained.average, method.patch)
                if method.patch
                else trained.average
            )
            unreadable = trained.unreadable
            report = {"job": job.key, "notes": notes, "unreadable_in_training": unreadable}
            with_weights(student, final).save(saved, report)
        models["final"] = load(saved, device=str(base.device), precision=base.precision)
    bar = bars.add_task(
        f"evaluate {job.key}", total=sum(len(test.items) for test in tests), note=""
    )
    found: dict[str, dict[str, Any]] = {}
    for test in tests:
        videos = VideoDataset(
            test.items,
            test.classes,
            sampling,
            size,
            views=views,
            train=False,
            how=base.preprocessing,
        )
        for kind, predictions in scored(
            test, videos, models, workers, lambda n: bars.update(bar, advance=n)
        ).items():
            found.setdefault(kind, {})[test.name] = summary(predictions)
    return {
        "job": dataclasses.asdict(job),
        "notes": notes,
        "unreadable_in_training": unreadable,
        "tests": found,
    }


def scored(
    test: Test,
    videos: VideoDataset,
    models: dict[str, Recognizer],
    workers: int,
    on_videos: Callable[[int], None],
) -> dict[str, Predictions]:
    """ "final, plain" -> predictions, and so on for all weights, their sum with frozen CLIP, and both kinds of labels, from
    one decode. Raises DataError where not one video can be read."""
    asked = {
        kind: texts(test.dataset, test.classes, kind == "described")
        for kind in ("plain", "described")
    }
    kinds = [(weights, labels) for weights in models for labels in asked]
    scorers = [
        Scorer(m.inference, m.class_embeddings(asked[labels]), m.dtype, m.config.fusion)
        for m, labels in ((models[weights], labels) for weights, labels in kinds)
    ]
    names = [str(item.path) for item in test.items]
    each = evaluate(
        scorers, videos, test.classes, names=names, workers=workers, on_videos=on_videos
    )
    found = {
        f"{weights}, {labels}": one for (weights, labels), one in zip(kinds, each, strict=True)
    }
    errors = each[0].errors
    if len(errors) == len(test.items):
        raise DataError(
            f"{test.name}: none of its {len(errors)} videos can be read; the first: {errors[0][1]}"
        )
    if "final" in models:
        for labels in asked:
            found[f"ensemble, {labels}"] = found[f"frozen, {labels}"].joined(
                found[f"final, {labels}"], "logit"
            )
    return found


def summary(predictions: Predictions) -> dict[str, Any]:
    return {**predictions.summary(), "errors": [message for _, message in predictions.errors]}


def record_of(job: Job, out: Path) -> Path:
    return out / "runs" / f"{job.key}.json"


def check_settings(base: Recognizer, data: Data, out: Path) -> None:
    """All records of a folder share the CLIP and the options. Raises UsageError where these are
    others."""
    wanted = {
        "clip": weights_digest(base),
        "lists": str(data.lists) if data.lists else None,
        **use_of_weights(base),
        **dataclasses.asdict(data.options),
    }
    path = out / "runs" / "settings.json"
    if path.exists():
        known = as_now(json.loads(path.read_text()), wanted)
        if changed := [name for name in wanted if known.get(name) != wanted[name]]:
            raise UsageError(
                f"the runs in {out} were made with another {', '.join(changed)}: go on with the"
                " same, or choose another --out"
            )
    else:
        write_text(path, json.dumps(wanted, indent=1) + "\n")


def is_done(job: Job, data: Data, out: Path) -> bool:
    """There is a record, and it has every test that the data allow: a data set may have been
    prepared since."""
    path = record_of(job, out)
    if not path.exists():
        return False
    if job.protocol == "base-to-novel":
        return True
    tests = next(iter(json.loads(path.read_text())["tests"].values()))
    return all(test.name in tests for test in data.cross_tests)


def run_jobs(
    jobs: Sequence[Job], base: Recognizer, data: Data, out: Path, bars: Progress, workers: int
) -> list[str]:
    """Every job that is not done. Returns what could not be done: one job's failure does not stop
    the others."""
    missing = [job for job in jobs if not is_done(job, data, out)]
    bar, failed = bars.add_task("runs", total=len(missing), note=""), []
    for job in missing:
        bars.update(bar, note=job.key)
        began = time.monotonic()
        try:
            record = run_job(job, base, data, out, bars, workers)
        except FrosterError as error:
            failed.append(f"{job.key}: {error}")
        else:
            record["seconds"] = round(time.monotonic() - began, 1)
            write_text(record_of(job, out), json.dumps(record) + "\n")
            shutil.rmtree(out / "work" / job.key, ignore_errors=True)
        bars.update(bar, advance=1)
    return failed


def flops_of(job: Job, config: CLIPConfig, method_preset: tuple[Method, Preset] | None) -> float:
    """Operations of a job, by the published numbers of videos."""
    counts = published_clips()
    if job.protocol == "base-to-novel":
        known = counts["base_to_novel"][job.dataset]
        clips = known["train"][min(job.number, len(known["train"])) - 1]
        classes, videos = len(partition(job.dataset).base), known["base"] + known["novel"]
    else:
        clips, classes = K400_CLIPS, len(official_classes("k400"))
        videos = sum(sum(numbers) for numbers in counts["cross_dataset"].values())
    if method_preset is None:
        return test_flops(config, Preset(), videos)
    assert job.cell is not None
    method, preset = method_preset
    tests = test_flops(config, preset, videos) * 2  # the tuned network and frozen CLIP
    return training_flops(config, job.cell, method, preset, clips, classes) + tests
