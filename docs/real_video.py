"""Real video on the site: its clips, and the picture of what a taught model says of them.

    python docs/real_video.py FOLDER                     # the picture, from the clips of the repository
    python docs/real_video.py FOLDER --from OPENCV_DOC   # the clips too, from OpenCV's

OPENCV_DOC is where Debian's package opencv-doc was unpacked; `docs/assets/CREDITS.md` says whose the clips are.
FOLDER gets the taught model and what the commands print.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from froster.utils.drawing import COLOURS

CLIPS = Path(__file__).with_name("assets") / "clips"
PICTURE = Path(__file__).with_name("figures") / "real.png"
FPS, SIZE, HALF = 12, (192, 144), 4
"""Frames a second, pixels, and the seconds of a clip that are taught; as many more are asked."""
SOURCES = {
    "box": "opencv4/html/box.mp4.gz",
    "cup": "opencv4/html/cup.mp4.gz",
    "tree": "examples/data/tree.avi",
}
LABELS = ["box", "cup", "tree"]


def frames(source: Path, start: int) -> Iterator[av.VideoFrame]:
    """What is shown from `start` to HALF seconds later, FPS times a second."""
    packed = source.suffix == ".gz"
    data = gzip.decompress(source.read_bytes()) if packed else source.read_bytes()
    with av.open(io.BytesIO(data)) as container:
        due = start * FPS
        shown = None
        for frame in container.decode(video=0):
            while shown is not None and frame.time > due / FPS and due < (start + HALF) * FPS:
                yield shown
                due += 1
            shown = frame
        assert due == (start + HALF) * FPS, f"{source} is shorter than {start + HALF} s"


def write(path: Path, pictures: Iterator[av.VideoFrame]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"crf": "27", "preset": "veryslow"}
        )
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in pictures:
            small = picture.to_image().resize(SIZE)
            container.mux(stream.encode(av.VideoFrame.from_image(small)))
        container.mux(stream.encode(None))


def make_clips(source: Path) -> None:
    """The first seconds of each, to be taught, and those that follow, one after the other."""
    files = [source / "usr/share/doc/opencv-doc" / SOURCES[label] for label in LABELS]
    for label, file in zip(LABELS, files, strict=True):
        write(CLIPS / f"{label}.mp4", frames(file, 0))
    write(CLIPS / "three.mp4", (frame for file in files for frame in frames(file, HALF)))
    rows = [f"{label}.mp4,{label},{s},{s + 1}" for label in LABELS for s in range(HALF)]
    (CLIPS / "examples.csv").write_text("\n".join(["path,label,start,end", *rows]) + "\n")


def froster(*call: object) -> str:
    command = [sys.executable, "-m", "froster", *map(str, call)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def timeline(model: object) -> dict:
    asked = ("--labels", ",".join(LABELS), "--window", 1, "--stride", 0.5)
    return json.loads(froster("timeline", CLIPS / "three.mp4", *asked, "--model", model, "--json"))


def right(answers: dict) -> tuple[int, int]:
    """Moments whose best label is what is shown, and all moments."""
    best = np.argmax([row[: len(LABELS)] for row in answers["scores"]], axis=1)
    shown = [min(int(time // HALF), 2) for time in answers["times"]]
    return int((best == shown).sum()), len(shown)


def draw(answers: Sequence[tuple[str, dict]]) -> None:
    with av.open(str(CLIPS / "three.mp4")) as container:
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][
            FPS // 2 :: FPS
        ]
    figure = Figure(figsize=(11, 2.75))
    above, below = figure.subplots(2, 1, height_ratios=[1, 1.2], gridspec_kw={"hspace": 0.04})
    above.imshow(np.concatenate(pictures, axis=1), extent=(0, len(pictures), 0, 1), aspect="auto")
    above.axis("off")
    rows = [
        ("what is shown", [(HALF * i, HALF * (i + 1), label) for i, label in enumerate(LABELS)])
    ]
    for name, answer in answers:
        rows.append((name, [(s["start"], s["end"], s["label"]) for s in answer["segments"]]))
    for lane, (_, spans) in enumerate(rows):
        for start, end, label in spans:
            colour = COLOURS[1 + LABELS.index(label)] if label in LABELS else "#b5b5b5"
            below.barh(lane, end - start, 0.78, start, color=colour, edgecolor="white")
            below.text(
                (start + end) / 2, lane, label, ha="center", va="center", color="white", fontsize=8
            )
    below.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=9)
    below.set(xlim=(0, len(pictures)), ylim=(len(rows) - 0.5, -0.5), xlabel="seconds")
    below.tick_params(axis="y", length=0)
    below.spines[:].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight")
    Image.open(buffer).convert("RGB").quantize(128).save(PICTURE, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--from", dest="source", type=Path)
    given = parser.parse_args()
    if given.source:
        CLIPS.mkdir(parents=True, exist_ok=True)
        make_clips(given.source)
    taught = given.folder / "taught"
    shutil.rmtree(taught, ignore_errors=True)
    print(froster("teach", CLIPS / "examples.csv", "--out", taught, "--model", "nano"))
    answers = [
        (name, timeline(model)) for name, model in (("nano", "nano"), ("nano, taught", taught))
    ]
    for name, answer in answers:
        print("{}: {} of {} moments".format(name, *right(answer)))
    draw(answers)
