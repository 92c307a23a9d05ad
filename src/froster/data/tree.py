"""The folder that holds a data set's videos: which file is which clip, and what its folders say of
it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from froster.data.names import classes, key
from froster.errors import DataError
from froster.video.container import VIDEO_SUFFIXES

if TYPE_CHECKING:  # that module reads file names with this one
    from froster.data.public import Clip

_ARCHIVES = re.compile(
    r"\.(rar|zip|tar|tgz|gz|bz2|xz|zst|7z|[rz]\d\d)(\.\d+|\.part\w*)?$|^20bn-something-something-v2-\d\d$"
)
"""Also the parts of one; those of SSv2 have no suffix."""
_SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
}
_WHOLE = {"training": "train", "testing": "test"}
"""Only as a whole name: there is a class "training dog"."""


def exact(name: str) -> str:
    return name


def same_signs(name: str) -> str:
    """One _ for each sign that is no letter or digit, and no capitals."""
    return re.sub(r"[\W_]", "_", name.casefold())


def same_words(name: str) -> str:
    """One _ for each run of such signs."""
    return re.sub(r"[\W_]+", "_", name.casefold())


LIKENESSES = (exact, same_signs, same_words)
"""What names must have in common, the strictest first."""


class Tree:
    """An index of all videos below `root`, whatever the folders between. Paths are relative, with
    slashes, and sorted."""

    def __init__(self, root: Path, dataset: str) -> None:
        if root.is_file():
            hint = (
                "extract it and pass the folder"
                if _ARCHIVES.search(root.name.lower())
                else "pass the folder of the videos"
            )
            raise DataError(f"{root}: a file; --videos needs a folder: {hint}")
        if not root.is_dir():
            raise DataError(
                f"{root}: no such folder; --videos needs the folder of the videos of {dataset}"
            )
        self.root = root
        self.files: list[str] = []
        self.archives: list[str] = []
        self._walk()
        # YouTube's ids differ by case and by - and _; elsewhere copies on other file systems change
        # such signs.
        self._strict = dataset in ("k400", "k600")
        self._classes = {key(name): name for name in classes(dataset)}
        named = sum(key(PurePosixPath(path).parent.name) in self._classes for path in self.files)
        self.has_class_folders = 2 * named > len(self.files)

    def _walk(self) -> None:
        seen: set[tuple[int, int]] = set()
        for folder, below, files in os.walk(self.root, followlinks=True):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
                below.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            below[:] = [name for name in below if not name.startswith(".")]
            for name in files:
                path = Path(os.path.relpath(os.path.join(folder, name), self.root)).as_posix()
                if _ARCHIVES.search(name.lower()):
                    self.archives.append(path)
                elif os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(
                    "."
                ):
                    self.files.append(path)
        self.files.sort()
        self.archives.sort()

    def place(self, clips: Sequence[Clip]) -> list[str | None]:
        """The file of each clip: the one of exactly its name; for clips without one the most alike
        that no other clip has.

        Of several alike it is the one in the clip's class's folder, then the one in its split's.
        """
        places: list[str | None] = [None] * len(clips)
        for likeness in LIKENESSES[: 1 if self._strict else None]:
            taken = set(places)
            by_name: defaultdict[str, list[str]] = defaultdict(list)
            for path in self.files:
                if path not in taken:
                    by_name[likeness(stem(path))].append(path)
            for i, clip in enumerate(clips):
                if places[i] is None:
                    found = self._fittest(clip, [by_name[likeness(name)] for name in clip.files])
                    if found is not None and likeness is not exact:
                        by_name[likeness(stem(found))].remove(found)
                    places[i] = found
        return places

    def _fittest(self, clip: Clip, found: Sequence[list[str]]) -> str | None:
        """From what was found under each of its names, the most precise first."""

        def fit(path: str) -> tuple[bool, bool]:
            return (
                key(PurePosixPath(path).parent.name) == key(clip.label),
                split_of(path) == clip.splits[0],
            )

        return next((max(paths, key=fit) for paths in found if paths), None)

    def folder_label(self, path: str) -> str | None:
        """What the folder of a file says that its class is; None where the folders are not the
        classes'."""
        folder = PurePosixPath(path).parent.name
        if folder and key(folder) in self._classes:
            return self._classes[key(folder)]
        return folder if folder and self.has_class_folders and split_word(folder) is None else None


def split_of(path: str) -> str | None:
    """train, val or test, where a folder of the path says so."""
    words = (split_word(folder) for folder in reversed(PurePosixPath(path).parent.parts))
    return next((word for word in words if word), None)


def split_word(name: str) -> str | None:
    """`videos_train` -> train, `val_256` and `validate` -> val, `testlist01` -> None."""
    words = re.split(r"[^a-z]+", name.lower())
    return _WHOLE.get(name.lower()) or next(
        (_SPLITS[word] for word in words if word in _SPLITS), None
    )


def stem(path: str) -> str:
    """The file's name without folders and without a video's suffix."""
    name, suffix = os.path.splitext(PurePosixPath(path).name)
    return name if suffix.lower() in VIDEO_SUFFIXES else name + suffix
