"""Sixteen clients of `froster serve` on this machine: classifications a second, and the seconds that
nineteen of twenty wait at most. Against one thread that reads and computes in turn, as it was.

Clips as UCF101 has them. With nano reading is most of the work, with a B/16 of random weights
the network is.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from benchmarks.clips import UCF, write_clip
from benchmarks.setup import scene
from benchmarks.timing import Row, Spread
from froster.inference.recognizer import Recognizer, load
from froster.serve.app import create_app
from froster.serve.connections import Connection
from froster.serve.guard import Guard
from froster.serve.jobs import Steps
from froster.serve.limits import Limits
from froster.serve.models import Models
from froster.serve.service import Service

CLIENTS, GOAL = 16, 1.5
LABELS = "a star, a bus, a fish, a tree, a red circle"


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    networks = {"nano": (load("nano", device="cpu"), 2 if toy else 8)}
    if not toy:
        networks["B/16"] = load(scene().folder, device="cpu"), 1
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        video = write_clip(Path(folder) / "clip.avi", UCF)
        for name, (model, each) in networks.items():
            ratios, ours, theirs, late = [], [], [], []
            for _ in range(rounds or 3):
                before, _ = measured(model, video, each, in_turn=True)
                after, waits = measured(model, video, each, in_turn=False)
                ratios.append(after / before)
                ours.append(after)
                theirs.append(before)
                late.append(statistics.quantiles(waits, n=20)[-1])
            rows.append(
                Row(
                    f"{CLIENTS} clients, {name}",
                    "froster serve",
                    "one thread in turn",
                    Spread.of(ours),
                    Spread.of(theirs),
                    "requests/s",
                    Spread.of(ratios),
                    GOAL,
                )
            )
            notes.append(f"{name}: 95 % of the requests waited {Spread.of(late)} s at most.")
    return rows, notes


@contextmanager
def served(service: Service) -> Iterator[str]:
    """A real server in this process; its address."""
    app = Guard(create_app(service), None)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", http=Connection))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def measured(model: Recognizer, video: Path, each: int, in_turn: bool) -> tuple[float, list[float]]:
    """Requests a second, and how long each waited."""
    limits = Limits(waiting=CLIENTS, timeout=600)
    service = Service(Models({"model": model}, limits), limits)
    if in_turn:
        object.__setattr__(service.models, "classify", turned(service.models.classify))
    data, waits = video.read_bytes(), []

    def client(address: str) -> None:
        with httpx.Client(base_url=address, timeout=600) as session:
            for _ in range(each):
                began = time.perf_counter()
                files = {"video": ("clip.avi", data)}
                answer = session.post("/v1/classify", files=files, data={"labels": LABELS})
                answer.raise_for_status()
                waits.append(time.perf_counter() - began)

    with served(service) as address:
        client(address)  # labels are encoded, code is loaded
        waits.clear()
        began = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client, [address] * CLIENTS))
        seconds = time.perf_counter() - began
    return len(waits) / seconds, waits


def turned(classify: Callable[..., Steps[Any]]) -> Callable[..., Steps[Any]]:
    def whole(*asked: Any) -> Steps[Any]:
        work = classify(*asked)
        prepare, finish = work.prepare, work.finish
        assert prepare is not None and finish is not None
        return Steps(finish=lambda _: finish([prepare()]))

    return whole
