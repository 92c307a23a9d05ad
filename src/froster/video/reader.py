"""Exact frames of a video by index, through PyAV, from files as they are: damaged, cut, rotated, of
variable rate."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from torch import Tensor

from froster.errors import VideoError
from froster.utils.address import as_path
from froster.video.container import Orientation, Orientations, open_file, remote_data, upright
from froster.video.packets import can_be_index, checked, listed, scanned, stamp
from froster.video.sampling import Timing
from froster.video.stream import Clock, packets_past_errors
from froster.video.units import prefix_bytes, unreferenced

# Where a seek lands on the packet that it should, and time stamps after it are those of a reading
# from the start.
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
# A seek costs less than one frame, for the decoder is emptied before it and nothing that it held
# back is lost.
_SEEK_GAIN = 2
_LAST = 1 << 63
# Seconds: times are sums of floats.
_LATE = 1e-6


class Video:
    """A video file, opened and indexed; `read` decodes. A context manager, or to be closed with
    `close`. The path may be an address.

    Opening reads all packets but decodes one frame; of an mp4 at an address it reads their list
    alone. The packets' time stamps are the index where
    they can be trusted; where not (none, doubtful ones, packets that show nothing) every frame is
    decoded once and counted. Raises VideoError, which names the file and the cause, where not one
    frame can be had.
    """

    path: Path
    fps: float
    "average frames per second"
    width: int
    "pixels, as shown: mirrored and turned as the file asks, but taken as square"
    height: int
    damaged: int
    "how many of the frames asked for could not be decoded, so that the nearest one stood in"

    def __init__(self, path: str | Path) -> None:
        self.path = as_path(path)
        self.damaged = 0
        self._errors = 0
        self._sound = False
        self._converter = VideoReformatter()
        self._data = remote_data(self.path)
        self._container, self._stream = open_file(self.path, self._data)
        try:
            self._index()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()
        if self._data is not None:
            self._data.close()

    @property
    def num_frames(self) -> int:
        """How many frames `read` can give."""
        return len(self._pts)

    @property
    def timing(self) -> Timing:
        """What `Sampling` needs to know."""
        return Timing(self._pts, self.fps, self._header_frames, self._duration)

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "n height width 3"]:
        """Frames by index, in any order and with repeats: RGB, native size, upright, all of the
        size of the first frame of the video.

        Each needed frame is decoded once, in one pass that seeks over what is not needed. The
        nearest frame stands in for one that cannot be decoded, and `damaged` counts it. Where
        decoding shows that the packets misled, the frames are counted, `num_frames` changes, and an
        index that is now beyond the end means the last frame. Raises IndexError for an index
        outside [0, num_frames), VideoError where no frame can be decoded.
        """
        for index in indices:
            if not 0 <= index < self.num_frames:
                raise IndexError(f"{self.path}: no frame {index} among {self.num_frames}")
        try:
            return self._frames_at(indices)
        except _Unlisted:
            self._reopen()
            self._index(by_list=False)
            return self._frames_at([min(index, self.num_frames - 1) for index in indices])

    def _frames_at(self, indices: Sequence[int]) -> Tensor:
        pictures = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        if self._sound:
            try:
                self._fill(pictures, list(indices), self._needed)
                return torch.from_numpy(pictures)
            except _Misled:
                self._sound = False
                self._reopen()  # for what a decoder makes of damage depends on what it has seen
        try:
            self._fill(pictures, list(indices), self._shown)
        except _Misled:
            self._count()
            self._fill(pictures, [min(i, self.num_frames - 1) for i in indices], self._shown)
        return torch.from_numpy(pictures)

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last one, by their times and not by the rate."""
        times, clock = self.times(), Clock.of(self._container, self._stream)
        return clock.end(times[-1], self._last_duration) - times[0]

    def times(self) -> list[float]:
        """When each frame is shown, in seconds after the first one; they go forward whatever the
        time stamps do."""
        if self._times is not None:
            return self._times
        clock = Clock.of(self._container, self._stream)
        times = [clock.time(pts) for pts in self._pts]
        return [time - times[0] for time in times]

    def index_at(self, seconds: float) -> int:
        """The frame that is shown that long after the first."""
        return max(0, bisect_right(self.times(), seconds + _LATE) - 1)

    def _fill(self, pictures: np.ndarray, indices: list[int], decode: _Decode) -> None:
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            places.setdefault(index, []).append(place)
        filled: dict[int, int] = {}  # index -> position of the frame shown for it

        def put(index: int, shown: _Shown) -> None:
            # A broken frame may not convert.
            with contextlib.suppress(av.FFmpegError, ValueError, MemoryError):
                pictures[places[index]] = upright(
                    shown.frame, (self.width, self.height), shown.orientation, self._converter
                )
                filled[index] = shown.position

        for key, run in self._runs(sorted(places)):
            pending = deque(run)
            previous: _Shown | None = None
            for shown in decode(key, run):
                while pending and pending[0] <= shown.position:
                    index = pending.popleft()
                    nearer = previous
                    if nearer is None or index - nearer.position >= shown.position - index:
                        nearer = shown
                    put(index, nearer)
                if not pending:
                    break
                previous = shown
            if previous is not None:
                for index in pending:
                    put(index, previous)
        if places and not filled:
            raise VideoError(f"{self.path}: no frame can be decoded")
        for index in places.keys() - filled.keys():
            nearest = min(filled, key=lambda other: abs(other - index))
            pictures[places[index]] = pictures[places[nearest][0]]
            filled[index] = filled[nearest]
        self.damaged += sum(index != shown_index for index, shown_index in filled.items())

    def _runs(self, wanted: list[int]) -> list[tuple[int | None, list[int]]]:
        """What to decode between seeks: time stamp of the key frame to begin at (None: the start),
        frames to take."""
        runs: list[tuple[int | None, list[int]]] = []
        for index in wanted:
            before = bisect_right(self._keys, self._pts[index])
            key = self._keys[before - 1] if before else None
            if runs and (key is None or bisect_left(self._pts, key) - runs[-1][1][-1] < _SEEK_GAIN):
                runs[-1][1].append(index)
            else:
                runs.append((key, [index]))
        return runs

    def _needed(self, key: int | None, wanted: list[int]) -> Iterator[_Shown]:
        """The wanted frames and those that they are predicted from, and no more than that is
        decoded.

        Raises _Misled where the decoder does not give just the frames whose packets it got, in
        their order and undamaged: what to make of that is left to `_shown`.
        """
        errors = self._errors
        first = expected = 0 if key is None else bisect_left(self._pts, key)
        stamps = {self._pts[index] for index in wanted}
        context = self._stream.codec_context
        prefix = prefix_bytes(context) if context.name == "h264" else 0
        due: list[int] = []  # a heap
        orientations = Orientations()

        def sent() -> Iterator[av.Packet]:
            for packet in self._packets_from(key):
                pts = stamp(packet)
                if pts not in stamps and prefix and unreferenced(packet, prefix):
                    continue
                index = self._place.get(pts, -1)
                if index >= first:
                    heapq.heappush(due, index)
                yield packet
                stamps.discard(pts)
                if not stamps:
                    return  # the decoder gives what it holds back without further packets

        for frame in self._frames(sent()):
            index, orientation = self._place.get(stamp(frame), -1), orientations.of(frame)
            if 0 <= index < first:
                continue  # as in `_shown`
            if not due or index != heapq.heappop(due) or frame.is_corrupt or self._errors != errors:
                raise _Misled
            if not all(self._pts[passed] in self._order for passed in range(expected, index)):
                raise _Misled  # promised by no packet
            yield _Shown(index, frame, orientation)
            expected = index + 1
        raise _Misled

    def _shown(self, key: int | None, wanted: list[int]) -> Iterator[_Shown]:
        """Decoded frames with their index from a key frame on. Raises _Misled where they are not
        those of the index."""
        errors = self._errors
        first = expected = 0 if key is None else bisect_left(self._pts, key)
        orientations = Orientations()
        for frame in self._frames(self._packets_from(key)):
            index = self._place.get(stamp(frame), -1) if self._trusted else expected
            orientation = orientations.of(frame)
            if 0 <= index < first:
                continue  # shown before the key frame, which alone is not enough to decode it
            if index != expected and self._errors == errors:
                raise _Misled
            if index >= expected:
                yield _Shown(index, frame, orientation)
                expected = index + 1
        if self._trusted and expected < self.num_frames and self._errors == errors:
            raise _Misled

    def _packets_from(self, key: int | None) -> Iterator[av.Packet]:
        packets = self._sought(key)
        if self._by_list:
            return checked(packets, self._stream.codec_context, key, _Unlisted)
        return packets

    def _sought(self, key: int | None) -> Iterator[av.Packet]:
        if key is not None and self._container.format.name in _SEEKABLE:
            with contextlib.suppress(av.FFmpegError):
                self._container.seek(key, stream=self._stream)
                packets = self._packets()
                landed = next(packets, None)
                order = _LAST if landed is None else self._order.get(stamp(landed), _LAST)
                if landed is not None and order <= self._order[key]:
                    return itertools.chain([landed], packets)
        self._reopen()
        return self._packets()

    def _packets(self) -> Iterator[av.Packet]:
        def count() -> None:
            self._errors += 1

        return packets_past_errors(self._container, self._stream, count)

    def _frames(self, packets: Iterable[av.Packet]) -> Iterator[av.VideoFrame]:
        for packet in packets:
            try:
                frames = self._stream.decode(packet)
            except av.FFmpegError:
                self._errors += 1
            else:
                yield from frames
        with contextlib.suppress(av.FFmpegError):
            yield from self._stream.decode(None)

    def _reopen(self) -> None:
        """For a reading from the start."""
        self._container.close()
        self._container, self._stream = open_file(self.path, self._data)

    def _index(self, by_list: bool = True) -> None:
        """Scans the packets, decodes one frame, and decides whether the packets' time stamps can be
        the index."""
        stream = self._stream
        self._header_frames = stream.frames
        self._duration = stream.duration
        packets = self._packets()
        first: list[av.Packet] = []  # what was read up to the first frame

        def kept() -> Iterator[av.Packet]:
            for packet in packets:
                first.append(packet)
                yield packet

        frame = next(self._frames(kept()), None)
        if frame is None:
            raise VideoError(f"{self.path}: {'no frame can be decoded' if first else 'no frames'}")
        scan = None
        if by_list and self._data is not None:
            scan = listed(self.path, self._data, first, stream.codec_context)
        self._by_list = scan is not None
        if scan is None:
            scan = scanned(itertools.chain(first, packets), stream.codec_context)
        self.width, self.height = Orientations().of(frame).stored(frame.width, frame.height)
        self.fps = float(stream.average_rate or stream.guessed_rate or 30)

        stamps = [packet.pts for packet in scan if not packet.discard and packet.pts is not None]
        of_decoding = self._container.format.name == "avi"
        self._trusted = can_be_index(scan, stamps, stream.codec_context, of_decoding)
        # Where pictures are turned by messages in the stream only a decoding from its start has
        # seen them all.
        turned = any(packet.turns for packet in scan)
        self._sound = self._trusted and not turned  # and nothing has shown the contrary
        self._pts = sorted(stamps)
        self._place = {pts: index for index, pts in enumerate(self._pts)}
        self._order = {
            packet.pts: number for number, packet in enumerate(scan) if packet.pts is not None
        }
        keys = (packet.pts for packet in scan if packet.key and packet.pts is not None)
        self._keys = [] if turned else sorted(keys)
        self._times: list[float] | None = None
        shown = (packet for packet in scan if not packet.discard)
        self._last_duration = max(shown, key=stamp, default=scan[-1]).duration
        if not self._trusted or not self._pts:
            self._count()

    def _count(self) -> None:
        """The other index: every frame that decodes, in the order in which they come."""
        self._reopen()
        clock = Clock.of(self._container, self._stream)
        stamps, times, duration = [], [], None
        for frame in self._frames(self._packets()):
            stamps.append(frame.pts)
            times.append(clock.time(frame.pts, frame.key_frame))
            duration = frame.duration
        if not stamps:
            raise VideoError(f"{self.path}: no frame can be decoded")
        tick = 1 / (self.fps * float(self._stream.time_base or 1))
        self._pts = [round(i * tick) if pts is None else pts for i, pts in enumerate(stamps)]
        self._times, self._last_duration = [time - times[0] for time in times], duration
        self._trusted = False
        self._keys = []


class _Misled(Exception):
    """What was decoded is not what the packets promised, though nothing failed."""


class _Unlisted(Exception):
    """A packet is not what the file's list of them promised."""


class _Shown(NamedTuple):
    position: int
    frame: av.VideoFrame
    orientation: Orientation


_Decode = Callable[[int | None, list[int]], Iterator[_Shown]]
