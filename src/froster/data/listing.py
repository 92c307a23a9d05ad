"""Which videos a command is about: files, folders with all that lies below, manifests, and lists of
names."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from froster.data.manifest import VideoList, is_video, passed_over, read_rows
from froster.errors import DataError, UsageError
from froster.utils.address import Address, as_path, located

MANIFESTS = (".csv", ".jsonl", ".ndjson")
_MISSING_SHOWN = 3


@dataclass(frozen=True)
class ListedVideo:
    """One video, whether it exists or not."""

    path: Path
    key: str
    """Its name in results, to the byte: relative to the listing's root with /, or the path from the
    top where it lies elsewhere; or its address."""
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Its row of the manifest it comes from."""


class Listing(VideoList[ListedVideo]):
    """Different videos, each once, by folder in the order of their names, otherwise as they were
    given."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.missing: list[ListedVideo] = []  # those that were named and do not exist
        self.by_name = False  # whether names came from a list of one a line

    def notes(self) -> list[str]:
        """Also on files that were named and are not there. Raises UsageError where not one is."""
        if not self.missing:
            return super().notes()
        message = not_there([video.path for video in self.missing], self.by_name)
        if len(self.missing) == len(self):
            raise UsageError(message)
        others = len(self) - len(self.missing)
        others_are = f"{others} {'is' if others == 1 else 'are'}"
        return [f"{message}; the other {others_are} there", *super().notes()]


def not_there(paths: Sequence[Path], by_name: bool = False) -> str:
    """That these files do not exist, and why that may be."""
    more = f" and {len(paths) - _MISSING_SHOWN} more" if len(paths) > _MISSING_SHOWN else ""
    names = ", ".join(str(path) for path in paths[:_MISSING_SHOWN]) + more
    hint = ""
    if any(set(str(path)) & set("*?[") for path in paths):
        hint = " (nothing fits this pattern)"
    elif by_name:
        hint = (
            " (a list has one name a line; names that hold line ends: end each with a NUL"
            " character, or give a manifest)"
        )
    return f"no such file: {names}{hint}"


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
    is no video, UsageError where no source is given, or an address of another kind than froster
    reads. Files at addresses are not looked for.
    """
    sources = [*sources, *([files_from] if files_from is not None else [])]
    if not sources:
        raise UsageError("give video files, a folder, a manifest, or a list with --files-from")
    if base is None:
        single = len(sources) == 1 and sources[0].is_dir()
        base = sources[0] if single else root if root is not None else Path()
    base = base.absolute()
    listing = Listing(base)
    keys = set()
    for number, source in enumerate(sources):
        is_list = str(source) == "-" or (files_from is not None and number == len(sources) - 1)
        named = not source.is_dir()
        for path, columns in _videos(source, root, listing, is_list):
            key = _key(path, base)
            if key not in keys:
                keys.add(key)
                listing.append(ListedVideo(path, key, columns))
                if named and not isinstance(path, Address) and not os.path.exists(path):
                    listing.missing.append(listing[-1])
    if not listing:
        others = passed_over(listing.passed_over)
        hint = f"; {others}" if others else ""
        raise DataError(
            f"{', '.join(map(str, sources[:3]))}: no videos (.mp4, .avi, .mkv, .webm …){hint}"
        )
    return listing


def _videos(
    source: Path, root: Path | None, listing: Listing, is_list: bool
) -> Iterator[tuple[Path, Mapping[str, str]]]:
    if is_list:
        listing.by_name = True
        for name in _names(source):
            yield located(root, name) if root else as_path(name), {}
    elif source.is_dir():
        for path in walk(source):
            if is_video(path):
                yield path, {}
            else:
                listing.pass_over(path)
    elif source.suffix.lower() in MANIFESTS:
        yield from read_rows(source, root)
    else:
        yield source, {}


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, folders in the order of their names; not in hidden ones, nor twice
    through links."""
    if isinstance(folder, Address):
        try:
            yield from folder.files()
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
        return
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
    return names


def _key(path: Path, base: Path) -> str:
    """As the file is called, to the byte, for it is compared with what is written to files and is a
    path again there."""
    if isinstance(path, Address):
        return str(path)
    place = Path(os.path.abspath(path))
    if isinstance(base, Address):
        return place.as_posix()
    if place.is_relative_to(base):
        return place.relative_to(base).as_posix()
    # The same folder may be reached by links.
    real, root = Path(os.path.realpath(place.parent), place.name), Path(os.path.realpath(base))
    return (real.relative_to(root) if real.is_relative_to(root) else place).as_posix()
