"""Real servers and real connections: uploads that stop, load with broken files, Ctrl-C, the
documented calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from server import Command, half, in_thread, wait_for  # isort: skip  # skips this file where there is no fastapi

import httpx

from froster.inference.recognizer import Recognizer
from froster.serve.app import create_app
from froster.serve.connections import MOST_CONNECTIONS
from froster.serve.guard import Guard
from froster.serve.limits import Limits
from froster.serve.models import Models
from froster.serve.service import Service
from shared_files import World
from video_files import make_video

ROOT = Path(__file__).parents[1]
LABELS = ["cat spinning", "fish bouncing", "car swinging", "moon glowing"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    videos = World("base", 1)
    return [videos.write(i, folder / f"{i}.mp4") for i in range(4)]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory):
    started = Command(
        "--no-page",
        "--queue",
        "20",
        "--max-seconds",
        "30",
        "--max-upload",
        "1",
        folder=tmp_path_factory.mktemp("served") / "tmp",
    )
    yield started
    started.process.kill()


def health(address: str) -> dict[str, Any]:
    return httpx.get(f"{address}/healthz").json()


@pytest.mark.parametrize("count", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_many_requests_with_broken_files_among_them(
    command: Command, nano: Recognizer, clips: list[Path], count: int
) -> None:
    """About 10 s for 200. Right answers stay right; nothing grows: memory, open files, files on the disk."""
    good = [clip.read_bytes() for clip in clips]
    sets = [LABELS, LABELS[:2], [*LABELS, "猫"]]
    expected = {
        (i, j): nano.classify(clips[i], labels)
        for i in range(len(clips))
        for j, labels in enumerate(sets)
    }
    bad = [
        (b"", 415),
        (b"text" * 1000, 415),
        (good[0][: len(good[0]) // 2], 415),
        (bytes(1_000_001), 413),
        (
            make_video(clips[0].parent / "h.mp4", 4000, "mpeg4", fps=1, size=(16, 16)).read_bytes(),
            422,
        ),
    ]

    def call(number: int) -> str:
        if number % 10 == 3:
            half(command.address, good[0]).close()
            return "hung up"
        if number % 4 == 0:
            data, status = bad[number // 4 % len(bad)]
            answer = client.post(
                "/v1/classify", files={"video": ("v", data)}, data={"labels": "a,b"}
            )
            assert answer.status_code == status, answer.text
            return "refused"
        i, j = number % len(clips), number % len(sets)
        answer = client.post(
            "/v1/classify", files={"video": ("v", good[i])}, data={"labels": json.dumps(sets[j])}
        )
        assert answer.status_code == 200, answer.text
        found, right = answer.json(), expected[i, j]
        assert found["label"] == right.label
        scores = {each["label"]: each["score"] for each in found["scores"]}
        assert scores == pytest.approx(dict(zip(right.labels, right.scores, strict=True)), abs=1e-5)
        return "right"

    with (
        httpx.Client(base_url=command.address, timeout=60) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        list(pool.map(call, range(40)))  # what is made once is made now
        before = command.memory
        done = list(pool.map(call, range(count)))
    assert {name: done.count(name) for name in set(done)} == {
        "right": count * 65 // 100,
        "refused": count // 4,
        "hung up": count // 10,
    }
    wait_for(lambda: health(command.address)["waiting"] == 0)
    wait_for(lambda: command.kept == [])
    wait_for(lambda: command.open_files < 40)
    assert command.memory - before < 30_000, (before, command.memory)
    assert "Traceback" not in command.said


def test_an_upload_that_stops_half_way(command: Command, clips: list[Path]) -> None:
    files = command.open_files
    data = clips[0].read_bytes()
    connections = [half(command.address, data, chunked=bool(i % 2)) for i in range(4)]
    wait_for(lambda: health(command.address)["waiting"] == 4)
    assert len(command.kept) == 4
    for connection in connections:
        connection.close()
    wait_for(lambda: health(command.address)["waiting"] == 0)
    assert command.kept == []
    wait_for(lambda: command.open_files <= files + 1)
    assert "Traceback" not in command.said


def test_what_is_too_big_is_refused_while_it_comes(command: Command) -> None:
    began = time.monotonic()
    answered = half(
        command.address, b"", stated=10**12
    )  # said beforehand: not a byte of it is waited for
    assert b" 413 " in answered.recv(100)
    answered.close()
    endless = half(command.address, b"", chunked=True)
    for _ in range(60):
        endless.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
    assert b" 413 " in endless.recv(100)
    assert command.kept == []
    endless.close()
    assert time.monotonic() - began < 10


def asked(address: str, head: bytes) -> bytes:
    """The answer to a request that is sent as it stands here."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(head)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_idle_connections_give_way(command: Command) -> None:
    """More than are taken at a time, silent or with half a head: whoever asks is answered all the
    same."""
    place = urlsplit(command.address)
    idle = [
        socket.create_connection((place.hostname, place.port), timeout=20)
        for _ in range(MOST_CONNECTIONS + 10)
    ]
    for connection in idle[::2]:
        with contextlib.suppress(OSError):  # closed already
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
    for _ in range(5):
        assert httpx.get(f"{command.address}/healthz", timeout=5).status_code == 200
    for connection in idle:
        connection.close()
    assert "Traceback" not in command.said


async def long_or_short(scope: Any, receive: Any, send: Any) -> None:
    """An application of two answers: a little, and more than any system keeps for a client."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(400 if scope["path"] == "/long" else 1):
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body"})


def who_does_not_read(address: str) -> socket.socket:
    """A client that takes the first byte of a long answer, and no more."""
    place, connection = urlsplit(address), socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((place.hostname, place.port))
    connection.sendall(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(1) == b"H"
    return connection


def test_who_does_not_take_an_answer_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("server", "froster.serve.connections"):
        monkeypatch.setattr(f"{module}.MOST_CONNECTIONS", 3)
    with in_thread(None, long_or_short) as address:
        held = [who_does_not_read(address) for _ in range(3)]
        assert httpx.get(f"{address}/short", timeout=10).status_code == 200
        for connection in held:
            connection.close()


def test_who_does_not_take_an_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("froster.serve.connections.READ_SECONDS", 0.2)
    ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await long_or_short(scope, receive, send)
        if scope["type"] == "http":
            ended.set()

    with in_thread(None, app) as address, who_does_not_read(address):
        assert ended.wait(10)


def test_a_head_that_does_not_come_is_not_waited_for(
    service, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = service
    monkeypatch.setattr("froster.serve.connections.HEAD_SECONDS", 0.3)
    place = urlsplit(address)
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for before, sent in (
        (b"", b""),
        (b"", request[:20]),
        (request, request[:20]),
    ):  # also the second head on a connection
        with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
            if before:
                connection.sendall(before)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            began = time.monotonic()
            connection.sendall(sent)
            while connection.recv(65536):
                pass
        assert 0.2 < time.monotonic() - began < 3, sent
    with socket.create_connection((place.hostname, place.port), timeout=20) as trickling:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in request * 20:
                trickling.sendall(bytes([byte]))
                time.sleep(0.05)
                if not trickling.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK):
                    raise OSError
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "host", [b"a/healthz?", b"a/healthz#", b"localhost/healthz?", b"[", b"127.0.0.1@a", b"a:b", b""]
)
def test_no_host_opens_what_needs_the_token(nano: Recognizer, host: bytes) -> None:
    limits = Limits()
    state = Service(Models({"nano": nano}, limits), limits)
    with in_thread(state, Guard(create_app(state), "0123456789abcdef")) as address:
        for route in (b"/openapi.json", b"/docs", b"/v1/classify", b"//healthz"):
            for method in (b"GET", b"POST", b"HEAD"):
                found = asked(
                    address,
                    b"%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
                    % (method, route, host),
                )
                assert b" 401 " in found[:20], (method, route, found[:80])
        let_in = b"Authorization: Bearer 0123456789abcdef\r\nConnection: close\r\n"
        found = asked(address, b"GET /docs HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (host, let_in))
        assert (b" 400 " if host else b" 200 ") in found[:20]
        found = asked(address, b"GET /docs HTTP/1.1\r\nHost: [::1]:80\r\n%s\r\n" % let_in)
        assert b" 200 " in found[:20]


def test_head_is_answered_as_get_without_the_body(command: Command) -> None:
    for route in ("/healthz", "/docs", "/openapi.json", "/v1/classify", "/nowhere"):
        got, head = httpx.get(command.address + route), httpx.head(command.address + route)
        assert head.status_code == got.status_code and head.content == b""
        if got.status_code == 200 and route != "/healthz":  # whose numbers change
            assert head.headers["content-length"] == got.headers["content-length"]
    assert httpx.head(f"{command.address}/healthz").status_code == 200


@pytest.mark.parametrize("boundary", ["b" * 300, "b" * 257, '"' + "b " * 200 + '"'])
def test_a_boundary_that_is_too_long_is_a_bad_request(command: Command, boundary: str) -> None:
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    for route in ("classify", "timeline", "embed"):
        answer = httpx.post(f"{command.address}/v1/{route}", content=b"x", headers=kind)
        assert answer.status_code == 400 and "boundary" in answer.json()["error"], answer.text
    assert "Traceback" not in command.said


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Thousands of windows for a timeline."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return make_video(path, 4000, "mpeg4", fps=100, size=(64, 64)).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_waits_is_told_that_the_server_ends(number: int, long: bytes, tmp_path: Path) -> None:
    """About 8 s. What is in hand may go on for ten seconds; asked a second time, the server gives
    it up now."""
    served = Command("--no-page", "--max-seconds", "600", folder=tmp_path / "tmp")
    fields = {"labels": "a,b", "window": "0.5", "stride": "0.02"}

    def ask():
        return httpx.post(
            f"{served.address}/v1/timeline", files={"video": ("v", long)}, data=fields, timeout=60
        )

    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(ask)
        wait_for(lambda: health(served.address)["busy"] > 0)
        waiting = pool.submit(ask)
        wait_for(lambda: health(served.address)["waiting"] > 0)
        served.process.send_signal(number)
        assert waiting.result(20).status_code == 503
        assert not working.done()
        served.process.send_signal(number)
        answer = working.result(20)
    assert answer.status_code == 503 and answer.json() == {"error": "the server is shutting down"}
    assert served.process.wait(60) in (0, -number) and "Traceback" not in served.said, served.said
    assert list(served.folder.iterdir()) == []


def test_ctrl_c_ends_it_and_leaves_nothing(command: Command, clips: list[Path]) -> None:
    """The last of those that use the command."""
    waiting = half(command.address, clips[0].read_bytes())
    wait_for(lambda: command.kept != [])
    began = time.monotonic()
    assert command.stop() == 0, command.said
    assert time.monotonic() - began < 8  # what is only being uploaded is not waited for
    assert list(command.folder.iterdir()) == []
    assert "Traceback" not in command.said and "stopped" in command.said
    waiting.close()


@pytest.fixture(scope="module")
def service(nano: Recognizer):
    limits = Limits(idle=0.3, uploading=1.5, waiting=2)
    service = Service(Models({"nano": nano}, limits), limits)
    with in_thread(service, Guard(create_app(service), None)) as address:
        yield address, service


def test_an_upload_that_only_trickles(service, clips: list[Path]) -> None:
    address, state = service
    stalled = half(address, b"")
    assert b" 408 " in stalled.recv(100)
    trickling = half(address, b"", stated=10_000)
    began = time.monotonic()
    while not trickling_answered(trickling):
        trickling.sendall(b".")
        time.sleep(0.1)
        assert time.monotonic() - began < 5
    assert state.jobs.inside == 0 and list(state.folder.iterdir()) == []
    stalled.close()
    trickling.close()


def trickling_answered(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return b" 408 " in connection.recv(100)
    except BlockingIOError:
        return False
    finally:
        connection.setblocking(True)


def test_uploads_take_places_too(service, clips: list[Path]) -> None:
    address, state = service
    state.jobs.seconds = 60
    waiting = [half(address, b"") for _ in range(3)]
    wait_for(lambda: state.jobs.inside == 3)
    answer = httpx.post(
        f"{address}/v1/classify",
        files={"video": ("v", clips[0].read_bytes())},
        data={"labels": "a"},
    )
    assert answer.status_code == 429
    for connection in waiting:
        connection.close()
    wait_for(lambda: state.jobs.inside == 0)


def test_work_for_somebody_who_hung_up_stops(service, tmp_path: Path) -> None:
    address, state = service
    long = make_video(tmp_path / "long.mp4", 4000, "mpeg4", fps=100, size=(32, 32)).read_bytes()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{address}/v1/timeline",
            files={"video": ("v", long)},
            data={"labels": "a,b", "window": "0.5", "stride": "0.02"},
            timeout=httpx.Timeout(10, read=0.4),
        )
    wait_for(lambda: state.jobs.inside == 0, 2)
    assert state.jobs.running is None and list(state.folder.iterdir()) == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_documented_calls_work(service, clips: list[Path], tmp_path: Path) -> None:
    address, state = service
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    keep, *_ = re.findall(r"^    (id=.*)", page, re.MULTILINE)
    calls = re.findall(r"^    (curl .*(?:\\\n.*)*)", page, re.MULTILINE)
    assert len(calls) >= 9
    shutil.copy(clips[0], tmp_path / "holiday.mp4")
    for call in calls:
        real = f"{keep if '$id' in call else ':'}; {call}".replace("http://127.0.0.1:7860", address)
        done = subprocess.run(
            ["bash", "-c", real], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        answer = json.loads(done.stdout or "{}")
        assert "error" not in answer, (call, answer)
    assert (tmp_path / "preview.mp4").read_bytes()[4:8] == b"ftyp"
    assert len(list(state.folder.iterdir())) == 2  # of the three that were kept, one is deleted
