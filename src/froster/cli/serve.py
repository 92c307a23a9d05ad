"""`froster serve`: the web page and the HTTP API."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from froster.cli.common import announce, load_model, short_name
from froster.errors import FrosterError, UsageError, install
from froster.inference.recognizer import DEFAULT_MODEL
from froster.utils.interrupt import Interrupted
from froster.utils.progress import console, working

_SHORTEST_TOKEN = 8
# For the work in hand when the server is told to end.
_GRACE = 10


def run(
    *,
    model: str | None,
    compare: str | None,
    host: str,
    port: int,
    token_env: str | None,
    samples: Path | None,
    max_upload: float,
    max_seconds: float,
    max_labels: int,
    queue: int,
    timeout: float,
    page: bool,
    device: str | None,
    precision: str,
) -> None:
    """Everything `froster serve` does; the options are described there."""
    needed = ["fastapi", "uvicorn", "python_multipart"]
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise UsageError(f"froster serve needs {', '.join(missing)}: {install('web')}")
    from froster.serve.guard import is_loopback
    from froster.serve.limits import MB, Limits
    from froster.serve.models import Models

    token = read_token(token_env)
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} is open to other machines: name a token by --token-env, or serve"
            " 127.0.0.1"
        )

    limits = Limits(round(max_upload * MB), max_seconds, max_labels, waiting=queue, timeout=timeout)
    with bound(host, port) as listening:
        sources = [model, *([compare] if compare else [])]
        recognizers = [load_model(source, device, precision) for source in sources]
        for source, recognizer in zip(sources, recognizers, strict=True):
            announce(recognizer, source)
        models = Models(dict(zip(names(sources), recognizers, strict=True)), limits)
        serve(models, limits, token, page, samples, listening)


def serve(
    models, limits, token: str | None, page: bool, samples: Path | None, listening: socket.socket
) -> None:
    """Until Ctrl-C. What is in hand then may finish, what waits is told so, and nothing is left
    behind."""
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
        raise UsageError(
            f"--token-env {name}: the environment variable {name} must hold {_SHORTEST_TOKEN}"
            " characters or more"
        )
    return token


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens, before the models are loaded for nothing."""
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
    found: list[str] = []
    for source in sources:
        name = short_name(source or DEFAULT_MODEL)
        found.append(name if name not in found else f"{name}-{len(found) + 1}")
    return found
