"""The paper's experimental programme: the runs of its tables, one by one, on real data or in
miniature. A source of data says which runs there are, makes one, and reads what was stored of it; a
run that is stored is not made again."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torch import Tensor
from torch.utils.data import Dataset

from froster.errors import DataError, FrosterError, UsageError
from froster.inference.recognizer import Recognizer
from froster.paper import tables
from froster.paper.cells import Cell, PaperTable, Protocol, TableRow
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.training.reporter import Drawn
from froster.training.trainer import Trained
from froster.training.weights import halfway, with_weights
from froster.utils import strict_json as json
from froster.utils.files import exclusive, write_json


@dataclass(frozen=True)
class PaperRun:
    """One training run, or one measurement of frozen CLIP."""

    cell: Cell | None
    protocol: Protocol
    dataset: str
    number: int
    """The seed, or which of the training sets of base-to-novel."""

    @property
    def key(self) -> str:
        cell = self.cell.key if self.cell else "frozen"
        return f"{cell}_{self.protocol}_{self.dataset}_{self.number}"


class RunSource(ABC):
    """Data that the programme is carried out on."""

    base: Recognizer
    """Frozen CLIP: what every run starts from and is compared with."""
    out: Path
    published: bool
    """Whether these are the paper's data sets, so that its numbers can be expected."""
    columns: Sequence[str]
    """Of a cross-dataset table, those that figures show."""
    training_classes: list[str]
    fields: Sequence[str]
    """That every record has."""

    @abstractmethod
    def check(self) -> None:
        """Raises UsageError where `out` holds runs of other settings."""

    @abstractmethod
    def runs_of(self, cell: Cell | None, protocol: Protocol) -> list[PaperRun]:
        """All runs behind a row of a table, made or not."""

    @abstractmethod
    def runs(self, table: PaperTable) -> list[PaperRun]:
        """The runs of a table that the data allow."""

    @abstractmethod
    def path(self, run: PaperRun) -> Path:
        """Of the record of a run."""

    def is_done(self, run: PaperRun) -> bool:
        return self.path(run).exists()

    def record(self, run: PaperRun) -> dict[str, Any]:
        """What is stored of a run; empty where nothing is. Raises DataError where it is damaged."""
        path = self.path(run)
        return read_record(path, self.fields) if path.exists() else {}

    @abstractmethod
    def make(self, run: PaperRun, bars: Progress) -> dict[str, Any]:
        """Train and measure: the record of a run. Raises FrosterError."""

    @abstractmethod
    def scores(self, run: PaperRun, kind: str) -> dict[str, float]:
        """Test set -> top-1 in per cent of a stored run; empty where it is not stored. `kind` is
        the weights and labels, such as "final, plain"."""

    @abstractmethod
    def class_scores(self, run: PaperRun, kind: str) -> dict[str, dict[str, float]]:
        """Test set -> class -> accuracy of a stored run, of the sets that Figure 5 shows."""

    @abstractmethod
    def networks(self, train: bool, bars: Progress) -> dict[str, Recognizer]:
        """The networks of Figure 4, as far as they are stored, or trained where `train`."""

    @abstractmethod
    def samples(self) -> Iterator[tuple[str, str, Tensor]]:
        """For Figure 4: name, caption and frames (T, 3, S, S) uint8 of one video of each test."""

    def notes(self, names: Sequence[str]) -> list[str]:
        """What must be known of the runs of these tables."""
        return []

    def effort(self) -> str:
        """What the stored runs took."""
        return ""


def read_record(path: Path, fields: Sequence[str]) -> dict[str, Any]:
    """A stored record with at least these fields. Raises DataError where it is none."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or not record.keys() >= {*fields}:
        raise DataError(f"{path}: damaged; remove it, and froster reproduce makes it anew")
    return record


def tuned(
    base: Recognizer,
    how: FineTuning,
    train_set: Dataset,
    classes: list[str],
    work: Path,
    bars: Progress,
) -> tuple[Recognizer, Trained]:
    """The network that a run ends with: the mean of the epochs, in Open-VCLIP half CLIP's."""
    student, trained = fine_tune(base, how, train_set, classes, work, Hooks(Drawn(bars)))
    weights, patch = trained.average, how.method.patch
    if patch:
        weights = halfway(base, student, weights, patch)
    return with_weights(student, weights), trained


def runs_of_tables(source: RunSource, names: Sequence[str]) -> list[PaperRun]:
    """Each run once, table by table as they are named, of a table those of one seed before those of
    the next: what is stopped has made what was asked for first."""
    runs: dict[PaperRun, None] = {}
    for name in names:
        of_table = source.runs(tables.TABLES[name])
        runs |= dict.fromkeys(sorted(of_table, key=lambda run: run.number))
    return list(runs)


def measured(source: RunSource, row: TableRow, table: PaperTable) -> dict[str, list[float]]:
    """Column -> accuracy of every stored run and split."""
    columns: dict[str, list[float]] = {}
    for run in [] if row.quoted else source.runs_of(row.cell, table.protocol):
        for test, top1 in source.scores(run, row.kind).items():
            columns.setdefault(test.rstrip("123 "), []).append(top1)
    return columns


def carry_out(
    source: RunSource, runs: Sequence[PaperRun], bars: Progress, shard: tuple[int, int] = (0, 1)
) -> list[str]:
    """Make every run of a shard that is not done. Returns what could not be done: one run's failure
    does not stop the others. Shards write into one folder at once; the same shard only once."""
    index, total = shard
    busy = (
        f"another froster reproduce does shard {index}/{total} of {source.out}: wait until it ends,"
        " or choose another --out"
    )
    with exclusive(source.out / f".{index}-{total}.lock", busy):
        missing = [run for run in runs[index::total] if not source.is_done(run)]
        bar, failed = bars.add_task("runs", total=len(missing), note=""), []
        for run in missing:
            bars.update(bar, note=run.key)
            began = time.monotonic()
            try:
                record = source.make(run, bars)
            except FrosterError as error:
                failed.append(f"{run.key}: {error}")
            else:
                record["seconds"] = round(time.monotonic() - began, 1)
                write_json(source.path(run), record, indent=None)
            bars.update(bar, advance=1)
    return failed


def parse_shard(text: str) -> tuple[int, int]:
    """`"0/2"` -> (0, 2): the first of two processes that share the runs out."""
    index, slash, total = text.partition("/")
    if not (slash and index.isdecimal() and total.isdecimal() and int(index) < int(total)):
        raise UsageError(f"--shard takes I/N with I < N, such as 0/2, not {text!r}")
    return int(index), int(total)
