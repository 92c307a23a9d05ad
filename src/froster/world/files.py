"""Videos of the world as files, so that they take the road that every user's video takes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from torch import Tensor

from froster.utils.files import atomic_file
from froster.world.clips import FPS


def write_video(path: Path, frames: Tensor, preset: str = "medium") -> Path:
    """Write frames (T, 3, H, W) uint8 as an mp4 with nearly no loss, 8 frames a second; the same
    frames give the same bytes. A `preset` of x264 that is faster gives larger files."""
    with atomic_file(path) as part, av.open(str(part), "w", format="mp4") as container:
        # With B frames x264 reads memory that nobody has written, and gives other bytes each time.
        options = {"crf": "8", "bf": "0", "preset": preset}
        stream = container.add_stream("libx264", rate=int(FPS), options=options)
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt = "yuv444p"
        stream.codec_context.thread_count = 1  # more give other pixels each time
        for frame in frames.permute(0, 2, 3, 1).contiguous().numpy().astype(np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path
