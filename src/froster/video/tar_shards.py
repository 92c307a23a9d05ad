"""Videos in tar shards, read by offset: the file `shards/00000.tar/surfing/a.mp4` is the member
`surfing/a.mp4` of the shard `shards/00000.tar`, whose offset table lies beside it.

The table, `00000.offsets.jsonl`, has a line for the shard and then one for each member:
`{"shard": "00000.tar", "bytes": 1048576}` and `{"name": "surfing/a.mp4", "offset": 512, "size":
83412, "crc32": 305419896}`. `froster pack` writes both.
"""

from __future__ import annotations

import io
import os
import zlib
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from froster.errors import VideoError
from froster.utils import strict_json as json
from froster.utils.files import NAME_ERRORS

TABLE = ".offsets.jsonl"
_TABLES = 4096
"""Offset tables that a process keeps: 28 bytes a member."""
WHOLE = 1 << 26
"""Bytes. A member of this size at most is read at once, as opening a video reads all of it, and its
checksum is verified; a longer one is read in parts."""


class Member(NamedTuple):
    """Where the bytes of a video lie."""

    shard: str
    offset: int
    size: int
    crc32: int


class _Table(NamedTuple):
    """The members of a shard, sorted by the hashes of their names."""

    hashes: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    sums: np.ndarray


def in_shard(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The shard and the name in it of a path that leads through a tar file; None for all others."""
    name = str(path).replace(os.sep, "/")
    at = name.find(".tar/")
    while at >= 0:
        shard = name[: at + 4]
        if os.path.isfile(shard):
            return shard, name[at + 5 :]
        at = name.find(".tar/", at + 1)
    return None


def member(path: str | os.PathLike[str]) -> Member | None:
    """The member that a path names; None where the path leads through no shard. Raises VideoError
    where the shard has no such member, or its table is not its own."""
    if (parts := in_shard(path)) is None:
        return None
    shard, name = parts
    table_file = table_of(shard)
    try:
        size, state = os.stat(shard).st_size, os.stat(table_file)
        table = _read_table(table_file, state.st_mtime_ns, size)
    except OSError as error:
        raise VideoError(f"{path}: {table_file} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise VideoError(f"{path}: {error}") from error
    code = _hash(name)
    row = int(np.searchsorted(table.hashes, code))
    if row == len(table.hashes) or int(table.hashes[row]) != code:
        raise VideoError(f"{path}: no such member of {shard}")
    places = (int(column[row]) for column in table[1:])
    return Member(shard, *places)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file, or such a member of a shard."""
    if os.path.isfile(str(path)):
        return True
    try:
        return member(path) is not None
    except VideoError:
        return False


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is something of this name, or such a member of a shard."""
    return os.path.exists(str(path)) or is_file(path)


def open_bytes(path: str | os.PathLike[str]) -> io.BufferedIOBase | io.RawIOBase:
    """A file, or a member of a shard, to read from. Raises VideoError where the bytes of a member
    are not those that were packed; OSError."""
    place = member(path)
    return open(path, "rb") if place is None else Section(os.fspath(path), place)


def table_of(shard: str) -> str:
    """`00000.tar` -> `00000.offsets.jsonl`."""
    return shard.removesuffix(".tar") + TABLE


class Section(io.RawIOBase):
    """The bytes of a member, as a file of its own."""

    def __init__(self, path: str, place: Member) -> None:
        """Raises VideoError where they are not those that were packed, as far as that is known."""
        self.name = path
        self._place, self._at = place, 0
        self._data: bytes | None = None
        if place.size <= WHOLE:
            self._data = self._bytes(0, place.size)
            if len(self._data) < place.size or zlib.crc32(self._data) != place.crc32:
                raise VideoError(
                    f"{path}: not what was packed: {place.shard} has been changed since, or its"
                    " offset table is another shard's; pack it anew"
                )

    def _bytes(self, start: int, size: int) -> bytes:
        file = os.open(self._place.shard, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            os.lseek(file, self._place.offset + start, os.SEEK_SET)
            parts = []
            while size > 0 and (part := os.read(file, size)):
                parts.append(part)
                size -= len(part)
            return b"".join(parts)
        finally:
            os.close(file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._place.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), max(0, self._place.size - self._at))
        end = self._at + size
        data = self._bytes(self._at, size) if self._data is None else self._data[self._at : end]
        self._at += len(data)
        buffer[: len(data)] = data
        return len(data)


def _hash(name: str) -> int:
    data = name.encode("utf-8", NAME_ERRORS)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


@lru_cache(maxsize=_TABLES)
def _read_table(file: str, state: int, size: int) -> _Table:
    """The table of a shard of `size` bytes; `state` tells a changed file. Raises ValueError, in a
    sentence, where it is not that shard's."""
    head, *lines = Path(file).read_text(encoding="utf-8").splitlines() or [""]
    rows = []
    try:
        first = json.loads(head)
        stated = int(first["bytes"]), str(first["shard"])
        for line in lines:
            row = json.loads(line)
            rows.append((_hash(row["name"]), row["offset"], row["size"], row["crc32"]))
        rows.sort()
        places = np.array(rows, np.uint64).reshape(len(rows), 4)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is no offset table of froster pack") from error
    shard = file.removesuffix(TABLE) + ".tar"
    if stated != (size, os.path.basename(shard)):
        raise ValueError(
            f"{shard} has {size} bytes, and its offset table is of {stated[1]} with {stated[0]}:"
            " it is cut off, or the table is another shard's; copy or pack them anew"
        )
    offsets, sizes, sums = (places[:, column].astype(np.int64) for column in (1, 2, 3))
    if len(rows) and int((offsets + sizes).max()) > size:
        raise ValueError(f"{file} is no offset table of {shard}: members lie beyond its end")
    return _Table(places[:, 0].copy(), offsets, sizes, sums)
