"""Small videos whose frames carry their own number, made when a test needs them."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from torch import Tensor

BITS = 10


def shared(*parts: str) -> Path:
    """A file or folder of the material beside the repository; skips the test where it is absent."""
    for folder in Path(__file__).resolve().parents:
        path = folder.joinpath("shared", *parts)
        if path.exists():
            return path
    pytest.skip(f"{'/'.join(('shared', *parts))} is not beside the repository")


def bar_code(number: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: the number in binary, one vertical bar a bit, the highest first."""
    columns = np.arange(width) * BITS // width
    bright = (number >> (BITS - 1 - columns)) & 1
    return np.broadcast_to((bright * 200 + 28).astype(np.uint8)[None, :, None], (height, width, 3))


def numbers(frames: Tensor) -> list[int]:
    """The numbers that frames (n, H, W, 3) carry."""
    columns = np.arange(frames.shape[2]) * BITS // frames.shape[2]
    found = []
    for frame in frames.numpy():
        bits = [frame[:, columns == bit].mean() > 128 for bit in range(BITS)]
        found.append(int("".join("1" if bit else "0" for bit in bits), 2))
    return found


def make_video(
    path: Path,
    count: int,
    codec: str = "libx264",
    *,
    fps: int | Fraction = 25,
    size: tuple[int, int] = (80, 48),
    pix_fmt: str = "yuv420p",
    b_frames: int = 0,
    gop: int = 12,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A video of `count` bar codes; `times` are the presentation times in milliseconds of a
    variable rate."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        if codec == "libx264":
            stream.codec_context.thread_count = 1  # more give other pixels each time
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        if codec != "gif":
            stream.codec_context.max_b_frames = b_frames
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        converter = VideoReformatter()  # to set one up takes ten times as long as a frame
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(bar_code(number, *size)), format="rgb24"
            )
            frame = converter.reformat(frame, format=pix_fmt, threads=1)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, 1) / fps if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_without_decoding(source: Path, target: Path, first: int) -> Path:
    """A stream copy from frame `first` on: earlier frames since the key frame stay, hidden by an
    edit list."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        start = round(first / stream.average_rate / stream.time_base)
        reading.seek(start, stream=stream)
        for packet in reading.demux(stream):
            if packet.dts is not None:
                packet.pts -= start
                packet.dts -= start
                packet.stream = copy
                writing.mux(packet)
    return target


def rotate_clockwise(path: Path) -> Path:
    """Writes the display matrix of a phone held upright into an mp4: to be shown turned clockwise
    by 90 degrees."""
    return write_matrix(path, 0, 1, -1, 0)


def write_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """Writes the display matrix of an mp4: a pixel goes to x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(
        ">9i", round(a * one), round(b * one), 0, round(c * one), round(d * one), 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)
    return path


def join(path: Path, parts: Sequence[Path]) -> Path:
    """As `cat` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def orientation_message(degrees: int, mirrored: bool = False, hevc: bool = False) -> bytes:
    """A unit of H.264 or HEVC: to be mirrored from left to right, then turned counter-clockwise,
    until the next one."""
    bits = f"0{mirrored:b}0{degrees * 65536 // 360:016b}" + ("1" if hevc else "0100")  # it persists
    bits += "1" if len(bits) % 8 else ""
    payload = bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
    message = bytes([47, len(payload)]) + payload + b"\x80"
    return (b"\x4e\x01" if hevc else b"\x06") + message


def with_units(source: Path, target: Path, unit_of: Callable[[av.Packet, int], bytes]) -> Path:
    """A copy of H.264 or HEVC from mp4 or mkv, with a unit more at the head of packets: by packet
    and number of it."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in reading.demux(stream) if packet.size):
            unit = unit_of(packet, number)
            changed = av.Packet(
                (len(unit).to_bytes(4, "big") + unit if unit else b"") + bytes(packet)
            )
            changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
            changed.time_base, changed.is_keyframe, changed.stream = (
                packet.time_base,
                packet.is_keyframe,
                copy,
            )
            writing.mux(changed)
    return target
