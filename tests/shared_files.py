"""What several test files read, made once for all processes of a session.

Nobody writes to what `once` gives: a test that changes it takes a copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from froster.world.files import write_video
from froster.world.sets import SETS, Split, render_video

FOLDER: Path | None = None
"""In the session's base temporary folder (`conftest.py`)."""


def once(name: str, make: Callable[[Path], object]) -> Path:
    """The file or folder of this name; the first who asks makes it, and the others wait."""
    assert FOLDER is not None, "only within a session of pytest"
    path = FOLDER / name
    if not path.exists():
        with FileLock(FOLDER / f"{name}.lock"):
            if not path.exists():
                part = FOLDER / f"part-{name}"
                make(part)
                part.rename(path)
    return path


@dataclass(frozen=True)
class World:
    """The files of a set of the world: video i is the one of `render_set(name, per_class, 0, split)`."""

    name: str
    per_class: int
    split: Split = "val"

    @property
    def classes(self) -> list[str]:
        return SETS[self.name].classes

    def label(self, index: int) -> str:
        return self.classes[index // self.per_class]

    def write(self, index: int, path: Path) -> Path:
        """A file of video `index` at `path`, which is the caller's."""
        label, take = divmod(index, self.per_class)

        def render(part: Path) -> None:
            write_video(part, render_video(self.name, label, take, 0, self.split))

        path.parent.mkdir(parents=True, exist_ok=True)
        video = once(f"{self.name}-{self.split}-{label}-{take}.mp4", render)
        return Path(shutil.copyfile(video, path))
