"""Work on many videos: rows in, rows out, into a store that a stopped run goes on with. It is done
by processes of this machine, or on a cluster of Ray (`froster.utils.cluster`).

What is done is a `Work`, of which there is one for each command. It lies in this room, as data and
training have theirs too.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch

from froster.errors import UsageError
from froster.utils import pool

Row = TypeVar("Row")
Result = TypeVar("Result")


class Work(Generic[Row, Result]):
    """What is done with each row, of which `path` is the video: `reader` takes it apart in a
    process that may crash, `compute` sees the parts of several videos at once, and `finish` puts
    together what became of one video's.

    It is sent to other machines as it is pickled. A work that only reads needs no more than a
    reader, which yields its result.
    """

    batch_size = 1
    """Parts for `compute`."""
    in_order = False
    """Results come in the order of the rows."""
    network = False
    """`compute` is faster on a GPU."""

    def __init__(self, reader: pool.Work) -> None:
        self.reader = reader
        "sent to processes by itself, so it does not hold this object"

    def task(self, row: Row) -> Any:
        """What the reader is called with."""
        return str(row.path)  # type: ignore[attr-defined]

    def start(self, device: torch.device) -> None:
        """Called once on another machine, before anything else; `device` is what it has."""

    def compute(self, parts: list[Any]) -> Sequence[Any]:
        """Of each part what is kept of it."""
        return parts

    def finish(self, row: Row, kept: list[Any]) -> Result | None:
        """The result of a video from what was kept of its parts; None where some are missing."""
        return kept[-1] if kept else None


@dataclass(frozen=True)
class End(Generic[Row, Result]):
    """`result` is None exactly where `error` says why."""

    row: Row
    result: Result | None
    error: str = ""


class RowStore(Protocol[Row, Result]):
    """Where results go. What it holds when a run begins is not done again."""

    @property
    def failed(self) -> int:
        """Rows that have failed, those of earlier runs among them."""

    def has(self, row: Row) -> bool:
        """Whether nothing is to be done for this row."""

    def add(self, ends: Sequence[End[Row, Result]]) -> None:
        """Results and failures. After this, or soon, a kill does not lose them."""

    def close(self) -> None:
        """Called once, whatever ends the run."""


@dataclass(frozen=True)
class Engine:
    """Who does the work."""

    name: Literal["local", "ray"] = "local"
    address: str | None = None
    """Of a cluster of Ray; without one this machine is a cluster."""
    device: str | None = None
    """Where its actors compute; by default on GPUs where the cluster has any."""

    def __post_init__(self) -> None:
        if self.address is not None and self.name != "ray":
            raise UsageError("--address is that of a cluster of Ray: give --engine ray")

    def check(self) -> Engine:
        """This engine, if it is to be had. Raises UsageError, soon, where Ray is not installed or
        nothing answers at the address."""
        if self.name == "ray":
            from froster.utils import cluster

            cluster.check(self.address)
        return self


LOCAL = Engine()


@dataclass(frozen=True)
class Means:
    """What the engine works with."""

    engine: Engine = LOCAL
    workers: int | None = 0
    """Processes that read, of each actor on a cluster; None: as many as suit."""
    limit: float = pool.SECONDS_OF_SILENCE
    """Seconds after which a process that gives no sign of life is replaced."""


OnProgress = Callable[[int, int, int], None]
"""How many rows have ended, those of earlier runs among them, of how many; how many failed."""


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
        todo = _Some(rows, array("q", (n for n, row in enumerate(rows) if not store.has(row))))
        done = len(rows) - len(todo)
        on_progress(done, len(rows), store.failed)
        with closing(ends(work, todo, means)) as following:
            for some in following:
                store.add(some)
                done += len(some)
                on_progress(done, len(rows), store.failed)
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


Numbered = tuple[int, Any, str]
"""The number of a task, its result and its error."""


def by_pool(
    work: Work[Row, Any],
    tasks: Sequence[Any] | pool.Feed,
    row_of: Callable[[int], Row],
    means: Means,
    *,
    in_order: bool = False,
) -> Generator[list[Numbered], None, None]:
    """The end of each task, in lists as they come: processes read while this one computes."""
    workers, size = means.workers or 0, work.batch_size
    window = workers + 2 * size
    events: Any = pool.run(
        work.reader, tasks, workers, limit=means.limit, window=window if in_order else None
    )
    if in_order:
        events = pool.in_order(events)
    batch: list[tuple[int, Any]] = []
    kept: dict[int, list[Any]] = {}
    ended: list[pool.Event] = []

    def computed() -> Iterator[list[Numbered]]:
        if batch:
            outputs = work.compute([part for _, part in batch])
            for (task, _), output in zip(batch, outputs, strict=True):
                kept.setdefault(task, []).append(output)
            batch.clear()
        if ended:
            yield [finished(event) for event in ended]
            ended.clear()

    def finished(event: pool.Event) -> Numbered:
        # A process that dies after it has handed the last part on costs nothing.
        result = work.finish(row_of(event.task), kept.pop(event.task, []))
        error = "" if result is not None else event.error or "nothing was read"
        return event.task, result, error

    with closing(pool.ahead(events, window) if workers else events) as following:
        for event in following:
            if event.done:
                ended.append(event)
            elif event is not pool.PAUSE:
                batch.append((event.task, event.part))
            if len(batch) == size or (ended and not batch) or event is pool.PAUSE:
                yield from computed()
    yield from computed()
