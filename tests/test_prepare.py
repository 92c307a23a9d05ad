"""`froster prepare` on tiny trees of real clips: what it finds, and that nothing stops it for good."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

import quick
from froster.cli import main
from froster.data.inspect import inspect_all
from froster.data.listing import ListedVideo
from froster.data.manifest import read_items
from froster.data.prepare import prepare
from froster.errors import DataError, UsageError
from froster.paper.protocols import Options, base_to_novel
from froster.utils.progress import progress
from froster.utils.work import Means
from paper_trees import (
    hmdb_lists,
    kinetics_csv,
    original,
    put,
    ssv2_json,
    ucf_clips,
    ucf_lists,
    write,
)


def run(
    name: str,
    videos: Path,
    annotations: Path | None,
    out: Path,
    workers: int = 0,
    resume: bool = False,
) -> dict:
    with progress(quiet=True) as bars:
        return prepare(
            name, videos, annotations, out, means=Means(workers=workers), resume=resume, bars=bars
        )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """UCF101 with something of every kind; `lists` beside `videos`."""
    videos = tmp_path / "videos"
    good, other, double, lost = ucf_clips(4)
    put(good, videos / "Archery" / "v_Archery_g01_c01.avi")
    put(original("v_YoYo_g01_c01.avi"), videos / "YoYo" / "v_YoYo_g01_c01.avi")
    put(other, videos / "HandstandPushups" / "v_HandStandPushups_g01_c01.avi")
    put(double, videos / "Punch" / "v_Punch_g01_c01.avi")
    put(double, videos / "Punch" / "v_Punch_g08_c01.avi")
    put(lost, videos / "Surfing" / "v_Biking_g01_c01.avi")
    put(original("v_SoccerJuggling_g23_c01.avi"), videos / "Bikng" / "v_Biking_g02_c01.avi")
    put(original("daria_run.avi"), videos / "Lunges" / "v_Lunges_g01_c01.avi")
    whole = original("v_PlayingPiano_g02_c01.avi").read_bytes()
    put(
        original("v_PlayingPiano_g02_c01.avi"), videos / "Diving" / "v_Diving_g01_c01.avi"
    ).write_bytes(whole[: len(whole) // 2])
    write(videos / "Rowing" / "v_Rowing_g01_c01.avi", "this is no video")
    (videos / "Rowing" / "v_Rowing_g02_c01.avi").touch()
    write(videos / "Typing.rar", "")
    listed = sorted(
        [
            f"{file.parent.name}/{file.name}"
            for file in videos.glob("*/*.avi")
            if "Biking" not in file.name
        ]
        + [
            f"{name}/v_{name}_g0{group}_c01.avi"
            for name, groups in (("Biking", "12"), ("Typing", "19"))
            for group in groups
        ]
    )
    put(original("v_TaiChi_g01_c02.avi"), videos / "TaiChi" / "v_TaiChi_g01_c02.avi")
    test = [name for name in listed if "_g01" in name]
    ucf_lists(tmp_path / "lists", listed, [test, test, listed[:1]])
    return tmp_path


def test_every_category_is_found_and_no_row_is_lost(spoilt: Path) -> None:
    out = spoilt / "out" / "ucf.csv"
    report = run("ucf101", spoilt / "videos", spoilt / "lists", out)
    assert report["counts"] == {
        "missing": 2,
        "broken": 2,
        "damaged": 1,
        "short": 2,
        "duplicate": 1,
        "mislabelled": 2,
    }
    assert (report["listed"], report["videos"], report["unlisted"]) == (13, 9, 1)
    assert report["missing_by_split"] == {"test": 1, "train": 1}
    assert "Typing.rar" in report["notes"][0]
    assert (
        "Typing" in report["classes_without_videos"]
        and "YoYo" not in report["classes_without_videos"]
    )
    lists = {
        name: {row["clip"].split("_", 1)[1]: row["why"] for row in rows(Path(path))}
        for name, path in report["reports"].items()
    }
    assert lists["missing"] == dict.fromkeys(
        ("Typing_g01_c01.avi", "Typing_g09_c01.avi"), "no such file"
    )
    assert (
        "text" in lists["broken"]["Rowing_g01_c01.avi"]
        or "not a readable" in lists["broken"]["Rowing_g01_c01.avi"]
    )
    assert lists["broken"]["Rowing_g02_c01.avi"] == "empty file"
    assert lists["damaged"]["Diving_g01_c01.avi"].endswith("frames of the 225 that it states")
    assert lists["short"]["Lunges_g01_c01.avi"] == "42 frames, 1.68 s"
    assert lists["duplicate"] == {
        "Punch_g01_c01.avi": "the same as Punch/v_Punch_g08_c01.avi"
        " (split test/test/train here, train/train/train there)"
    }
    assert lists["mislabelled"]["Biking_g01_c01.avi"] == "lies in the folder Surfing"
    assert lists["mislabelled"]["Biking_g02_c01.avi"] == "lies in the folder Bikng"
    assert json.loads((out.parent / "ucf.report.json").read_text())["counts"] == report["counts"]

    items = read_items(out)
    assert len(items) == 9 == len(rows(out))
    clip = next(item for item in items if item.label == "Handstand Pushups")
    assert (clip.split, clip.columns["split2"], clip.columns["split3"]) == ("test", "test", "train")
    assert (clip.columns["official"], clip.columns["zone"]) == ("HandstandPushups", "base")
    soccer = next(item for item in items if item.path.name == "v_Biking_g02_c01.avi")
    assert (soccer.label, soccer.columns["frames"], soccer.columns["fps"]) == (
        "Biking",
        "240",
        "29.970",
    )
    assert (
        len(read_items(out, where={"zone": "novel"})) + len(read_items(out, where={"zone": "base"}))
        == 9
    )


def test_processes_find_what_one_process_finds(spoilt: Path) -> None:
    alone = run("ucf101", spoilt / "videos", spoilt / "lists", spoilt / "a.csv")
    many = run("ucf101", spoilt / "videos", spoilt / "lists", spoilt / "b.csv", workers=3)
    assert alone["counts"] == many["counts"]
    assert (spoilt / "a.csv").read_bytes() == (spoilt / "b.csv").read_bytes()
    assert not multiprocessing.active_children()


def test_hmdb51(tmp_path: Path) -> None:
    clips = ucf_clips(4)
    codes = {"sword": {"a.avi": "121", "b.avi": "012"}, "kick_ball": {"c.avi": "210"}}
    for clip, name in zip(clips, ("sword/a.avi", "sword/b.avi", "kick_ball/c.avi"), strict=False):
        put(clip, tmp_path / "v" / name)
    report = run(
        "hmdb51", tmp_path / "v", hmdb_lists(tmp_path / "lists", codes), tmp_path / "hmdb.csv"
    )
    assert report["splits"] == {"test": 1, "train": 1, "unused": 1}
    found = {item.path.name: item for item in read_items(tmp_path / "hmdb.csv")}
    assert [found[f"{name}.avi"].split for name in "abc"] == ["train", None, "test"]
    assert found["b.avi"].columns["split3"] == "test"
    assert (found["c.avi"].label, found["c.avi"].columns["zone"]) == ("kick ball", "novel")


@pytest.mark.parametrize("layout", ["flat", "folders"])
def test_kinetics(tmp_path: Path, layout: str) -> None:
    names = ["5JzkrOVhPOw_000027_000037.mp4", "zkXOcxGnUhs_000025_000035.mp4"]
    places = ["train", "val"] if layout == "flat" else ["train/arm_wrestling", "val/bungee_jumping"]
    for name, place in zip(names, places, strict=True):
        put(original(name), tmp_path / "v" / place / name)
    kinetics_csv(
        tmp_path / "a" / "train.csv",
        "arm wrestling,5JzkrOVhPOw,27,37,train",
        "abseiling,AAAAAAAAAAA,1,11,train",
    )
    kinetics_csv(tmp_path / "a" / "val.csv", "bungee jumping,zkXOcxGnUhs,25,35,val")
    dataset = "k600" if layout == "flat" else "k400"
    report = run(dataset, tmp_path / "v", tmp_path / "a", tmp_path / f"{dataset}.csv")
    assert report["counts"] == {
        "missing": 1,
        "broken": 0,
        "damaged": 0,
        "short": 0,
        "duplicate": 0,
        "mislabelled": 0,
    }
    found = [(item.label, item.split) for item in read_items(tmp_path / f"{dataset}.csv")]
    assert found == [("arm wrestling", "train"), ("bungee jumping", "val")]
    if layout == "folders":
        report = run("k400", tmp_path / "v", None, tmp_path / "plain.csv")
        assert (report["layout"], report["videos"]) == ("split and class folders", 2)
        assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "k400.csv").read_bytes()


def test_k600_marks_the_three_draws_of_unseen_classes(tmp_path: Path) -> None:
    clips = ucf_clips(2)
    put(clips[0], tmp_path / "v" / "val" / "acting_in_play" / "AAAAAAAAAAA_000001_000011.mp4")
    put(clips[1], tmp_path / "v" / "val" / "abseiling" / "BBBBBBBBBBB_000001_000011.mp4")
    run("k600", tmp_path / "v", None, tmp_path / "k600.csv")
    acting, abseiling = sorted(
        rows(tmp_path / "k600.csv"), key=lambda row: row["label"], reverse=True
    )
    assert (acting["unseen1"], abseiling["unseen1"]) == ("yes", "")
    assert [item.label for item in read_items(tmp_path / "k600.csv", where={"unseen1": "yes"})] == [
        "acting in play"
    ]


def test_ssv2(tmp_path: Path) -> None:
    put(original("flipping_a_pancake.mkv"), tmp_path / "v" / "78687.webm")
    put(original("water_bottle_drumming.mp4"), tmp_path / "v" / "42326.webm")
    train = [("78687", "Lifting up one end of [something], then letting it drop down")]
    ssv2_json(
        tmp_path / "labels",
        train=train,
        validation=[("42326", "Spinning [something] so it continues spinning")],
    )
    report = run("ssv2", tmp_path / "v", tmp_path / "labels", tmp_path / "ssv2.csv")
    assert report["counts"]["mislabelled"] == 0
    first, second = read_items(tmp_path / "ssv2.csv")
    assert first.label == "Lifting up one end of something, then letting it drop down"
    assert (second.split, second.columns["frames"]) == ("val", "100")


def test_the_swapped_names_of_the_released_lists_are_seen(tmp_path: Path) -> None:
    for clip, place in zip(ucf_clips(3), ("sword/a.avi", "wave/b.avi", "kick/c.avi"), strict=True):
        put(clip, tmp_path / "v" / place)
    write(tmp_path / "l" / "train.csv", "sword/a.avi,0", "wave/b.avi,1")
    write(tmp_path / "l" / "test.csv", "kick/c.avi,0")
    write(
        tmp_path / "l" / "train_rephrased.json",
        json.dumps(["Sword exercise: with a sword", "Wave: a hand"]),
    )
    write(tmp_path / "l" / "test_rephrased.json", json.dumps({"0": "Kick ball: of a ball"}))
    report = run("hmdb51", tmp_path / "v", tmp_path / "l", tmp_path / "m.csv")
    assert report["counts"]["mislabelled"] == 2
    assert [row["why"] for row in rows(tmp_path / "m.mislabelled.csv")] == [
        "lies in the folder sword",
        "lies in the folder kick",
    ]


def test_a_prepared_manifest_goes_into_the_protocol(tmp_path: Path) -> None:
    places = [
        "Typing/v_Typing_g08_c01.avi",
        "Typing/v_Typing_g01_c01.avi",
        "PullUps/v_PullUps_g01_c01.avi",
    ]
    for clip, place in zip(ucf_clips(3), places, strict=True):
        put(clip, tmp_path / "v" / place)
    ucf_lists(tmp_path / "l", places, [places[1:]] * 3)
    run("ucf101", tmp_path / "v", tmp_path / "l", tmp_path / "m.csv")
    split = base_to_novel("ucf101", read_items(tmp_path / "m.csv"), Options())
    assert [
        [item.label for item in part] for part in (split.train, split.base_test, split.novel_test)
    ] == [["Typing"], ["Typing"], ["Pull Ups"]]


def good(folder: Path, count: int) -> Path:
    """So many good videos of UCF101."""
    names = [f"Archery/v_Archery_g{i:02d}_c01.avi" for i in range(count)]
    for clip, name in zip(ucf_clips(count), names, strict=True):
        put(clip, folder / "videos" / name)
    ucf_lists(folder / "lists", names, [names[: count // 2]] * 3)
    return folder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """40, so that a run can be stopped among them."""
    return good(tmp_path, 40)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return good(tmp_path, 4)


def start(folder: Path, *options: str) -> quick.Popen:
    arguments = [
        "--videos",
        folder / "videos",
        "--annotations",
        folder / "lists",
        "--out",
        folder / "m.csv",
        *options,
    ]
    command = [sys.executable, "-m", "froster", "prepare", "ucf101", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return quick.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def until_checked(folder: Path, count: int, process: quick.Popen) -> None:
    journal = folder / "m.checks.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def descendants(pid: int) -> set[int]:
    found = {pid}
    while True:
        more = set()
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                if int(entry.read_text().rpartition(")")[2].split()[1]) in found:
                    more.add(int(entry.parent.name))
            except (OSError, ValueError):
                continue
        if more <= found:
            return found - {pid}
        found |= more


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for left-over processes in /proc"
)
def test_a_killed_run_goes_on_where_it_was(many: Path) -> None:
    process = start(many, "--workers", "2")
    until_checked(many, 5, process)
    below = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (many / "m.csv").exists()
    journal = many / "m.checks.jsonl"
    lines = journal.read_text().split("\n")
    done = {check["path"]: check for check in map(json.loads, lines[:-1])}
    assert 5 <= len(done) < 40
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()], (
        "the workers outlive the command"
    )

    # A line cut in the middle is a file that was not checked; a file that was is not opened again,
    # whatever is in it now.
    kept, cut = list(done)[:2]
    journal.write_text(
        "\n".join(line for line in lines if cut not in line) + json.dumps(done[cut])[:40]
    )
    path = many / "videos" / kept
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = start(many, "--workers", "1", "--resume", "--json")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    report = json.loads(out)
    assert (
        report["videos"],
        report["listed"],
        sum(report["counts"].values()) - report["counts"]["short"],
    ) == (40, 40, 0)
    assert (
        len(read_items(many / "m.csv")) == 40 == len({row["path"] for row in rows(many / "m.csv")})
    )
    checks = [json.loads(line) for line in journal.read_text().split("\n") if line]
    assert len(checks) == 40 == len({check["path"] for check in checks})
    os.utime(path)  # now it is another file
    assert (
        run("ucf101", many / "videos", many / "lists", many / "m.csv", resume=True)["counts"][
            "broken"
        ]
        == 1
    )


def test_ctrl_c_stops_and_keeps_what_was_checked(many: Path) -> None:
    process = start(many, "--workers", "1")
    until_checked(many, 3, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "froster: stopped; the same command with --resume goes on" in err
    assert "Traceback" not in err
    assert not (many / "m.csv").exists()
    assert (
        run("ucf101", many / "videos", many / "lists", many / "m.csv", resume=True)["videos"] == 40
    )


def test_a_second_run_needs_resume_and_takes_what_has_come(few: Path) -> None:
    gone = few / "videos" / "Archery" / "v_Archery_g00_c01.avi"
    data = gone.read_bytes()
    gone.unlink()
    assert run("ucf101", few / "videos", few / "lists", few / "m.csv")["counts"]["missing"] == 1
    assert (few / "m.missing.csv").exists()
    with pytest.raises(UsageError, match="--resume"):
        run("ucf101", few / "videos", few / "lists", few / "m.csv")
    gone.write_bytes(data)
    assert (
        run("ucf101", few / "videos", few / "lists", few / "m.csv", resume=True)["counts"][
            "missing"
        ]
        == 0
    )
    assert not (few / "m.missing.csv").exists(), "a list of an earlier run must not stay"


HOLD = """
import sys, pathlib, froster.utils.files
with froster.utils.files.exclusive(pathlib.Path(sys.argv[1]), "taken"):
    print("held", flush=True)
    input()
"""


def test_two_at_once_are_refused(few: Path) -> None:
    """The lock is held while another process writes, and a file that a kill left behind locks
    nothing."""
    pytest.importorskip("fcntl")
    lock = few / ".m.csv.lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with quick.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        for resume in (False, True):
            with pytest.raises(
                UsageError,
                match=r"another froster is writing .*m.csv: wait until it ends, or choose another",
            ):
                run("ucf101", few / "videos", few / "lists", few / "m.csv", resume=resume)
        assert not (few / "m.csv").exists() and not (few / "m.checks.jsonl").exists()
        assert run("ucf101", few / "videos", few / "lists", few / "other.csv")["videos"] == 4
        other.kill()
    assert lock.exists(), "a killed process cannot have tidied up"
    assert run("ucf101", few / "videos", few / "lists", few / "m.csv")["videos"] == 4
    assert not lock.exists()


def test_a_process_that_is_killed_costs_no_file(many: Path) -> None:
    names = [f"Archery/v_Archery_g{i:02d}_c01.avi" for i in range(6)]
    killed = []

    class Bars(Progress):
        def update(self, *arguments: Any, **options: Any) -> None:
            if not killed and (children := multiprocessing.active_children()):
                (worker,) = children
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(worker.pid)

    videos = [ListedVideo(many / "videos" / name, name) for name in names]
    files = inspect_all(videos, None, Means(workers=1), Bars())
    assert killed and sorted(files) == names
    assert not any(file.error for file in files.values()), "the file that it had is read once more"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.avi")
    with progress(quiet=True) as bars:
        files = inspect_all(
            [ListedVideo(tmp_path / n, n) for n in ("a.avi", "b.avi")], None, Means(), bars
        )
    assert files["a.avi"].error == "not a regular file"
    assert files["b.avi"].error == "no such file"


def test_what_cannot_be_prepared_is_said(spoilt: Path) -> None:
    videos, lists, out = spoilt / "videos", spoilt / "lists", spoilt / "m.csv"
    with pytest.raises(UsageError, match="must be k400"):
        run("ucf", videos, lists, out)
    with pytest.raises(UsageError, match=r"\.csv"):
        run("ucf101", videos, lists, spoilt / "m.txt")
    with pytest.raises(
        DataError, match=r"no annotations were given.*but as Archery/v_Arch.*pass --annotations, or"
    ):
        run("ucf101", videos, None, out)
    archives = spoilt / "archives"
    write(archives / "Archery.rar", "")
    with pytest.raises(
        DataError,
        match=r"no videos in this.*there is 1 archive not extracted, Archery.rar: extract it",
    ):
        run("ucf101", archives, lists, out)
    write(archives / "Archery.zip.001", "")
    put(ucf_clips(1)[0], archives / "wave" / "x.avi")
    with pytest.raises(
        DataError,
        match=r"none of the 13 clips.*found 1 videos such as wave/x.avi; there are 2 archives not",
    ):
        run("ucf101", archives, lists, out)
    with pytest.raises(DataError, match="of the same data set"):
        run("ucf101", archives / "wave", lists, out)
    (archives / "empty").mkdir()
    with pytest.raises(
        DataError,
        match=(
            "no videos in this folder or below; --videos needs the folder of the videos of ucf101"
        ),
    ):
        run("ucf101", archives / "empty", lists, out)
    with pytest.raises(DataError, match="a file; --videos needs a folder: extract it"):
        run("ucf101", archives / "Archery.rar", lists, out)
    with pytest.raises(DataError, match="a file, not a folder; --annotations needs the folder"):
        run("ucf101", videos, lists / "trainlist01.txt", out)
    write(archives / "Archery" / "v_Archery_g01_c01.avi", "no video")
    with pytest.raises(DataError, match="not one of 1 files can be read"):
        run("ucf101", archives, lists, out)
    assert not out.exists()


def test_a_tree_in_the_wrong_place(tmp_path: Path) -> None:
    """From a folder above all is found; the folder of one class is refused, that of one split is
    commented on."""
    names = [f"{name}/v_{name}_g0{n}_c01.avi" for name in ("Archery", "PullUps") for n in (1, 8)]
    for clip, name in zip(ucf_clips(4), names, strict=True):
        put(clip, tmp_path / "above" / "UCF-101" / name)
    lists = ucf_lists(tmp_path / "lists", names, [names[::2]] * 3)
    write(tmp_path / "above" / "UCF101.rar", "")
    report = run("ucf101", tmp_path / "above", lists, tmp_path / "m.csv")
    assert (report["videos"], report["counts"]["mislabelled"]) == (4, 0)
    assert report["notes"] == [], "an archive that lies beside all of its files is no news"
    with pytest.raises(
        DataError, match=r"the videos of one class alone \(PullUps\).*the folder above"
    ):
        run("ucf101", tmp_path / "above" / "UCF-101" / "PullUps", lists, tmp_path / "one.csv")
    assert not (tmp_path / "one.csv").exists()

    for clip, name, place in zip(
        ucf_clips(3), "ABC", ("train/abseiling", "train/archery", "val/archery"), strict=True
    ):
        put(clip, tmp_path / "k400" / place / f"{name}_000001_000011.mp4")
    kinetics_csv(tmp_path / "csv" / "train.csv", "abseiling,A,1,11,train", "archery,B,1,11,train")
    kinetics_csv(tmp_path / "csv" / "val.csv", "archery,C,1,11,val")
    report = run("k400", tmp_path / "k400" / "train", tmp_path / "csv", tmp_path / "k.csv")
    assert report["notes"] == [
        "no video of val is here; if --videos is the folder of one split, pass the folder above it"
    ]
    with pytest.raises(DataError, match="the folder above train and val"):
        run("k400", tmp_path / "k400" / "train", None, tmp_path / "none.csv")


def test_archives_that_were_not_extracted(tmp_path: Path) -> None:
    names = [
        f"{name}/v_{name}_g0{n}_c01.avi"
        for name in ("Archery", "PullUps", "Typing")
        for n in (1, 8)
    ]
    for clip, name in zip(ucf_clips(3), names[:3], strict=True):
        put(clip, tmp_path / "v" / name)
    for archive in ("PullUps.zip", "Typing.tar.gz", "20bn-something-something-v2-07", "part2.r00"):
        write(tmp_path / "v" / archive, "")
    report = run(
        "ucf101",
        tmp_path / "v",
        ucf_lists(tmp_path / "l", names, [names[::2]] * 3),
        tmp_path / "m.csv",
    )
    assert report["notes"] == [
        "3 clips are missing, and there are 4 archives not extracted, such as"
        " 20bn-something-something-v2-07: extract them, then run again with --resume"
    ]


def test_class_folders_spelt_differently(tmp_path: Path) -> None:
    names = [
        f"{name}/v_{name}_g0{n}_c01.avi"
        for name in ("ApplyEyeMakeup", "YoYo", "BasketballDunk")
        for n in (1, 8)
    ]
    respelt = (
        "apply_eye_makeup",
        "Apply Eye Makeup",
        "yo yo",
        "YOYO",
        "Basketball-Dunk",
        "basketballdunk",
    )
    for clip, name, folder in zip(ucf_clips(6), names, respelt, strict=True):
        put(
            clip,
            tmp_path
            / "v"
            / folder
            / Path(name).name.replace("_", " " if folder == "YOYO" else "_").lower(),
        )
    report = run(
        "ucf101",
        tmp_path / "v",
        ucf_lists(tmp_path / "l", names, [names[::2]] * 3),
        tmp_path / "m.csv",
    )
    assert (report["videos"], report["counts"]["missing"], report["counts"]["mislabelled"]) == (
        6,
        0,
        0,
    )
    assert {item.label for item in read_items(tmp_path / "m.csv")} == {
        "Apply Eye Makeup",
        "Yoyo",
        "Basketball Dunk",
    }
    for clip, place in zip(
        ucf_clips(3), ("train/Air-Drumming", "val/ABSEILING", "val/abselling"), strict=True
    ):
        put(clip, tmp_path / "k" / place / "x.mp4")
    report = run("k400", tmp_path / "k", None, tmp_path / "k.csv")
    assert {item.label for item in read_items(tmp_path / "k.csv")} == {"air drumming", "abseiling"}
    assert report["notes"] == [
        "1 videos are left out: their folders name no split and class, such as val/abselling/x.mp4"
    ]


def test_the_command(
    spoilt: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--videos",
        spoilt / "videos",
        "--annotations",
        spoilt / "lists",
        "--out",
        spoilt / "m.csv",
        "--workers",
        0,
    ]
    monkeypatch.setattr(sys, "argv", ["froster", "prepare", "ucf101", *map(str, arguments)])
    main()
    said = capfd.readouterr()
    assert "9 of 13 listed clips" in " ".join(said.out.split()) and "m.mislabelled.csv" in said.out
    assert "1 videos are not in the annotations" in said.err and "Typing.rar" in said.err
