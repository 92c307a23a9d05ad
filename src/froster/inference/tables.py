"""Lance tables in a folder or at an address (s3://…): many processes may write to one at once, and
every write appears whole, as a new version."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from froster.errors import DataError, FrosterError, UsageError, WriteError, install

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_VERSIONS = timedelta(days=1)
"""Older ones are removed by a compaction; whoever reads one has so long."""
AT_ONCE = 1000
"""Values in one condition."""
INDEXED, INDEXED_FROM = ("path", "BTREE"), 100_000
"""Rows are found by their path without reading all, from so many on."""
FACTS = ("size", "mtime", "seconds", "frames", "damaged")
COLUMNS = ("path", "video", "batch", "segment", "segments", "start", "end", *FACTS, "vector")
"""Of an index."""
_TRIES = 20
_OF_A_ROW = "Error applying filter expression"
"""What Lance says where a condition is sound, and a row has a value that it cannot take."""
_WHOLE = "CAST({}\n AS BOOLEAN)", "({}\n)"
"""Around a condition: what closes one of them early does not close the other."""
_AFTER = re.compile(r".*Expected: (?:\)|AS), found: (?!EOF)(.+)\)$")
_SHOWN = 300


def load_lance() -> Any:
    """The module. Raises UsageError where it is not installed."""
    os.environ.setdefault("LANCE_LOG", "error")  # it warns about itself, on every search
    try:
        import lance
    except ImportError:
        raise UsageError(f"an index needs Lance: {install('search')}") from None
    return lance


def storage_options(address: str) -> dict[str, str]:
    """What Lance does not take from the environment by itself: an object store of one's own
    (AWS_ENDPOINT_URL), perhaps without TLS."""
    if not address.startswith(("s3://", "s3a://")):
        return {}
    options = {"client_retry_timeout": "30"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        plain = str(endpoint.startswith("http://")).lower()
        options |= {"aws_endpoint": endpoint, "allow_http": plain}
        if not {"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys():
            options["aws_region"] = "us-east-1"
    return options


def cause(error: BaseException) -> str:
    """What Lance says, on one line, without the places in its own code."""
    text = re.sub(r",? ?/\S+\.rs:\d+:\d+", "", " ".join(str(error).split()))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@contextmanager
def lance_errors(address: str, kind: type[FrosterError] = DataError) -> Iterator[None]:
    """Turns an error of Lance into one line that names the table."""
    try:
        yield
    except FrosterError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # not an Exception
        if not panic and not isinstance(error, (OSError, ValueError, RuntimeError)):
            raise
        if kind is WriteError:
            raise kind(f"cannot write {address}: {cause(error)}") from None
        if _OF_A_ROW in str(error):
            why = cause(error).rpartition("Arrow error: ")[2]
            raise UsageError(f"--where cannot be told of every row: {why}") from None
        raise kind(f"{address}: cannot be read ({cause(error)})") from None


def quoted(text: str) -> str:
    """As SQL writes a text."""
    return "'" + text.replace("'", "''") + "'"


def one_of_them(column: str, values: Iterable[str]) -> Iterator[str]:
    """Conditions that the column has one of the values, of so many at once."""
    texts = [quoted(value) for value in values]
    for first in range(0, len(texts), AT_ONCE):
        yield f"{column} IN ({', '.join(texts[first : first + AT_ONCE])})"


def text_name(name: str) -> str:
    """A file's name as a text: bytes that are no UTF-8 become `\\udcXX`, and the sign \\ before
    udc `\\udc5c`."""
    return name.replace("\\udc", "\\udc5cudc").encode("utf-8", "backslashreplace").decode()


def file_name(text: str) -> str:
    """The name that a text stands for."""

    def sign(match: re.Match[str]) -> str:
        number = int(match[1], 16)
        return "\\" if number == 0x5C else chr(0xDC00 + number)

    return re.sub(r"\\udc([0-9a-f]{2})", sign, text) if "\\udc" in text else text


def index_column(name: str) -> str:
    """How the table calls a column of a manifest: a name that the table or Lance (`_…`) needs itself
    ends with _. Empty of one that it does not keep."""
    column = re.sub(r"[.`\s]", "_", name)
    if column == "path":
        return ""
    needed = column in (*COLUMNS, "fits") or column.startswith("_")
    return f"{column}_" if needed else column


def check_columns(names: Iterable[str]) -> None:
    """Raises UsageError where two columns of manifests would be one of the table."""
    kept: dict[str, str] = {}
    for name in names:
        column = index_column(name)
        if column and kept.setdefault(column, name) != name:
            raise UsageError(
                f"the columns {kept[column]!r} and {name!r} would both be {column} in the index:"
                " rename one of them"
            )


def manifest_row(columns: Mapping[str, str]) -> dict[str, str]:
    """As columns of the table."""
    row = {index_column(name): text_name(value) for name, value in columns.items()}
    row.pop("", None)
    return row


def vector_rows(column: pa.ChunkedArray, dimensions: int) -> Tensor:
    """A column of vectors, as they are stored (n, dimensions)."""
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(values.copy()).view(-1, dimensions)


class LanceTable:
    """A table that exists, at its newest version when it was opened. Raises DataError where it
    cannot be read."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._lance = load_lance()
        self.refresh()

    @classmethod
    def exists(cls, address: str) -> bool:
        """Raises DataError where that cannot be told, as of a bucket without rights. Folders that a
        full disk has left without a version are none."""
        if "://" not in address:
            versions = Path(address, "_versions")
            return versions.is_dir() and any(versions.glob("*.manifest"))
        try:
            cls(address)
        except DataError as error:
            if "was not found" in str(error):
                return False
            raise
        return True

    @classmethod
    def create(cls, address: str, schema: pa.Schema) -> LanceTable:
        """An empty one, or the one that another process has made meanwhile. Raises WriteError."""
        try:
            with lance_errors(address, WriteError):
                load_lance().write_dataset(
                    schema.empty_table(), address, storage_options=storage_options(address)
                )
        except WriteError:
            if not cls.exists(address):
                raise
        return cls(address)

    def refresh(self) -> None:
        """Sees what others have written since."""
        options = storage_options(self.address)
        with lance_errors(self.address):
            self.dataset = self._lance.dataset(self.address, storage_options=options)

    @property
    def schema(self) -> pa.Schema:
        return self.dataset.schema

    def settings(self) -> dict[str, str]:
        """What is kept with the table and changes with it."""
        with lance_errors(self.address):
            return dict(self.dataset.config())

    def set(self, name: str, value: str) -> None:
        """Raises WriteError."""
        self.write(lambda: self.dataset.update_config({name: value}))
        self.refresh()

    def count(self, where: str | None = None) -> int:
        with lance_errors(self.address):
            return int(self.dataset.count_rows(where))

    def rows(
        self, columns: Sequence[str] | Mapping[str, str], where: str | None = None, **scan: Any
    ) -> pa.Table:
        """The rows in their order, with `_rowaddr`. `columns`: names, or names with what they
        hold in SQL."""
        chosen = dict(columns) if isinstance(columns, Mapping) else list(columns)
        with lance_errors(self.address):
            return self.dataset.to_table(chosen, filter=where, with_row_address=True, **scan)

    def take(self, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Rows by their number."""
        with lance_errors(self.address):
            return self.dataset.take(list(rows), columns=list(columns))

    def check(self, where: str) -> None:
        """Raises UsageError where this is no condition on a row of this table. Lance passes over
        what follows a condition ("; …", "limit 3"), so each form in `_WHOLE` must hold all of it."""
        try:
            for form in ("{}", *_WHOLE):
                of_row = self.dataset.scanner(
                    columns=[], filter=form.format(where), with_row_address=True
                )
                of_row.explain_plan()
        except (OSError, ValueError, RuntimeError) as error:
            text = cause(error).removeprefix("Invalid user input: ")
            text = re.sub(r"(, _\w+)+", "", text)
            text = re.sub(_AFTER, r"\1 follows the condition", text)
            raise UsageError(f"--where {where!r}: {text}") from None

    def append(self, rows: pa.Table) -> None:
        """Columns that the table lacks are added to it first; they must be texts. Raises
        WriteError."""

        def work() -> None:
            self._add_columns(rows)
            self.dataset = self._lance.write_dataset(rows, self.dataset, mode="append")

        self.write(work)

    def update(self, key: str, rows: pa.Table) -> None:
        """What these rows hold takes the place of what all rows of their key have. Raises
        WriteError."""

        def work() -> None:
            self._add_columns(rows)
            self.dataset.merge_insert(key).when_matched_update_all().execute(rows)

        self.write(work)

    def _add_columns(self, rows: pa.Table) -> None:
        import pyarrow as pa

        new = [name for name in rows.column_names if name not in self.schema.names]
        if new:
            self.dataset.add_columns(pa.schema([pa.field(name, pa.string()) for name in new]))

    def delete(self, conditions: Iterable[str]) -> None:
        """Rows that meet one of them: they are marked, and nothing is rewritten. Raises
        WriteError."""
        for condition in conditions:
            if self.count(condition):
                self.write(partial(self._delete, condition))

    def _delete(self, condition: str) -> None:
        self.dataset.delete(condition)

    def write(self, work: Callable[[], object]) -> None:
        """Does it again where another process has written what it was made from. Raises
        WriteError."""
        self.refresh()
        for attempt in range(_TRIES):
            try:
                with lance_errors(self.address, WriteError):
                    work()
                    return
            except WriteError as error:
                if "conflict" not in str(error).lower() or attempt == _TRIES - 1:
                    raise
                time.sleep(random.uniform(0, 0.05 * 2 ** min(attempt, 4)))
                self.refresh()

    def compact(self) -> None:
        """Joins small files, drops deleted rows, takes new rows into the table's search index, and
        removes versions of days before. What another process does already is left to it."""

        def work() -> None:
            self.dataset.optimize.compact_files()
            if self.dataset.describe_indices():
                self.dataset.optimize.optimize_indices()
            elif self.dataset.count_rows() >= INDEXED_FROM:
                self.dataset.create_scalar_index(*INDEXED)
            self.dataset.cleanup_old_versions(KEPT_VERSIONS)

        try:
            self.write(work)
        except WriteError as error:
            if "conflict" not in str(error).lower():
                raise
        self.refresh()
