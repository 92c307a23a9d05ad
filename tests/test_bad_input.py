"""Input at its worst, at every door: a clear answer, nothing leaked, nothing lost."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from froster.data.dataset import ReadViews
from froster.data.inspect import inspect
from froster.errors import VideoError
from froster.inference.failed import FailureTable
from froster.inference.recognizer import load
from froster.video.reader import Video
from froster.video.stream import Stream
from froster.video.windows import ReadSegments
from shared_files import World
from typed import one_line
from video_files import make_video

NANO = ("--model", "nano", "--workers", 0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    videos = World("base", 1)
    return videos.write(0, tmp_path_factory.mktemp("bad") / "clip.mp4")


@pytest.fixture(scope="module")
def four_hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14,400 seconds, a frame every two of them."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(1, 2))
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        pictures = [
            av.VideoFrame.from_ndarray(rng.integers(0, 255, (32, 32, 3), np.uint8), format="rgb24")
            for _ in range(20)
        ]
        for number in range(2 * 3600):
            frame = pictures[number // 30 % 20]
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_four_hours(run, four_hours: Path, tmp_path: Path) -> None:
    """The whole of it through every command, in the memory of a short one."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = tmp_path / "r.jsonl"
    assert run("classify", four_hours, *NANO, "--labels", "a, b", "--out", row).code == 0
    assert json.loads(row.read_text())["seconds"] == 14_400
    index = tmp_path / "index"
    report = run("index", four_hours, *NANO, "--out", index, "--segment", 60, "--json").json
    assert report["segments"] == 240
    (hit,) = run(
        "search", index, "cat", "--top", 1, "--thumbnails", tmp_path / "s.png", "--json"
    ).json["hits"]
    assert 0 <= hit["start"] < hit["end"] <= 14_400
    assert run("doctor", four_hours, "--workers", 0, "--json").json["hours"] == 4.0
    when = run(
        "timeline",
        four_hours,
        *NANO[:2],
        "--labels",
        "cat, tree",
        "--window",
        240,
        "--stride",
        240,
        "--json",
    ).json
    assert (when["end"], len(when["scores"]), when["complete"]) == (14_400, 60, True)
    if sys.platform == "linux":  # kilobytes there
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.usefixtures("few_templates")
def test_long_and_strange_labels(run, clip: Path, tmp_path: Path) -> None:
    """300 characters, other scripts, emoji, quotes and tabs: all come back as they went in. A line
    end is an error."""
    labels = [
        "x" * 300,
        "滑雪",
        "ركوب الأمواج",
        "🏄‍♀️ surfing",
        'a "quoted", thing',
        "[red]markup[/red]",
        "tab\there",
    ]
    (tmp_path / "l.json").write_text(json.dumps(labels))
    ask = ("classify", clip, *NANO, "--labels-file", tmp_path / "l.json", "--top", 99)
    one_line(run(*ask), 2, "--truncate")
    found = run(*ask, "--truncate", "--json")
    assert found.code == 0, found.err
    assert sorted(entry["label"] for entry in found.json["results"][0]["scores"]) == sorted(labels)
    found = run(
        "timeline", clip, *NANO[:2], "--labels-file", tmp_path / "l.json", "--truncate", "--json"
    )
    assert found.json["labels"] == labels
    for suffix in ("csv", "jsonl"):
        out = tmp_path / f"r.{suffix}"
        assert run(*ask, "--truncate", "--out", out).code == 0
        before = out.read_bytes()
        assert run(*ask, "--truncate", "--out", out, "--json").json["new"] == 0
        assert out.read_bytes() == before
    assert sorted(json.loads((tmp_path / "r.jsonl").read_text())["labels"]) == sorted(labels)
    (tmp_path / "l.json").write_text(json.dumps([*labels, 3]))
    one_line(run(*ask), 2, "JSON list of labels")
    (tmp_path / "l.json").write_text(json.dumps([*labels, "a\u2028b"]))
    one_line(run(*ask), 2, "line end")
    (tmp_path / "l.json").write_text(json.dumps([*labels, " "]))
    one_line(run(*ask), 2, "empty")
    for nothing in ("", " , ,"):
        one_line(run("classify", clip, *NANO, "--labels", nothing), 2, "label")
        one_line(run("timeline", clip, *NANO[:2], "--labels", nothing), 2, "label")


def test_wrong_types(run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    result = run(
        "classify", tmp_path / "text.txt", clip.parent, *NANO, "--labels", "a, b", "--json"
    )
    assert result.code == 1
    assert "error" in result.json["results"][0] and result.json["results"][1]["label"]
    os.mkfifo(tmp_path / "pipe.mp4")
    for command in (("classify", "--labels", "a", *NANO), ("doctor", "--workers", 0)):
        assert (
            "not a regular file"
            in run(command[0], tmp_path / "pipe.mp4", *command[1:], "--json").out
        )
    one_line(run("classify", *NANO, "--labels", "a"), 2, "--files-from")
    one_line(run("classify", tmp_path, "--shard", "1/2", *NANO, "--labels", "a"), 2, "--out")
    one_line(run("search", clip, "cat"), 1, "not an index")
    one_line(run("timeline", tmp_path / "text.txt", *NANO[:2], "--labels", "a"), 1, "text.txt")
    one_line(
        run("timeline", tmp_path / "pipe.mp4", *NANO[:2], "--labels", "a"), 1, "not a regular file"
    )
    assert run("classify", clip, "--labels", "a", "--workers", "-1").code == 2
    assert run("index", clip, "--out", tmp_path / "i", "--segment", "0").code == 2
    assert run("doctor", clip, "--min-frames", "many").code == 2


def headless(path: Path) -> Path:
    """A video file whose stream has not one frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    return path


def test_no_frames(run, tmp_path: Path) -> None:
    path = headless(tmp_path / "none.avi")
    index, timeline = (
        ("index", "--out", tmp_path / "i", *NANO),
        ("timeline", "--labels", "a", *NANO[:2]),
    )
    for command in (
        ("classify", "--labels", "a", *NANO),
        index,
        ("doctor", "--workers", 0),
        timeline,
    ):
        result = run(command[0], path, *command[1:])
        assert result.code == 1
        assert "no frame" in result.out + result.err
    causes = FailureTable(tmp_path / "i", ()).causes
    assert len(causes) == 1 and "no frame" in next(iter(causes.values()))


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reader says so, and none takes what it has seen for the whole."""
    path = make_video(tmp_path / "a.mp4", 20)

    def growing(read: Callable) -> Callable:
        def first_grow(self: object) -> object:
            with path.open("ab") as file:
                file.write(b"\0" * 100)
            return read(self)

        return first_grow

    sampling = load("nano").config.sampling
    for work in (ReadViews(sampling, 1, 32), ReadSegments(8, 32, 4.0), inspect):
        list(work(str(path)))
    monkeypatch.setattr(Video, "_index", growing(Video._index))
    monkeypatch.setattr(Stream, "packets", growing(Stream.packets))
    for work in (ReadViews(sampling, 1, 32), ReadSegments(8, 32, 4.0), inspect):
        with pytest.raises(VideoError, match=r"a\.mp4: the file changed while it was read"):
            list(work(str(path)))


def test_ten_thousand_labels(run, clip: Path, tmp_path: Path) -> None:
    """Through a model of one prompt a label, as 29 would take a minute."""
    model = load("nano", device="cpu")
    prompting = dataclasses.replace(model.config.prompting, templates=())
    model.config = dataclasses.replace(model.config, prompting=prompting)
    model.save(tmp_path / "model")
    (tmp_path / "l.txt").write_text("\n".join(f"thing {number}" for number in range(10_000)))
    ask = ("--model", tmp_path / "model", "--labels-file", tmp_path / "l.txt")
    result = run("classify", clip, *ask, "--workers", 0, "--out", tmp_path / "r.csv", "--top", 3)
    assert result.code == 0
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 2
