"""The queue: a few requests wait, one thread works, and what takes too long or is no longer wanted
stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from froster.errors import out_of_memory
from froster.serve import Refusal
from froster.utils.interrupt import limited

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


class Job(Generic[Result]):
    def __init__(self, work: Callable[[], Result], place: Place, seconds: float):
        self.work, self.place, self.seconds = work, place, seconds
        self.began = time.monotonic()
        self.unwanted = False
        self.future: Future[Result] = Future()

    def check(self) -> None:
        """Called again and again by the work itself, between packets and batches."""
        if self.unwanted:
            raise Gone
        if time.monotonic() > self.began + self.seconds:
            raise too_slow(self.seconds)

    def run(self) -> None:
        try:
            with limited(self.check):
                self.check()
                result = self.work()
        except BaseException as error:  # it is the caller's, and the thread goes on
            self.fail(MemoryError() if out_of_memory(error) else error)
        else:
            with suppress(InvalidStateError):  # given up meanwhile, and the caller told so
                self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class Jobs:
    """One thread that works, which alone touches the models, and the requests that wait for it."""

    def __init__(self, waiting: int, seconds: float):
        self.room, self.seconds = waiting + 1, seconds
        self.changed = threading.Condition(threading.RLock())
        self.inside = 0  # requests that are being uploaded, wait or are worked on
        self.queue: deque[Job[Any]] = deque()
        self.running: Job[Any] | None = None
        self.closed = False
        self._thread = threading.Thread(target=self._work, name="froster", daemon=True)
        self._thread.start()

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
        work: Callable[[], Result],
        place: Place,
        hung_up: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> Result:
        """The result of `work`, done in the thread. Raises what it raises, Refusal when it takes
        too long, Gone when `hung_up`, which waits for the client to hang up, ends before it."""
        job = Job(work, place, self.seconds)
        with self.changed:
            if self.closed:
                raise ending()
            place.kept = True
            self.queue.append(job)
            self.changed.notify()
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

    def _work(self) -> None:
        while True:
            with self.changed:
                while not self.queue and not self.closed:
                    self.changed.wait()
                if not self.queue:
                    return
                job = self.running = self.queue.popleft()
                wanted = job.future.set_running_or_notify_cancel()
            if wanted:
                job.run()
            with self.changed:
                self.running = None
                job.place.leave()
            del job  # and with it the result

    @property
    def busy(self) -> float:
        """Seconds since the work in hand was asked for; 0 where there is none."""
        job = self.running
        return time.monotonic() - job.began if job else 0.0

    def close(self) -> None:
        """Nothing new is taken, what waits is told so, and what is in hand may finish."""
        with self.changed:
            self.closed = True
            for job in self.queue:
                job.place.leave()
                if job.future.set_running_or_notify_cancel():
                    job.fail(ending())
            self.queue.clear()
            self.changed.notify_all()

    def give_up(self) -> None:
        """As `close`, and who asked for what is in hand is told now; it stops at its next check."""
        self.close()
        with self.changed:
            if (job := self.running) is not None:
                job.unwanted = True
                job.fail(ending())

    def stop(self, patience: float = 5.0) -> None:
        """As `give_up`, and waits until what is in hand has stopped."""
        self.give_up()
        self._thread.join(patience)


def ending() -> Refusal:
    return Refusal(503, "the server is shutting down")


def too_slow(seconds: float) -> Refusal:
    most = "which is the most that a request may take"
    return Refusal(504, f"no answer within {seconds:g} s, {most}")
