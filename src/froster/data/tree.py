"""The folder that holds a data set's videos: which file is which clip, and what its folders say of
it."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from froster.data.listing import walk
from froster.data.manifest import is_video
from froster.data.public import classes, key
from froster.errors import DataError
from froster.video.container import VIDEO_SUFFIXES

_ARCHIVES = re.compile(
    r"\.(rar|zip|tar|tgz|gz|bz2|xz|zst|7z|[rz]\d\d)(\.\d+|\.part\w*)?$"
    r"|^20bn-something-something-v2-\d\d$"
)
"""Also the parts of one; those of SSv2 have no suffix."""
_SPLITS = dict.fromkeys(("val", "valid", "validate", "validation"), "val")
_SPLITS |= {"train": "train", "test": "test"}
_SPLIT_NAMES = {"training": "train", "testing": "test"}
"""Only as the full name: there is a class "training dog"."""


@dataclass(frozen=True)
class ListedClip:
    """One clip as the annotations list it."""

    name: str  # its path or id in the annotations
    label: str  # the class, in the official spelling
    splits: tuple[str, ...]
    """One of train, val, test and "" (not used) for each official split; one for Kinetics and SSv2,
    three for the others."""
    files: tuple[str, ...]
    """File names without suffix under which it may be stored, the most precise first."""


SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    # One _ for each character that is no letter or digit, and no capitals; then for each run of
    # such characters.
    lambda name: re.sub(r"[\W_]", "_", name.casefold()),
    lambda name: re.sub(r"[\W_]+", "_", name.casefold()),
)
"""What names must have in common, the strictest first."""


class Tree:
    """An index of all videos below `root`, whatever the folders between. Paths are relative, with
    slashes, and sorted."""

    def __init__(self, root: Path, dataset: str) -> None:
        if root.is_file():
            packed = _ARCHIVES.search(root.name.lower())
            hint = "extract it and pass the folder" if packed else "pass the folder of the videos"
            raise DataError(f"{root}: a file; --videos needs a folder: {hint}")
        if not root.is_dir():
            raise DataError(
                f"{root}: no such folder; --videos needs the folder of the videos of {dataset}"
            )
        paths = sorted(
            (path.relative_to(root) for path in walk(root)), key=lambda path: path.as_posix()
        )
        self.archives = [path.as_posix() for path in paths if _ARCHIVES.search(path.name.lower())]
        self.files = [path.as_posix() for path in paths if is_video(path)]
        # YouTube's ids differ by case and by - and _; elsewhere copies on other file systems change
        # such signs.
        self._strict = dataset in ("k400", "k600")
        self._classes = {key(name): name for name in classes(dataset)}
        named = sum(key(folder_name(path)) in self._classes for path in self.files)
        self.has_class_folders = 2 * named > len(self.files)

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
                    if match is not None and spelling is not str:
                        by_name[spelling(stem(match))].remove(match)
                    places[i] = match
        return places

    def folder_label(self, path: str) -> str | None:
        """What the folder of a file says that its class is; None where the folders are not the
        classes'."""
        folder = folder_name(path)
        if folder and key(folder) in self._classes:
            return self._classes[key(folder)]
        return folder if folder and self.has_class_folders and split_word(folder) is None else None


def folder_name(path: str) -> str:
    return PurePosixPath(path).parent.name


def fitness(clip: ListedClip) -> Callable[[str], tuple[bool, bool]]:
    """Of a path: whether it lies in the folder of the clip's class, and of its split."""
    return lambda path: (
        key(folder_name(path)) == key(clip.label),
        split_of(path) == clip.splits[0],
    )


def split_of(path: str) -> str | None:
    """train, val or test, where a folder of the path says so."""
    words = (split_word(folder) for folder in reversed(PurePosixPath(path).parent.parts))
    return next(filter(None, words), None)


def split_word(name: str) -> str | None:
    """`videos_train` -> train, `val_256` and `validate` -> val, `testlist01` -> None."""
    words = map(_SPLITS.get, re.split(r"[^a-z]+", name.lower()))
    return _SPLIT_NAMES.get(name.lower()) or next(filter(None, words), None)


def stem(path: str) -> str:
    """The file's name without folders and without a video's suffix."""
    name, suffix = os.path.splitext(PurePosixPath(path).name)
    return name if suffix.lower() in VIDEO_SUFFIXES else name + suffix
