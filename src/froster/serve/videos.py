"""Uploads that are kept for a while, so that a page asks about one video many times and sends it
once."""

import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from froster.serve import Refusal

KEPT_SECONDS, MOST_KEPT = 600, 16
"""A video is deleted so long after its last use, and gives way to so many newer ones."""


@dataclass
class Upload:
    folder: Path
    used: float = field(default_factory=time.monotonic)  # seconds of the monotonic clock

    @property
    def path(self) -> Path:
        return self.folder / "video"

    @property
    def preview(self) -> Path:
        return self.folder / "preview"


class Uploads:
    """Kept videos by their ids. An id is looked up, never made a path, and nobody can guess
    another's. Used by the server's own thread alone."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._kept: dict[str, Upload] = {}

    def new(self) -> Upload:
        """A folder for one upload; it is the caller's until `keep`."""
        return Upload(Path(tempfile.mkdtemp(dir=self.folder)))

    def keep(self, video: Upload) -> str:
        """The id under which the video is found from now on."""
        name = secrets.token_urlsafe(16)
        self._kept[name] = video
        self.sweep()
        return name

    def get(self, name: str) -> Upload:
        """Raises Refusal where there is no such video, or no longer."""
        if name not in self._kept:
            raise Refusal(404, "the video is not kept here any longer: send it again")
        video = self._kept[name]
        video.used = time.monotonic()
        return video

    def delete(self, name: str) -> None:
        if video := self._kept.pop(name, None):
            shutil.rmtree(video.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Deletes what was not used for long, and the oldest of what is too many."""
        newest = sorted(self._kept, key=lambda name: -self._kept[name].used)
        late = time.monotonic() - KEPT_SECONDS
        for place, name in enumerate(newest):
            if place >= MOST_KEPT or self._kept[name].used < late:
                self.delete(name)
