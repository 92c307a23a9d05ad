"""Which videos a command is about: files, folders with all that lies below, manifests, and lists of
names."""

from __future__ import annotations

import os
import sys
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

from froster.data.columns import Growing, Row, Table, texts_of
from froster.data.items import VideoList, passed_over
from froster.data.manifest import is_video, read_rows
from froster.data.pack_folder import unpacked
from froster.data.rows import MANIFESTS
from froster.errors import DataError, UsageError
from froster.utils.address import Address, as_path, is_address, located
from froster.video.tar_shards import exists

_MISSING_SHOWN = 3
_AT_ONCE = 4096


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
    given. A `ListedVideo` is made when it is asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.by_name = False  # whether names came from a list of one a line
        self.keys: Sequence[str] = texts_of([])
        "of each video"
        self._paths: Sequence[str] = self.keys
        self._begins: list[int] = []  # of each source, with the table and the rows it came from
        self._rows: list[tuple[Table | None, np.ndarray]] = []
        self._missing: list[int] = []

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> ListedVideo: ...
    @overload
    def __getitem__(self, place: slice) -> list[ListedVideo]: ...
    def __getitem__(self, place: int | slice) -> ListedVideo | list[ListedVideo]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        return self._video(place, self._paths[place], self.keys[place])

    def __iter__(self) -> Iterator[ListedVideo]:
        texts = zip(self._paths, self.keys, strict=True)
        return (self._video(place, path, key) for place, (path, key) in enumerate(texts))

    @property
    def columns(self) -> list[str]:
        """Names of the columns of all manifests that its videos come from."""
        tables = [table for table, _ in self._rows if table is not None]
        return list(dict.fromkeys(name for table in tables for name in table.columns))

    @property
    def missing(self) -> list[ListedVideo]:
        """Those that were named and do not exist."""
        return [self[place] for place in self._missing]

    def notes(self) -> list[str]:
        """Also on files that were named and are not there. Raises UsageError where not one is."""
        if not self._missing:
            return super().notes()
        message = not_there([video.path for video in self.missing], self.by_name)
        if len(self._missing) == len(self):
            raise UsageError(message)
        others = len(self) - len(self._missing)
        others_are = f"{others} {'is' if others == 1 else 'are'}"
        return [f"{message}; the other {others_are} there", *super().notes()]

    def fill(self, sources: Iterable[Source]) -> None:
        """Takes the videos of all sources, each once."""
        key_of, known = KeyOf(self.root), set[str]()
        paths, keys = Growing(repeats=False), Growing(repeats=False)
        for source in sources:
            self._begins.append(len(known))
            new = [np.zeros(0, np.int64)]
            given, number = iter(source.paths), 0
            while part := list(islice(given, _AT_ONCE)):
                numbers: Sequence[int] = range(number, number + len(part))
                some_keys = list(map(key_of, part))
                number += len(part)
                if len(set(some_keys)) < len(part) or not known.isdisjoint(some_keys):
                    firsts = {key: i for i, key in reversed([*enumerate(some_keys)])}
                    chosen = sorted(i for key, i in firsts.items() if key not in known)
                    numbers = [numbers[i] for i in chosen]
                    part, some_keys = [part[i] for i in chosen], [some_keys[i] for i in chosen]
                if source.is_missing is not None:
                    missing = map(source.is_missing, numbers, part)
                    self._missing += [len(known) + i for i, gone in enumerate(missing) if gone]
                known.update(some_keys)
                new.append(np.array(numbers, np.int64))
                paths.add(part)
                keys.add(some_keys)
            self._rows.append((source.table, np.concatenate(new)))
        known.clear()
        self._paths, self.keys = paths.texts(), keys.texts()

    def _video(self, place: int, path: str, key: str) -> ListedVideo:
        source = bisect(self._begins, place) - 1
        table, rows = self._rows[source]
        if table is None:
            return ListedVideo(as_path(path), key)
        return ListedVideo(as_path(path), key, Row(table, int(rows[place - self._begins[source]])))


@dataclass(frozen=True)
class Source:
    """The videos of one thing that was named."""

    paths: Iterable[str]
    is_missing: Callable[[int, str], bool] | None
    """Of a video, by its number and its path: was it named, and does not exist? None: none of them.
    """
    table: Table | None = None
    """Of a manifest, a row a path."""


def _is_missing(number: int, path: str) -> bool:
    return not (is_address(path) or exists(path))


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
    """The videos of files, folders (and what lies below), manifests (.csv, .jsonl, .parquet with a
    column path) and "-", standard input, or `files_from`, with a name on each line (or before each
    NUL character).

    Relative paths of a manifest start at `root`, or else at the manifest's folder; those of a list
    at `root`, or else where the command runs. Keys are relative to `base`, by default a single
    folder that was given, or `root`, or else where the command runs. Raises DataError where there
    is no video, UsageError where no source is given, or an address that froster does not read.
    Files at addresses are not looked for.
    """
    sources = [*sources, *([files_from] if files_from is not None else [])]
    if not sources:
        raise UsageError("give video files, a folder, a manifest, or a list with --files-from")
    if base is None:
        single = len(sources) == 1 and sources[0].is_dir()
        base = sources[0] if single else root if root is not None else Path()
    sources = [unpacked(source) for source in sources]
    listing = Listing(base.absolute())
    listing.fill(
        _source(
            source,
            root,
            listing,
            str(source) == "-" or (files_from is not None and number == len(sources) - 1),
        )
        for number, source in enumerate(sources)
    )
    if not listing:
        others = passed_over(listing.passed_over)
        hint = f"; {others}" if others else ""
        raise DataError(
            f"{', '.join(map(str, sources[:3]))}: no videos (.mp4, .avi, .mkv, .webm …){hint}"
        )
    return listing


def _source(source: Path, root: Path | None, listing: Listing, is_list: bool) -> Source:
    if is_list:
        listing.by_name = True
        names = _names(source)
        names = [str(located(root, name) if root else as_path(name)) for name in names]
        return Source(names, _is_missing)
    if source.is_dir():
        return Source(_videos_below(source, listing), None)
    if source.suffix.lower() in MANIFESTS:
        rows = read_rows(source, root)
        missing = set(rows.missing.tolist())
        paths = rows.paths.texts(np.arange(len(rows)))
        is_missing = (lambda number, _: number in missing) if missing else None
        return Source(paths, is_missing, rows.table)
    return Source([str(source)], _is_missing)


def _videos_below(folder: Path, listing: Listing) -> Iterator[str]:
    for path in walk(folder):
        if is_video(path.name):
            yield str(path)
        else:
            listing.pass_over(path)


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


class KeyOf:
    """From the path of a file to its key, as the file is called, to the byte: it is compared with
    what is written to files and is a path again there."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._folders: dict[str, str] = {}
        """The key of each folder with what parts it from names."""

    def __call__(self, path: str) -> str:
        if "://" in path and is_address(path):
            return path
        folder, slash, name = path.rpartition("/")
        if os.sep != "/" or name in ("", ".", ".."):
            place = Path(os.path.abspath(path))
            return self._folder(str(place.parent)) + place.name
        folder = folder or slash
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self._folder(folder)
        return known + name

    def _folder(self, folder: str) -> str:
        place, base = Path(os.path.abspath(folder)), self._base
        if isinstance(base, Address):
            return os.path.join(place.as_posix(), "")
        if not place.is_relative_to(base):
            # The same folder may be reached by links.
            real, root = Path(os.path.realpath(place)), Path(os.path.realpath(base))
            if not real.is_relative_to(root):
                return os.path.join(place.as_posix(), "")
            place, base = real, root
        key = place.relative_to(base).as_posix()
        return "" if key == "." else f"{key}/"
