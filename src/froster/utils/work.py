"""Work on many videos, and by what means it is done: rows in, rows out. The work is a `Work`, of
which there is one for each command; who does it is an `Engine` (`froster.utils.engine`).

It lies in this room, as data and training have works too.
"""

from __future__ import annotations

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

    def has(self, row: Row) -> bool:
        """Whether nothing is to be done for this row."""

    def has_failed(self, row: Row) -> bool:
        """Of one for which nothing is to be done, or that has ended."""

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


LOCAL = Engine()


@dataclass(frozen=True)
class Means:
    """What the engine works with."""

    engine: Engine = LOCAL
    workers: int | None = 0
    """Processes that read, of each actor on a cluster; None: as many as suit."""
    limit: float = pool.SECONDS_OF_SILENCE
    """Seconds after which a process that gives no sign of life is replaced."""


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
