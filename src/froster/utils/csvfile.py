"""CSV in which names of files come back to the byte, whatever bytes they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from froster.utils.files import atomic_file

ERRORS = "surrogateescape"
"""How Python holds the bytes of a name that are no UTF-8; written so, they are those bytes again.
"""


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Records that end in \\n. Cells with a line end of any kind are quoted (Python 3.12 and before
    leave \\r bare)."""
    records = []
    for row in rows:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\r\n").writerow(row)
        records.append(buffer.getvalue().removesuffix("\r\n") + "\n")
    return "".join(records)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """The whole file or nothing; the first row is the header."""
    with atomic_file(path) as part:
        part.write_bytes(csv_text(rows).encode("utf-8", ERRORS))
