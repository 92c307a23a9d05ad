"""Which videos a command is about: files, folders with all that lies below, manifests, and lists of
names."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from froster.data.manifest import read_rows
from froster.errors import DataError, UsageError
from froster.utils.address import refuse_address
from froster.video.container import VIDEO_SUFFIXES

MANIFESTS = (".csv", ".jsonl", ".ndjson")
_SHOWN = 3


_COMPANIONS = (
    ".aac .bmp .cfg .csv .db .flac .html .ini .jpeg .jpg .json .jsonl .lock .log .lrv .m3u"
    " .md .mp3 .nfo .npy .ogg .parquet .pdf .pickle .pkl .png .py .sh .srt .sub .svg .thm"
    " .toml .tsv .txt .vtt .wav .webp .xml .yaml .yml"
)
COMPANIONS = frozenset(["", *_COMPANIONS.split()])
"""Endings of files that lie beside videos and are none: they are counted, but nobody is told of
them."""


@dataclass(frozen=True)
class ListedVideo:
    """One video, whether it exists or not."""

    path: Path
    key: str
    "its name in results, to the byte: relative to the listing's root with /, or the whole path where it lies elsewhere"
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)
    "its row of the manifest it comes from"


class Listing(list[ListedVideo]):
    """Different videos, each once, by folder in the order of their names, otherwise as they were
    given."""

    def __init__(self, root: Path, videos: Sequence[ListedVideo] = (), ignored: int = 0) -> None:
        super().__init__(videos)
        self.root, self.ignored = root, ignored
        "`ignored`: files in folders that are hidden or no videos"
        self.passed_over: Counter[str] = Counter()
        "how many of them, but for hidden ones, have which ending"
        self.missing: list[ListedVideo] = []
        "those that were named and do not exist"
        self.by_name = False
        "whether names came from a list of one a line"

    def check(self) -> str:
        """What to say, before anything is loaded, of files that were named and are not there: empty
        where all are.

        Raises UsageError where not one is.
        """
        if not self.missing:
            return ""
        message = not_there([video.path for video in self.missing], self.by_name)
        if len(self.missing) == len(self):
            raise UsageError(message)
        others = len(self) - len(self.missing)
        return f"{message}; the other {others} {'is' if others == 1 else 'are'} there"


def not_there(paths: Sequence[Path], by_name: bool = False) -> str:
    """That these files do not exist, and why that may be."""
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    names = ", ".join(str(path) for path in paths[:_SHOWN]) + more
    hint = ""
    if any(set(str(path)) & set("*?[") for path in paths):
        hint = " (nothing fits this pattern)"
    elif by_name:
        hint = (
            " (a list has one name a line; names that hold line ends: end each with a NUL"
            " character, or give a manifest)"
        )
    return f"no such file: {names}{hint}"


def passed_over(endings: Mapping[str, int]) -> str:
    """One line on files that may be videos, for all that froster knows; empty where there are none."""
    count = {
        ending: number for ending, number in sorted(endings.items()) if ending not in COMPANIONS
    }
    if not count:
        return ""
    kinds = ", ".join(f"{number} {ending}" for ending, number in count.items())
    return (
        f"passed over, as their endings are not those of videos: {kinds} (named one by one, files"
        " of any ending are read)"
    )


def list_videos(
    sources: Sequence[Path],
    *,
    files_from: Path | None = None,
    root: Path | None = None,
    base: Path | None = None,
) -> Listing:
    """The videos of files, folders (and what lies below), manifests (.csv, .jsonl with a column
    path) and "-", standard input, or `files_from`, with a name on each line (or before each NUL
    character).

    Relative paths of a manifest start at `root`, or else at the manifest's folder; those of a list
    at `root`, or else where the command runs. Keys are relative to `base`, by default a single
    folder that was given, or `root`, or else where the command runs. Raises DataError where there
    is no video, UsageError where no source is given, or an address.
    """
    refuse_address(*sources, files_from, root)
    sources = [*sources, *([files_from] if files_from is not None else [])]
    if not sources:
        raise UsageError("give video files, a folder, a manifest, or a list with --files-from")
    if base is None:
        single = len(sources) == 1 and sources[0].is_dir()
        base = sources[0] if single else root if root is not None else Path()
    base = base.absolute()
    listing = Listing(base)
    seen = set()
    for number, source in enumerate(sources):
        named = not source.is_dir()
        is_list = number == len(sources) - 1 and files_from is not None
        for path, columns in _videos(source, root, listing, is_list):
            key = _key(path, base)
            if key not in seen:
                seen.add(key)
                listing.append(ListedVideo(path, key, columns))
                if named and not os.path.exists(path):
                    listing.missing.append(listing[-1])
    if not listing:
        others = passed_over(listing.passed_over)
        what = f"no videos (.mp4, .avi, .mkv, .webm …){f'; {others}' if others else ''}"
        raise DataError(f"{', '.join(map(str, sources[:3]))}: {what}")
    return listing


def _videos(
    source: Path, root: Path | None, listing: Listing, is_list: bool
) -> Iterator[tuple[Path, Mapping[str, str]]]:
    if str(source) == "-" or is_list:
        listing.by_name = True
        for name in _names(source):
            yield (root / name if root else Path(name)), {}
    elif source.is_dir():
        for path in walk(source):
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
                yield path, {}
            else:
                listing.ignored += 1
                if not path.name.startswith("."):
                    listing.passed_over[path.suffix.lower()] += 1
    elif source.suffix.lower() in MANIFESTS:
        yield from read_rows(source, root)
    else:
        yield source, {}


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, folders in the order of their names; not in hidden ones, nor twice
    through links."""
    entered: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for place, folders, files in os.walk(folder, followlinks=True, onerror=failed):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files))


def _names(source: Path) -> list[str]:
    try:
        data = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data:
        names = [os.fsdecode(name) for name in data.split(b"\0") if name]
    else:
        lines = [os.fsdecode(name.removesuffix(b"\r")) for name in data.split(b"\n")]
        names = [name for name in lines if name.strip()]
    refuse_address(*names)
    return names


def _key(path: Path, base: Path) -> str:
    """As the file is called, to the byte, for it is compared with what is written to files and is a
    path again there."""
    whole = Path(os.path.abspath(path))
    real = whole
    if not whole.is_relative_to(base):
        real = Path(os.path.realpath(whole.parent), whole.name)
    # The same folder may be reached by links.
    for place, root in ((whole, base), (real, Path(os.path.realpath(base)))):
        if place.is_relative_to(root):
            whole = place.relative_to(root)
            break
    return whole.as_posix()
