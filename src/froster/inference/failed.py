"""What an index could not read, in a table beside its segments."""

from __future__ import annotations

import time
from collections.abc import Container
from pathlib import Path

from froster.inference.store import table_at
from froster.inference.tables import LanceTable, file_name, one_of_them, text_name

FAILED = "failures.lance"
WRITTEN_AFTER = 60.0
"""Seconds: what a kill can cost."""


class FailureTable:
    """Path and cause of each video that could not be read, kept from run to run; what is `done` has
    not failed. Several processes may add at once."""

    def __init__(self, index: str | Path, done: Container[str]) -> None:
        self.address = table_at(index, FAILED)
        self.causes: dict[str, str] = {}
        if LanceTable.exists(self.address):
            rows = LanceTable(self.address).rows(("path", "error")).to_pylist()
            self.causes = {file_name(row["path"]): row["error"] for row in rows}
        self._before = set(self.causes)
        self._new: list[str] = []
        self._written = time.monotonic()
        self._drop(done)

    def add(self, key: str, cause: str) -> None:
        self.causes[key] = cause
        self._new.append(key)
        if time.monotonic() - self._written > WRITTEN_AFTER:
            self.write()

    def close(self, done: Container[str]) -> None:
        """Raises WriteError."""
        self._drop(done)
        self.write()

    def write(self) -> None:
        """Raises WriteError."""
        import pyarrow as pa

        new = dict.fromkeys(key for key in self._new if key in self.causes)
        dropped = [key for key in self._before if key in new or key not in self.causes]
        if new or dropped:
            schema = pa.schema([("path", pa.string()), ("error", pa.string())])
            if not LanceTable.exists(self.address):
                LanceTable.create(self.address, schema)
            table = LanceTable(self.address)
            table.delete(one_of_them("path", map(text_name, dropped)))
            if new:
                values = [list(map(text_name, new)), [text_name(self.causes[key]) for key in new]]
                table.append(pa.table(values, schema=schema))
        self._before, self._new = set(self.causes), []
        self._written = time.monotonic()

    def _drop(self, done: Container[str]) -> None:
        self.causes = {key: cause for key, cause in self.causes.items() if key not in done}
