"""The page: static files, what they need to know about this server, and sample videos."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from pydantic import BaseModel

from froster.serve import STATIC
from froster.serve.limits import MB
from froster.serve.refusal import Refusal
from froster.serve.samples import Sample, from_folder, of_world
from froster.serve.service import Service


class SampleFacts(BaseModel):
    name: str
    file: str
    labels: tuple[str, ...]
    thumbnail: str


class Settings(BaseModel):
    """What the page shows before anything is asked."""

    models: list[str]
    methods: list[str]
    device: str
    rendered_only: list[str]
    labels: list[str]
    samples: list[SampleFacts]
    most_megabytes: float
    most_seconds: float
    most_labels: int


def add_page(app: FastAPI, service: Service, samples: Path | None = None) -> None:
    """Serves the page at `/`. Nothing in it is loaded from elsewhere, and nothing is reported to anybody."""
    rendered_only = service.models.rendered_only()
    if samples:
        shown = from_folder(samples, service.limits)
    elif rendered_only:
        folder = service.folder / "samples"
        folder.mkdir()
        shown = of_world(folder)
    else:
        shown = []
    settings = settings_of(service, shown, rendered_only)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/page/settings", include_in_schema=False)
    async def get_settings() -> Settings:
        return settings

    @app.get("/page/samples/{number}", include_in_schema=False)
    async def sample(number: int) -> FileResponse:
        if not 0 <= number < len(shown):
            raise Refusal(404, "there is no such sample")
        return FileResponse(shown[number].path)


def settings_of(service: Service, samples: list[Sample], rendered_only: list[str]) -> Settings:
    named, limits = service.models.named, service.limits
    shown = [label for sample in samples for label in sample.labels]
    return Settings(
        models=list(named),
        methods=[each.config.method.name for each in named.values()],
        device=str(next(iter(named.values())).device),
        rendered_only=rendered_only,
        labels=[*shown, "moon glowing"] if shown else ["walking", "running", "talking", "eating"],
        samples=[
            SampleFacts(
                name=each.name, file=each.path.name, labels=each.labels, thumbnail=each.thumbnail
            )
            for each in samples
        ],
        most_megabytes=limits.upload / MB,
        most_seconds=limits.seconds,
        most_labels=limits.labels,
    )
