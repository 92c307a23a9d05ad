"""The page: static files, what they need to know about this server, and videos to begin with: those
of a folder, or a few of the rendered world, for which the nano model was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response

from froster.errors import FrosterError, UsageError
from froster.serve import PAGES, Refusal
from froster.serve.limits import MB, Limits, nameless
from froster.serve.preview import jpeg
from froster.serve.service import Service
from froster.utils.progress import console
from froster.video.container import VIDEO_SUFFIXES
from froster.video.reader import Video
from froster.video.transforms import inference_transform
from froster.world.files import write_video
from froster.world.sets import SETS, record

MOST_SAMPLES = 12
_THUMBNAIL = 160
# Classes of the world, by set and index: the scenes of a sample, of a few recordings of two seconds
# each.
_SCENES = (
    (("base", 0), ("base", 3), ("base", 7)),
    (("novel", 1), ("novel", 5), ("novel", 9)),
    (("base", 9), ("novel", 12)),
)
_RECORDINGS = 3
_SEED = 7
_ENLARGED = 4
"""The world has 60 x 60 pixels, which is little in a player."""


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
    async def page(request: Request) -> Response:
        return PAGES.TemplateResponse(request, "index.html")

    @app.get("/page/settings", include_in_schema=False)
    async def get_settings() -> dict[str, Any]:
        return settings

    @app.get("/page/samples/{number}", include_in_schema=False)
    async def sample(number: int) -> FileResponse:
        if not 0 <= number < len(shown):
            raise Refusal(404, "there is no such sample")
        return FileResponse(shown[number].path)


def settings_of(service: Service, samples: list[SampleVideo]) -> dict[str, Any]:
    """What the page shows before anything is asked."""
    models, limits = service.models, service.limits
    recognizers = list(models.named.values())
    labels = [label for sample in samples for label in sample.labels]
    return {
        "models": list(models.named),
        "methods": [model.config.method.name for model in recognizers],
        "device": str(recognizers[0].device),
        "rendered_only": models.rendered_only(),
        "labels": [*labels, "moon glowing"] if labels else ["walking", "running", "eating"],
        "samples": [
            {"name": s.name, "file": s.path.name, "labels": s.labels, "thumbnail": s.thumbnail}
            for s in samples
        ],
        "most_megabytes": limits.upload / MB,
        "most_seconds": limits.seconds,
        "most_labels": limits.labels,
    }


@dataclass(frozen=True)
class SampleVideo:
    path: Path
    name: str
    thumbnail: str  # a JPEG as a data: address
    labels: tuple[str, ...] = ()  # what is seen in it, where that is known

    @classmethod
    def of(cls, path: Path, name: str, labels: tuple[str, ...] = ()) -> SampleVideo:
        with Video(path) as video:
            middle = video.read([video.num_frames // 2])
        return cls(path, name, jpeg(inference_transform(middle, _THUMBNAIL)[0]), labels)


def from_folder(folder: Path, limits: Limits) -> list[SampleVideo]:
    """The first videos of a folder; what cannot be served is named and left out."""
    if not folder.is_dir():
        raise UsageError(f"--samples {folder}: no such folder")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES]
    files = sorted(path for path in paths if path.is_file())
    samples = []
    for path in files[:MOST_SAMPLES]:
        try:
            limits.measure(path)
            samples.append(SampleVideo.of(path, path.stem))
        except FrosterError as error:
            console.print(f"sample left out: {path.name}: {nameless(error, path)}")
    if not samples:
        raise UsageError(f"--samples {folder}: it holds no videos")
    return samples


def of_world(folder: Path) -> list[SampleVideo]:
    """A few scenes one after the other, rendered and written to `folder`."""
    samples = []
    for number, scenes in enumerate(_SCENES, start=1):
        labels = tuple(SETS[name].classes[index] for name, index in scenes)
        rng = np.random.default_rng([_SEED, number])
        recordings = [
            record(SETS[name], index, rng) for name, index in scenes for _ in range(_RECORDINGS)
        ]
        frames = torch.cat(recordings)  # (T, 3, 60, 60)
        frames = frames.repeat_interleave(_ENLARGED, -1).repeat_interleave(_ENLARGED, -2)
        path = write_video(folder / f"sample-{number}.mp4", frames, "veryfast")
        samples.append(SampleVideo.of(path, ", ".join(labels), labels))
    return samples
