"""How often `froster.data.likeness` is right: `python -m benchmarks.likeness VIDEOS`, a folder with
a manifest.csv.

Every third file is encoded anew in three ways. Thresholds may be chosen on the recordings whose
number is even; the others are reported. Files with the same `source` in the manifest, and their
copies, are the same recording.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np

from froster.data.likeness import MOTION, Likeness, likeness_of, pairs
from froster.video.reader import Video

Change = Callable[[np.ndarray], np.ndarray]


def half(frames: np.ndarray) -> np.ndarray:
    return frames[:, ::2, ::2]


def as_they_are(frames: np.ndarray) -> np.ndarray:
    return frames


def trimmed(frames: np.ndarray) -> np.ndarray:
    """3 % cut off at each side, brighter and with more contrast."""
    top, left = round(0.03 * frames.shape[1]), round(0.03 * frames.shape[2])
    part = frames[:, top : frames.shape[1] - top, left : frames.shape[2] - left]
    return np.clip((part.astype(np.float32) - 128) * 1.15 + 143, 0, 255).astype(np.uint8)


KINDS: dict[str, tuple[str, str, dict[str, str], int, Change]] = {
    "half the size, crf 36": ("mp4", "libx264", {"crf": "36", "preset": "veryfast"}, 1, half),
    "half the rate, mpeg4 q 14": ("avi", "mpeg4", {"qmin": "14", "qmax": "14"}, 2, as_they_are),
    "trimmed, brighter, crf 28": (
        "mp4",
        "libx264",
        {"crf": "28", "preset": "veryfast"},
        1,
        trimmed,
    ),
}


def copy(
    path: Path, target: Path, codec: str, options: dict[str, str], every: int, change: Change
) -> Path:
    with Video(path) as video, av.open(str(target), "w") as container:
        frames = change(video.read(range(0, video.num_frames, every)).numpy())
        height, width = (side // 2 * 2 for side in frames.shape[1:3])
        stream = container.add_stream(codec, rate=round(video.fps / every), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames[:, :height, :width]:
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                )
            )
        container.mux(stream.encode(None))
    return target


def score(
    name: str, chosen: Iterable[int], recordings: list[str], likenesses: list[Likeness | None]
) -> None:
    places = list(chosen)
    found = [
        (places[pair.first], places[pair.second])
        for pair in pairs([likenesses[place] for place in places])
    ]
    right = sum(recordings[a] == recordings[b] for a, b in found)
    there = sum(
        count * (count - 1) // 2
        for count in Counter(recordings[place] for place in places).values()
    )
    print(
        f"{name}: {len(places)} files, {there} pairs are the same, {len(found)} found, {right} of"
        f" them right: precision {right / max(1, len(found)):.3f}, recall"
        f" {right / max(1, there):.3f}"
    )


def main() -> None:
    folder = Path(sys.argv[1])
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paths = [folder / row["path"] for row in rows]
    recordings = [Path(row["source"]).stem for row in rows]
    kinds = ["file"] * len(rows)
    likenesses = [likeness_of(path) for path in paths]
    with tempfile.TemporaryDirectory() as made:
        for number in range(0, len(rows), 3):
            for kind, (suffix, codec, options, every, change) in KINDS.items():
                target = copy(
                    paths[number], Path(made, f"{number}.{suffix}"), codec, options, every, change
                )
                likenesses.append(likeness_of(target))
                recordings.append(recordings[number])
                kinds.append(kind)
    order = {name: number for number, name in enumerate(sorted(set(recordings)))}
    every_one = range(len(recordings))
    print(f"motion >= {MOTION}")
    score(
        "even recordings",
        (i for i in every_one if order[recordings[i]] % 2 == 0),
        recordings,
        likenesses,
    )
    score(
        "odd recordings", (i for i in every_one if order[recordings[i]] % 2), recordings, likenesses
    )
    score("the files themselves", range(len(rows)), recordings, likenesses)
    copied = {recordings[number] for number in range(0, len(rows), 3)}
    for kind in KINDS:
        chosen = [
            i
            for i in every_one
            if kinds[i] == kind or (kinds[i] == "file" and recordings[i] in copied)
        ]
        score(f"with {kind}", chosen, recordings, likenesses)


if __name__ == "__main__":
    main()
