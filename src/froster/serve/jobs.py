"""The queue: a few requests wait, some threads read videos, one thread alone touches the models,
and what takes too long or is no longer wanted stops.

Requests of one kind whose videos have been read while the models were busy are answered together.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from froster.errors import out_of_memory
from froster.serve import Refusal
from froster.utils.interrupt import limited
from froster.utils.pool import cores

Asked = TypeVar("Asked")
Result = TypeVar("Result")


class Gone(Exception):
    """The client has hung up: nobody hears the answer."""


class Place:
    """A request's right to be here, from its first byte to its answer, given back once."""

    def __init__(self, jobs: Jobs):
        self.jobs, self.kept, self.left = jobs, False, False

    def leave(self) -> None:
        with self.jobs.changed:
            self.jobs.inside -= not self.left
            self.left = True


@dataclass(frozen=True)
class Steps(Generic[Result]):
    """What a request asks for, in two steps of which either may be missing."""

    prepare: Callable[[], Any] | None = None
    """What may go on beside other works, as reading a video."""
    finish: Callable[[Sequence[Any]], Sequence[Result]] | None = None
    """What the models do with the results of `prepare`, of several works at once."""
    kind: Hashable = None
    """Works of equal kinds may be finished together."""
    together: int = 1
    """So many of them at most."""

    @classmethod
    def of(cls, work: Callable[[], Result]) -> Steps[Result]:
        """Steps that touches the models from its beginning to its end."""
        return cls(finish=lambda _: [work()])


def alone(work: Callable[[Asked, Any], Result]) -> Callable[[Asked, Any], Steps[Result]]:
    """What touches the models from its beginning to its end, as `Steps` of what was asked."""
    return lambda asked, path: Steps.of(lambda: work(asked, path))


class Job(Generic[Result]):
    def __init__(self, work: Steps[Result], place: Place, seconds: float):
        self.work, self.place, self.seconds = work, place, seconds
        self.began = time.monotonic()
        self.is_read = work.prepare is None
        self.content: Any = None
        self.unwanted = False
        self.future: Future[Result] = Future()

    def check(self) -> None:
        """Called again and again by the work itself, between packets and batches."""
        if self.unwanted:
            raise Gone
        if time.monotonic() > self.began + self.seconds:
            raise too_slow(self.seconds)

    def prepare(self) -> bool:
        """Is there something left to do for the models?"""
        assert self.work.prepare is not None
        try:
            with limited(self.check):
                self.check()
                self.content, self.is_read = self.work.prepare(), True
        except BaseException as error:  # it is the caller's, and the thread goes on
            self.fail(error)
            return False
        if self.work.finish is None:
            self.answer(self.content)
        return self.work.finish is not None

    def answer(self, result: Result) -> None:
        with suppress(InvalidStateError):  # given up meanwhile, and the caller told so
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(MemoryError() if out_of_memory(error) else error)


def finish(jobs: Sequence[Job[Any]]) -> None:
    """The answers to jobs of one kind. What is wrong with one of several is found by itself."""

    def check() -> None:
        for job in jobs:
            if not job.unwanted:
                return job.check()
        raise Gone

    first = jobs[0].work.finish
    assert first is not None
    try:
        with limited(check):
            check()
            results = first([job.content for job in jobs])
    except BaseException as error:
        if len(jobs) == 1:
            jobs[0].fail(error)
        else:
            for job in jobs:
                finish([job])
    else:
        for job, result in zip(jobs, results, strict=True):
            job.answer(result)


class Jobs:
    """Threads that read, one that works, which alone touches the models, and the requests that wait
    for them."""

    def __init__(self, waiting: int, seconds: float, readers: int = 0):
        """`readers`: threads, by default as many as there are cores, up to four."""
        self.room, self.seconds = waiting + 1, seconds
        self.changed = threading.Condition(threading.RLock())
        self.inside = 0  # requests that are being uploaded, wait or are worked on
        self.queue: deque[Job[Any]] = deque()
        self.in_hand: list[Job[Any]] = []
        self.closed = False
        count = readers or min(4, cores())
        steps = [self._work, *[self._prepare] * count]
        self._threads = [threading.Thread(target=s, name="froster", daemon=True) for s in steps]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Raises Refusal at once where no place is free."""
        with self.changed:
            if self.closed:
                raise ending()
            if self.inside >= self.room:
                full = f"{self.inside} requests are waiting, which is all there is room for"
                raise Refusal(429, full, Retry_After="5")
            self.inside += 1
        place = Place(self)
        try:
            yield place
        finally:
            if not place.kept:
                place.leave()

    async def do(
        self,
        work: Steps[Result],
        place: Place,
        hung_up: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> Result:
        """The result of `work`, done in the threads. Raises what it raises, Refusal when it takes
        too long, Gone when `hung_up`, which waits for the client to hang up, ends before it."""
        job = Job(work, place, self.seconds)
        with self.changed:
            if self.closed:
                raise ending()
            place.kept = True
            self.queue.append(job)
            self.changed.notify_all()
        answer = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(hung_up()) if hung_up else None
        awaited: list[asyncio.Future[Any]] = [answer, gone] if gone else [answer]
        try:
            done, _ = await asyncio.wait(
                awaited, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if answer in done:
                return answer.result()
            raise Gone if done else too_slow(self.seconds)
        finally:
            self._drop(job)
            if gone:
                gone.cancel()
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # it came too late, and is looked at so that nobody complains

    def _drop(self, job: Job[Any]) -> None:
        """Not wanted any more: it leaves the queue now, or stops at its next check."""
        job.unwanted = True
        with self.changed:
            if job in self.queue:
                self.queue.remove(job)
                job.place.leave()

    def _prepare(self) -> None:
        while True:
            with self.changed:
                while (job := self._next(to_read=True)) is None:
                    if self.closed:
                        return
                    self.changed.wait()
                self._take([job])
            goes_on = job.prepare()
            with self.changed:
                self._give([job], goes_on)
            del job

    def _work(self) -> None:
        while True:
            with self.changed:
                while (job := self._next(to_read=False)) is None:
                    if self.closed and not self.in_hand:
                        return
                    self.changed.wait()
                jobs = self._alike(job)
                self._take(jobs)
            finish(jobs)
            with self.changed:
                self._give(jobs)
            del job, jobs  # and with them the results

    def _next(self, to_read: bool) -> Job[Any] | None:
        """The first in the queue for whose step a thread asks; those that nobody wants leave."""
        for job in list(self.queue):
            if job.unwanted:
                self.queue.remove(job)
                job.place.leave()
            elif job.is_read is not to_read:
                return job
        return None

    def _alike(self, job: Job[Any]) -> list[Job[Any]]:
        """The job, and those that may be finished with it."""
        if job.work.together == 1:
            return [job]
        kind = job.work.kind
        alike = [other for other in self.queue if other.is_read and other.work.kind == kind]
        return alike[: job.work.together]

    def _take(self, jobs: Sequence[Job[Any]]) -> None:
        for job in jobs:
            self.queue.remove(job)
            self.in_hand.append(job)

    def _give(self, jobs: Sequence[Job[Any]], goes_on: bool = False) -> None:
        """Back to their place in the queue, or away with them."""
        for job in jobs:
            self.in_hand.remove(job)
            if goes_on:
                place = sum(other.began < job.began for other in self.queue)
                self.queue.insert(place, job)
            else:
                job.place.leave()
        self.changed.notify_all()

    @property
    def running(self) -> Job[Any] | None:
        """What has been in hand for longest."""
        return min(self.in_hand, key=lambda job: job.began, default=None)

    @property
    def busy(self) -> float:
        """Seconds since that was asked for; 0 where there is none."""
        job = self.running
        return time.monotonic() - job.began if job else 0.0

    def close(self) -> None:
        """Nothing new is taken, what waits is told so, and what is in hand may finish."""
        with self.changed:
            self.closed = True
            for job in [job for job in self.queue if job.content is None]:
                self.queue.remove(job)
                job.place.leave()
                job.fail(ending())
            self.changed.notify_all()

    def give_up(self) -> None:
        """As `close`, and who asked for what is in hand is told now; it stops at its next check."""
        self.close()
        with self.changed:
            for job in [*self.in_hand, *self.queue]:
                job.unwanted = True
                job.fail(ending())
            self.changed.notify_all()

    def stop(self, patience: float = 5.0) -> None:
        """As `give_up`, and waits until what is in hand has stopped."""
        self.give_up()
        for thread in self._threads:
            thread.join(patience)


def ending() -> Refusal:
    return Refusal(503, "the server is shutting down")


def too_slow(seconds: float) -> Refusal:
    most = "which is the most that a request may take"
    return Refusal(504, f"no answer within {seconds:g} s, {most}")
