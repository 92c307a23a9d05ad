"""Rows of results as columns of Arrow: plain texts, numbers and lists of them, which every reader
of Parquet knows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from froster.errors import DataError, UsageError, install
from froster.utils.files import atomic_file
from froster.utils.text import is_text

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")

ROWS_AT_ONCE = 10_000
"""Rows that are Python objects at the same time, and a row group of Parquet."""


def require_pyarrow() -> None:
    """Raises UsageError where it is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError(
            f"Parquet needs pyarrow: {install('parquet')}; or take .csv or .jsonl"
        ) from None


def row_schema(row: Mapping[str, Any], path_type: pa.DataType) -> pa.Schema:
    """The columns of rows that are like this one. The scores of groups are two lists, beside each
    other."""
    import pyarrow as pa

    strings, floats = pa.list_(pa.string()), pa.list_(pa.float64())
    columns = {"path": path_type, "label": pa.string(), "score": pa.float64()}
    columns |= {"labels": strings, "scores": floats}
    columns |= {"answer": pa.string(), "none": pa.float64(), "cosine": pa.float64()}
    columns |= {"seconds": pa.float64(), "frames": pa.int64(), "damaged": pa.int64()}
    if "groups" in row:
        columns |= {"groups": strings, "group_scores": floats}
    if "answers" in row:
        columns |= {"answers": strings, "thresholds": floats}
    return pa.schema(columns)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the columns have it."""
    if "groups" not in row:
        return dict(row)
    groups = row["groups"]
    return {**row, "groups": list(groups), "group_scores": list(groups.values())}


def part_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows whose column `path` is text whatever the names are, with a column `path_bytes` where one
    of them is no UTF-8."""
    import pyarrow as pa

    schema = row_schema(rows[0], pa.string())
    entries = [flat(row) for row in rows]
    if not all(is_text(row["path"]) for row in rows):
        schema = schema.append(pa.field("path_bytes", pa.binary()))
        for entry in entries:
            raw = os.fsencode(entry["path"])
            entry |= {"path": raw.decode("utf-8", "backslashreplace"), "path_bytes": raw}
    return pa.Table.from_pylist(entries, schema=schema)


def write_rows(
    path: Path, earlier: Path | None, rows: Iterable[dict[str, Any]], text: bool
) -> None:
    """One file of Parquet with the rows of an earlier one and these, a few at a time. Where a name
    is no UTF-8 (not `text`), the column `path` holds the bytes of all names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path_type = pa.string() if text else pa.binary()
    groups = batches(rows, ROWS_AT_ONCE)
    first = next(groups, [])
    try:
        before = pq.ParquetFile(earlier) if earlier else None
        like = dict.fromkeys(before.schema_arrow.names) if before else {}
        schema = row_schema({**like, **(first[0] if first else {})}, path_type)
        with atomic_file(path) as part, pq.ParquetWriter(part, schema) as writer:
            if before:
                for batch in before.iter_batches(ROWS_AT_ONCE):
                    writer.write_table(_as(pa.Table.from_batches([batch]), schema))
            while first:
                entries = [flat(row) for row in first]
                if not text:
                    entries = [{**entry, "path": os.fsencode(entry["path"])} for entry in entries]
                writer.write_table(pa.Table.from_pylist(entries, schema=schema))
                first = next(groups, [])
    except pa.ArrowException as error:
        raise cannot_read(earlier or path, error) from error


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """What it lacks is null."""
    import pyarrow as pa

    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def raw_paths(file: Any) -> Iterator[bytes]:
    """The bytes of all names of a `pyarrow.parquet.ParquetFile`. Raises DataError where it has
    none."""
    import pyarrow as pa

    names = file.schema_arrow.names
    if "path" not in names:
        raise DataError("it has no column path")
    columns = [name for name in ("path", "path_bytes") if name in names]
    for batch in file.iter_batches(65_536, columns=columns):
        paths, *exact = (batch.column(name).cast(pa.binary()).to_pylist() for name in columns)
        if exact:
            paths = [p if e is None else e for p, e in zip(paths, exact[0], strict=True)]
        yield from paths


def cannot_read(path: object, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}); was it cut off?")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
