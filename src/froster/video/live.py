"""A source that plays at its own pace (camera, address, file), read by a thread."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import av

from froster.errors import FrosterError, UsageError, VideoError
from froster.video.container import FORMATS, open_file, video_stream
from froster.video.stream import Frame, Stream
from froster.video.windows import HeldFrame, Keep

# Protocols that an address may lead to. None of them is `file`: what comes from outside never opens
# anything here.
PROTOCOLS = {
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tls,tcp",
    "srt": "srt,udp",
    "tcp": "tcp",
    "udp": "udp",
}
# Formats beside those of files that belong to a protocol; a play list may only lead to what its
# protocol allows.
_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp"}
_PLAY_LISTS = ("http", "https")
# A play list may lead to play lists without end. FFmpeg opens them all, and what that took comes
# back with a process alone, which ends with us too: then its input does.
_OPENER = """
import json, os, sys, threading, av
name, options, timeout = json.loads(sys.stdin.readline())
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
try:
    av.open(name, metadata_errors="replace", options=options, timeout=timeout).close()
except (av.FFmpegError, OSError) as error:
    print(error.strerror or error, flush=True)
os._exit(0)
"""
# To find out what a live stream holds, FFmpeg by itself reads on for five seconds.
_PROBE = {"analyzeduration": "1000000", "probesize": "1000000"}


@dataclass(frozen=True)
class StreamSource:
    """Raises UsageError on an address of a protocol that is not in `PROTOCOLS`."""

    name: str
    """rtsp://…, http://…, /dev/video0, or a file's path."""

    def __post_init__(self) -> None:
        if "://" in self.name and self.protocol not in PROTOCOLS:
            known = ", ".join(f"{protocol}://" for protocol in PROTOCOLS)
            raise UsageError(
                f"{self.name}: not an address that can be watched ({known}), nor the path of a file"
                " or camera"
            )

    @property
    def protocol(self) -> str:
        return self.name.partition("://")[0].lower() if "://" in self.name else ""

    @property
    def is_camera(self) -> bool:
        return self.name.startswith("/dev/video")

    @property
    def is_file(self) -> bool:
        return not self.protocol and not self.is_camera

    def open(self, timeout: float) -> Stream:
        """Raises VideoError or av.FFmpegError; av.ExitError where nothing came for `timeout`
        seconds, then or later."""
        if self.is_file:
            return Stream(*open_file(Path(self.name)))
        container = (
            av.open(self.name, format="v4l2", timeout=timeout)
            if self.is_camera
            else self._open_address(timeout)
        )
        return Stream(container, video_stream(container, self.name))

    def _open_address(self, timeout: float) -> av.container.InputContainer:
        formats = ",".join(filter(None, [FORMATS, _FORMATS.get(self.protocol)]))
        protocols = PROTOCOLS[self.protocol]
        options = {"format_whitelist": formats, "protocol_whitelist": protocols, **_PROBE}
        if self.protocol in _FORMATS:
            options["rtsp_flags"] = "prefer_tcp"
        end = time.monotonic() + timeout
        try:
            return av.open(self.name, metadata_errors="replace", options=options, timeout=timeout)
        except av.ArgumentError:  # of another format
            if self.protocol not in _PLAY_LISTS:
                raise
        options["format_whitelist"] += ",hls"
        open_apart(self.name, options, end - time.monotonic())
        left = max(end - time.monotonic(), 0.1)
        return av.open(self.name, metadata_errors="replace", options=options, timeout=left)


def open_apart(name: str, options: dict[str, str], timeout: float) -> None:
    """Opens an address in a process of its own. Raises VideoError if that fails or takes longer."""
    command = [sys.executable, "-c", _OPENER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as opener:
        assert opener.stdin is not None and opener.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            opener.stdin.write(json.dumps([name, options, timeout]) + "\n")
            opener.stdin.flush()
        try:
            opener.wait(max(timeout, 0))
        except subprocess.TimeoutExpired:
            opener.kill()
            raise VideoError(f"{name}: its play list did not open in time") from None
        if cause := opener.stdout.read().strip():
            raise VideoError(f"{name}: cannot be read ({cause})")


_LONGEST_WAIT = 30.0  # between two tries
_LONGEST_SKIP = 10.0  # without a key frame
_WAITED = 0.002  # a packet that takes longer to come was not waiting for us: there is no backlog


@dataclass(frozen=True)
class Policy:
    """What to do about a source that fails."""

    stall: float = 10.0
    """Seconds without a frame after which the connection is given up."""
    reconnect: float = 1.0
    """Seconds to the first new try; each further one in a row waits twice as long, up to half a
    minute."""
    tries: int | None = None
    """Tries in a row before giving up; None: never."""


@dataclass(frozen=True, eq=False)
class Arrival:
    """A frame that was sampled."""

    sample: HeldFrame
    due: float
    """When it came, or should have come if reading had not been late; on the clock of
    `time.monotonic`."""
    fresh: bool
    """The first one of a connection: it does not follow on the one before."""


class Live:
    """Samples of a source, one every `step` seconds; at most `room` of them wait. To be `close`d.

    What states a length (a file, here or at an address) plays at its own speed and ends. All else
    is opened again whenever it ends or stalls, but not if the very first try fails.
    """

    def __init__(
        self,
        source: StreamSource,
        step: float,
        room: int,
        keep: Keep,
        policy: Policy,
        patience: float,
    ):
        """`patience`: seconds that reading may be late before packets are passed over."""
        self.source, self.step, self.keep = source, step, keep
        self.policy, self.patience = policy, patience
        self.notes: SimpleQueue[str] = SimpleQueue()
        """What happened to the source, for people to read."""
        self.dropped = 0
        """Frames that were passed over undecoded, or sampled and never taken."""
        self.connections = 0
        self.error: FrosterError | None = None
        """Why it ended, if that was a failure."""
        self._waiting: deque[Arrival] = deque(maxlen=room)
        self._changed = threading.Condition()
        self._ended = False
        self._stop = threading.Event()
        self._time = 0.0  # the newest sample's
        self._came: float | None = None  # when it came
        self._thread = threading.Thread(
            target=self._run, name=f"froster watch {source.name}", daemon=True
        )
        self._thread.start()

    def take(self, timeout: float) -> list[Arrival]:
        """What has come since the last call, oldest first; for that it waits `timeout` seconds."""
        with self._changed:
            if not self._waiting and not self._ended:
                self._changed.wait(timeout)
            arrivals = list(self._waiting)
            self._waiting.clear()
        return arrivals

    @property
    def ended(self) -> bool:
        with self._changed:
            return self._ended and not self._waiting

    def new_notes(self) -> list[str]:
        """The notes since the last call."""
        notes = []
        with contextlib.suppress(Empty):
            while True:
                notes.append(self.notes.get_nowait())
        return notes

    def close(self) -> None:
        """The thread may still wait for the source; it ends by itself, and with the process."""
        self._stop.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            self._keep_connected()
        except Exception as error:  # it must not die in silence
            if not isinstance(error, FrosterError):
                error = VideoError(f"{self.source.name}: {error!r}")
            self.error = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _keep_connected(self) -> None:
        failures = 0
        while not self._stop.is_set():
            before = self._came
            cause = self._connect()
            if self._stop.is_set() or cause is None:
                return
            failures = 1 if self._came != before else failures + 1
            if self.connections == 0:
                raise VideoError(f"{self.source.name}: {cause}")
            if self.policy.tries is not None and failures > self.policy.tries:
                raise VideoError(
                    f"{self.source.name}: {cause}; gave up after {self.policy.tries} tries to"
                    " reconnect"
                )
            wait = min(self.policy.reconnect * 2 ** min(failures - 1, 20), _LONGEST_WAIT)
            self.notes.put(f"{self.source.name}: {cause}; reconnecting in {wait:g} s")
            self._stop.wait(wait)

    def _connect(self) -> str | None:
        """Read one connection to its end. Why another one is needed; None where it is not."""
        try:
            with self.source.open(self.policy.stall) as stream:
                self.connections += 1
                if self.connections > 1:
                    self.notes.put(f"{self.source.name}: connected again")
                plays = self.source.is_file or stream.duration is not None
                self._follow(stream, plays)
                return None if plays else "the stream ended"
        except (av.ExitError, TimeoutError):
            return f"nothing came for {self.policy.stall:g} s"
        except VideoError as error:
            return str(error).removeprefix(f"{self.source.name}: ")
        except (av.FFmpegError, OSError, IndexError) as error:
            return f"cannot be read ({getattr(error, 'strerror', None) or error})"

    def _follow(self, stream: Stream, plays: bool) -> None:
        connection = _OpenStream(stream, plays, self.patience)
        last = asked = time.monotonic()
        packets = stream.packets() if self.source.is_file else stream.container.demux(stream.stream)
        for packet in packets:
            if self._stop.is_set():
                return
            arrived = time.monotonic()
            frames = connection.frames(packet, asked, arrived)
            with self._changed:
                self.dropped += frames is None
            for frame in frames or []:
                last = arrived
                self._sample(frame, connection, arrived)
            if arrived - last > self.policy.stall + connection.skipped_for(arrived):
                raise TimeoutError
            asked = time.monotonic()
        # A file's packets end without the empty one that makes the decoder give the last frames.
        if self.source.is_file:
            for frame in stream.decode(None):
                self._sample(frame, connection, asked)

    def _sample(self, frame: Frame, connection: _OpenStream, arrived: float) -> None:
        due = connection.due(frame, arrived)
        if connection.paced and due > time.monotonic():
            self._stop.wait(due - time.monotonic())
        if connection.fresh:
            connection.wanted = frame.time
            if self._came is not None:
                connection.base = self._time + time.monotonic() - self._came - frame.time
        if frame.time < connection.wanted - 1e-4:
            return
        connection.wanted = max(connection.wanted, frame.time - self.step / 2) + self.step
        sample = self.keep(frame)
        sample.time = self._time = connection.base + frame.time
        self._came = time.monotonic()
        with self._changed:
            self.dropped += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(Arrival(sample, due, connection.fresh))
            self._changed.notify()
        connection.fresh = False


class _OpenStream:
    """One connection: how late it is read, and what is passed over for that."""

    def __init__(self, stream: Stream, paced: bool, patience: float):
        self.stream, self.paced, self.patience = stream, paced, patience
        self.base = 0.0  # from the frames' times to those of all connections
        self.wanted = 0.0  # the time of the next sample
        self.fresh = True
        self.late = 0.0
        # From the packets' clock to ours, where reading is not late.
        self._offset: float | None = None
        self._shown: float | None = None  # the same for frames
        self._skipping: float | None = None  # since when

    def frames(self, packet: av.Packet, asked: float, arrived: float) -> list[Frame] | None:
        """What a packet gives; None where it is passed over."""
        if not packet.size:
            return self.stream.decode(None)
        self.late = self._lateness(packet, asked, arrived)
        if packet.is_keyframe or self.skipped_for(arrived) > _LONGEST_SKIP:
            self._skipping = None
        elif self.late > self.patience and self._skipping is None:
            self._skipping = arrived
        return None if self._skipping is not None else self.stream.decode(packet)

    def skipped_for(self, now: float) -> float:
        return 0.0 if self._skipping is None else now - self._skipping

    def due(self, frame: Frame, arrived: float) -> float:
        if not self.paced:
            return arrived - self.late
        if self._shown is None:
            self._shown = arrived - frame.time
        return self._shown + frame.time

    def _lateness(self, packet: av.Packet, asked: float, arrived: float) -> float:
        if packet.dts is None:
            return self.late
        offset = arrived - packet.dts * self.stream.clock.tick
        edge = not self.paced and (arrived - asked > _WAITED or offset < (self._offset or offset))
        if self._offset is None or edge:
            self._offset = offset
        return offset - self._offset
