"""A video file, opened so that it can be trusted to be one, and the upright picture of a decoded
frame."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from froster.errors import VideoError
from froster.video.orientation import Orientation

# What FFmpeg takes for videos though it is text, or a text that makes it open other files and
# addresses, and wait.
FORMATS = ",".join(
    sorted(
        av.formats_available - {"concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "tty"}
    )
)
# A small file can hold pictures of any size: more than this is no video (8K has half as many), and
# a picture in the middle of one may have a few times the pixels that the header states, where
# broadcasts change over to high definition.
_MOST_PIXELS, _GROWTH, _LEAST_PIXELS = 8192 * 8192, 4, 4096 * 2304
# Starting threads costs more than they save in converting a frame.
_THREADS = 1


def open_file(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Raises VideoError, which names the file and the cause."""
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if not path.is_file():  # a pipe would be waited for
        raise VideoError(
            f"{path}: {'a directory, not a file' if path.is_dir() else 'not a regular file'}"
        )
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: empty file")
        # Absolute, so that no name is taken for a protocol.
        container = av.open(
            str(path.absolute()),
            metadata_errors="replace",
            options={
                "format_whitelist": FORMATS,
                "protocol_whitelist": "file",
                "max_pixels": str(_MOST_PIXELS),
            },
        )
    except av.ArgumentError as error:
        raise VideoError(f"{path}: a text or a play list, not a video") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: not a readable video ({error.strerror})") from error
    return container, video_stream(container, str(path))


def video_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    """The stream to decode, the first that the file marks as default or else the first; never a
    cover picture.

    The container is closed where there is none.
    """
    marks = av.stream.Disposition
    streams = [
        stream for stream in container.streams.video if not stream.disposition & marks.attached_pic
    ]
    streams.sort(key=lambda stream: not stream.disposition & marks.default)
    if not streams:
        cause = "audio only" if container.streams.audio else "no video stream"
        container.close()
        raise VideoError(f"{name}: {cause}")
    if streams[0].codec_context is None:
        container.close()
        raise VideoError(f"{name}: FFmpeg has no decoder for this video")
    stated = streams[0].width * streams[0].height or _MOST_PIXELS
    streams[0].codec_context.options = {
        "max_pixels": str(min(_MOST_PIXELS, max(_LEAST_PIXELS, _GROWTH * stated)))
    }
    # Frame threads can dead-lock when the file is damaged; slice threads never have.
    streams[0].thread_type = "SLICE"
    if multiprocessing.parent_process() is not None:  # the other cores have workers of their own
        streams[0].codec_context.thread_count = 1
    return streams[0]


def upright(
    frame: av.VideoFrame,
    width: int,
    height: int,
    orientation: Orientation,
    converter: VideoReformatter,
) -> np.ndarray:
    """(height, width, 3) uint8 RGB, as shown: fitted to that size, mirrored and turned; a view.

    One converter for all frames: setting one up costs as much as converting a small picture.
    """
    stored = orientation.stored(width, height)
    picture = converter.reformat(frame, *stored, format="rgb24", threads=_THREADS)
    return orientation.applied(picture.to_ndarray())
