"""The HTTP API: uploads in, typed answers out, every error a status and one line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from froster import __version__
from froster.serve import PAGES, STATIC, Refusal, problem, schemas
from froster.serve.jobs import Gone, alone
from froster.serve.preview import preview_format
from froster.serve.service import Service

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": description}
    for status, description in {
        400: "Not a well-formed form",
        401: "The token is missing or wrong",
        404: "No video is kept under this id, or no longer",
        408: "The upload stopped or came too slowly",
        413: "The upload is too big",
        415: "Not a video, or not a form",
        422: "A field, a label or the video is not as it must be",
        429: "No room: try again after Retry-After seconds",
        503: "The server is shutting down",
        504: "It took too long",
    }.items()
}


def asks(kind: type[BaseModel] | None) -> dict[str, Any]:
    """What the description of the API says of a route that takes such a form."""
    return {"responses": REFUSALS, "openapi_extra": schemas.form_schema(kind)}


def create_app(service: Service) -> FastAPI:
    """The API without its guard (`guard.Guard`), which belongs around it and around the page."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(service.keep_swept())
        try:
            yield
        finally:
            sweeping.cancel()
            service.close()

    # FastAPI's own pages of documentation load their scripts from elsewhere.
    app = FastAPI(
        title="froster", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.add_middleware(Head)
    add_questions(app, service)
    add_videos(app, service)
    add_errors(app)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return PAGES.TemplateResponse(request, "docs.html")

    return app


class Head:
    """Answers HEAD as GET, without the body, for every address (RFC 9110, 9.1)."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def headers_alone(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        await self.app({**scope, "method": "GET"}, receive, headers_alone)


def add_questions(app: FastAPI, service: Service) -> None:
    """What is asked of the models."""
    models, answer = service.models, service.answer

    @app.post("/v1/classify", **asks(schemas.ClassifyRequest))
    async def classify(request: Request) -> schemas.ClassifyAnswer:
        """Which of the labels fits the video."""
        return await answer(request, schemas.ClassifyRequest, models.classify)

    @app.post("/v1/timeline", **asks(schemas.TimelineRequest))
    async def timeline(request: Request) -> schemas.TimelineAnswer:
        """Which of the labels fits when."""
        return await answer(request, schemas.TimelineRequest, alone(models.timeline))

    @app.post("/v1/attention", **asks(schemas.AttentionRequest))
    async def attention(request: Request) -> schemas.AttentionAnswer:
        """The frames around a moment, and where the model looks in them."""
        return await answer(request, schemas.AttentionRequest, alone(models.attention))

    @app.post("/v1/embed", **asks(schemas.EmbedRequest))
    async def embed(request: Request) -> schemas.EmbedAnswer:
        """Unit embeddings of a video, of labels, or of both: their products rank the labels."""
        return await answer(request, schemas.EmbedRequest, alone(models.embed), needs_video=False)

    @app.get("/healthz")
    async def health() -> schemas.Health:
        """What is served, and how busy it is. Needs no token."""
        jobs = service.jobs
        return schemas.Health(
            status="shutting down" if jobs.closed else "ok",
            version=__version__,
            models=models.describe(),
            waiting=max(0, jobs.inside - len(jobs.in_hand)),
            room=jobs.room,
            busy=round(jobs.busy, 3),
        )


def add_videos(app: FastAPI, service: Service) -> None:
    """Videos that are sent once and asked about many times."""

    @app.post("/v1/videos", status_code=201, **asks(None))
    async def keep(request: Request) -> schemas.KeptVideo:
        """Keeps a video for ten minutes after its last use; other requests name it by its id."""
        return await service.keep(request)

    @app.get("/v1/videos/{name}/preview", responses=REFUSALS, response_class=FileResponse)
    async def preview(request: Request, name: str) -> FileResponse:
        """The video, small and without sound, as every browser plays it."""
        path = await service.preview(request, name)
        return FileResponse(path, media_type=preview_format().media_type)

    @app.delete("/v1/videos/{name}", status_code=204, responses={401: REFUSALS[401]})
    async def forget(name: str) -> None:
        """Deletes a kept video now."""
        service.videos.delete(name)


def add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        return problem(error.status, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))

    def add(kind: type[Exception], status: int, message: str, **headers: str) -> None:
        async def answer(request: Request, error: Exception) -> JSONResponse:
            return problem(status, message, headers)

        app.add_exception_handler(kind, answer)

    add(Gone, 499, "the client hung up")
    add(ClientDisconnect, 499, "the client hung up")
    add(MemoryError, 503, "the server is short of memory", **{"Retry-After": "5"})
    add(Exception, 500, "the server failed at this; its log says why")
