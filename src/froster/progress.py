"""Progress bars, on standard error so that `--json` output stays clean, and the two consoles of all commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from froster.printable import printable


class Plain(Console):
    """Shows texts as they are: square brackets and colons of names and labels mean nothing, and controls are written out.

    A line end is a control too, as it would let a name look like two lines: each `print` is one line.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # type: ignore[override]
        """Tables measure and print their cells through this too."""
        return super().render_str(printable(text), **options)

    def tell(self, text: str) -> None:
        """One line however long, for programs as well as for people."""
        self.print(text, soft_wrap=True)


class _Bars(Progress):
    """Texts beside the bars come from names and labels as well."""

    def update(self, task_id: TaskID, **fields: Any) -> None:  # type: ignore[override]
        if "note" in fields:
            fields["note"] = printable(fields["note"])
        super().update(task_id, **fields)


console = Plain(stderr=True)
output = Plain()
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
    with _Bars(*columns, console=console, disable=quiet) as display:
        yield display
