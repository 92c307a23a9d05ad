"""Where the files of a manifest's rows lie, and which of them are missing.

`path_of` is the one function in which what a row says becomes a path, and `Paths` makes a `Path` of
it where it is asked for one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from froster.data.columns import TextColumn
from froster.utils.address import as_path, is_address, located
from froster.video.tar_shards import is_file

T = TypeVar("T")
Once = Callable[[Callable[[], T]], T]
"""Does a piece of work, or gets what another process that has the same to do has made of it."""
_MARK = "://"
"""In every address, and in hardly a path."""
AT_ONCE = 16
"""Threads that look for files, as they wait for the disk."""
_PART = 4096


def at_once(work: Callable[[], T]) -> T:
    """The work is done by this process."""
    return work()


def path_of(base: str, name: str) -> str:
    """The path of a row that says `name`, in a manifest whose paths start at `base`."""
    if _MARK in name or _MARK in base:
        return str(located(base, name.strip()))
    return os.path.join(base, name)


def forms_of(name: str) -> tuple[str, str, str]:
    """As it is written; without white space around it; that with / for \\."""
    plain = name.strip()
    return name, plain, plain.replace("\\", "/")


class Paths(Sequence[Path]):
    """The path of each row."""

    def __init__(self, base: str, names: TextColumn, forms: np.ndarray | None = None) -> None:
        """`forms`: uint8 (N,), which of `forms_of` each name is; None: all are as written."""
        self.base, self.names, self._forms = base, names, forms

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, row: int) -> Path: ...
    @overload
    def __getitem__(self, row: slice) -> list[Path]: ...
    def __getitem__(self, row: int | slice) -> Path | list[Path]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        return as_path(self.text(row))

    def text(self, row: int) -> str:
        """Before it is a `Path`."""
        return path_of(self.base, self._form(row, self.names[row]))

    def texts(self, rows: np.ndarray) -> Iterator[str]:
        """Of these rows."""
        for begin in range(0, len(rows), _PART):
            part = rows[begin : begin + _PART]
            for row, name in zip(part.tolist(), self.names.several(part), strict=True):
                yield path_of(self.base, self._form(row, name))

    def _form(self, row: int, name: str) -> str:
        return name if self._forms is None else forms_of(name)[self._forms[row]]


def locate(
    base: str, names: TextColumn, rows: np.ndarray, exists: Callable[[str], bool]
) -> tuple[np.ndarray | None, np.ndarray]:
    """Looks for the files of these rows but those at addresses, by several threads. Returns the
    `forms` of `Paths`, and the rows whose file is missing, in order."""
    forms = np.zeros(len(names), np.uint8)

    def absent(begin: int) -> list[int]:
        """The missing ones of a part of the rows; notes the forms of the others."""
        part = rows[begin : begin + _PART]
        missing = []
        for row, name in zip(part.tolist(), names.several(part), strict=True):
            path = path_of(base, name)
            if (_MARK in path and is_address(path)) or exists(path):
                continue
            forms[row] = form = _form_there(base, name)
            if not exists(path_of(base, forms_of(name)[form])):
                missing.append(row)
        return missing

    with ThreadPoolExecutor(AT_ONCE) as pool:
        missing = [row for part in pool.map(absent, range(0, len(rows), _PART)) for row in part]
    return (forms if forms.any() else None), np.array(missing, np.int64)


def _form_there(base: str, name: str) -> int:
    """The first form by which something is there, else the last."""
    forms = forms_of(name)
    return next((i for i, form in enumerate(forms) if _is_there(path_of(base, form))), 2)


def _is_there(path: str) -> bool:
    return os.path.lexists(path) or is_file(path)
