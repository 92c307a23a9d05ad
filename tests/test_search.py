"""An index says what its model says of every segment; it grows, survives a kill, and is asked by
its own model alone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import froster
import quick
from froster.encoders.model import CLIP
from froster.errors import DataError, UsageError, VideoError
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer
from froster.inference.results import BatchProgress
from froster.inference.search import nearest
from froster.inference.store import IndexEntry, Store
from froster.methods import METHODS
from froster.video.reader import Video
from froster.video.windows import ReadSegments, VideoSegment, VideoSummary
from shared_files import World
from typed import one_line
from video_files import make_video, numbers

NANO = ("--model", "nano", "--workers", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten videos of 2 seconds, named by what they show."""
    root = tmp_path_factory.mktemp("search") / "videos"
    videos = World("base", 1)
    for i in range(10):
        videos.write(i, root / f"{videos.label(i)}.mp4")
    return root


def store(path: Path, counts: list[int], embeddings: torch.Tensor) -> Store:
    """An index of made-up embeddings; a video's segments are of one second."""
    about = {
        "model": "x",
        "source": "x",
        "segment": 1.0,
        "frames": 8,
        "dtype": "float32",
        "root": str(path),
    }
    made = Store.create(path, about, embeddings.shape[1])
    for number, rows in enumerate(embeddings.split(counts)):
        seconds = [float(second) for second in range(len(rows))]
        entry = IndexEntry(
            f"{number}.mp4",
            1,
            1,
            float(len(rows)),
            9,
            0,
            seconds,
            [second + 1 for second in seconds],
        )
        made.add([(entry, rows)])
    return made


def test_segments_show_what_is_there_at_their_moments(tmp_path: Path) -> None:
    """Bar codes name the frames: T moments, evenly spaced, of each second; and nothing is held but
    a clip."""
    path = make_video(tmp_path / "a.mp4", 100, fps=25, size=(160, 96), b_frames=2)
    parts = [part for part in ReadSegments(4, 96, 1.0)(str(path)) if part is not None]
    *segments, whole = parts
    assert isinstance(whole, VideoSummary) and (whole.frames, whole.seconds, whole.damaged) == (
        100,
        pytest.approx(4.0),
        0,
    )
    assert [(round(part.start, 3), round(part.end, 3)) for part in segments] == [
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 4),
    ]
    with Video(path) as video:
        expected = [video.index_at(moment / 8) for moment in range(1, 32, 2)]
        assert (
            numbers(video.read(expected))
            == expected
            == [int(moment / 8 * 25) for moment in range(1, 32, 2)]
        )
    assert segments[0].clip.shape == (4, 3, 96, 96)
    assert all(isinstance(part, VideoSegment) for part in segments)


def test_slides_and_short_videos(tmp_path: Path) -> None:
    """What is shown for long is one segment; a video of one frame has one."""
    path = make_video(tmp_path / "slides.mp4", 4, times=[0, 10_000, 11_000, 12_000])
    *segments, whole = [part for part in ReadSegments(2, 32, 1.0)(str(path)) if part is not None]
    assert [(round(part.start), round(part.end)) for part in segments] == [
        (0, 10),
        (10, 11),
        (11, 12),
    ]
    one = make_video(tmp_path / "one.mp4", 1)
    *segments, whole = [part for part in ReadSegments(2, 32, 4.0)(str(one)) if part is not None]
    assert len(segments) == 1 and whole.frames == 1
    (tmp_path / "none.mp4").write_bytes(one.read_bytes()[:60])
    with pytest.raises(VideoError, match=r"none\.mp4"):
        list(ReadSegments(2, 32, 4.0)(str(tmp_path / "none.mp4")))


def test_search_is_exact(tmp_path: Path) -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(60, 16), dim=-1)
    made = store(tmp_path / "index", [7, 1, 12, 40], embeddings)
    hits = nearest(made, embeddings[9], 60, join=False)
    order = (embeddings @ embeddings[9]).argsort(descending=True)
    assert [hit.score for hit in hits] == pytest.approx(
        (embeddings @ embeddings[9])[order].tolist(), abs=1e-6
    )
    assert (hits[0].entry.path, hits[0].best) == ("2.mp4", (1.0, 2.0))
    best = [hit.entry.path for hit in nearest(made, embeddings[9], 9, by_video=True)]
    assert best[0] == "2.mp4" and len(best) == len(set(best)) == 4


def test_neighbours_that_fit_as_well_are_one_answer(tmp_path: Path) -> None:
    scores = torch.tensor([0.1, 0.85, 0.9, 0.84, 0.1, 0.1, 0.88, 0.1, 0.89])
    embeddings = torch.stack([scores, (1 - scores**2).sqrt()], dim=1)
    made = store(tmp_path / "index", [8, 1], embeddings)
    hits = nearest(made, torch.tensor([1.0, 0.0]), 3)
    assert [(hit.entry.path, hit.start, hit.end, hit.best) for hit in hits] == [
        ("0.mp4", 1, 4, (2, 3)),
        ("1.mp4", 0, 1, (0, 1)),
        ("0.mp4", 6, 7, (6, 7)),
    ]


def test_index_and_search(run, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    report = run(
        "index", folder, *NANO, "--out", index, "--segment", 1, "--dtype", "float32", "--json"
    ).json
    assert (report["videos"], report["segments"], report["new"], report["failed"]) == (
        10,
        20,
        10,
        0,
    )
    what = min(folder.iterdir()).stem
    found = run(
        "search", index, f"a {what}", "--json", "--thumbnails", tmp_path / "found.png", "--top", 5
    )
    assert found.code == 0, found.err
    hits = found.json["hits"]
    assert 0 <= hits[0]["start"] <= hits[0]["best"][0] < hits[0]["best"][1] <= hits[0]["end"] <= 2
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    model = froster.load("nano")
    right = 0
    for name in [file.stem for file in folder.iterdir()]:
        best = nearest(Store(index), model.embed_text([name])[0], 2, by_video=True)
        right += any(hit.entry.path.split()[0] == name.split()[0] for hit in best)
    assert right >= 6, "a text does not find what it names"
    *segments, _ = [
        part
        for part in ReadSegments(8, model.image_size, 1.0)(hits[0]["video"])
        if part is not None
    ]
    clips = torch.stack([torch.from_numpy(part.clip) for part in segments])
    expected = float((model.embed_clips(clips) @ model.embed_text([f"a {what}"])[0]).max())
    assert hits[0]["score"] == pytest.approx(expected, abs=1e-5)
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.width > 1000 and len(sheet.getcolors(1 << 20) or []) > 100
    video = hits[0]["video"]
    like = run(
        "search",
        index,
        "--video",
        video,
        "--json",
        "--by-video",
        "--thumbnails",
        tmp_path / "pictures",
    ).json["hits"]
    assert (
        len(list((tmp_path / "pictures").glob("*.jpg")))
        == 9
        == len({hit["video"] for hit in like} - {video})
    )
    link, copy, other = (tmp_path / f"{name}.mp4" for name in ("link", "copy", "other"))
    link.symlink_to(video)
    copy.write_bytes(Path(video).read_bytes())
    other.write_bytes(Path(video).read_bytes() + bytes(8))
    for name in (link, copy):
        asked = run("search", index, "--video", name, "--json", "--by-video").json
        assert asked["hits"] == like, "it is left out by any name"
        assert asked["left_out"] == [Path(video).name]
    assert "link.mp4 is in the index itself and is left out" in " ".join(
        run("search", index, "--video", link).err.split()
    )
    best = run("search", index, "--video", other, "--json").json["hits"][0]
    assert best["video"] == video and best["score"] > 0.9, "it is another file"


def test_an_index_grows_and_is_pruned(run, folder: Path, tmp_path: Path) -> None:
    videos, index = tmp_path / "videos", tmp_path / "index"
    videos.mkdir()
    files = sorted(folder.iterdir())
    for number, file in enumerate(files[:3]):
        (videos / f"{number}.mp4").write_bytes(file.read_bytes())
    (videos / "bad.mp4").write_bytes(b"x")
    ask = ("index", videos, *NANO, "--out", index, "--json")
    first = run(*ask)
    assert first.code == 1 and (first.json["new"], first.json["failed"]) == (3, 1)
    (videos / "0.mp4").write_bytes(files[5].read_bytes())
    (videos / "3.mp4").write_bytes(files[6].read_bytes())
    (videos / "1.mp4").unlink()
    (videos / "bad.mp4").unlink()
    report = run(*ask).json
    assert (report["new"], report["changed"], report["gone"], report["failed"]) == (
        1,
        1,
        ["1.mp4"],
        0,
    )
    assert report["videos"] == 4
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(files[5].read_bytes() + bytes(8))
    like = ("search", index, "--video", copy, "--json", "--top", 1)
    assert run(*like).json["hits"][0]["score"] > 0.99
    assert run(*ask, "--prune").json["videos"] == 3
    (hit,) = run(*like).json["hits"]
    assert hit["video"] == str(videos / "0.mp4") and hit["score"] > 0.99
    assert run(*ask).json["new"] == 0


def test_prune_keeps_what_cannot_be_looked_at(run, folder: Path, tmp_path: Path) -> None:
    """A folder that may not be entered, a link that leads nowhere near an end, a disk that is not
    mounted: not gone."""
    videos, index = tmp_path / "disk" / "videos", tmp_path / "index"
    files = sorted(folder.iterdir())
    for number, name in enumerate(("a.mp4", "b.mp4", "closed/c.mp4", "file/d.mp4")):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).write_bytes(files[number].read_bytes())
    ask = ("index", videos, *NANO, "--out", index, "--json")
    assert run(*ask).json["videos"] == 4
    (videos / "b.mp4").unlink()
    (videos / "closed").rename(tmp_path / "elsewhere")
    (videos / "closed").symlink_to(
        "closed"
    )  # "too many levels of symbolic links", also for the superuser
    (videos / "file" / "d.mp4").unlink()
    (videos / "file").rmdir()
    (videos / "file").touch()
    report = run("index", videos / "a.mp4", *ask[2:], "--prune").json
    assert report["gone"] == ["b.mp4", "file/d.mp4"] and report["videos"] == 2
    assert set(Store(index).files()) == {"a.mp4", "closed/c.mp4"}

    (tmp_path / "disk").rename(tmp_path / "unmounted")
    one_line(run("index", files[4], *ask[2:], "--prune"), 2, str(videos), "not mounted", "--prune")
    assert set(Store(index).files()) == {"a.mp4", "closed/c.mp4"}
    assert run("index", files[4], *ask[2:]).json["videos"] == 3, "without --prune it goes on"


@pytest.mark.parametrize(
    "error", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT]
)
def test_which_errors_mean_that_a_video_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def fail(path: str) -> tuple[int, int]:
        raise OSError(error, os.strerror(error), str(path))

    # No file system at hand fails in these ways when asked to.
    monkeypatch.setattr("froster.inference.store.file_state", fail)
    entry = IndexEntry("a.mp4", 1, 1, 1.0, 1, 0, [], [])
    assert entry.is_gone(tmp_path) == (
        error in (errno.ENAMETOOLONG, errno.ENOENT)
    ) and not entry.is_current(tmp_path)


KILLED = (
    "import froster.inference.index as b; b.PART_SECONDS = 0; from froster.cli import main; main()"
)


def test_a_killed_index_goes_on(run, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    ask = ["index", folder, *NANO, "--out", index, "--batch-size", 1]
    process = quick.Popen([sys.executable, "-c", KILLED, *map(str, ask)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    parts = index / "segments.lance" / "data"
    while (
        len(list(parts.glob("*.lance"))) < 3
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = Store(index).count
    assert 2 <= kept <= 10
    (parts / "cut.lance").write_bytes(b"cut")
    report = run(*ask, "--json").json
    assert (report["new"], report["videos"]) == (10 - kept, 10)
    whole = tmp_path / "whole"
    run("index", folder, *NANO, "--out", whole)
    for query in ("a cat", "something that spins"):
        one, other = (run("search", path, query, "--json").json["hits"] for path in (index, whole))
        assert [hit["video"] for hit in one] == [hit["video"] for hit in other]


def test_what_cannot_be_searched(run, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    one = next(folder.iterdir())
    assert run("index", one, *NANO, "--out", index).code == 0
    nano = froster.load("nano", device="cpu")
    with torch.no_grad():
        nano.clip.visual.proj.mul_(1.01)
    other = nano.save(tmp_path / "other")
    one_line(run("search", index, "cat", "--model", other), 2, "made by another model", "nano")
    one_line(run("index", one, "--model", other, "--out", index), 2, "made by another model")
    one_line(run("index", one, *NANO, "--out", index, "--segment", 2), 2, "--segment 4.0")
    one_line(run("search", index), 2, "what to look for")
    one_line(run("search", index, "  "), 2, "empty")
    one_line(run("search", index, "x" * 400), 2, "--truncate")
    assert run("search", index, "x" * 400, "--truncate", "--json").code == 0
    assert run("search", index, "ein Mädchen 🏄 سيرف", "--json").code == 0
    one_line(run("search", index, "cat", "--thumbnails", "x.pdf"), 2, ".png")
    one_line(run("search", index, "--video", tmp_path / "gone.mp4"), 2, "gone.mp4")
    one_line(run("search", tmp_path / "nothing", "cat"), 1, "not an index")
    one_line(run("index", one, *NANO, "--out", folder), 2, "is no index")
    one_line(run("index", one, *NANO, "--out", index, "--dtype", "int8"), 2, "float16 or float32")
    part = next((index / "segments.lance" / "data").iterdir())
    content = part.read_bytes()
    part.write_bytes(content[:1000])
    one_line(run("search", index, "cat"), 1, "segments.lance: cannot be read")
    part.unlink()
    one_line(run("search", index, "cat"), 1, "segments.lance: cannot be read", "Not found")
    part.write_bytes(content)
    assert run("search", index, "cat").code == 0
    for version in (index / "segments.lance" / "_versions").iterdir():
        version.write_bytes(version.read_bytes()[:10])
    one_line(run("search", index, "cat"), 1, "segments.lance: cannot be read")


@pytest.mark.parametrize("name", ["xclip", "actionclip"])
def test_networks_without_an_embedding_of_a_text_are_refused(
    run, folder: Path, tmp_path: Path, name: str
) -> None:
    nano = froster.load("nano", device="cpu")
    method = METHODS[name]()
    clip = CLIP(nano.clip.config)
    model = Recognizer(method.build(clip), nano.tokenizer, ModelConfig(method)).save(
        tmp_path / "model"
    )
    one_line(
        run("index", folder, "--model", model, "--out", tmp_path / "index"),
        2,
        name,
        "use another model",
    )
    assert not (tmp_path / "index").exists()


def test_as_functions(run, folder: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    report = froster.index(
        "nano", folder, tmp_path / "i", on_progress=lambda now: steps.append(now.done)
    )
    assert report["failed"] == 0 and steps == list(range(report["videos"] + 1))
    assert froster.index(None, folder, tmp_path / "i")["new"] == 0, "the model is the index's"
    asked = run("search", tmp_path / "i", "a cat", "--top", 3, "--json")
    assert froster.search(tmp_path / "i", "a cat", top=3).to_dict() == asked.json
    with pytest.raises(UsageError, match="say what to look for"):
        froster.search(tmp_path / "i")


def test_an_interrupt_keeps_what_was_finished(folder: Path, tmp_path: Path) -> None:
    from froster.inference.batch import ReadOptions

    def stop(progress: BatchProgress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        froster.index(
            "nano", folder, tmp_path / "index", options=ReadOptions(0, 1), on_progress=stop
        )
    assert Store(tmp_path / "index").count == 1
    first = sorted(folder.iterdir())[0]
    assert Store(tmp_path / "index").files()[first.name].size == first.stat().st_size
    with pytest.raises(DataError, match="not an index"):
        Store(folder)


def test_members_of_a_pack_are_gone_only_where_their_table_says_so(
    folder: Path, tmp_path: Path
) -> None:
    videos = [*sorted(folder.glob("*.mp4"))[:2]]
    for number, video in enumerate(videos):
        (tmp_path / "videos").mkdir(exist_ok=True)
        (tmp_path / "videos" / f"{number}.mp4").write_bytes(video.read_bytes())
    pack, index = tmp_path / "pack", tmp_path / "index"
    command = [sys.executable, "-m", "froster", "pack", tmp_path / "videos", "--out", pack]
    quick.run([*map(str, command), "--tar"], check=True, capture_output=True)
    froster.index("nano", pack, index)
    store = Store(index)
    files = list(store.files().values())
    assert len(files) == 2 and not any(file.is_gone(store.root) for file in files)
    asked = froster.search(index, video=store.root / files[0].path, model="nano")
    assert asked.left_out == [files[0].path], "a member is itself no answer"
    (table,) = pack.glob("*.offsets.jsonl")
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    assert sum(file.is_gone(store.root) for file in files) == 1
    table.rename(tmp_path / "elsewhere")
    assert not any(file.is_gone(store.root) for file in files), "what cannot be read is not gone"
