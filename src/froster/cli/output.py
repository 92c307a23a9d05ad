"""How commands print: tables without lines on standard output, bars on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.table import Table

from froster.utils.progress import output, progress

if TYPE_CHECKING:
    from froster.inference.results import BatchProgress, OnProgress


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], styles: Iterable[str | None] = ()
) -> None:
    """A row a line, under the names of the columns if one has a name; nothing if there is no row.

    `styles` are rich's, one a row; rows without one are plain.
    """
    table = Table(*columns, box=None, pad_edge=False, show_header=any(columns))
    rest = iter(styles)
    for row in rows:
        table.add_row(*map(str, row), style=next(rest, None))
    if table.row_count:
        output.print(table)


@contextmanager
def batch_bar(what: str) -> Iterator[OnProgress]:
    """A bar for work on many videos, which tells how many have failed."""
    with progress() as bars:
        bar = bars.add_task(what, total=None, note="")

        def on_progress(now: BatchProgress) -> None:
            note = f"{now.failed} failed" if now.failed else ""
            bars.update(bar, completed=now.done, total=now.total, note=note)

        yield on_progress
