"""What the packets of H.264 and HEVC hold, unit by unit: without decoding them it can be told which
pictures nothing refers to, and where pictures are to be turned from there on."""

from __future__ import annotations

from collections.abc import Iterator

import av

# Kinds of H.264's units: part of a picture, message, delimiter, filler.
_SLICE, _SEI, _DELIMITER, _FILLER = 1, 6, 9, 12
_ORIENTATION = 47
"""The kind of a message that says how the pictures from there on are to be turned."""
# Of a unit: bytes of its header; shift and mask that give its kind; the kind with messages, and
# those with a part of the picture.
_UNITS = {"h264": (1, 0, 31, 6, range(1, 6)), "hevc": (2, 1, 63, 39, range(32))}


def prefix_bytes(context: av.VideoCodecContext) -> int:
    """How many bytes state the size of each unit in a packet of H.264 or HEVC, as in mp4 and mkv;
    0 where units are not stored so."""
    header = context.extradata or b""
    last, at = (7, 4) if context.name == "h264" else (23, 21)
    if context.name not in _UNITS or len(header) < last or header[0] != 1:
        return 0
    return (header[at] & 3) + 1


def _sized_units(data: memoryview, prefix: int) -> Iterator[tuple[int, int]]:
    """Start and end of the units where `prefix` bytes with each one's size stand before it."""
    end = 0
    while end + prefix < len(data):
        start = end + prefix
        end = start + int.from_bytes(data[end:start], "big")
        yield start, end


def _marked_units(data: memoryview) -> Iterator[tuple[int, int]]:
    """Start and end of the units where a mark stands between them, as in a TS."""
    packet, mark = bytes(data), b"\0\0\1"
    start = packet.find(mark) + 3
    while 3 <= start < len(packet):
        end = packet.find(mark, start)
        yield start, len(packet) if end < 0 else end
        start = end + 3


def unreferenced(packet: av.Packet, prefix: int) -> bool:
    """Whether the packet of an H.264 stream holds slices of an unreferenced picture and nothing
    that later packets need; False wherever there is a doubt. The standard lets any of these be left
    out (nal_ref_idc 0, "not used for reference", 7.4.1): about half of the frames of x264."""
    data = memoryview(packet)
    slices = place = 0
    for start, end in _sized_units(data, prefix):
        kind, referenced = data[start] & 31, data[start] >> 5 & 3
        if kind == _SLICE and not referenced:
            slices += 1
        elif kind not in (_SEI, _DELIMITER, _FILLER):
            return False
        place = end
    return slices > 0 and place == len(data)


class TurnMessages:
    """Asked of every packet of a stream: whether it holds a message that turns the pictures from
    there on. Only the units before the picture are looked at."""

    def __init__(self, context: av.VideoCodecContext) -> None:
        self._known = context.name in _UNITS
        self._header, self._shift, self._mask, self._messages, self._picture = _UNITS.get(
            context.name, _UNITS["h264"]
        )
        self._prefix = prefix_bytes(context)

    def __call__(self, packet: av.Packet) -> bool:
        if not self._known:
            return False
        data, prefix = memoryview(packet), self._prefix
        if prefix and len(data) > prefix and self._kind(data, prefix) in self._picture:
            return False  # as most packets are, without the work below
        for start, end in _sized_units(data, prefix) if prefix else _marked_units(data):
            kind = self._kind(data, start)
            if kind in self._picture:
                return False
            if kind == self._messages:
                unit = bytes(data[start + self._header : end])
                if _ORIENTATION in message_kinds(unit):
                    return True
        return False

    def _kind(self, data: memoryview, start: int) -> int:
        return data[start] >> self._shift & self._mask


def message_kinds(unit: bytes) -> list[int]:
    """The kinds of the messages in a unit after its header; of a damaged one those before the
    damage."""
    data, place = unit.replace(b"\0\0\3", b"\0\0"), 0
    kinds = []
    while place + 2 < len(data):  # the last byte ends the unit
        kind, place = _sum(data, place)
        size, place = _sum(data, place)
        kinds.append(kind)
        place += size
    return kinds


def _sum(data: bytes, place: int) -> tuple[int, int]:
    """A number as 255 + 255 + … + a rest, and the place after it."""
    number = 0
    while place < len(data):
        number, place = number + data[place], place + 1
        if data[place - 1] < 255:
            break
    return number, place
