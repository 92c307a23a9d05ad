"""The doctor finds what is wrong with files, once, whatever stops it; and says nothing of those
that are well."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

import quick
from froster.data.likeness import Likeness, likeness_of, pairs
from froster.data.manifest import read_items
from typed import one_line
from video_files import make_video, rotate_clockwise, shared

FPS = 10


def moving(seed: int, count: int, size: tuple[int, int] = (96, 64)) -> np.ndarray:
    """(count, H, W, 3) uint8: bright spots on soft clouds, each going its own way."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width] / height
    clouds = sum(np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-6, 6, (4, 3))) * 20 + 100
    spots = rng.uniform(0, 1, (3, 2)), rng.uniform(-0.6, 0.6, (3, 2))
    frames = []
    for number in range(count):
        places = (spots[0] + spots[1] * number / FPS) % 1 * [width / height, 1]
        light = sum(90 * np.exp(-((x - px) ** 2 + (y - py) ** 2) * 60) for px, py in places)
        frames.append(np.clip(clouds + light, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2))
    return np.stack(frames)


def encode(
    path: Path, frames: np.ndarray, codec: str = "libx264", fps: int = FPS, **options: str
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(
        str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}
    ) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.codec_context.thread_count = 1  # more give other pixels each time
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def ward(root: Path) -> Path:
    """One file of each kind, named by what is wrong with it."""
    for number in range(3):
        encode(root / "well" / f"{number}.mp4", moving(number, 60))
    first = root / "well" / "0.mp4"
    shutil.copyfile(first, root / "well" / "duplicate.mp4")
    encode(root / "well" / "near-duplicate.avi", moving(0, 60)[:, ::2, ::2].copy(), "mpeg4", q="8")
    sick = root / "sick"
    sick.mkdir()
    (sick / "broken-text.mp4").write_text("this is no video")
    (sick / "broken-empty.mp4").touch()
    (sick / "broken-header.mp4").write_bytes(first.read_bytes()[:200])
    whole = encode(sick / "truncated.mp4", moving(10, 60)).read_bytes()
    (sick / "truncated.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    data = bytearray(encode(sick / "damaged.avi", moving(11, 60), "mpeg4").read_bytes())
    for place in range(len(data) // 3, len(data) * 2 // 3, 40):
        data[place] ^= 0xFF
    (sick / "damaged.avi").write_bytes(data)
    encode(sick / "short.mp4", moving(12, 12))
    encode(sick / "frozen.mp4", moving(13, 60)[[0] * 55 + list(range(5))])
    encode(sick / "black.mp4", np.zeros((60, 64, 96, 3), np.uint8))
    rotate_clockwise(encode(sick / "rotated.mp4", moving(14, 60)))
    make_video(
        sick / "variable-rate.mp4", 60, times=[100 * i + (37 if i % 3 else 0) for i in range(60)]
    )
    return root


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ward(tmp_path_factory.mktemp("doctor") / "videos")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_kind_is_found_and_nothing_else(run, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.csv"
    result = run("doctor", videos, "--out", out, "--workers", 2, "--json")
    assert result.code == 1, result.err
    report = result.json
    found = {(problem["path"], problem["kind"]) for problem in report["problems"]}
    for path, kind in found:
        if path not in (
            "sick/damaged.avi",
            "sick/truncated.mp4",
        ):  # what is left of them may be anything
            assert Path(path).stem.startswith(kind), (path, kind)
    assert {("sick/damaged.avi", "damaged"), ("sick/truncated.mp4", "truncated")} <= found
    expected = {file.relative_to(videos).as_posix() for file in videos.rglob("*.*")} - {
        f"well/{n}.mp4" for n in range(3)
    }
    assert {path for path, _ in found} == expected
    assert (report["videos"], report["errors"], report["clean"]) == (15, 3, 3)
    assert {
        problem["severity"] for problem in report["problems"] if problem["kind"] == "broken"
    } == {"error"}
    assert len(table(tmp_path / "clean.problems.csv")) == len(report["problems"])
    rows = table(out)
    assert len(rows) == report["kept"] == 11
    by_name = {Path(row["path"]).name: row for row in rows}
    assert "duplicate.mp4" not in by_name and "broken-text.mp4" not in by_name
    well = by_name["1.mp4"]
    assert (well["label"], well["frames"], well["codec"], well["width"], well["problems"]) == (
        "well",
        "60",
        "h264",
        "96",
        "",
    )
    assert (
        len(well["sha256"]) == 64
        and int(well["size"]) == (videos / "well" / "1.mp4").stat().st_size
    )
    assert (by_name["rotated.mp4"]["width"], by_name["rotated.mp4"]["height"]) == ("64", "96")
    assert {item.label for item in read_items(out)} == {"well", "sick"}


def test_a_manifest_keeps_its_columns(run, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "path,label,split,frames,zone\n"
        "well/0.mp4,a,train,9999,x\nwell/duplicate.mp4,b,test,1,y\nwell/near-duplicate.avi,a,test,1,z\ngone.mp4,a,train,1,x\n"
    )
    ask = (
        "doctor",
        tmp_path / "m.csv",
        "--root",
        videos,
        "--out",
        tmp_path / "c.csv",
        "--workers",
        0,
        "--json",
    )
    report = run(*ask, "--drop", "none").json
    why = {problem["path"]: problem["why"] for problem in report["problems"]}
    assert why["gone.mp4"] == "no such file"
    assert (
        why["well/duplicate.mp4"]
        == "the same as well/0.mp4 (split test here, train there; label b here, a there)"
    )
    assert (
        "like" in why["well/near-duplicate.avi"]
        and "(split test here, train there)" in why["well/near-duplicate.avi"]
    )
    rows = table(tmp_path / "c.csv")
    assert [(row["split"], row["zone"], row["frames"]) for row in rows] == [
        ("train", "x", "60"),
        ("test", "y", "60"),
        ("test", "z", "60"),
    ]
    assert [Path(row["path"]).name for row in table(tmp_path / "c.csv")] == [
        "0.mp4",
        "duplicate.mp4",
        "near-duplicate.avi",
    ]
    assert run(*ask, "--drop", "duplicate", "--drop", "near-duplicate").json["kept"] == 1


def test_a_manifest_keeps_all_rows_of_a_video(run, videos: Path, tmp_path: Path) -> None:
    """Its parts, and its labels; a row that comes twice says nothing more."""
    rows = ["well/0.mp4,a,0,1", "well/0.mp4,b,1,2", "well/0.mp4,b,1,2", "well/1.mp4,a,,"]
    rows += ["./well/1.mp4,c,,", "gone.mp4,a,,"]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,start,end", *rows]))
    ask = ("doctor", tmp_path / "m.csv", "--root", videos, "--out", tmp_path / "c.csv")
    report = run(*ask, "--workers", 0, "--json").json
    assert (report["videos"], report["kept"], report["errors"]) == (3, 2, 1)
    items = read_items(tmp_path / "c.csv")
    assert [(item.path.name, item.label, item.span) for item in items] == [
        ("0.mp4", "a", (0, 1)),
        ("0.mp4", "b", (1, 2)),
        ("1.mp4", "a", None),
        ("1.mp4", "c", None),
    ]


def test_what_was_examined_is_not_again_and_what_changed_is(
    run, videos: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "videos"
    shutil.copytree(videos / "well", mine)
    ask = ("doctor", mine, "--out", tmp_path / "c.csv", "--workers", 0, "--json")
    assert run(*ask).json["videos"] == 5
    before = {
        name: (tmp_path / f"c{name}").read_text()
        for name in (".csv", ".problems.csv", ".checks.jsonl")
    }
    lines = before[".checks.jsonl"].splitlines(keepends=True)
    (tmp_path / "c.checks.jsonl").write_text(
        "".join(lines[:3]) + lines[3][:50]
    )  # as a kill leaves it
    kept = json.loads(lines[0])["path"]
    status = (mine / kept).stat()
    (mine / kept).write_bytes(b"x" * status.st_size)
    os.utime(mine / kept, ns=(status.st_atime_ns, status.st_mtime_ns))
    run(*ask)
    assert {name: (tmp_path / f"c{name}").read_text() for name in before} == before
    os.utime(mine / kept)
    assert run(*ask).json["errors"] == 1
    (mine / kept).unlink()
    assert run(*ask).json["errors"] == 0


def test_killed_it_goes_on(run, tmp_path: Path) -> None:
    for number in range(12):
        encode(tmp_path / "v" / f"{number:02d}.mp4", moving(number, 40, (320, 192)))
    ask = ["doctor", tmp_path / "v", "--out", tmp_path / "c.csv", "--json"]
    process = quick.Popen(
        [sys.executable, "-m", "froster", *map(str, ask), "--workers", "1"],
        stderr=subprocess.DEVNULL,
    )
    checks = tmp_path / "c.checks.jsonl"
    deadline = time.monotonic() + 120
    while (
        not checks.exists() or checks.read_bytes().count(b"\n") < 4
    ) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = checks.read_text().splitlines()[:4]
    assert not (tmp_path / "c.csv").exists() or len(done) == 12
    report = run(*ask, "--workers", 0).json
    assert (report["videos"], report["errors"], report["kept"]) == (12, 0, 12)
    assert set(done) <= set(checks.read_text().splitlines())


def test_what_cannot_be_examined(run, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("path,label\n")
    one_line(run("doctor", videos, "--out", tmp_path / "mine.csv"), 2, "not from froster doctor")
    one_line(run("doctor", tmp_path / "mine.csv", "--out", tmp_path / "mine.csv"), 1, "no videos")
    one_line(run("doctor", videos, "--out", tmp_path / "c.parquet"), 2, ".csv")
    one_line(run("doctor", videos, "--drop", "ugly"), 2, "near-duplicate", "'ugly'")
    one_line(run("doctor"), 2, "--files-from")
    assert "no such file" in run("doctor", tmp_path / "gone.mp4", "--workers", 0).out


def test_env(run) -> None:
    found = run("doctor", "--env", "--json").json
    assert found["decoders"]["h264"] and found["decoders"]["mpeg4"]
    assert {
        "torch",
        "cpu",
        "cuda",
        "pyav",
        "ffmpeg",
        "disk",
        "model",
        "runs on",
        "problems",
    } <= found.keys()
    assert found["cpu"]["cores"] >= 1 and found["disk"]["here"] > 0
    assert "decoders" in run("doctor", "--env").out


def test_a_likeness_survives_its_text_and_tells_lengths_apart(videos: Path) -> None:
    like = likeness_of(videos / "well" / "0.mp4")
    assert like is not None and Likeness.from_text(like.seconds, like.text()) == like
    longer = Likeness(like.seconds * 1.2, like.gradients, like.motion)
    assert [(pair.first, pair.second) for pair in pairs([like, None, longer, like])] == [(0, 3)]
    assert likeness_of(videos / "sick" / "black.mp4") is None
    assert list(pairs([])) == list(pairs([None])) == []


def test_originals_are_like_their_small_copies() -> None:
    """Five files of the research data are there twice, as published and encoded anew at half the
    size."""
    files = {
        "Archery": "v_Archery_g01_c01",
        "PlayingPiano": "v_PlayingPiano_g02_c01",
        "YoYo": "v_YoYo_g01_c01",
    }
    both = [shared("videos", "originals", f"{name}.avi") for name in files.values()]
    both += [
        shared("videos", "clips", "ucf101", label, f"{name}.mp4") for label, name in files.items()
    ]
    found = pairs([likeness_of(path) for path in both])
    assert sorted((pair.first, pair.second) for pair in found) == [(0, 3), (1, 4), (2, 5)]
