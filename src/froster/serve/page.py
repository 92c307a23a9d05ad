"""The page: static files, what they need to know about this server, and sample videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse

from froster.serve import STATIC
from froster.serve.limits import MB
from froster.serve.refusal import Refusal
from froster.serve.samples import Sample, from_folder, of_world
from froster.serve.service import Service


def add_page(app: FastAPI, service: Service, samples: Path | None = None) -> None:
    """Serves the page at `/`. Nothing in it is loaded from elsewhere, and nothing is reported to
    anybody."""
    if samples:
        shown = from_folder(samples, service.limits)
    elif service.models.rendered_only():
        folder = service.folder / "samples"
        folder.mkdir()
        shown = of_world(folder)
    else:
        shown = []
    settings = settings_of(service, shown)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/page/settings", include_in_schema=False)
    async def get_settings() -> dict[str, Any]:
        return settings

    @app.get("/page/samples/{number}", include_in_schema=False)
    async def sample(number: int) -> FileResponse:
        if not 0 <= number < len(shown):
            raise Refusal(404, "there is no such sample")
        return FileResponse(shown[number].path)


def settings_of(service: Service, samples: list[Sample]) -> dict[str, Any]:
    """What the page shows before anything is asked."""
    models, limits = service.models, service.limits
    labels = [label for sample in samples for label in sample.labels]
    return {
        "models": list(models.named),
        "methods": [each.config.method.name for each in models.named.values()],
        "device": str(next(iter(models.named.values())).device),
        "rendered_only": models.rendered_only(),
        "labels": [*labels, "moon glowing"] if labels else ["walking", "running", "eating"],
        "samples": [
            {
                "name": each.name,
                "file": each.path.name,
                "labels": each.labels,
                "thumbnail": each.thumbnail,
            }
            for each in samples
        ],
        "most_megabytes": limits.upload / MB,
        "most_seconds": limits.seconds,
        "most_labels": limits.labels,
    }
