"""What of Gradio's server is open: the page, its queue, and files that were put into its folder.
The rest is closed.

Gradio's own upload would keep what stops half-way, and its components would fetch addresses that a
client names. Here an upload goes through the same limits as the API's, and a request that names any
other file goes no further.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from froster.serve.app import Service, problem
from froster.serve.refusal import Refusal
from froster.serve.upload import read_body, receive
from froster.utils import strict_json as json

_OPEN = re.compile(
    r"/(|config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(assets|static|svelte)/.*"
    r"|gradio_api/(queue/join|queue/data|cancel|startup-events|heartbeat/\w+|info|reset))/?"
)
_FILE = "/gradio_api/file="
_LONGEST_CALL = 4_000_000
KEPT_SECONDS, KEPT_FILES = 600, 16
"""Uploads of the page, and the samples that were picked, are kept for so long, and so many of them.
"""


class Gate:
    """Around Gradio's part of the server. `folder` is the one in which it keeps files."""

    def __init__(self, app: ASGIApp, service: Service, folder: Path):
        self.app, self.service, self.folder = app, service, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        path = scope["path"].removeprefix(
            scope.get("root_path", "")
        )  # decoded once, as Gradio sees it
        try:
            if path == "/gradio_api/upload":
                answer: Response | None = await self._upload(request)
            elif path == "/gradio_api/upload_progress":
                answer = Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
            elif path.startswith(_FILE):
                answer = (
                    None if self._ours(path.removeprefix(_FILE)) else problem(403, "no such file")
                )
            elif not _OPEN.fullmatch(path):
                answer = problem(404, "Not Found")
            elif request.method == "POST":
                body = await self._call(request)
                await self.app(scope, _again(body, receive), send)
                return
            else:
                answer = None
        except Refusal as error:
            answer = problem(error.status, str(error), error.headers)
        except ClientDisconnect:
            answer = problem(499, "the client hung up")
        await (answer or self.app)(scope, receive, send)

    async def _upload(self, request: Request) -> Response:
        if request.method != "POST":
            return problem(405, "Method Not Allowed")
        with self.service.jobs.place():
            folder = new_place(self.folder)
            file = folder / "video.mp4"  # a browser looks at what is inside
            try:
                if (await receive(request, file, self.service.limits, "files")).file is None:
                    raise Refusal(422, "send a video file")
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return JSONResponse([str(file)])

    async def _call(self, request: Request) -> bytes:
        """The body of a call, in which every file is one of ours."""
        body = await read_body(request, _LONGEST_CALL)
        try:
            named = list(_files(json.loads(body or b"null")))
        except (ValueError, RecursionError):
            raise Refusal(400, "not JSON") from None
        if not all(isinstance(name, str) and self._ours(name) for name in named):
            raise Refusal(403, "only files that were uploaded here can be used")
        return body

    def _ours(self, name: str) -> bool:
        """Is it a file in the folder, whatever links and dots the name has?"""
        try:
            return Path(name).is_absolute() and Path(name).resolve().is_relative_to(self.folder)
        except (OSError, ValueError, RuntimeError):
            return False


def _files(value: Any) -> Iterator[Any]:
    """What a call names as `path`, however deep."""
    if isinstance(value, dict):
        if value.get("path") is not None:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _files(each)


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives the body that was read once more, then goes on."""
    given = False

    async def give() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


_sweeping = threading.Lock()


def new_place(folder: Path) -> Path:
    """A new folder in it for one file; it gives way to sixteen newer ones."""
    with _sweeping:
        place = Path(tempfile.mkdtemp(dir=folder))
        sweep(folder, KEPT_SECONDS, KEPT_FILES)
    return place


def sweep(folder: Path, seconds: float, most: int) -> None:
    """Removes what is older than that, and the oldest of what is more than that."""
    found = []
    for each in folder.iterdir():
        with contextlib.suppress(OSError):
            found.append((each.stat().st_ctime, each))
    found.sort(reverse=True)
    for place, (changed, each) in enumerate(found):
        if place >= most or changed < time.time() - seconds:
            shutil.rmtree(each, ignore_errors=True)


async def keep_swept(folder: Path) -> None:
    while True:
        await asyncio.sleep(KEPT_SECONDS / 10)
        sweep(folder, KEPT_SECONDS, KEPT_FILES)
