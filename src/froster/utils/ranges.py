"""A file at an address that can be read anywhere, as a decoder wants it: by blocks, of which the
last are kept, or whole where the server gives no parts."""

from __future__ import annotations

import io
import struct
import tempfile
from collections import OrderedDict
from functools import cached_property
from typing import BinaryIO

from froster.utils.address import Address
from froster.utils.remote import MOST_BYTES, RemoteState, failed, source_of

BLOCK = 1 << 18
KEPT = 128
"""Blocks: 32 MB."""
_MOST_AHEAD = 16
"""Blocks of one request, where a file is read from one to the next."""
_HEADER, _LONG = struct.Struct(">I4s"), struct.Struct(">Q")
_MOST_BOXES = 64


class RemoteData:
    """What has been read of a file at an address; a context manager, or to be `close`d. Raises
    OSError, also where the file changes meanwhile."""

    def __init__(self, address: Address) -> None:
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._spool: BinaryIO | None = None
        self.address = address
        self.source = source_of(address)
        self._next, self._ahead = 0, 1
        self._state: RemoteState | None = None
        if address.scheme in ("http", "https"):
            self._fetch(0)
        else:
            self._state = self.source.state()

    def __enter__(self) -> RemoteData:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        self._blocks.clear()
        if self._spool is not None:
            self._spool.close()

    @property
    def size(self) -> int:
        if self._spool is not None:
            return self._spool.seek(0, io.SEEK_END)
        assert self._state is not None and self._state.size is not None
        return self._state.size

    def between(self, start: int, end: int) -> bytes:
        if self._spool is not None:
            self._spool.seek(start)
            return self._spool.read(max(0, end - start))
        end = min(end, self.size)
        if start >= end:
            return b""
        first, last = start // BLOCK, (end - 1) // BLOCK
        data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[start - first * BLOCK : end - first * BLOCK]

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._next else 1
        count = 1
        while count < self._ahead and number + count not in self._blocks:
            count += 1
        self._fetch(number, count)
        self._next = number + count
        return self._blocks[number]

    def _fetch(self, number: int, count: int = 1) -> None:
        start = number * BLOCK
        end = start + count * BLOCK
        if self._state is not None and self._state.size is not None:
            end = min(end, self._state.size)
        data, state = self.source.part(start, end)
        if self._state is None and (not state.ranges or state.size is None):
            self._copy()
            return
        if self._state is None:
            self._state = state
        elif state.size not in (None, self._state.size) or (
            state.version and state.version != self._state.version
        ):
            raise failed("the file changed while it was read; do it again when it is complete")
        elif len(data) < end - start:
            raise failed(f"ended after {start + len(data)} of {self._state.size} bytes")
        for place in range(count):
            self._blocks[number + place] = data[place * BLOCK : (place + 1) * BLOCK]
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)

    def _copy(self) -> None:
        """All of it, onto the disk, under no name."""
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self.source.copy(self._spool, MOST_BYTES)
        except BaseException:
            self._spool.close()
            raise

    @cached_property
    def samples(self) -> list[tuple[int, int]]:
        """Where an mp4 holds its pictures and its sound, of which nothing is needed to list them:
        the ranges within its `mdat`; none where the list stands between them."""
        ranges: list[tuple[int, int]] = []
        place = 0
        for _ in range(_MOST_BOXES):
            head = self.between(place, place + 16)
            if len(head) < 8:
                return ranges
            (size, kind), start = _HEADER.unpack_from(head), place + 8
            if size == 1 and len(head) == 16:
                (size,), start = _LONG.unpack_from(head, 8), place + 16
            end = self.size if size == 0 else place + size
            if end < start or kind == b"moof":
                return []
            if kind == b"mdat":
                ranges.append((start, min(end, self.size)))
            place = end
        return []


class RemoteFile:
    """A view of `data` with a place of its own, as `av.open` takes it. What is in `hollow` reads as
    zeros and is not fetched."""

    def __init__(self, data: RemoteData) -> None:
        self.data, self.name = data, str(data.address)
        self.hollow: list[tuple[int, int]] = []
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.data.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def read(self, count: int) -> bytes:
        start, end = self._place, min(self._place + count, self.data.size)
        if start >= end:
            return b""
        for first, after in self.hollow:
            if first <= start < after:
                self._place = min(end, after)
                return bytes(self._place - start)
            if start < first < end:
                end = first
        self._place = end
        return self.data.between(start, end)
