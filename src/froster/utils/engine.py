"""Work on many videos into a store that a stopped run goes on with. It is done by processes of this
machine, or on a cluster of Ray (`froster.utils.cluster`)."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from froster.utils import pool
from froster.utils.work import End, Engine, Means, Result, Row, RowStore, Work, by_pool

OnProgress = Callable[[int, int, int], None]
"""How many rows have ended, those of earlier runs among them, of how many; how many failed."""


def checked(engine: Engine) -> Engine:
    """This engine, if it is to be had. Raises UsageError, soon, where Ray is not installed or
    nothing answers at the address."""
    if engine.name == "ray":
        from froster.utils import cluster

        cluster.check(engine.address)
    return engine


def run(
    work: Work[Row, Result],
    rows: Sequence[Row],
    store: RowStore[Row, Result],
    means: Means,
    on_progress: OnProgress = lambda done, total, failed: None,
) -> Sequence[Row]:
    """Does the work for all rows that the store lacks, each once, and returns these rows.

    Whatever kills a process that reads, an actor, a machine or this process: what came before is in
    the store, and the same call does the rest. Raises the FrosterErrors of the work that are no
    VideoErrors, and FrosterError where there is nothing to work with.
    """
    try:
        numbers, failed = array("q"), 0
        for number, row in enumerate(rows):
            if store.has(row):
                failed += store.has_failed(row)
            else:
                numbers.append(number)
        todo = _Some(rows, numbers)
        done = len(rows) - len(todo)
        on_progress(done, len(rows), failed)
        with closing(ends(work, todo, means)) as following:
            for some in following:
                store.add(some)
                done += len(some)
                failed += sum(store.has_failed(end.row) for end in some)
                on_progress(done, len(rows), failed)
    finally:
        store.close()
    return todo


def ends(
    work: Work[Row, Result], rows: Sequence[Row], means: Means
) -> Generator[list[End[Row, Result]], None, None]:
    """The same without a store: every row's end, as they come or in the order of the rows."""
    if means.engine.name == "ray":
        from froster.utils import cluster

        numbered = cluster.ends(work, rows, means)
    else:
        workers = pool.processes(means.workers, len(rows))
        means, tasks = dataclasses.replace(means, workers=workers), _Tasks(work, rows)
        numbered = by_pool(work, tasks, rows.__getitem__, means, in_order=work.in_order)
    with closing(numbered) as following:
        for some in following:
            yield [End(rows[number], result, error) for number, result, error in some]


class _Some(Sequence[Any]):
    """Some of the rows, by their numbers: eight bytes each."""

    def __init__(self, rows: Sequence[Any], numbers: array[int]) -> None:
        self._rows, self._numbers = rows, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: Any) -> Any:
        return self._rows[self._numbers[place]]


class _Tasks(Sequence[Any]):
    """Those of all rows, made when they are taken."""

    def __init__(self, work: Work[Row, Any], rows: Sequence[Row]) -> None:
        self._work, self._rows = work, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        return self._work.task(self._rows[number])
