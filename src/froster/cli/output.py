"""How commands print: tables without lines on standard output, bars on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.table import Table

from froster.utils.progress import Plain, output, progress

if TYPE_CHECKING:
    from froster.inference.results import BatchProgress, OnProgress

_WIDEST = 1000
"""Characters of a line that a terminal may break."""


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    styles: Iterable[str | None] = (),
    *,
    wide: bool = False,
) -> None:
    """A row a line, under the names of the columns if one has a name; nothing if there is no row.

    `styles` are rich's, one a row; rows without one are plain. A `wide` table has one line a row
    also where that is longer than the terminal's.
    """
    table = Table(*columns, box=None, pad_edge=False, show_header=any(columns))
    rest = iter(styles)
    for row in rows:
        table.add_row(*map(str, row), style=next(rest, None))
    if table.row_count:
        (Plain(width=_WIDEST) if wide else output).print(table)


@contextmanager
def batch_bar(what: str) -> Iterator[OnProgress]:
    """A bar for work on many videos, which tells how many have failed."""
    with progress() as bars:
        bar = bars.add_task(what, total=None, note="")

        def on_progress(now: BatchProgress) -> None:
            note = f"{now.failed} failed" if now.failed else ""
            bars.update(bar, completed=now.done, total=now.total, note=note)

        yield on_progress
