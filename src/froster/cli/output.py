"""How commands print: tables without lines, on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from froster.utils.progress import output


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
