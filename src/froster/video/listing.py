"""Which videos a command is about: files, folders with all that lies below, manifests, and lists of names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from froster.errors import DataError, UsageError
from froster.video.manifest import read_rows
from froster.video.reader import VIDEO_SUFFIXES

MANIFESTS = (".csv", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Found:
    """One video, whether it exists or not."""

    path: Path
    key: str
    "its name in results: relative to the listing's root with /, or the whole path where it lies elsewhere"
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)
    "its row of the manifest it comes from"


class Listing(list[Found]):
    """Different videos, each once, by folder in the order of their names, otherwise as they were given."""

    def __init__(self, root: Path, found: Sequence[Found] = (), ignored: int = 0) -> None:
        super().__init__(found)
        self.root, self.ignored = root, ignored
        "`ignored`: files in folders that are hidden or no videos"


def list_videos(
    sources: Sequence[Path], *, files_from: Path | None = None, root: Path | None = None, base: Path | None = None
) -> Listing:
    """The videos of files, folders (and what lies below), manifests (.csv, .jsonl with a column path) and "-", standard
    input, or `files_from`, with a name on each line (or before each NUL character).

    Relative paths of a manifest start at `root`, or else at the manifest's folder; those of a list at `root`, or else
    where the command runs. Keys are relative to `base`, by default a single folder that was given, or `root`, or else
    where the command runs. Raises DataError where there is no video, UsageError where no source is given.
    """
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
        for path, columns in _videos(source, root, listing, is_list=number == len(sources) - 1 and files_from is not None):
            key = _key(path, base)
            if key not in seen:
                seen.add(key)
                listing.append(Found(path, key, columns))
    if not listing:
        raise DataError(f"{', '.join(map(str, sources[:3]))}: no videos (.mp4, .avi, .mkv, .webm …)")
    return listing


def _videos(source: Path, root: Path | None, listing: Listing, is_list: bool) -> Iterator[tuple[Path, Mapping[str, str]]]:
    if str(source) == "-" or is_list:
        for name in _names(source):
            yield (root / name if root else Path(name)), {}
    elif source.is_dir():
        for path in walk(source):
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
                yield path, {}
            else:
                listing.ignored += 1
    elif source.suffix.lower() in MANIFESTS:
        for path, columns in read_rows(source, root):
            yield path, columns
    else:
        yield source, {}


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, folders in the order of their names; not in hidden ones, nor twice through links."""
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
    end = b"\0" if b"\0" in data else b"\n"
    names = (os.fsdecode(name.rstrip(b"\r")) for name in data.removeprefix(b"\xef\xbb\xbf").split(end))
    return [name for name in names if name.strip()]


def _key(path: Path, base: Path) -> str:
    """Printable, as it is written to files and compared with what is read from them."""
    whole = Path(os.path.abspath(path))
    real = Path(os.path.realpath(whole.parent), whole.name) if not whole.is_relative_to(base) else whole
    for place, root in ((whole, base), (real, Path(os.path.realpath(base)))):  # the same folder may be reached by links
        if place.is_relative_to(root):
            whole = place.relative_to(root)
            break
    name = whole.as_posix()
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
