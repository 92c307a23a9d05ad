"""The HTTP API: uploads in, typed answers out, every error a status and one line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from froster import __version__
from froster.errors import UsageError, VideoError
from froster.serve.documentation import documentation
from froster.serve.jobs import Gone, Jobs
from froster.serve.limits import Limits, nameless
from froster.serve.models import Models
from froster.serve.refusal import Refusal
from froster.serve.schemas import (
    AskedForTimeline,
    AskedToClassify,
    AskedToEmbed,
    Classified,
    Embedded,
    Health,
    Problem,
    Score,
    ServedModel,
    TimelineFound,
    VideoFacts,
    form_schema,
    parsed,
)
from froster.serve.upload import receive

Answer = TypeVar("Answer")

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Not a well-formed form"},
    401: {"model": Problem, "description": "The token is missing or wrong"},
    408: {"model": Problem, "description": "The upload stopped or came too slowly"},
    413: {"model": Problem, "description": "The upload is too big"},
    415: {"model": Problem, "description": "Not a video, or not a form"},
    422: {"model": Problem, "description": "A field, a label or the video is not as it must be"},
    429: {"model": Problem, "description": "No room: try again after Retry-After seconds"},
    503: {"model": Problem, "description": "The server is shutting down"},
    504: {"model": Problem, "description": "It took too long"},
}


class Service:
    """What all requests share: the models, the queue, and a folder that ends with the server."""

    def __init__(self, models: Models, limits: Limits):
        self.models, self.limits = models, limits
        self.folder = Path(tempfile.mkdtemp(prefix="froster-serve-")).resolve()
        self.jobs = Jobs(limits.waiting, limits.timeout)

    def close(self) -> None:
        self.jobs.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def answer(
        self,
        request: Request,
        kind: type[Any],
        work: Callable[[Any, Any], Answer],
        video: bool = True,
    ) -> Answer:
        """Takes a place, the upload and the fields, and has `work` done on them. Nothing of it is
        left afterwards."""
        with self.jobs.place() as place:
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            try:
                form = await receive(request, folder / "video", self.limits)
                if video and form.file is None:
                    raise Refusal(422, "video: send a video file in this field")
                asked = parsed(kind, form.fields)
                return await self.jobs.do(
                    lambda: work(asked, form.file), place, lambda: hung_up(request)
                )
            except (UsageError, VideoError) as error:
                raise Refusal(422, nameless(error, folder / "video")) from None
            finally:
                shutil.rmtree(folder, ignore_errors=True)


async def hung_up(request: Request) -> None:
    """Waits until the client, whose request has been read, is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(service: Service) -> FastAPI:
    """The API without its guard (`guard.Guard`), which belongs around it and around the page."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            service.close()

    # The usual pages of documentation load their scripts from elsewhere.
    app = FastAPI(
        title="froster", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.add_middleware(Head)
    add_routes(app, service)
    add_errors(app)
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


def add_routes(app: FastAPI, service: Service) -> None:
    models = service.models

    @app.post(
        "/v1/classify", responses=REFUSALS, openapi_extra=form_schema(AskedToClassify, "needed")
    )
    async def classify(request: Request) -> Classified:
        """Which of the labels fits the video."""

        def work(asked: AskedToClassify, path: Path) -> Classified:
            name, recognizer = models.get(asked.model)
            found, video = models.classify(
                recognizer, path, asked.labels, asked.views, asked.truncate
            )
            rows = zip(found.labels, found.scores, found.probabilities, strict=True)
            scores = [
                Score(label=label, score=score, probability=share) for label, score, share in rows
            ]
            facts = VideoFacts(
                seconds=round(video.seconds, 2), width=video.width, height=video.height
            )
            return Classified(
                model=name,
                label=found.label,
                answer=found.answer,
                none=found.none,
                cosine=found.cosine,
                calibrated=recognizer.calibration.fitted is not None,
                scores=scores[: asked.top],
                video=facts,
            )

        return await service.answer(request, AskedToClassify, work)

    @app.post(
        "/v1/timeline", responses=REFUSALS, openapi_extra=form_schema(AskedForTimeline, "needed")
    )
    async def timeline(request: Request) -> TimelineFound:
        """Which of the labels fits when."""

        def work(asked: AskedForTimeline, path: Path) -> TimelineFound:
            name, recognizer = models.get(asked.model)
            found = models.timeline(
                recognizer,
                path,
                asked.labels,
                asked.window,
                asked.stride,
                asked.min_segment,
                asked.truncate,
            )
            return TimelineFound.model_validate({"model": name, **found.to_dict()})

        return await service.answer(request, AskedForTimeline, work)

    @app.post("/v1/embed", responses=REFUSALS, openapi_extra=form_schema(AskedToEmbed, "optional"))
    async def embed(request: Request) -> Embedded:
        """Unit embeddings of a video, of labels, or of both: their products rank the labels."""

        def work(asked: AskedToEmbed, path: Path | None) -> Embedded:
            name, recognizer = models.get(asked.model)
            if path is None and asked.labels is None:
                raise Refusal(422, "send a video, labels, or both")
            video, labels = models.embed(
                recognizer, path, asked.labels, asked.views, asked.truncate
            )
            return Embedded(model=name, video=video, labels=labels)

        return await service.answer(request, AskedToEmbed, work, video=False)

    @app.get("/healthz")
    async def health() -> Health:
        """What is served, and how busy it is. Needs no token."""
        jobs = service.jobs
        return Health(
            status="shutting down" if jobs.closed else "ok",
            version=__version__,
            models=[describe(name, recognizer) for name, recognizer in models.named.items()],
            waiting=jobs.inside - (jobs.running is not None),
            room=jobs.room,
            busy=round(jobs.busy, 3),
        )

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(documentation(app.openapi(), str(request.base_url).rstrip("/")))


def describe(name: str, recognizer: Any) -> ServedModel:
    sampling = recognizer.config.sampling
    return ServedModel(
        name=name,
        method=recognizer.config.method.name,
        device=str(recognizer.device),
        dtype=str(recognizer.dtype).removeprefix("torch."),
        image_size=recognizer.clip.config.vision.image_size,
        frames=sampling.frames,
        views=recognizer.config.views,
    )


def add_errors(app: FastAPI) -> None:
    """Every error has the same form, and none tells anything about the server."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        return problem(error.status, str(error), error.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Gone)
    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: Exception) -> JSONResponse:
        return problem(499, "the client hung up")

    @app.exception_handler(MemoryError)
    async def full(request: Request, error: Exception) -> JSONResponse:
        return problem(503, "the server is short of memory", {"Retry-After": "5"})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "the server failed at this; its log says why")


def problem(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(message.split())}, status, headers)
