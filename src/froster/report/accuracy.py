"""Accuracies of sets of weights on a report page: bars and a table, with what guessing gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from froster.evaluation.metrics import harmonic_mean
from froster.report import page
from froster.report.plots import Bars, accuracy_bars
from froster.training.measure import EvalRow
from froster.training.validation import TITLES


@dataclass(frozen=True)
class Column:
    """A column of a table of accuracies."""

    name: str
    """A set of test videos, or "hm": the harmonic mean of base and novel."""
    together: bool = False
    """Whether the videos are asked for the labels of base and novel classes together."""

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name) + "*" * self.together

    def _row(self, row: EvalRow) -> EvalRow:
        return row.together or row if self.together else row

    def value(self, row: EvalRow) -> float | None:
        row = self._row(row)
        return row.hm if self.name == "hm" else row.top1(self.name)

    def error(self, row: EvalRow) -> float | None:
        return self._row(row).error(self.name)

    def chance(self, row: EvalRow) -> float:
        """What guessing gets; of the harmonic mean, the mean of both."""
        predictions = self._row(row).predictions
        if self.name == "hm":
            return harmonic_mean(predictions["base"].chance, predictions["novel"].chance)
        return predictions[self.name].chance


def accuracy_chart(rows: Mapping[str, EvalRow], columns: Sequence[Column], path: Path) -> Path:
    """Bars of the rows, each under its name, with what guessing gets."""
    bars = [
        Bars(name, [c.value(row) for c in columns], [c.error(row) for c in columns])
        for name, row in rows.items()
    ]
    first = next(iter(rows.values()))
    return accuracy_bars([c.title for c in columns], bars, path, [c.chance(first) for c in columns])


def accuracy_table(
    rows: Sequence[EvalRow], columns: Sequence[Column], main: Sequence[int], errors: bool = False
) -> page.Part:
    """The rows and what guessing gets; those of the indices `main` in bold."""

    def cell(row: EvalRow, column: Column) -> str:
        value = column.value(row)
        if value is None:
            return "–"
        return f"{value:.1f}" + (f" ± {column.error(row):.1f}" if errors else "")

    cells = [[row.method, row.weights, *(cell(row, c) for c in columns)] for row in rows]
    cells.append(["", "chance", *(f"{c.chance(rows[0]):.1f}" for c in columns)])
    return page.table(["method", "weights", *(c.title for c in columns)], cells, main)
