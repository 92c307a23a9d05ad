"""The page of `froster label`: a segment after the other, a key for each, on this machine alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from froster.errors import FrosterError
from froster.serve import PAGES, STATIC, Refusal
from froster.serve.app import Head, add_errors
from froster.serve.limits import nameless
from froster.serve.preview import preview_format, write_segment
from froster.serve.upload import read_body
from froster.training.labelling import Labelling
from froster.utils.address import located

_LONGEST = 20_000
"""Bytes of an answer."""
_KEPT = 16
"""Clips in memory: those that are replayed, or asked again."""


class SegmentAnswer(BaseModel):
    """What a key has said."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["label", "skip", "undo"]
    segment: str = Field("", max_length=50)
    label: str = ""


def create_label_app(labelling: Labelling) -> FastAPI:
    """Without its guard (`guard.Guard`). A segment is named by what the page was told; nothing that
    a client sends is taken for a path."""
    app = FastAPI(title="froster label", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Head)
    add_errors(app)
    app.mount("/static", StaticFiles(directory=STATIC))

    @lru_cache(maxsize=_KEPT)
    def clip_of(name: str) -> bytes:
        segment = labelling.segment(name)
        path = located(labelling.store.root, segment.key)
        with TemporaryDirectory(prefix="froster-label-") as folder:
            target = Path(folder, "clip")
            try:
                write_segment(path, segment.start, segment.end, target)
            except FrosterError as error:
                raise Refusal(422, f"it cannot be shown ({nameless(error, path)})") from None
            return target.read_bytes()

    @app.get("/")
    async def page(request: Request) -> Response:
        return PAGES.TemplateResponse(request, "label.html")

    @app.get("/label/question")
    def question() -> dict[str, Any]:
        return labelling.question()

    @app.post("/label/answer")
    async def answer(request: Request) -> dict[str, Any]:
        try:
            asked = SegmentAnswer.model_validate_json(await read_body(request, _LONGEST))
        except ValidationError as error:
            raise Refusal(422, f"not an answer: {error.errors()[0]['msg']}") from None
        try:
            return await run_in_threadpool(answered, labelling, asked)
        except FrosterError as error:
            raise Refusal(422, str(error)) from None

    @app.get("/label/clip/{name}")
    def clip(name: str) -> Response:
        try:
            data = clip_of(name)
        except Refusal:
            raise
        except FrosterError as error:
            raise Refusal(404, str(error)) from None
        return Response(data, media_type=preview_format().media_type)

    return app


def answered(labelling: Labelling, asked: SegmentAnswer) -> dict[str, Any]:
    """Raises FrosterError."""
    if asked.action == "undo":
        return labelling.undo()
    return labelling.answer(asked.segment, asked.label if asked.action == "label" else None)
