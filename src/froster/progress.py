"""Progress bars, on standard error so that `--json` output stays clean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# No markup: file names and labels may hold square brackets.
console = Console(stderr=True, markup=False, highlight=False)
output = Console(markup=False, highlight=False)
"""For what a command was asked for, on standard output."""


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A live display; `add_task(description, total=…)` and `update(task, advance=…, note=…)` on it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, disable=quiet) as display:
        yield display
