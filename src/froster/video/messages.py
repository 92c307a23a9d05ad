"""Whether a packet of H.264 or HEVC holds a message that says how the pictures from there on are to
be turned."""

from __future__ import annotations

from collections.abc import Iterator

import av

from froster.video.h264 import prefix_bytes

_ORIENTATION = 47
# Of a unit: bytes of its header; shift and mask that give its kind; the kind with messages, and
# those with a part of the picture.
_UNITS = {"h264": (1, 0, 31, 6, range(1, 6)), "hevc": (2, 1, 63, 39, range(32))}


class Turning:
    """Asked of every packet of a stream; the units before the picture are looked at and no more."""

    def __init__(self, context: av.VideoCodecContext) -> None:
        self._known = context.name in _UNITS
        self._header, self._shift, self._mask, self._messages, self._picture = _UNITS.get(
            context.name, _UNITS["h264"]
        )
        self._prefix = prefix_bytes(context)
        header = context.extradata
        if context.name == "hevc" and header and len(header) > 22 and header[0] == 1:
            self._prefix = (header[21] & 3) + 1

    def __call__(self, packet: av.Packet) -> bool:
        if not self._known:
            return False
        data, prefix = memoryview(packet), self._prefix
        if (
            prefix
            and len(data) > prefix
            and data[prefix] >> self._shift & self._mask in self._picture
        ):
            return False  # as most packets are, without the work below
        for start, end in self._sized(data) if prefix else _marked(data):
            kind = data[start] >> self._shift & self._mask
            if kind in self._picture:
                return False
            if kind == self._messages and _ORIENTATION in kinds(
                bytes(data[start + self._header : end])
            ):
                return True
        return False

    def _sized(self, data: memoryview) -> Iterator[tuple[int, int]]:
        """Start and end of the units where each one's size stands before it, as in mp4 and mkv."""
        place = 0
        while place + self._prefix < len(data):
            start = place + self._prefix
            place = start + int.from_bytes(data[place:start], "big")
            yield start, place


def _marked(data: memoryview) -> Iterator[tuple[int, int]]:
    """Start and end of the units where a mark stands between them, as in a TS."""
    whole, mark = bytes(data), b"\0\0\1"
    start = whole.find(mark) + 3
    while 3 <= start < len(whole):
        end = whole.find(mark, start)
        yield start, len(whole) if end < 0 else end
        start = end + 3


def kinds(unit: bytes) -> list[int]:
    """Those of the messages in a unit after its header; of a damaged one those before the damage."""
    data, place, found = unit.replace(b"\0\0\3", b"\0\0"), 0, []
    while place + 2 < len(data):  # the last byte ends the unit
        kind, place = _sum(data, place)
        size, place = _sum(data, place)
        found.append(kind)
        place += size
    return found


def _sum(data: bytes, place: int) -> tuple[int, int]:
    """A number as 255 + 255 + … + a rest, and the place after it."""
    number = 0
    while place < len(data):
        number, place = number + data[place], place + 1
        if data[place - 1] < 255:
            break
    return number, place
