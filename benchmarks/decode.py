"""Open a file, decode 8 frames by exact index, CLIP's resize and crop: our reader against those
that are installed.

All get the same indices, go through the same `inference_transform`, and must give the same
pictures.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.clips import HD, UCF, Kind, write_clip
from benchmarks.timing import Row, compare, interleave
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform

Reader = Callable[[Path, list[int]], Tensor]
"from a file and ascending indices to frames (n, H, W, 3) uint8 RGB"

GOAL = 0.9  # first, or within 10 % of the first
SIZE = 224
# Levels of 255, the mean over a view: readers convert colours a little differently, a wrong frame
# differs by more.
SAME = 0.7


def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    readers, missing = installed()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, kind, files, turns in (("UCF-like avi", UCF, 8, 21), ("720p h264", HD, 1, 9)):
            kind, files, turns = (_tiny(kind), 1, 1) if toy else (kind, files, turns)
            paths = [
                write_clip(Path(folder, f"{name}-{seed}.{kind.suffix}"), kind, seed)
                for seed in range(files)
            ]
            for sampling in (Sampling("uniform"), Sampling("dense")):
                what = f"{name}, {sampling.kind}" + (f", {files} files" if files > 1 else "")
                rows += measured(what, paths, sampling, readers, rounds or turns)
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("av", *_distributions(readers))
    )
    notes = [
        (
            f"One view of 8 frames of every file; {versions}. The 720p file has {HD.frames} frames"
            f" in one slice each, a key frame every {HD.frames - 50}; the avi {UCF.frames} frames,"
            f" a key frame every {UCF.gop}."
        ),
        *(f"Not measured: {words}." for words in missing),
    ]
    return rows, notes


def measured(
    what: str, paths: Sequence[Path], sampling: Sampling, readers: dict[str, Reader], rounds: int
) -> Iterator[Row]:
    """One row against each of the others, the goal in that against the fastest."""
    views = {}
    for path in paths:
        with Video(path) as video:
            views[path] = sampling.view_indices(video.timing, 1)[0]

    def turn(read: Reader) -> list[Tensor]:
        return [inference_transform(read(path, indices), SIZE) for path, indices in views.items()]

    ours, *others = readers
    expected = turn(readers[ours])
    for name in others:
        worst = max(
            (a.float() - b.float()).abs().mean().item()
            for a, b in zip(turn(readers[name]), expected, strict=True)
        )
        if worst > SAME:
            raise RuntimeError(
                f"{what}: the frames of {name} are not ours, {worst:.2f} levels apart"
            )
    seconds = interleave({name: partial(turn, read) for name, read in readers.items()}, rounds)
    others.sort(key=lambda name: statistics.median(seconds[name]))
    for place, name in enumerate(others):
        yield compare(what, seconds, ours, name, goal=None if place else GOAL)


def installed() -> tuple[dict[str, Reader], list[str]]:
    """Ours first, then those that can be imported; and why the others cannot."""
    readers: dict[str, Reader] = {"froster": froster}
    missing = []
    for made in (torchcodec_readers, decord_readers, opencv_readers):
        try:
            readers |= made()
        except (
            ImportError,
            OSError,
            RuntimeError,
        ) as error:  # torchcodec without FFmpeg is a RuntimeError
            missing.append(
                f"{made.__name__.removesuffix('_readers')} ({str(error).strip().splitlines()[0]})"
            )
    return readers, missing


def froster(path: Path, indices: list[int]) -> Tensor:
    with Video(path) as video:
        return video.read(indices)


def torchcodec_readers() -> dict[str, Reader]:
    from torchcodec.decoders import VideoDecoder

    def read(path: Path, indices: list[int], threads: int) -> Tensor:
        decoder = VideoDecoder(
            str(path), dimension_order="NHWC", num_ffmpeg_threads=threads
        )  # exact indices, its default
        return decoder.get_frames_at(indices).data

    return {
        "torchcodec": partial(read, threads=1),
        "torchcodec, a thread a core": partial(read, threads=0),
    }


def decord_readers() -> dict[str, Reader]:
    import decord

    def read(path: Path, indices: list[int]) -> Tensor:
        return torch.from_numpy(decord.VideoReader(str(path)).get_batch(indices).asnumpy())

    return {"decord2": read}


def opencv_readers() -> dict[str, Reader]:
    import cv2

    def read(path: Path, indices: list[int]) -> Tensor:
        """From the start: seeking gives other frames where the rate varies."""
        capture = cv2.VideoCapture(str(path))
        pictures, wanted = [], set(indices)
        for number in range(max(indices) + 1):
            capture.grab()
            if number in wanted:
                pictures.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
        capture.release()
        return torch.from_numpy(
            np.stack([pictures[sorted(wanted).index(index)] for index in indices])
        )

    return {"OpenCV": read}


def _distributions(readers: dict[str, Reader]) -> list[str]:
    names = {"torchcodec": "torchcodec", "decord2": "decord2", "OpenCV": "opencv-python-headless"}
    return [distribution for reader, distribution in names.items() if reader in readers]


def _tiny(kind: Kind) -> Kind:
    return dataclasses.replace(kind, width=160, height=96, frames=30, bit_rate=None)
