"""What can be watched: a camera, an address, or a file that plays at its own speed, and how each is
opened."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import av

from froster.errors import UsageError, VideoError
from froster.video.opening import FORMATS, open_file, video_stream
from froster.video.stream import Stream

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
class Source:
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
        options = {
            "format_whitelist": formats,
            "protocol_whitelist": PROTOCOLS[self.protocol],
            **_PROBE,
        }
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
    """Opens an address in a process of its own. Raises VideoError where that fails or takes longer."""
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
