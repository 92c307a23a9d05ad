"""Eight frames of a long video at an address: bytes and requests by container, and time against the
same file on this machine, from a server on this machine with parts of files."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import av
import numpy as np

from benchmarks.scale import Line
from froster.video.reader import Video

FRAMES, TOY = 30_000, 600
KINDS = ("mp4", "front.mp4", "mkv", "pieces.mp4")
_WHAT = {
    "mp4": "mp4, list at the end",
    "front.mp4": "mp4, list in front",
    "mkv": "mkv",
    "pieces.mp4": "mp4 in fragments",
}
_MOVFLAGS = {"front.mp4": "faststart", "pieces.mp4": "frag_keyframe+empty_moov"}


def long_video(path: Path, frames: int) -> Path:
    """A moving pattern of 160 x 120 pixels, 25 frames a second, a key frame every 2 seconds."""
    flags = next((flag for end, flag in _MOVFLAGS.items() if path.name.endswith(end)), None)
    options = {"movflags": flags} if flags else {}
    pattern = np.random.default_rng(0).integers(0, 255, (30, 340, 3), np.uint8)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.gop_size = 50
        for number in range(frames):
            part = pattern[:, number % 300 : number % 300 + 40].repeat(4, 0).repeat(4, 1)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(part), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def eight_of(frames: int) -> list[int]:
    return [round((number + 0.5) * frames / 8) for number in range(8)]


def run(toy: bool) -> list[Line]:
    from tests.http_server import Site

    site, lines = Site(), []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            file = long_video(Path(folder, f"long.{kind}"), TOY if toy else FRAMES)
            site.files[file.name] = file.read_bytes()
            site.begin()
            near = seconds(str(file))
            far = seconds(f"{site.url}/{file.name}")
            what, size = f"8 frames of a long video, {_WHAT[kind]}", file.stat().st_size
            listed = kind in ("mp4", "front.mp4")
            note = f"of {size / 1e6:.1f} MB in {len(site.asked)} requests; before: no such file"
            goal = 0.25 if listed and not toy else None
            lines.append(
                Line(f"{what}: bytes read", "share", None, site.sent / size, goal, note=note)
            )
            lines.append(Line(f"{what}: time by that of the local file", "times", None, far / near))
    site.stop()
    return lines


def seconds(path: str) -> float:
    """The shortest of three."""
    times = []
    for _ in range(3 if "://" not in path else 1):
        begun = time.perf_counter()
        with Video(path) as video:
            video.read(eight_of(video.num_frames))
        times.append(time.perf_counter() - begun)
    return min(times)
