"""Rows of results as a folder of Parquet parts, local or at an address, for many writers.

    results/part-00001-6f1c2a90.parquet      of a shard part-0-of-4-00001-6f1c2a90.parquet
    results/_failures/00001-6f1c2a90.jsonl   path and cause of what could not be read
    results/_run.json                        model, labels and options

A part appears whole. Its name is the next number and eight random letters, so that writers who know
nothing of each other never meet. Readers of Parquet pass over names that begin with `_`.
"""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from froster.data.shards import Shard
from froster.inference.row_table import ROWS_AT_ONCE, batches, cannot_read, part_table, raw_paths
from froster.utils import strict_json as json
from froster.utils.folder import Folder
from froster.utils.keys import Keys

if TYPE_CHECKING:
    import pyarrow as pa

PART_SECONDS = 60.0
"""A part is written after so long, or so many rows (`ROWS_AT_ONCE`): what a kill can cost."""
JOINED_ROWS = 100_000
"""Of a part that small ones are joined to, when a run ends."""
_FEW = 8
"""Small parts that may stay."""
_AT_ONCE = 16
_REPLACES = b"froster.replaces"


def next_name(names: Sequence[str], prefix: str, suffix: str) -> Callable[[], str]:
    """Names that follow these."""
    numbers = [int(part) for name in names for part in name.split("-")[-2:-1] if part.isdecimal()]
    number = max(numbers, default=0)

    def name() -> str:
        nonlocal number
        number += 1
        return f"{prefix}{number:05d}-{uuid.uuid4().hex[:8]}{suffix}"

    return name


class PartFolder:
    """The rows of a folder. A shard reads the names of all parts, and writes its own."""

    def __init__(self, folder: Folder, shard: Shard) -> None:
        self.folder, self.done = folder, Keys()
        prefix = "part-" if shard.count == 1 else f"part-{shard.index}-of-{shard.count}-"
        self._rows: list[dict[str, Any]] = []
        self._small: dict[str, int] = {}
        "parts of this shard that have few rows"
        replaced: list[str] = []
        parts = [name for name in folder.names() if name.endswith(".parquet")]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for several in batches(parts, _AT_ONCE):
                for name, part in zip(several, threads.map(self._scan, several), strict=True):
                    for raw in part.names:
                        self.done.add_raw(raw)
                    replaced += part.replaces
                    mine = name.startswith(prefix) and name[len(prefix) :].count("-") == 1
                    if mine and len(part.names) < ROWS_AT_ONCE:
                        self._small[name] = len(part.names)
        for name in replaced:  # a kill came after a joined part and before the end of the old ones
            folder.remove(name)
            self._small.pop(name, None)
        self._name = next_name(parts, prefix, ".parquet")
        self._written = time.monotonic()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keeps the rows in memory for a minute at most, as long as others follow."""
        for row in rows:
            self.done.add(row["path"])
            self._rows.append(row)
        late = time.monotonic() - self._written > PART_SECONDS
        if late or len(self._rows) >= ROWS_AT_ONCE:
            self.close()

    def close(self) -> None:
        if not self._rows:
            return
        name = self._write(part_table(self._rows))
        if len(self._rows) < ROWS_AT_ONCE:
            self._small[name] = len(self._rows)
        self._rows, self._written = [], time.monotonic()

    def finish(self) -> None:
        """Joins the small parts of this shard, where they are many."""
        several: list[str] = []
        rows = 0
        if len(self._small) > _FEW:
            for name, count in self._small.items():
                if rows + count > JOINED_ROWS:
                    self._join(several)
                    several, rows = [], 0
                several.append(name)
                rows += count
            self._join(several)

    def _write(self, table: pa.Table) -> str:
        import pyarrow.parquet as pq

        buffer, name = io.BytesIO(), self._name()
        pq.write_table(table, buffer)
        self.folder.write(name, buffer.getvalue())
        return name

    def _join(self, names: Sequence[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if len(names) < 2:
            return
        tables = []
        for name in names:
            with self.folder.open(name) as file:
                tables.append(pq.read_table(file))
        table = pa.concat_tables(tables, promote_options="default")
        self._write(table.replace_schema_metadata({_REPLACES: json.dumps(list(names))}))
        for name in names:
            self.folder.remove(name)

    def _scan(self, name: str) -> _Part:
        """Raises DataError where it is no whole part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self.folder.open(name) as opened:
                if opened is None:  # another writer has joined it to others
                    return _Part([], [])
                file = pq.ParquetFile(opened)
                replaces = (file.schema_arrow.metadata or {}).get(_REPLACES, b"[]")
                return _Part(list(raw_paths(file)), json.loads(replaces))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise cannot_read(self.folder / name, error) from error


class _Part(NamedTuple):
    names: list[bytes]
    replaces: list[str]
    """Names of parts that its rows were in."""
