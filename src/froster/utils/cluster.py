"""The work of `froster.utils.work` on a cluster of Ray: actors that hold the work, with its
network, and below each of them the pool of processes that may crash.

These are plain actors and not Ray Data, which keeps progress, tries again and gives up by block: it
loses a whole block to a file that crashes, does it for ever by default, knows no order, and waits
for ever where actors take every CPU. Here a row is handed out, and handed out again, by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from froster.errors import FrosterError, UsageError, install
from froster.utils import interrupt, pool
from froster.utils.work import Means, Numbered, Row, Work, by_pool

HELD = 8
"""Rows that an actor holds beside those that its processes and its batches need."""
TRIES = 2
"""Actors that a row may cost, alone in each."""
STARTS = 3
"""Tries to reach or start a cluster; actors in a row that end before they do anything."""
PATIENCE = 180.0
"""Seconds in which one actor at least must start."""
_SETTLE = 15.0
"""Seconds until a cluster that has just started, or lost a driver, knows what is free."""
_ANSWER = 5.0  # seconds in which a port must answer
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def check(address: str | None) -> None:
    """Raises UsageError where Ray is not installed, or nothing answers at the address."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError(f"--engine ray needs Ray: {install('ray')}")
    if address in (None, "auto", "local"):
        return
    if address.startswith("ray://"):
        raise UsageError(
            f"--address {address}: a cluster is worked with from one of its machines, as HOST:PORT"
            " (its port is 6379 by itself) or auto, not through Ray's client"
        )
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise UsageError(f"--address is HOST:PORT of a cluster of Ray, or auto, not {address!r}")
    try:
        socket.create_connection((host, int(port)), _ANSWER).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"no cluster of Ray answers at {address} ({error})") from None


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, with a cluster: the one that this process has, that at the address, or one
    of this machine for as long as the block. Raises FrosterError, in one line."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    check(address)
    import ray

    if ray.is_initialized():
        yield ray
        return
    # Ray says on standard output, where results belong, which workers died, and has no option for
    # that; here such a death is an error of a row, or is made good.
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: None
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address == "local":
        options["include_dashboard"] = False
    for tries in itertools.count(1):
        try:
            ray.init(address=address, **options)
            break
        except Exception as error:  # of many kinds, some of them RuntimeError
            ray.shutdown()
            interrupt.check()
            if tries == STARTS or isinstance(error, ConnectionError):
                cause = " ".join(str(error).split())[:200] or type(error).__name__
                raise FrosterError(f"no cluster of Ray can be had at {address}: {cause}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


class Doer:
    """An actor: does what it is given, in a thread, while it answers. It works in the `folder` of
    the command, where its machine has that: Ray starts it in the folder in which the cluster was
    started, where relative paths would lead to other files."""

    def __init__(self, work: Work[Any, Any], means: Means, device: str, folder: str = ".") -> None:
        interrupt.ignore()
        with contextlib.suppress(OSError):
            os.chdir(folder)
        self._work, self._means, self._device = work, means, torch.device(device)
        self._feed, self._given = pool.Feed(), itertools.count()
        self._rows: dict[int, tuple[int, Any]] = {}
        self._ends: queue.SimpleQueue[list[Numbered] | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._do, daemon=True).start()

    def step(self, rows: Sequence[tuple[int, Any]]) -> list[Numbered]:
        """Takes these rows and returns what has ended, after a second at the latest."""
        for number, row in rows:
            self._rows[next(self._given)] = number, row
            self._feed.add(self._work.task(row))
        ended: list[Numbered] = []
        with contextlib.suppress(queue.Empty):
            some = self._ends.get(timeout=1.0) if self._rows else []
            while True:
                if isinstance(some, BaseException):
                    raise some
                ended += [(self._rows.pop(task)[0], *end) for task, *end in some]
                some = self._ends.get_nowait()
        return ended

    def _do(self) -> None:
        try:
            self._work.start(self._device)
            for some in by_pool(self._work, self._feed, lambda n: self._rows[n][1], self._means):
                self._ends.put(some)
        except BaseException as error:
            self._ends.put(error)


@dataclass(eq=False)
class _Actor:
    handle: Any
    rows: dict[int, None] = field(default_factory=dict)
    """The numbers of those that it holds."""
    started: bool = False
    alone: bool = False
    """It has one row over which another actor may have died."""


def ends(
    work: Work[Row, Any], rows: Sequence[Row], means: Means
) -> Generator[list[Numbered], None, None]:
    """The end of each row, once, in lists as they come.

    An actor that is lost is replaced, and what it held is done again, row by row; a row that costs
    two actors ends with an error. Raises FrosterError where no actor can be had.
    """
    if not rows:
        return
    with connected(means.engine.address) as ray:
        crew = _Crew(ray, work, rows, means)
        try:
            endings = crew.ends()
            yield from _in_order(endings) if work.in_order else endings
        finally:
            crew.dismiss()


def _in_order(endings: Iterable[list[Numbered]]) -> Iterator[list[Numbered]]:
    """By number. What comes early is kept, so that rows must be given out within a window."""
    early: dict[int, Numbered] = {}
    turn = 0
    for some in endings:
        early |= {end[0]: end for end in some}
        ready = []
        while turn in early:
            ready.append(early.pop(turn))
            turn += 1
        if ready:
            yield ready


class _Crew:
    """The actors, and which rows they hold."""

    def __init__(self, ray: Any, work: Work[Row, Any], rows: Sequence[Row], means: Means) -> None:
        self._ray, self._rows = ray, rows
        on_gpu = work.network and wants_gpu(ray, means.engine.device)
        workers = means.workers
        if workers is None:
            workers = a_gpus_share(ray) if on_gpu else 1
        means = dataclasses.replace(means, workers=workers)
        cpus = max(1, workers)
        count = min(len(rows), places(ray, cpus, on_gpu))
        kind = ray.remote(num_cpus=cpus, num_gpus=1 if on_gpu else 0, max_restarts=0)(Doer)
        sent = ray.put(work)
        device = "cuda" if on_gpu else "cpu"
        self._new = lambda: kind.remote(sent, means, device, os.getcwd())
        self._held = HELD + workers + 2 * work.batch_size
        # In order, those that have ended wait for the oldest one that has not.
        self._window = 4 * count * self._held if work.in_order else len(rows)
        self._begun = self._oldest = self._stillborn = 0
        self._ended: set[int] = set()
        self._suspects: deque[int] = deque()
        self._deaths: dict[int, int] = {}
        self._calls: dict[Any, _Actor] = {}
        for _ in range(count):
            self._hire()

    def ends(self) -> Iterator[list[Numbered]]:
        began, any_started = time.monotonic(), False
        while self._oldest < len(self._rows):
            ready, _ = self._ray.wait(list(self._calls), timeout=1.0)
            interrupt.check()
            for call in ready:
                any_started = True
                if some := self._ended_in(call):
                    self._note(some)
                    yield some
            if not any_started and time.monotonic() - began > PATIENCE:
                raise FrosterError(f"no actor has started within {PATIENCE:.0f} s: {self._free()}")

    def dismiss(self) -> None:
        for actor in self._calls.values():
            with contextlib.suppress(Exception):  # the cluster itself may be gone
                self._ray.kill(actor.handle)

    def _hire(self) -> None:
        self._call(_Actor(self._new()), [])

    def _call(self, actor: _Actor, numbers: Sequence[int]) -> None:
        given = [(number, self._rows[number]) for number in numbers]
        self._calls[actor.handle.step.remote(given)] = actor

    def _ended_in(self, call: Any) -> list[Numbered]:
        """What a call has brought, or that a row has cost too many actors."""
        actor = self._calls.pop(call)
        try:
            some: list[Numbered] = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            self._calls[call] = actor  # dismissed with the others
            raise _cause(error) from None
        except self._ray.exceptions.RayError as error:
            return self._lost(actor, error)
        self._stillborn, actor.started = 0, True
        for number, _, _ in some:
            del actor.rows[number]
        numbers = self._next(actor)
        actor.rows.update(dict.fromkeys(numbers))
        self._call(actor, numbers)
        return some

    def _next(self, actor: _Actor) -> list[int]:
        """What an actor is given. A suspect is done alone, so that it costs no other row."""
        if not actor.rows:
            actor.alone = bool(self._suspects)
            if actor.alone:
                return [self._suspects.popleft()]
        if actor.alone:
            return []
        last = min(len(self._rows), self._oldest + self._window)
        numbers = range(self._begun, min(last, self._begun + self._held - len(actor.rows)))
        self._begun = max(self._begun, numbers.stop)
        return list(numbers)

    def _lost(self, actor: _Actor, error: Exception) -> list[Numbered]:
        """Another one takes its place."""
        with contextlib.suppress(Exception):
            self._ray.kill(actor.handle)  # it may live, out of reach
        self._stillborn += not actor.started
        if self._stillborn == STARTS:
            cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise FrosterError(f"actors end before they do anything: {cause}")
        self._hire()
        given_up = []
        for number in actor.rows:
            self._deaths[number] = self._deaths.get(number, 0) + actor.alone
            if self._deaths[number] == TRIES:
                given_up.append((number, None, f"the process of the network died {TRIES} times"))
            else:
                self._suspects.append(number)
        return given_up

    def _note(self, some: Sequence[Numbered]) -> None:
        self._ended.update(number for number, _, _ in some)
        while self._oldest in self._ended:
            self._ended.remove(self._oldest)
            self._oldest += 1

    def _free(self) -> str:
        return free_of(self._ray)


def wants_gpu(ray: Any, device: str | None) -> bool:
    """Raises FrosterError where a GPU was asked for and the cluster has none."""
    has = ray.cluster_resources().get("GPU", 0) >= 1
    if device is not None and device.startswith("cuda") and not has:
        raise FrosterError(f"the cluster has no GPU for --device {device}")
    return has if device is None else device.startswith("cuda")


def a_gpus_share(ray: Any) -> int:
    """CPUs of the cluster for each of its GPUs, for processes that read: eight at most."""
    total = ray.cluster_resources()
    return max(1, min(8, int(total.get("CPU", 1) // total["GPU"])))


def places(ray: Any, cpus: int, on_gpu: bool) -> int:
    """How many actors of so many CPUs, and a GPU each, fit into what is free now. Raises
    FrosterError where it is none."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = {"CPU": cpus, **({"GPU": 1} if on_gpu else {})}
    fit = sum(min(int(node.get(name, 0) // n) for name, n in needs.items()) for node in nodes)
    until = time.monotonic() + _SETTLE
    while True:
        free = ray.available_resources()
        count = min(fit, *(int(free.get(name, 0) // n) for name, n in needs.items()))
        if count or not fit or time.monotonic() > until:
            break
        interrupt.check()
        time.sleep(0.2)
    if count < 1:
        a_gpu = " and a GPU" if on_gpu else ""
        raise FrosterError(
            f"there is no room for an actor of {cpus} CPUs{a_gpu}: {free_of(ray)}; wait until"
            " other jobs end, or give fewer --workers"
        )
    return count


def free_of(ray: Any) -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    parts = [f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s" for name in ("CPU", "GPU")]
    return f"{' and '.join(parts)} of the cluster are free"


def _cause(error: Any) -> BaseException:
    """What an actor has raised, in one line where it is not ours."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, FrosterError):
        return cause
    line = next(iter(str(cause).strip().splitlines()[-1:]), "")
    return FrosterError(f"an actor failed: {type(cause).__name__}: {line}")
