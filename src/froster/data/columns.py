"""Tables of texts held by columns: what a column repeats is kept once, the rest as bytes one after
another. A row is made when it is asked for.

A million rows of a manifest take about a hundred megabytes so, and processes that are forked share
them, where a dictionary a row would take a gigabyte in each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

_SURROGATES = "surrogatepass"
"""A name of a file may hold any half of a character; written so, it is read back as it was."""
_FEW = 4096
"""So many different values are always kept once."""
_AT_ONCE = 4096


class TextColumn(Sequence[str]):
    """TextColumn that differ, by their bytes. A missing one reads as empty."""

    def __init__(self, data: bytes, ends: np.ndarray, missing: np.ndarray | None = None) -> None:
        """`ends`: int64 (N + 1,), 0 and where in `data` each text ends; `missing`: bool (N,)."""
        self._data, self._ends, self._missing = data, ends, missing

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return self.several(range(*place.indices(len(self))))
        place = range(len(self))[place]
        return self._data[self._ends[place] : self._ends[place + 1]].decode("utf-8", _SURROGATES)

    def __iter__(self) -> Iterator[str]:
        for begin in range(0, len(self), _AT_ONCE):
            yield from self[begin : begin + _AT_ONCE]

    def several(self, places: Sequence[int] | np.ndarray) -> list[str]:
        """Of these places, which are not negative."""
        data = self._data
        at = np.asarray(places, np.int64)
        spans = zip(self._ends[at].tolist(), self._ends[at + 1].tolist(), strict=True)
        return [data[begin:end].decode("utf-8", _SURROGATES) for begin, end in spans]

    def get(self, row: int) -> str | None:
        """None where it is missing."""
        return None if self._missing is not None and self._missing[row] else self[row]

    def known(self, rows: np.ndarray) -> set[str]:
        """The different values of these rows."""
        if self._missing is not None:
            rows = rows[~self._missing[rows]]
        return set(self.several(rows))

    def equal(self, rows: np.ndarray, value: str) -> np.ndarray:
        """bool, as long as `rows`: which of them have the value."""
        same = np.fromiter(map(value.__eq__, self.several(rows)), bool, len(rows))
        return same if self._missing is None else same & ~self._missing[rows]


@dataclass(frozen=True)
class WordColumn:
    """TextColumn that repeat: each row has the number of its value, -1 where it is missing."""

    codes: np.ndarray  # int32 (N,)
    values: list[str]

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> WordColumn:
        numbers = _Numbers()
        codes = np.fromiter((numbers[text] for text in texts), np.int32)
        return cls(codes, numbers.texts)

    def get(self, row: int) -> str | None:
        """None where it is missing."""
        code = self.codes[row]
        return None if code < 0 else self.values[code]

    def known(self, rows: np.ndarray) -> set[str]:
        """The different values of these rows."""
        return {self.values[code] for code in np.unique(self.codes[rows]).tolist() if code >= 0}

    def equal(self, rows: np.ndarray, value: str) -> np.ndarray:
        """bool, as long as `rows`: which of them have the value."""
        code = self.values.index(value) if value in self.values else len(self.values)
        return self.codes[rows] == code


Column = TextColumn | WordColumn


class Row(Mapping[str, str]):
    """One row of a table, without the columns that it lacks."""

    __slots__ = ("_row", "_table")

    def __init__(self, table: Table, row: int) -> None:
        self._table, self._row = table, row

    def __getitem__(self, name: str) -> str:
        value = self._table.columns[name].get(self._row)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        columns = self._table.columns.items()
        return (name for name, column in columns if column.get(self._row) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # another process gets the row, not the table


@dataclass(frozen=True)
class Table:
    """The rows of a manifest."""

    source: Path
    columns: dict[str, Column]
    lines: np.ndarray  # int64 (N,): where each row stands
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> str:
        """Where a row stands: "FILE, line 3"."""
        return f"{self.source}, {self.unit} {self.lines[row]}"


class _Numbers(dict[str | None, int]):
    """The number of each text, in the order in which they come; None is -1."""

    def __init__(self, strip: bool = False) -> None:
        super().__init__({None: -1})
        self.texts: list[str] = []
        self._strip, self._known = strip, dict[str, int]()

    def __missing__(self, text: str) -> int:
        value = text.strip() if self._strip else text
        number = self._known.setdefault(value, len(self._known))
        if number == len(self.texts):
            self.texts.append(value)
        self[text] = number
        return number

    def codes(self, texts: Sequence[str | None]) -> np.ndarray:
        return np.fromiter(map(self.__getitem__, texts), np.int32, len(texts))


class Growing:
    """A column that grows: `WordColumn` while its values repeat, else `TextColumn`."""

    def __init__(self, strip: bool = False, repeats: bool | None = None) -> None:
        """`strip`: without white space around the values. `repeats`: whether the values do; None:
        as is seen."""
        self._strip, self._repeats = strip, repeats
        self._numbers = _Numbers(strip)
        self._codes: list[np.ndarray] = []
        self._parts: list[bytes] = []
        self._lengths: list[np.ndarray] = []
        self._missing: list[np.ndarray] = []
        self._rows = 0

    def add(self, values: Sequence[str | None]) -> None:
        self._rows += len(values)
        if self._repeats is False:
            self._add_texts(values)
            return
        self._codes.append(self._numbers.codes(values))
        different = len(self._numbers.texts)
        if self._repeats is None and different > max(_FEW, self._rows // 2):
            known = [*self._numbers.texts, None]  # number -1 is the last
            for codes in self._codes:
                self._add_texts([known[code] for code in codes.tolist()])
            self._codes, self._numbers, self._repeats = [], _Numbers(), False

    def _add_texts(self, values: Sequence[str | None]) -> None:
        missing = np.fromiter((value is None for value in values), bool, len(values))
        texts = [value or "" for value in values]
        if self._strip:
            texts = list(map(str.strip, texts))
        joined = "".join(texts)
        if joined.isascii():
            part, lengths = joined.encode("ascii"), map(len, texts)
        else:
            encoded = [text.encode("utf-8", _SURROGATES) for text in texts]
            part, lengths = b"".join(encoded), map(len, encoded)
        self._parts.append(part)
        self._lengths.append(np.fromiter(lengths, np.int64, len(texts)))
        self._missing.append(missing)

    def column(self) -> Column:
        """What has been added; nothing may be added after it."""
        if self._repeats is not False:
            return WordColumn(_joined(self._codes, np.int32), self._numbers.texts)
        lengths, missing = _joined(self._lengths, np.int64), _joined(self._missing, bool)
        data = b"".join(self._parts)
        self._parts.clear()
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return TextColumn(data, ends, missing if missing.any() else None)

    def texts(self) -> TextColumn:
        """The column, of one whose values do not repeat."""
        column = self.column()
        assert isinstance(column, TextColumn)
        return column


def texts_of(values: Iterable[str]) -> TextColumn:
    growing = Growing(repeats=False)
    growing.add(list(values))
    return growing.texts()


def _joined(parts: Sequence[np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
