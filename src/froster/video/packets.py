"""What the packets of a file say of its frames, before any is decoded."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av

from froster.utils.ranges import RemoteData
from froster.video.container import open_hollow
from froster.video.stream import packets_past_errors
from froster.video.units import TurnMessages

NO_STAMP = -(1 << 63)
# Packets of these are listed in an mp4 as they are; of others the demuxer makes new ones of what
# they hold.
_LISTED_CODECS = ("h264", "hevc", "mpeg4", "mjpeg", "prores", "av1")


class ScannedPacket(NamedTuple):
    """What is kept of one."""

    pts: int | None
    dts: int | None
    duration: int | None
    key: bool
    discard: bool
    turns: bool
    "whether it says how pictures are to be turned from there on"

    @classmethod
    def of(cls, packet: av.Packet, turns: bool) -> ScannedPacket:
        return cls(
            packet.pts, packet.dts, packet.duration, packet.is_keyframe, packet.is_discard, turns
        )


def stamp(timed: av.Packet | av.VideoFrame | ScannedPacket) -> int:
    """Its time stamp, or one that no frame has."""
    return NO_STAMP if timed.pts is None else timed.pts


def scanned(packets: Iterable[av.Packet], context: av.VideoCodecContext) -> list[ScannedPacket]:
    """All of them, each looked at."""
    turns = TurnMessages(context)
    return [ScannedPacket.of(packet, turns(packet)) for packet in packets]


def listed(
    path: Path, data: RemoteData, first: Sequence[av.Packet], context: av.VideoCodecContext
) -> list[ScannedPacket] | None:
    """All packets of a file at an address, by its own list of them, which is all that is read; None
    where it has no such list, the list differs from the `first` packets, or one of these turns
    pictures."""
    opened = open_hollow(path, data) if context.name in _LISTED_CODECS else None
    if opened is None:
        return None
    container, stream = opened
    with container:
        packets = packets_past_errors(container, stream, lambda: None)
        scan = [ScannedPacket.of(packet, False) for packet in packets]
    looked_at = scanned(first, context)
    return scan if scan[: len(looked_at)] == looked_at else None


def checked(
    packets: Iterable[av.Packet],
    context: av.VideoCodecContext,
    key: int | None,
    differs: Callable[[], Exception],
) -> Iterator[av.Packet]:
    """Packets that were `listed`, as they are read, from the key frame with the stamp `key` on;
    raises `differs()` where one turns pictures, or that one is no key frame."""
    turns = TurnMessages(context)
    for packet in packets:
        if turns(packet) or (key is not None and packet.pts == key and not packet.is_keyframe):
            raise differs()
        yield packet


def can_be_index(
    scan: Sequence[ScannedPacket],
    stamps: Sequence[int],
    context: av.VideoCodecContext,
    of_decoding: bool,
) -> bool:
    """Can the packets' time stamps be the index? `stamps` are those of what is shown;
    `of_decoding`: those of avi, which has the times of decoding only."""
    decoded = [packet.dts for packet in scan if packet.dts is not None]
    clock_runs_on = all(a <= b for a, b in itertools.pairwise(decoded))
    in_order = all(a < b for a, b in itertools.pairwise(stamps))
    # Other containers have them where there is no sign of another order.
    return (
        scan[0].key
        and all(packet.pts is not None for packet in scan)
        and clock_runs_on
        and len(set(stamps)) == len(stamps)
        and context.name != "vp8"  # has packets that show nothing
        and not (context.has_b_frames and (in_order or of_decoding))
    )
