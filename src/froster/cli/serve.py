"""`froster serve`: the web page and the HTTP API."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from froster.cli import options
from froster.cli.common import announce, load_model, name_of, short_name, start_torch
from froster.cli.options import number, option, seconds, switch
from froster.errors import FrosterError, UsageError, install
from froster.utils.interrupt import Interrupted
from froster.utils.progress import console, working

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from froster.serve.limits import Limits
    from froster.serve.models import Models

_SHORTEST_TOKEN = 8
_GRACE = 10
"""Seconds for the work in hand when the server is told to end."""


def serve(
    *,
    model: options.Model = None,
    compare: Annotated[str | None, option("A second model, shown beside the first.")] = None,
    merge_tokens: options.MergeTokens = None,
    host: Annotated[str, option("Address; one that others reach needs --token-env.")] = "127.0.0.1",
    port: Annotated[int, number("0: any that is free.", 0, 65535)] = 7860,
    token_env: Annotated[str | None, option("Environment variable of the token.")] = None,
    samples: Annotated[Path | None, option("Folder of videos to pick from on the page.")] = None,
    max_upload: Annotated[float, number("Megabytes of an upload.", 0.001, 1e9)] = 200,
    max_seconds: Annotated[float, seconds("Length of a video.", 0.1)] = 600,
    max_labels: Annotated[int, number("Labels of a request.", 1)] = 200,
    queue: Annotated[int, number("Requests that may wait; more are told to come back.", 0)] = 8,
    timeout: Annotated[float, seconds("From the end of the upload to the answer.", 0.1)] = 60,
    page: Annotated[bool, switch("The web page beside the API.", "page")] = True,
    device: options.Device = None,
    precision: options.Precision = "auto",
    runtime: options.Runtime = None,
) -> None:
    """The web page and the HTTP API: upload a video, type labels, see which fits and when. On this
    machine alone by default.

    Example: froster serve --model runs/first --compare nano
    """
    check_web("serve")
    start_torch()
    from froster.serve.guard import is_loopback
    from froster.serve.limits import MB, Limits
    from froster.serve.models import Models

    token = read_token(token_env)
    if token is None and not is_loopback(host):
        raise UsageError(f"--host {host} is open to other machines: give --token-env")

    limits = Limits(round(max_upload * MB), max_seconds, max_labels, waiting=queue, timeout=timeout)
    with bound(host, port) as listening:
        sources = [model, *([compare] if compare else [])]
        recognizers = [
            load_model(source, device, precision, runtime=runtime, merge_tokens=merge_tokens)
            for source in sources
        ]
        for source, recognizer in zip(sources, recognizers, strict=True):
            announce(recognizer, source)
        models = Models(dict(zip(names(sources), recognizers, strict=True)), limits)
        answer(models, limits, token, page, samples, listening)


def check_web(command: str) -> None:
    """Raises UsageError where what the web needs is not installed."""
    import importlib.util

    needed = ["fastapi", "uvicorn", "python_multipart"]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise UsageError(f"froster {command} needs {', '.join(missing)}: {install('web')}")


def answer(
    models: Models,
    limits: Limits,
    token: str | None,
    page: bool,
    samples: Path | None,
    listening: socket.socket,
) -> None:
    """Until Ctrl-C. What is in hand then may finish, what waits is told so, and nothing is left
    behind."""
    import asyncio

    import uvicorn

    from froster.serve.app import create_app
    from froster.serve.connections import MOST_CONNECTIONS, Connection
    from froster.serve.guard import Guard
    from froster.serve.service import Service

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if service.jobs.closed:  # asked for a second time
                service.jobs.give_up()
                return
            service.jobs.close()
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            ending = asyncio.create_task(self.end_streams())
            await super().shutdown(sockets)
            ending.cancel()

        async def end_streams(self) -> None:
            """An upload may take long, and a connection is kept open for a next request."""
            end = time.monotonic() + _GRACE
            while service.jobs.running and time.monotonic() < end:
                await asyncio.sleep(0.05)
            service.jobs.give_up()
            await asyncio.sleep(0.3)  # for the answer
            for connection in list(self.server_state.connections):
                connection.transport.close()

    service = Service(models, limits)
    try:
        app = create_app(service)
        if page:
            from froster.serve.page import add_page

            with working("preparing the page"):
                add_page(app, service, samples)
        config = uvicorn.Config(
            Guard(app, token),
            http=Connection,
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_GRACE + 5,
            limit_concurrency=MOST_CONNECTIONS,
        )
        console.print(
            f"serving {address(listening)}{' (API: /docs)' if page else '/docs'}; Ctrl-C ends it"
        )
        Server(config).run(sockets=[listening])
    except Interrupted:
        console.print("stopped")
    finally:
        service.close()


def read_token(name: str | None) -> str | None:
    if name is None:
        return None
    token = os.environ.get(name, "").strip()
    if len(token) < _SHORTEST_TOKEN:
        raise UsageError(f"{name} must hold a token of {_SHORTEST_TOKEN} characters or more")
    return token


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens, before the models are loaded for nothing."""
    import socket

    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except OSError as error:
        raise FrosterError(f"cannot listen on {host}, port {port}: {error.strerror}") from None
    return listening


def address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def names(sources: Sequence[str | None]) -> list[str]:
    """Short names of models, each another: `runs/first/model` -> "first"."""
    short: list[str] = []
    for source in sources:
        name = short_name(name_of(source))
        short.append(name if name not in short else f"{name}-{len(short) + 1}")
    return short
