"""What can be watched: a camera, an address, or a file that plays at its own speed, and how each is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from froster.errors import UsageError
from froster.video.opening import FORMATS, open_file, video_stream
from froster.video.stream import Stream

# Protocols that an address may lead to. None of them is `file`: what comes from outside never opens anything here.
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
# Formats beside those of files that belong to a protocol; a play list may only lead to what its protocol allows.
_FORMATS = {"http": "hls", "https": "hls", "rtsp": "rtsp", "rtsps": "rtsp"}
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
            raise UsageError(f"{self.name}: not an address that can be watched ({known}), nor the path of a file or camera")

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
        """Raises VideoError or av.FFmpegError; av.ExitError where nothing came for `timeout` seconds, then or later."""
        if self.is_file:
            return Stream(*open_file(Path(self.name)))
        if self.is_camera:
            container = av.open(self.name, format="v4l2", timeout=timeout)
        else:
            formats = ",".join(filter(None, [FORMATS, _FORMATS.get(self.protocol)]))
            options = {"format_whitelist": formats, "protocol_whitelist": PROTOCOLS[self.protocol], **_PROBE}
            if "rtsp" in _FORMATS.get(self.protocol, ""):
                options["rtsp_flags"] = "prefer_tcp"
            container = av.open(self.name, metadata_errors="replace", options=options, timeout=timeout)
        return Stream(container, video_stream(container, self.name))
