"""`froster pack`: the same frames at the same times, in files or in shards that train alike, made
once whatever stops it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import quick
from froster.data import pack_video as packing
from froster.data.dataset import VideoDataset
from froster.data.loader import batches
from froster.data.manifest import read_items
from froster.data.pack import packed_names
from froster.data.pack_video import PackedVideo, ToPack, fitted_size, pack_video
from froster.errors import DataError, UsageError, VideoError
from froster.inference.recognizer import load
from froster.methods import VCLIP
from froster.methods.recipe import Recipe
from froster.training.distill_options import Distill
from froster.training.fine_tune import FineTuning, Hooks, fine_tune
from froster.utils import pool
from froster.utils.files import sole_maker
from froster.video import tar_shards
from froster.video.reader import Video
from froster.video.sampling import Sampling
from test_doctor import encode, moving
from typed import one_line
from video_files import make_video, orientation_message, with_units, write_matrix

PROGRAM = Path(__file__).with_name("faulty.py")


def packed(source: Path, name: str = "packed") -> PackedVideo:
    folder = source.with_name(name)
    ending = packing.ending(source)
    job = ToPack(str(source), str(folder / f"v{ending}"), str(folder / source.name))
    *_, row = pack_video(job)
    assert isinstance(row, PackedVideo)
    return row


def large(path: Path, frames: int = 30) -> Path:
    return encode(path, moving(0, frames, (480, 320)))


def plain(path: Path) -> Path:
    return encode(path, moving(0, 24))


def uneven(path: Path) -> Path:
    times = [40 * n if n < 12 else 480 + 130 * (n - 12) for n in range(24)]
    return make_video(path, 24, times=times)


def turned(path: Path) -> Path:
    return write_matrix(plain(path), 0, 1, -1, 0)


def turned_on_the_way(path: Path) -> Path:
    gop = {"x264-params": "scenecut=0"}
    source = make_video(path.with_name("s.mp4"), 36, b_frames=2, size=(96, 64), options=gop)
    messages = {0: orientation_message(90), 12: orientation_message(180)}
    return with_units(source, path, lambda packet, number: messages.get(number, b""))


KINDS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "mp4": ("v.mp4", plain),
    "larger": ("v.mp4", large),
    "b frames": ("v.mp4", lambda path: make_video(path, 40, b_frames=3)),
    "of uneven times": ("v.mp4", uneven),
    "mkv": ("v.mkv", lambda path: make_video(path, 30, b_frames=2)),
    "mkv of uneven times": ("v.mkv", uneven),
    "webm": ("v.webm", lambda path: make_video(path, 30, "libvpx")),
    "ts": ("v.ts", lambda path: make_video(path, 30, b_frames=2)),
    "avi": ("v.avi", lambda path: make_video(path, 30, "mpeg4")),
    "turned": ("v.mp4", turned),
    "turned on the way": ("v.mp4", turned_on_the_way),
    "odd sides": ("v.mkv", lambda path: make_video(path, 20, "ffv1", size=(81, 47))),
    "of ten bits": ("v.mp4", lambda path: make_video(path, 20, "libx265", pix_fmt="yuv420p10le")),
    "one frame": ("v.mp4", lambda path: make_video(path, 1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_frames_at_the_same_times(tmp_path: Path, kind: str) -> None:
    name, make = KINDS[kind]
    source = make(tmp_path / name)
    row = packed(source)
    assert row.note == "" and row.psnr is not None and row.psnr > 28
    with Video(source) as video, Video(row.packed) as small:
        assert small.num_frames == video.num_frames == row.frames
        assert small.times() == pytest.approx(video.times(), abs=1e-6)
        assert small.seconds == pytest.approx(video.seconds, abs=0.002)
        assert small.fps == pytest.approx(video.fps, rel=1e-3)
        assert (small.width, small.height) == fitted_size(video.width, video.height)
        before, after = (v.read(range(v.num_frames)) for v in (video, small))
        if (small.width, small.height) == (video.width, video.height):
            error = (before.float() - after.float()).square().mean()
            assert 10 * torch.log10(255**2 / error) > 28
        for sampling in (Sampling("dense"), Sampling("dense", clamp="even"), Sampling("uniform")):
            assert sampling.train_indices(video.timing, random.Random(1)) == pytest.approx(
                sampling.train_indices(small.timing, random.Random(1)), abs=1
            )


@pytest.mark.parametrize("kind", ["mp4", "larger", "b frames", "of uneven times", "mkv", "avi"])
def test_clips_are_of_the_same_frames(tmp_path: Path, kind: str) -> None:
    name, make = KINDS[kind]
    source = make(tmp_path / name)
    with Video(source) as video, Video(packed(source).packed) as small:
        for sampling in (Sampling("dense", 4, 2), Sampling("uniform", 4)):
            for seed in range(20):
                indices = [
                    sampling.train_indices(v.timing, random.Random(seed)) for v in (video, small)
                ]
                assert indices[0] == indices[1]


def test_the_form_is_that_of_training(tmp_path: Path) -> None:
    source = tmp_path / "v.mp4"
    large(source, 40)
    row = packed(source)
    assert (row.width, row.height) == (384, 256)
    with av.open(row.packed) as container:
        assert not container.streams.audio
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert all(packet.pts == packet.dts for packet in packets)  # no B frames
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert max(b - a for a, b in zip(keys, [*keys[1:], 40], strict=True)) <= 8


def test_sides_are_never_enlarged_and_always_even() -> None:
    assert fitted_size(1280, 720) == (456, 256) and fitted_size(720, 1280) == (256, 456)
    assert fitted_size(341, 255) == (340, 254) and fitted_size(1, 1) == (2, 2)
    assert fitted_size(320, 240) == (320, 240)


def test_what_cannot_be_packed_is_kept_as_it_is(tmp_path: Path, monkeypatch) -> None:
    source = plain(tmp_path / "v.mp4")
    whole = source.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), np.uint8)
    row = packed(encode(tmp_path / "noise.mkv", noise, "ffv1"))
    assert "unlike the original" in row.note and row.psnr is None
    assert Path(row.packed).read_bytes() == (tmp_path / "noise.mkv").read_bytes()
    assert row.crc32 == zlib.crc32((tmp_path / "noise.mkv").read_bytes())
    # In the middle of the pictures, so that some frames do not decode.
    damaged = tmp_path / "damaged.mp4"
    at = whole.index(b"mdat") + len(whole) // 3
    damaged.write_bytes(whole[:at] + bytes(600) + whole[at + 600 :])
    row = packed(damaged)
    assert "damaged" in row.note and Path(row.packed).read_bytes() == damaged.read_bytes()
    monkeypatch.setattr(packing, "CODEC", "mpeg2video")  # takes no rates such as this
    odd = encode(tmp_path / "odd.mp4", moving(0, 12), fps=3)
    assert "encoded" in packed(odd).note
    (tmp_path / "none.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError):
        packed(tmp_path / "none.mp4")


def write(folder: Path, name: str, seed: int) -> Path:
    return encode(folder / name, moving(seed, 16))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        write(folder, f"{'ab'[number % 2]}/{number}.mp4", number)
    write(folder, "a/3 ü.avi", 9)
    (folder / "b" / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def packs(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same videos as files and as shards of two or three."""
    folder = tmp_path_factory.mktemp("packs")
    for name, options in (("files", ()), ("tar", TAR)):
        words = ["-m", "froster", "pack", videos, "--out", folder / name, "--workers", 2, *options]
        done = quick.run([sys.executable, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 1 and "broken.mp4" in done.stderr, done.stderr
    for shard in (folder / "tar").glob("*.tar"):
        with tarfile.open(shard) as tar:
            tar.extractall(folder / "members", filter="data")
    return {name: folder / name for name in ("files", "tar", "members")}


TAR = ("--tar", "--tar-size", "0.000008")
"""Shards of 8 kB: two or three videos."""


def rows_of(pack: Path) -> list[dict[str, str]]:
    with (pack / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_shards_hold_what_files_do(packs: dict[str, Path]) -> None:
    files, shards = rows_of(packs["files"]), rows_of(packs["tar"])
    assert len(files) == 7 and [row["label"] for row in files] == ["a"] * 4 + ["b"] * 3
    assert len({row["path"].split("/")[0] for row in shards}) > 1
    for one, other in zip(files, shards, strict=True):
        shard, _, name = other["path"].partition("/")
        assert name == one["path"] and one["source_fingerprint"] == other["source_fingerprint"]
        with tarfile.open(packs["tar"] / shard) as tar:  # as any other reader sees it
            member = tar.extractfile(name)
            assert member is not None
            data = member.read()
        assert hashlib.sha256(data).hexdigest().startswith(other["fingerprint"])
        with tar_shards.open_bytes(packs["tar"] / other["path"]) as file:
            assert (
                file.read() == data and file.seek(-9, os.SEEK_END) and file.read(5) == data[-9:-4]
            )
    assert not (packs["tar"] / ".staging").exists()
    journal = (packs["tar"] / "packed.jsonl").read_text(encoding="utf-8").splitlines()
    entries = {row["path"]: row for row in map(json.loads, journal)}
    assert entries["a/0.mp4"]["sha256"] and entries["b/broken.mp4"]["error"]


def test_a_long_member_is_read_in_parts(packs, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packs["tar"] / rows_of(packs["tar"])[3]["path"]
    with Video(path) as video:
        whole = video.read(range(video.num_frames))
    monkeypatch.setattr(tar_shards, "WHOLE", 100)
    with Video(path) as video:
        assert torch.equal(video.read(range(video.num_frames)), whole)


def trained(source: Path, out: Path, workers: int = 0, stop: int | None = None) -> list[float]:
    """The loss of every step."""
    base, losses = load("nano", device="cpu"), []
    recipe = Recipe(
        epochs=2, batch_size=3, lr=1e-3, warmup_epochs=1, precision="float32", workers=workers
    )
    dataset = VideoDataset(read_items(source), ["a", "b"], base.config.sampling, 60, train=True)

    def log(step: int, metrics: dict[str, float]) -> None:
        losses.append(metrics["loss"])
        if step == stop:
            raise InterruptedError

    how = FineTuning(VCLIP(), Distill(), recipe)
    try:
        fine_tune(base, how, dataset, ["a", "b"], out, Hooks(on_step=log))
    except InterruptedError:
        assert stop is not None
    return losses


def test_training_from_shards_gives_the_same_losses(packs, tmp_path: Path) -> None:
    """To the bit, read here or by processes, and gone on with."""
    files = trained(packs["members"], tmp_path / "files")
    assert len(files) == 4 and trained(packs["tar"], tmp_path / "tar", 2) == files
    begun = trained(packs["tar"], tmp_path / "stopped", stop=3)
    again = trained(packs["tar"], tmp_path / "stopped")
    assert len(again) == 2 and begun == files[:3] and files[-len(again) :] == again


def test_every_reader_takes_a_pack(run, packs, tmp_path: Path) -> None:
    for name in ("files", "tar"):
        answers = {}
        for source in (packs[name], packs[name] / "manifest.csv"):
            words = ("--labels", "cat, boat", "--model", "nano", "--workers", 0, "--json")
            result = run("classify", source, *words)
            assert result.code == 0, result.err
            answers[source.name] = [line["scores"] for line in result.json["results"]]
        assert len(answers["manifest.csv"]) == 7 and len({str(a) for a in answers.values()}) == 1
        report = run("doctor", packs[name], "--workers", 0, "--min-seconds", 1, "--json").json
        assert report["videos"] == 7 and report["errors"] == 0
    assert [str(i.path.relative_to(packs["files"])) for i in read_items(packs["files"])] == [
        row["path"] for row in rows_of(packs["files"])
    ]


def test_an_unfinished_pack_says_so(run, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "pack.json").touch()
    with pytest.raises(DataError, match="once more"):
        read_items(tmp_path)
    one_line(run("classify", tmp_path, "--labels", "a, b", "--model", "nano"), 1, "once more")


def copied(pack: Path, target: Path) -> Path:
    shutil.copytree(pack, target)
    return target


def test_damaged_shards(packs, tmp_path: Path) -> None:
    pack = copied(packs["tar"], tmp_path / "pack")
    paths = [pack / row["path"] for row in rows_of(pack)]
    first, second = pack / "00000.tar", pack / "00001.tar"
    data = first.read_bytes()
    place = tar_shards.member(paths[0])
    assert place is not None

    def error(path: Path) -> str:
        with pytest.raises(VideoError) as caught, Video(path):
            pass
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        return str(caught.value)

    edited = bytearray(data)
    edited[place.offset + place.size // 2] ^= 255
    first.write_bytes(edited)
    assert "changed since" in error(paths[0])
    first.write_bytes(data[:-5000])
    assert "cut off" in error(paths[0])
    first.write_bytes(data)
    table = Path(tar_shards.table_of(str(first)))
    text = table.read_text()
    shutil.copyfile(tar_shards.table_of(str(second)), table)
    assert "another shard's" in error(paths[0])
    table.write_text(text.replace("offset", "place"))
    assert "no offset table" in error(paths[0])
    table.write_text(text)
    assert "no such member" in error(first / "none.mp4")
    with Video(paths[0]):
        pass
    table.unlink()
    assert "cannot be read" in error(paths[0])
    first.unlink()
    assert "no such file" in error(paths[0])
    with pytest.raises(DataError, match=r"\d of 7 files do not exist"):
        read_items(pack)


def test_only_what_changed_is_packed_again(run, videos: Path, tmp_path: Path) -> None:
    source, out = copied(videos, tmp_path / "videos"), tmp_path / "pack"
    (source / "b" / "broken.mp4").unlink()
    words = ("pack", source, "--out", out, "--workers", 0, *TAR, "--json")
    report = run(*words).json
    assert (report["videos"], report["failed"], report["packed"]) == (7, 0, 7)
    before = {row["packed_from"]: row for row in rows_of(out)}
    state = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    os.utime(source / "a" / "0.mp4")  # another time, the same bytes
    assert run(*words).json["shards"] == report["shards"]
    write(source, "a/2.mp4", 77)
    write(source, "b/new.mp4", 78)
    assert run(*words).json["shards"] == report["shards"] + 1
    after = {row["packed_from"]: row for row in rows_of(out)}
    changed = {key for key, row in after.items() if before.get(key) != row}
    assert changed == {"a/2.mp4", "b/new.mp4"} and len(after) == 8
    assert all((out / name).stat().st_mtime_ns == time for name, time in state.items())
    # A shard that is lost or cut off is made anew.
    os.truncate(out / "00000.tar", 2000)
    assert run(*words).json["shards"] == report["shards"] + 2
    assert next(batches(_dataset(out), [list(range(8))])).errors == []


def _dataset(source: Path) -> VideoDataset:
    return VideoDataset(read_items(source), ["a", "b"], Sampling("uniform", 2), 32, train=False)


def kept(pack: Path) -> dict[str, str]:
    """The journal: the bytes that each video has become."""
    journal = pack / "packed.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    return {row["path"]: row["packed_sha256"] for row in map(json.loads, lines)}


PLACES = {
    "froster.data.pack_store:PackStore.add:1": (),
    "froster.data.pack_video:_verify:3": (),
    "froster.data.pack_video:_verify:5": TAR,
    "froster.data.pack_store:write_shard:1": TAR,
    "froster.data.pack_store:write_shard:2": TAR,
    "froster.data.pack_store:dataclasses.replace:9": TAR,
    "froster.data.pack_store:shutil.rmtree:1": TAR,
    "froster.data.pack:_write_manifest:1": TAR,
    "froster.utils.files:os.replace:7": TAR,
}
QUICK = [
    ("froster.data.pack_store:PackStore.add:1", "kill"),
    ("froster.data.pack_video:_verify:5", "interrupt"),
    ("froster.data.pack_store:write_shard:2", "kill"),
    ("froster.data.pack_store:dataclasses.replace:9", "kill"),
]


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        pytest.param(place, fault, marks=[] if (place, fault) in QUICK else [pytest.mark.slow])
        for place in PLACES
        for fault in ("kill", "interrupt")
    ],
)
def test_a_stopped_run_goes_on(videos: Path, packs, tmp_path: Path, place: str, fault: str) -> None:
    out, options = tmp_path / "pack", PLACES[place]
    words = ["pack", videos, "--out", out, "--workers", 0, *options]

    def start(*program: object) -> quick.Popen:
        command = [sys.executable, *program, *words]
        return quick.run([*map(str, command)], capture_output=True, text=True)

    done = start(PROGRAM, place, fault, "--")
    assert done.returncode == (130 if fault == "interrupt" else -signal.SIGKILL)
    assert fault == "kill" or done.stderr.count("froster: stopped") == 1
    before = kept(out)
    done = start("-m", "froster")
    assert done.returncode == 1 and "7 videos" in " ".join(done.stdout.split())  # one is broken
    rows = [json.loads(line) for line in (out / "packed.jsonl").read_text().splitlines()]
    assert before.items() <= kept(out).items()
    if not options:
        assert [row["path"] for row in rows_of(out)] == [r["path"] for r in rows_of(packs["files"])]
    items = read_items(out)
    assert len({item.path for item in items}) == 7
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
    for row in rows_of(out):
        with tar_shards.open_bytes(out / row["path"]) as file:
            crc = zlib.crc32(file.read())
        assert crc in {entry["crc32"] for entry in rows}


def test_a_run_that_goes_on_packs_the_same_videos(run, videos: Path, packs, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run("pack", videos, "--out", whole, "--workers", 0, *TAR)
    command = [sys.executable, str(PROGRAM), "froster.data.pack_video:_verify:6", "kill", "--"]
    words = ["pack", str(videos), "--out", str(parts), "--workers", "0", *TAR]
    quick.run([*command, *words], capture_output=True)
    run("pack", videos, "--out", parts, "--workers", 2, *TAR)
    members = []
    for pack in (whole, parts):
        assert len(list(pack.glob("*.tar"))) >= 2
        members.append([row["path"].partition("/")[2] for row in rows_of(pack)])
    assert members[0] == members[1] and len(set(members[0])) == 7


@pytest.mark.parametrize("options", [(), TAR], ids=["files", "tar"])
def test_shards_are_joined(run, videos: Path, packs, tmp_path: Path, options) -> None:
    """Two processes make the parts of one pack, one of them stopped on its way; the command without
    a shard does the rest, and only that."""
    out = tmp_path / "pack"
    words = ["pack", videos, "--out", out, "--workers", 0, *options]
    first = run(*words, "--shard", "0/2", "--json")
    command = [PROGRAM, "froster.data.pack_video:_verify:3", "kill", "--", *words, "--shard", "1/2"]
    quick.run([sys.executable, *map(str, command)], capture_output=True)
    with pytest.raises(DataError, match="once more"):
        read_items(out)
    with sole_maker(out / "packed.1-of-2.jsonl"):
        one_line(run(*words), 2, "another froster")
    parts = sorted(out.glob("packed.*-of-2.jsonl"))
    before = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert len({row["path"] for row in before}) == first.json["videos"] + 2 < 8
    states = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar" if options else "*.mp4")}
    report = run(*words, "--json").json
    assert (report["videos"], report["failed"]) == (7, 1)
    assert all(path.stat().st_mtime_ns == state for path, state in states.items()) and states
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == []
    rows, whole = rows_of(out), rows_of(packs["files"])
    assert [row["packed_from"] for row in rows] == [row["packed_from"] for row in whole]
    for row in rows:
        with tar_shards.open_bytes(out / row["path"]) as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        assert digest.startswith(row["fingerprint"])


def test_a_full_disk_is_one_line(videos: Path, tmp_path: Path) -> None:
    """As a limit on the size of files, which the coder and the shards meet."""
    out = tmp_path / "pack"
    program = (
        "import resource, sys\nfrom froster.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)\nmain()"
    )
    for limit, options in ((3000, ()), (20_000, TAR)):
        words = ["pack", str(videos), "--out", str(out), "--workers", "0", *options]
        done = quick.run(
            [sys.executable, "-c", program, str(limit), *words], capture_output=True, text=True
        )
        lines = [line for line in done.stderr.splitlines() if line.startswith("froster:")]
        assert done.returncode == 1 and len(lines) == 1 and "cannot write" in lines[0], done.stderr
        assert not list(out.rglob("*.part"))
        shutil.rmtree(out)


def test_a_file_that_no_process_survives_costs_itself(videos: Path, tmp_path: Path) -> None:
    row = [event.error for event in pool.run(_deadly, [1], 1) if event.done]
    assert row and "crashed" in row[0]


def _deadly(path: object) -> list[object]:
    os._exit(139)


def test_wrong_arguments(run, videos: Path, packs, tmp_path: Path) -> None:
    one_line(run("pack", videos, "--out", videos / "packed"), 2, "lies in")
    one_line(run("pack", videos, "--out", videos), 2, "lies in")
    one_line(run("pack", "--out", tmp_path / "x"), 2, "give video files")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    one_line(run("pack", videos, "--out", tmp_path / "other"), 2, "something else")
    one_line(run("pack", videos, "--out", packs["files"], "--tar"), 2, "packed as files")
    one_line(run("pack", videos, "--out", packs["tar"]), 2, "give --tar")
    one_line(run("pack", videos, "--out", packs["tar"], "--tar", "--tar-size", "inf"), 2, "inf")
    other = copied(packs["files"], tmp_path / "older")
    mark = json.loads((other / "pack.json").read_text())
    (other / "pack.json").write_text(json.dumps({**mark, "form": {"crf": "30"}}))
    one_line(run("pack", videos, "--out", other), 2, "another form")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "v.mp4").write_bytes(b"no video")
    one_line(run("pack", tmp_path / "none", "--out", tmp_path / "y"), 1, "not one of 1 videos")


def test_names(run, videos: Path, tmp_path: Path) -> None:
    assert packed_names(["a/v.avi", "a/v.mp4", "a/v.mkv", "b/v.webm", "/data/w.mov"]) == {
        "a/v.avi": ("a/v.avi.mp4", "a/v.avi"),
        "a/v.mp4": ("a/v.mp4", "a/v.mp4"),
        "a/v.mkv": ("a/v.mkv", "a/v.mkv"),
        "b/v.webm": ("b/v.mkv", "b/v.webm"),
        "/data/w.mov": ("data/w.mp4", "data/w.mov"),
    }
    outside = ["a\\..\\..\\v.mp4", "s3://bucket/../../w.mp4"]
    assert [name for name, _ in packed_names(outside).values()] == ["a/v.mp4", "s3/bucket/w.mp4"]
    with pytest.raises(UsageError, match="rename"):
        packed_names(["v.avi", "v.mp4", "v.avi.mp4"])


def test_a_manifest_keeps_its_columns_and_rows(run, videos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "labels.csv"
    lines = ["path,label,split,source", "a/0.mp4,one,train,x", "a/0.mp4,two,test,y"]
    manifest.write_text("\n".join([*lines, "b/1.mp4,one,test,z"]) + "\n")
    out = tmp_path / "pack"
    words = ("pack", manifest, "--root", videos, "--out", out, "--workers", 0)
    assert run(*words).code == 0
    rows = [(row["path"], row["label"], row["split"], row["source"]) for row in rows_of(out)]
    assert rows == [
        ("a/0.mp4", "one", "train", "x"),
        ("a/0.mp4", "two", "test", "y"),
        ("b/1.mp4", "one", "test", "z"),
    ]
    assert [item.split for item in read_items(out)] == ["train", "test", "test"]


def test_a_list_of_names_may_be_called_as_a_manifest(run, videos: Path, tmp_path: Path) -> None:
    names, out = tmp_path / "names.csv", tmp_path / "pack"
    names.write_text("a/0.mp4\n")
    words = ("--files-from", names, "--root", videos, "--out", out, "--workers", 0)
    assert run("pack", *words).code == 0
    assert [row["path"] for row in rows_of(out)] == ["a/0.mp4"]


@pytest.mark.parametrize("form", [(), ("--tar",)])
def test_a_name_that_is_no_text_is_read_back(run, tmp_path: Path, form: tuple[str, ...]) -> None:
    name = os.fsdecode(b"caf\xe9, a\nb.mp4")
    shutil.copy(encode(tmp_path / "v.mp4", moving(0, 24)), tmp_path / name)
    (tmp_path / "l.csv").write_text(f'path,label\n"{name}",x\n', errors="surrogateescape")
    out = tmp_path / "pack"
    assert run("pack", tmp_path / "l.csv", "--out", out, "--workers", 0, *form).code == 0
    (item,) = read_items(out)
    assert (item.path.name, item.columns["packed_from"]) == (name, "caf\\xe9, a\nb.mp4")
