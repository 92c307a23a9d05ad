"""Requests that arrive together: videos are read side by side, alike ones are answered by one pass,
and nobody's answer depends on who else asked."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from froster.inference.recognizer import Recognizer
from froster.serve import schemas
from froster.serve.jobs import Jobs, Steps
from froster.serve.limits import Limits
from froster.serve.models import Models, Room
from server import post, serving, wait_for
from shared_files import World

ROUNDS = 6


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, world = tmp_path_factory.mktemp("videos"), World("base", 1)
    return [world.write(number, folder / f"{number}.mp4") for number in range(ROUNDS)]


def ask_all(jobs: Jobs, works: list[Steps[Any]]) -> list[Any]:
    def ask(work: Steps[Any]) -> Any:
        with jobs.place() as place:
            try:
                return asyncio.run(jobs.do(work, place))
            except Exception as error:
                return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(ask, works))


def test_works_of_a_kind_are_finished_together_and_others_alone() -> None:
    jobs, sizes, hold = Jobs(20, 60, readers=3), [], threading.Event()

    def finish(contents: list[int]) -> list[int]:
        sizes.append(len(contents))
        return [10 * content for content in contents]

    try:
        first = threading.Thread(target=ask_all, args=(jobs, [Steps.of(hold.wait)]))
        first.start()
        wait_for(lambda: jobs.running)
        works = [Steps(lambda n=n: n, finish, n % 2, 1 if n % 2 else 4) for n in range(9)]
        with ThreadPoolExecutor(1) as pool:
            answers = pool.submit(ask_all, jobs, works)
            wait_for(lambda: sum(job.is_read for job in list(jobs.queue)) == 9)
            hold.set()
            assert answers.result() == [10 * n for n in range(9)]
        first.join()
    finally:
        hold.set()
        jobs.stop()
    assert sorted(sizes) == [1, 1, 1, 1, 1, 4] and jobs.inside == 0


def test_what_was_asked_for_first_is_answered_first() -> None:
    """Of all that are read, also where a later one was read sooner."""
    jobs, order = Jobs(20, 60, readers=2), list[str]()
    hold, slow = threading.Event(), threading.Event()

    def work(name: str, read: threading.Event | None = None) -> Steps[str]:
        prepare = (lambda: read.wait() and name) if read else lambda: name
        return Steps(prepare, lambda contents: [order.append(contents[0]) or contents[0]])

    works = [Steps.of(hold.wait), work("first", slow), work("second"), work("third")]
    threads = [threading.Thread(target=ask_all, args=(jobs, [one])) for one in works]
    try:
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_for(lambda number=number: len(jobs.queue) + len(jobs.in_hand) == number)
            wait_for(lambda number=number: len(jobs.in_hand) >= min(number, 2))
        wait_for(lambda: sum(job.is_read for job in list(jobs.queue)) == 2)
        slow.set()
        wait_for(lambda: sum(job.is_read for job in list(jobs.queue)) == 3)
        hold.set()
        for thread in threads:
            thread.join(60)
    finally:
        hold.set()
        slow.set()
        jobs.stop()
    assert order == ["first", "second", "third"]


def test_one_that_fails_fails_alone() -> None:
    jobs, hold = Jobs(20, 60), threading.Event()

    def finish(contents: list[int]) -> list[int]:
        if 2 in contents:
            raise ValueError("two")
        return contents

    def unreadable() -> int:
        raise OSError("unreadable")

    try:
        first = threading.Thread(target=ask_all, args=(jobs, [Steps.of(hold.wait)]))
        first.start()
        wait_for(lambda: jobs.running)
        works = [Steps(lambda n=n: n, finish, 1, together=8) for n in (1, 2, 3)]
        works.append(Steps(unreadable, finish, 1, together=8))
        with ThreadPoolExecutor(1) as pool:
            answers = pool.submit(ask_all, jobs, works)
            wait_for(lambda: sum(job.is_read for job in list(jobs.queue)) == 3)
            hold.set()
            one, two, three, four = answers.result()
        first.join()
    finally:
        hold.set()
        jobs.stop()
    assert (one, str(two), three, str(four)) == (1, "two", 3, "unreadable")
    assert jobs.inside == 0


def test_answers_do_not_depend_on_who_asks_beside(
    nano: Recognizer, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = [
        "a star",
        "a bus",
        "a red circle, a fish",
        "a fish",
        "a tree, a fish",
        "a bus, a star",
    ]
    monkeypatch.setattr("froster.serve.models.videos_at_once", lambda model: 8)
    sizes: list[int] = []
    whole = Recognizer.classify_together

    def counted(self: Recognizer, clips: Any, *rest: Any) -> Any:
        sizes.append(len(clips))
        return whole(self, clips, *rest)

    monkeypatch.setattr(Recognizer, "classify_together", counted)
    with serving(nano, waiting=20) as (client, service):
        hold = threading.Event()
        other = threading.Thread(target=ask_all, args=(service.jobs, [Steps.of(hold.wait)]))
        other.start()
        wait_for(lambda: service.jobs.running)
        with ThreadPoolExecutor(ROUNDS) as pool:
            asked = [
                pool.submit(post, client, "classify", video, labels=names)
                for video, names in zip(videos, labels, strict=True)
            ]
            wait_for(lambda: sum(job.is_read for job in list(service.jobs.queue)) == ROUNDS, 20)
            hold.set()
            answers = [each.result().json() for each in asked]
        other.join()
    assert max(sizes) == ROUNDS
    for answer, video, names in zip(answers, videos, labels, strict=True):
        alone = nano.classify(video, names.split(", "))
        assert [score["label"] for score in answer["scores"]] == alone.labels
        scores = [score["score"] for score in answer["scores"]]
        torch.testing.assert_close(torch.tensor(scores), torch.tensor(alone.scores))


def test_labels_in_groups_are_asked_as_by_the_command(nano: Recognizer, videos: list[Path]) -> None:
    """And as `classify` asks: what follows the "/"."""
    names = ["sky/a bus", "sky/a star"]
    asked = schemas.ClassifyRequest(labels=names)
    work = Models({"nano": nano}, Limits()).classify(asked, videos[0])
    assert work.prepare is not None and work.finish is not None
    (answer,) = work.finish([work.prepare()])
    alone = nano.classify(videos[0], names)
    assert [score.label for score in answer.scores] == alone.labels
    torch.testing.assert_close([score.score for score in answer.scores], alone.scores)


def test_videos_wait_for_memory() -> None:
    room, inside, most = Room(100), [0], [0]
    lock = threading.Lock()

    def use(size: int) -> None:
        with room.hold(size):
            with lock:
                inside[0] += min(size, 100)
                most[0] = max(most[0], inside[0])
            threading.Event().wait(0.01)
            with lock:
                inside[0] -= min(size, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [60, 30, 500, 20, 60, 60, 100, 10] * 3))
    assert inside == [0] and most[0] <= 100
