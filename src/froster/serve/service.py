"""What all requests share: the models, the queue, the videos that are kept, and a folder that ends
with the server."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from starlette.requests import Request

from froster.errors import UsageError, VideoError
from froster.serve import Refusal
from froster.serve.jobs import Jobs, Place, Steps
from froster.serve.limits import Limits, nameless
from froster.serve.models import Models
from froster.serve.preview import write_preview
from froster.serve.schemas import KeptVideo, VideoFacts, VideoRequest, parsed
from froster.serve.upload import receive
from froster.serve.videos import KEPT_SECONDS, Uploads

Asked = TypeVar("Asked", bound=VideoRequest)
Answer = TypeVar("Answer")


class Service:
    def __init__(self, models: Models, limits: Limits):
        self.models, self.limits = models, limits
        self.folder = Path(tempfile.mkdtemp(prefix="froster-serve-")).resolve()
        self.videos = Uploads(self.folder)
        self.jobs = Jobs(limits.waiting, limits.timeout)

    def close(self) -> None:
        self.jobs.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def keep_swept(self) -> None:
        while True:
            await asyncio.sleep(KEPT_SECONDS / 10)
            self.videos.sweep()

    async def answer(
        self,
        request: Request,
        kind: type[Asked],
        work: Callable[[Asked, Any], Steps[Answer]],
        needs_video: bool = True,
    ) -> Answer:
        """Takes a place, the upload and the fields, and has done what `work` makes of them. Nothing
        of the upload is left."""
        with (
            self.jobs.place() as place,
            TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as folder,
        ):
            sent = await receive(request, Path(folder, "video"), self.limits)
            asked = parsed(kind, sent.fields)
            path = sent.file
            if asked.id is not None:
                if path is not None:
                    raise Refusal(422, "send a video or the id of one, not both")
                path = self.videos.get(asked.id).path
            if needs_video and path is None:
                raise Refusal(422, "video: send a video file in this field")
            place_of = path or Path(folder)
            return await self.do(request, lambda: work(asked, path), place, place_of)

    async def keep(self, request: Request) -> KeptVideo:
        """Takes a place and the upload, and keeps the video if it can be read."""
        video = self.videos.new()
        try:
            with self.jobs.place() as place:
                sent = await receive(request, video.path, self.limits)
                if sent.file is None or sent.fields:
                    raise Refusal(422, "video: send a video file in this field, and no others")
                measure: Steps[Any] = Steps(prepare=partial(self.limits.measure, video.path))
                facts = await self.do(request, lambda: measure, place, video.path)
        except BaseException:
            shutil.rmtree(video.folder, ignore_errors=True)
            raise
        name = self.videos.keep(video)
        return KeptVideo(id=name, **VideoFacts.of(facts).model_dump())

    async def preview(self, request: Request, name: str) -> Path:
        """The small copy of a kept video, which is made once."""
        video = self.videos.get(name)
        if not video.preview.exists():
            with self.jobs.place() as place:
                write: Steps[Any] = Steps(prepare=partial(write_preview, video.path, video.preview))
                await self.do(request, lambda: write, place, video.path)
        return video.preview

    async def do(
        self, request: Request, work: Callable[[], Steps[Answer]], place: Place, path: Path
    ) -> Answer:
        """Has the work done in its turn while the client waits; errors do not tell `path`."""
        try:
            return await self.jobs.do(work(), place, lambda: hung_up(request))
        except (UsageError, VideoError) as error:
            raise Refusal(422, nameless(error, path)) from None


async def hung_up(request: Request) -> None:
    """Waits until the client, whose request has been read, is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
