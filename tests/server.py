"""Servers for tests: by a client without a network, in a thread, or as the command itself."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="the server needs froster-video[web]")

import uvicorn
from fastapi.testclient import TestClient

import quick
from froster.inference.recognizer import Recognizer
from froster.serve.app import create_app
from froster.serve.connections import MOST_CONNECTIONS, Connection
from froster.serve.guard import Guard
from froster.serve.limits import Limits
from froster.serve.models import Models
from froster.serve.service import Service


@contextlib.contextmanager
def serving(
    *recognizers: Recognizer, token: str | None = None, **limits: Any
) -> Iterator[tuple[TestClient, Service]]:
    """The API, called without a network."""
    chosen = Limits(**limits)
    names = ["nano", "second"][: len(recognizers)]
    service = Service(Models(dict(zip(names, recognizers, strict=True)), chosen), chosen)
    app = Guard(create_app(service), token)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:  # type: ignore[arg-type]
        yield client, service
    assert not service.folder.exists()


@contextlib.contextmanager
def in_thread(service: Service, app: Any) -> Iterator[str]:
    """A real server in this process; its address."""
    config = uvicorn.Config(
        app,
        port=0,
        log_level="critical",
        timeout_graceful_shutdown=1,
        http=Connection,
        limit_concurrency=MOST_CONNECTIONS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class Command:
    """`froster serve` as a process."""

    def __init__(self, *options: str, folder: Path):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("w") as log:
            self.process = quick.Popen(
                [
                    sys.executable,
                    "-m",
                    "froster",
                    "serve",
                    "--model",
                    "nano",
                    "--port",
                    "0",
                    *options,
                ],
                stderr=log,
                stdout=log,
                env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"},
            )
        wait_for(lambda: "serving http" in self.said or self.process.poll() is not None, 60)
        found = re.search(r"serving (http://\S+?)/?(docs)?[ ;]", self.said)
        assert found, self.said
        self.address = found[1]

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def memory(self) -> int:
        """Kilobytes"""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def kept(self) -> list[Path]:
        """Files of the server's, wherever it keeps them."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def half(
    address: str,
    video: bytes,
    stated: int | None = None,
    *,
    chunked: bool = False,
    route: str = "/v1/classify",
    name: str = "video",
) -> socket.socket:
    """A connection on which an upload has begun and does not go on."""
    place = urlsplit(address)
    connection = socket.create_connection((place.hostname, place.port), timeout=20)
    start = (
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a.mp4"\r\n\r\n'.encode()
        + video
    )
    length = (
        "Transfer-Encoding: chunked" if chunked else f"Content-Length: {stated or 2 * len(start)}"
    )
    kind = "Content-Type: multipart/form-data; boundary=x"
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{length}\r\n\r\n".encode()
    connection.sendall(head + (b"%x\r\n%s\r\n" % (len(start), start) if chunked else start))
    return connection


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def post(client: Any, route: str, sent: Path | bytes | None, **fields: Any) -> Any:
    data = sent.read_bytes() if isinstance(sent, Path) else sent
    files = {"video": ("../../etc/passwd", data)} if data is not None else {"none": (None, "")}
    if data is None:  # still as a form
        files = {name: (None, str(value)) for name, value in fields.items()}
        fields = {}
    return client.post(
        f"/v1/{route}", files=files, data={name: str(value) for name, value in fields.items()}
    )


def refused(api: Any, answer: Any, status: int, *words: str) -> None:
    """This status, one line that says these words and nothing of the server, and nothing left on
    its disk."""
    client, service = api
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert "\n" not in error and str(service.folder) not in error and "Traceback" not in error
    for word in words:
        assert word in error, error
    assert list(service.folder.iterdir()) == []
    assert client.get("/healthz").json()["waiting"] == 0
