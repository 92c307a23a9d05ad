"""Which videos a command is about, in whatever way they are named, and which part of them is whose."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from froster.data.listing import ListedVideo, list_videos
from froster.data.shards import Shard, parse_shard
from froster.errors import DataError, UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for name in (
        "b/2.mp4",
        "b/1.MP4",
        "a.webm",
        "b/c/über 3.mkv",
        "notes.txt",
        ".hidden/x.mp4",
        "b/.y.mp4",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "b" / "loop").symlink_to(root, target_is_directory=True)
    return root


def test_a_folder_with_all_below(tree: Path) -> None:
    listing = list_videos([tree])
    assert [found.key for found in listing] == ["a.webm", "b/1.MP4", "b/2.mp4", "b/c/über 3.mkv"]
    assert (listing.root, listing.ignored) == (tree, 2)
    assert all(found.path.exists() for found in listing)


def test_files_manifests_and_lists(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    (tree / "m.csv").write_text("split,path\ntest,b/2.mp4\ntrain,gone.mp4\n")
    found = list_videos([Path("m.csv"), Path("b/c"), Path("../videos/b/2.mp4"), Path("a.webm")])
    assert [video.key for video in found] == ["b/2.mp4", "gone.mp4", "b/c/über 3.mkv", "a.webm"]
    assert found[0].columns == {"split": "test", "path": "b/2.mp4"}
    (tree / "list.txt").write_bytes("\ufeffa.webm\r\n\nb/2.mp4".encode())
    assert [video.key for video in list_videos([], files_from=Path("list.txt"))] == [
        "a.webm",
        "b/2.mp4",
    ]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1.MP4\0c/\xc3\xbcber 3.mkv\0")))
    assert [video.key for video in list_videos([Path("-")], root=tree / "b")] == [
        "1.MP4",
        "c/über 3.mkv",
    ]


def test_a_folder_reached_by_a_link_has_the_same_keys(tree: Path) -> None:
    link = tree.parent / "link"
    link.symlink_to(tree, target_is_directory=True)
    keys = [video.key for video in list_videos([tree])]
    assert [video.key for video in list_videos([link], base=tree)] == keys
    assert [video.key for video in list_videos([link])] == keys


def test_the_key_of_a_name_that_is_no_text_is_that_name(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\n.mp4")
    try:
        (tmp_path / odd).touch()
    except OSError:
        pytest.skip("this file system takes text only")
    (video,) = list_videos([tmp_path])
    assert (video.path.name, video.key) == (odd, odd)


def test_what_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--files-from"):
        list_videos([])
    with pytest.raises(DataError, match=r"no videos \(.*mp4"):
        list_videos([tmp_path])
    with pytest.raises(DataError, match=r"nothing.txt: cannot be read"):
        list_videos([], files_from=tmp_path / "nothing.txt")
    (tmp_path / "m.csv").write_text("file,label\nx.mp4,a\n")
    with pytest.raises(DataError, match=r"expected a column 'path', found: file, label"):
        list_videos([tmp_path / "m.csv"])
    assert [video.key for video in list_videos([tmp_path / "gone.mp4"], root=tmp_path)] == [
        "gone.mp4"
    ]


def test_shards_are_disjoint_complete_and_stay_when_files_come() -> None:
    videos = [ListedVideo(Path(name), name) for name in (f"{i}.mp4" for i in range(1000))]
    shards = [Shard(i, 4) for i in range(4)]
    parts = [shard.of(videos) for shard in shards]
    assert sorted(video.key for part in parts for video in part) == sorted(
        video.key for video in videos
    )
    assert all(200 < len(part) < 300 for part in parts)
    assert [
        video
        for video in shards[1].of([ListedVideo(Path("new"), "new"), *videos])
        if video.key != "new"
    ] == parts[1]
    assert Shard(1, 4).file(Path("x/results.csv")) == Path("x/results.1-of-4.csv")


SLURM = {
    "SLURM_ARRAY_TASK_ID": "6",
    "SLURM_ARRAY_TASK_MIN": "2",
    "SLURM_ARRAY_TASK_MAX": "8",
    "SLURM_ARRAY_TASK_STEP": "2",
}
PLACES = [
    ({"RANK": "2", "WORLD_SIZE": "4"}, Shard(2, 4)),
    ({**SLURM, "SLURM_ARRAY_TASK_COUNT": "4"}, Shard(2, 4)),
    ({**SLURM, "RANK": "1", "WORLD_SIZE": "2"}, Shard(5, 8)),
    (
        {"SGE_TASK_ID": "3", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "3", "SGE_TASK_STEPSIZE": "1"},
        Shard(2, 3),
    ),
    ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, Shard(0, 2)),
]


@pytest.mark.parametrize(("environment", "shard"), PLACES)
def test_what_torchrun_and_job_arrays_say(environment: dict[str, str], shard: Shard) -> None:
    assert parse_shard("auto", environment) == shard


def test_shards_that_would_lose_videos_are_refused() -> None:
    with pytest.raises(UsageError, match="no sign of torchrun"):
        parse_shard("auto", {"SGE_TASK_ID": "undefined"})
    with pytest.raises(UsageError, match="gaps"):
        parse_shard("auto", {**SLURM, "SLURM_ARRAY_TASK_COUNT": "3"})
    for text in ("4/4", "x", "1/0", "-1/2", ""):
        with pytest.raises(UsageError, match="I/N"):
            parse_shard(text, {})


@pytest.mark.parametrize("at_once", [1, 3, 4096])
def test_a_video_of_many_names_is_listed_once(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its first row, whether it comes again soon or late, and what is missing is missing."""
    monkeypatch.setattr("froster.data.listing._AT_ONCE", at_once)
    names = ["a.mp4", "b.mp4", "./a.mp4", "a.mp4", "gone.mp4", "c.mp4", "b.mp4", "d.mp4"]
    for name in set(names) - {"gone.mp4"}:
        (tmp_path / name).touch()
    rows = "".join(f"{name},{number}\n" for number, name in enumerate(names))
    (tmp_path / "m.csv").write_text(f"path,number\n{rows}")
    listing = list_videos([tmp_path / "m.csv", tmp_path / "d.mp4", tmp_path / "m.csv"])
    keys = [(Path(video.key).name, video.columns.get("number")) for video in listing]
    firsts = [("a.mp4", "0"), ("b.mp4", "1"), ("gone.mp4", "4"), ("c.mp4", "5"), ("d.mp4", "7")]
    assert keys == firsts
    assert [video.path.name for video in listing.missing] == ["gone.mp4"]
