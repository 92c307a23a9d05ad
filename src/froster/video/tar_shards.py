"""Videos in tar shards, read by offset: the file `shards/00000.tar/surfing/a.mp4` is the member
`surfing/a.mp4` of the shard `shards/00000.tar`, whose offset table lies beside it. A shard may lie
at an address: its table is read once by each process, and a member by one request.

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
from froster.utils.address import Address, as_path, is_address, unquoted
from froster.utils.files import NAME_ERRORS
from froster.utils.ranges import RemoteData
from froster.utils.remote import source_of, state_of, version_number

TABLE = ".offsets.jsonl"
_TABLES = 4096
"""Offset tables that a process keeps: 28 bytes a member."""
WHOLE = 1 << 26
"""Bytes. A member of this size at most is read at once, as opening a video reads all of it, and its
checksum is verified; a longer one is read in parts."""


class Member(NamedTuple):
    """Where the bytes of a video lie."""

    shard: str
    state: int
    "of the shard: when it was changed, in nanoseconds, or of its version at an address"
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
    """The shard and the name in it of a path that leads through a tar file; None for all others. At
    an address what has an offset table is a shard: raises OSError and ValueError as `_table_at`."""
    name = str(path).replace(os.sep, "/")
    if ".tar/" not in name:
        return None
    at_address = is_address(path)
    name = str(as_path(path)) if at_address else name
    at = name.find(".tar/")
    while at >= 0:
        shard = name[: at + 4]
        if _table_at(shard) is not None if at_address else os.path.isfile(shard):
            return shard, name[at + 5 :]
        at = name.find(".tar/", at + 1)
    return None


def member(path: str | os.PathLike[str]) -> Member | None:
    """The member that a path names; None where the path leads through no shard. Raises VideoError
    where the shard has no such member, or its table is not its own or cannot be read."""
    try:
        if (parts := in_shard(path)) is None:
            return None
        shard, name = parts
        table, state = (_table_at(shard) if is_address(shard) else None) or _table_here(shard)
    except OSError as error:
        cause = error.strerror or str(error)
        raise VideoError(f"{path}: the table of its shard cannot be read ({cause})") from error
    except ValueError as error:
        raise VideoError(f"{path}: {error}") from error
    names = (name, unquoted(Address(shard), name)) if is_address(shard) else (name,)
    for code in map(_hash, names):
        row = int(np.searchsorted(table.hashes, code))
        if row < len(table.hashes) and int(table.hashes[row]) == code:
            return Member(shard, state, *(int(column[row]) for column in table[1:]))
    raise VideoError(f"{path}: no such member of {shard}")


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
    return open(path, "rb") if place is None else Section(str(path), place)


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
        self._blocks: RemoteData | None = None
        if place.size <= WHOLE:
            self._data = self._bytes(0, place.size)
            if len(self._data) < place.size or zlib.crc32(self._data) != place.crc32:
                raise VideoError(
                    f"{path}: not what was packed: {place.shard} has been changed since, or its"
                    " offset table is another shard's; pack it anew"
                )

    def _bytes(self, start: int, size: int) -> bytes:
        if is_address(self._place.shard):
            try:
                return self._bytes_at_address(Address(self._place.shard), start, size)
            except OSError as error:
                raise VideoError(f"{self.name}: {error.strerror or error}") from error
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

    def _bytes_at_address(self, shard: Address, start: int, size: int) -> bytes:
        """In one request where it is all of a member, else by blocks that are kept."""
        start += self._place.offset
        if self._place.size <= WHOLE:
            return source_of(shard).part(start, start + size)[0]
        self._blocks = self._blocks or RemoteData(shard)
        return self._blocks.between(start, start + size)

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


def _table_here(shard: str) -> tuple[_Table, int]:
    """Of a shard on this machine, with the time of its last change. Raises OSError, ValueError."""
    about, state = os.stat(shard), os.stat(table_of(shard))
    return _read_table(table_of(shard), state.st_mtime_ns, about.st_size), about.st_mtime_ns


@lru_cache(maxsize=_TABLES)
def _read_table(file: str, state: int, size: int) -> _Table:
    """The table of a shard of `size` bytes; `state` tells a changed file. Raises OSError; and
    ValueError, in a sentence, where it is not that shard's."""
    return _parsed(Path(file).read_bytes(), file, size)


@lru_cache(maxsize=_TABLES)
def _table_at(shard: str) -> tuple[_Table, int] | None:
    """Of a shard at an address, with a number of its version; None where it has no table. Raises
    OSError, ValueError."""
    file = Address(table_of(shard))
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    state = state_of(Address(shard))
    if not state.ranges or state.size is None:
        raise ValueError(f"the server gives no parts of {shard}: copy the pack to this machine")
    return _parsed(data, str(file), state.size), version_number(state)


def _parsed(data: bytes, file: str, size: int) -> _Table:
    rows = []
    try:
        head, *lines = data.decode("utf-8").splitlines() or [""]
        first = json.loads(head)
        stated = int(first["bytes"]), str(first["shard"])
        for line in lines:
            row = json.loads(line)
            rows.append((_hash(row["name"]), row["offset"], row["size"], row["crc32"]))
        rows.sort()
        places = np.array(rows, np.uint64).reshape(len(rows), 4)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
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
