"""The folder that holds a data set's videos: which file is which clip, and what its folders say of
it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from froster.data.public import classes, key
from froster.errors import DataError
from froster.video.container import VIDEO_SUFFIXES

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


@dataclass(frozen=True)
class ListedClip:
    """One clip as the annotations list it."""

    name: str
    """Its path or id in the annotations."""
    label: str
    """The class, in the official spelling."""
    splits: tuple[str, ...]
    """One of train, val, test and "" (not used) for each official split; one for Kinetics and SSv2,
    three for the others."""
    files: tuple[str, ...]
    """File names without suffix under which it may be stored, the most precise first."""


def exact(name: str) -> str:
    return name


def same_characters(name: str) -> str:
    """One _ for each character that is no letter or digit, and no capitals."""
    return re.sub(r"[\W_]", "_", name.casefold())


def same_words(name: str) -> str:
    """One _ for each run of such characters."""
    return re.sub(r"[\W_]+", "_", name.casefold())


SPELLINGS = (exact, same_characters, same_words)
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

    def place(self, clips: Sequence[ListedClip]) -> list[str | None]:
        """The file of each clip: the one of exactly its name; for clips without one the most alike
        that no other clip has.

        Of several alike it is the one in the clip's class's folder, then the one in its split's.
        """
        places: list[str | None] = [None] * len(clips)
        for spelling in SPELLINGS[: 1 if self._strict else None]:
            placed = set(places)
            by_name: defaultdict[str, list[str]] = defaultdict(list)
            for path in self.files:
                if path not in placed:
                    by_name[spelling(stem(path))].append(path)
            for i, clip in enumerate(clips):
                if places[i] is None:
                    alike = [by_name[spelling(name)] for name in clip.files]
                    match = max(next(filter(None, alike), []), key=fitness(clip), default=None)
                    if match is not None and spelling is not exact:
                        by_name[spelling(stem(match))].remove(match)
                    places[i] = match
        return places

    def folder_label(self, path: str) -> str | None:
        """What the folder of a file says that its class is; None where the folders are not the
        classes'."""
        folder = PurePosixPath(path).parent.name
        if folder and key(folder) in self._classes:
            return self._classes[key(folder)]
        return folder if folder and self.has_class_folders and split_word(folder) is None else None


def fitness(clip: ListedClip) -> Callable[[str], tuple[bool, bool]]:
    """Of a path: whether it lies in the folder of the clip's class, and of its split."""
    return lambda path: (
        key(PurePosixPath(path).parent.name) == key(clip.label),
        split_of(path) == clip.splits[0],
    )


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
