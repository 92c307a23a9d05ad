"""The HTTP API: uploads in, typed answers out, every error a status and one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from froster import __version__
from froster.inference.recognizer import Recognizer
from froster.serve import STATIC
from froster.serve.jobs import Gone
from froster.serve.preview import jpeg, preview_format
from froster.serve.refusal import Refusal
from froster.serve.schemas import (
    AttentionAnswer,
    AttentionRequest,
    ClassifyAnswer,
    ClassifyRequest,
    EmbedAnswer,
    EmbedRequest,
    Health,
    KeptVideo,
    Problem,
    Score,
    ServedModel,
    TimelineAnswer,
    TimelineRequest,
    VideoFacts,
    form_schema,
)
from froster.serve.service import Service

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
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
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

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
    models = service.models

    @app.post("/v1/classify", responses=REFUSALS, openapi_extra=form_schema(ClassifyRequest))
    async def classify(request: Request) -> ClassifyAnswer:
        """Which of the labels fits the video."""

        def work(asked: ClassifyRequest, path: Path) -> ClassifyAnswer:
            name, recognizer = models.get(asked.model)
            answer, video = models.classify(recognizer, path, asked)
            rows = zip(answer.labels, answer.scores, answer.probabilities, strict=True)
            scores = [Score(label=label, score=score, probability=p) for label, score, p in rows]
            return ClassifyAnswer(
                model=name,
                label=answer.label,
                answer=answer.answer,
                none=answer.none,
                cosine=answer.cosine,
                calibrated=recognizer.calibration.fitted is not None,
                scores=scores[: asked.top],
                video=VideoFacts.of(video),
            )

        return await service.answer(request, ClassifyRequest, work)

    @app.post("/v1/timeline", responses=REFUSALS, openapi_extra=form_schema(TimelineRequest))
    async def timeline(request: Request) -> TimelineAnswer:
        """Which of the labels fits when."""

        def work(asked: TimelineRequest, path: Path) -> TimelineAnswer:
            name, recognizer = models.get(asked.model)
            answer = models.timeline(recognizer, path, asked)
            return TimelineAnswer.model_validate({"model": name, **answer.to_dict()})

        return await service.answer(request, TimelineRequest, work)

    @app.post("/v1/attention", responses=REFUSALS, openapi_extra=form_schema(AttentionRequest))
    async def attention(request: Request) -> AttentionAnswer:
        """The frames around a moment, and where the model looks in them."""

        def work(asked: AttentionRequest, path: Path) -> AttentionAnswer:
            name, recognizer = models.get(asked.model)
            look = models.look(recognizer, path, asked.at)
            return AttentionAnswer(
                model=name,
                seconds=[round(second, 3) for second in look.seconds],
                frames=[jpeg(frame) for frame in look.frames],
                attention=None if look.attention is None else look.attention.tolist(),
            )

        return await service.answer(request, AttentionRequest, work)

    @app.post("/v1/embed", responses=REFUSALS, openapi_extra=form_schema(EmbedRequest))
    async def embed(request: Request) -> EmbedAnswer:
        """Unit embeddings of a video, of labels, or of both: their products rank the labels."""

        def work(asked: EmbedRequest, path: Path | None) -> EmbedAnswer:
            name, recognizer = models.get(asked.model)
            if path is None and asked.labels is None:
                raise Refusal(422, "send a video, labels, or both")
            video, labels = models.embed(recognizer, path, asked)
            return EmbedAnswer(model=name, video=video, labels=labels)

        return await service.answer(request, EmbedRequest, work, needs_video=False)

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


def add_videos(app: FastAPI, service: Service) -> None:
    """Videos that are sent once and asked about many times."""

    @app.post("/v1/videos", status_code=201, responses=REFUSALS, openapi_extra=form_schema(None))
    async def keep(request: Request) -> KeptVideo:
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


def describe(name: str, recognizer: Recognizer) -> ServedModel:
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
