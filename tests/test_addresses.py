"""Files at addresses: what they are called, what is read of them, and what a server that is slow,
silent, untruthful or shut does to a command."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch

import froster
from benchmarks.scale_remote import eight_of, long_video
from benchmarks.scale_remote import run as measure
from froster.data.listing import list_videos
from froster.data.manifest import read_items
from froster.errors import UsageError, VideoError, WriteError
from froster.utils import ranges, remote
from froster.utils.address import Address, as_path, located, whole_name
from froster.utils.folder import Folder
from froster.video.container import file_state
from froster.video.reader import Video
from froster.video.stream import Stream
from http_server import Site
from object_store import Store
from shared_files import World
from typed import one_line
from video_files import make_video, orientation_message, with_units

pytestmark = pytest.mark.usefixtures("few_templates")
LABELS = ("--labels", "cat spinning, key pacing", "--model", "nano")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server, and clients that have little patience."""
    monkeypatch.setattr(remote, "SILENCE", 0.5)
    monkeypatch.setattr(remote, "PAUSES", (0.05, 0.05))
    site = Site()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.stop()


@pytest.fixture
def bucket(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("addresses")
    return [World("base", 1).write(number, folder / f"{number}.mp4") for number in range(4)]


# Names


@pytest.mark.parametrize(
    ("text", "name", "suffix", "folder"),
    [
        ("s3://b/d/a.mp4", "a.mp4", ".mp4", "s3://b/d"),
        (" S3://b/d//a.mp4", "a.mp4", ".mp4", "s3://b/d/"),
        ("https://h:80/d/a%20b.mp4?x=/y.csv", "a b.mp4", ".mp4", "https://h:80/d"),
        ("hf://datasets/u/r/a.mp4", "a.mp4", ".mp4", "hf://datasets/u/r"),
        ("gs://b/a", "a", "", "gs://b/"),
    ],
)
def test_addresses_have_names_and_folders(text: str, name: str, suffix: str, folder: str) -> None:
    path = as_path(text)
    assert isinstance(path, Address)
    assert (path.name, path.suffix, str(path.parent)) == (name, suffix, folder)
    assert pickle.loads(pickle.dumps(path)) == path == as_path(str(path))
    assert whole_name(path) == str(path) == str(path.absolute())
    assert path.with_suffix(".csv").suffix == ".csv"


def test_names_below_addresses_and_paths() -> None:
    folder = as_path("https://h/d")
    assert str(located(folder, "x/../a b.mp4")) == "https://h/d/a b.mp4"
    assert str(located(folder, "what?.mp4")) == "https://h/d/what%3F.mp4"
    assert str(located(folder, "../../../../a.mp4")) == "https://h/a.mp4"
    assert located(folder, "/a.mp4") == Path("/a.mp4")
    assert str(located(Path("/d"), "s3://b/a.mp4")) == "s3://b/a.mp4"
    assert located(Path("/d"), "a.mp4") == Path("/d/a.mp4")
    assert as_path("file:///d/a.mp4") == as_path("file://localhost/d/a.mp4") == Path("/d/a.mp4")
    assert as_path(Path("s3://b/a.mp4")) == as_path("s3://b/a.mp4")


def test_an_address_is_never_a_file_of_this_machine(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = as_path("s3://b/a.mp4")
    for use in (os.fspath, open, os.path.exists, os.stat, os.makedirs, os.path.abspath):
        with pytest.raises(UsageError, match="is an address; froster reads and writes local"):
            use(address)
    for method in (address.mkdir, address.open, address.unlink, address.touch):
        with pytest.raises(UsageError, match="is an address"):
            method()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rtsp://h/a.mp4", "is an address"),
        ("zip://a.mp4::https://h/b.zip", "is an address"),
        ("ssh://h/a.mp4", "is an address"),
        ("s3://", "needs a bucket"),
        ("https:///a.mp4", "needs a host"),
        ("file://h/a.mp4", "no file of this machine"),
    ],
)
def test_addresses_that_are_not_read(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        as_path(text)


def test_what_is_not_installed_is_one_sentence(run, monkeypatch) -> None:
    remote._file_system.cache_clear()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    importlib.import_module("fsspec.registry")
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    try:
        one_line(run("classify", "s3://b/a.mp4", *LABELS), 2, "s3fs", "froster-video[remote]")
    finally:
        remote._file_system.cache_clear()


def test_what_a_library_of_a_store_refuses_is_one_sentence(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights that contradict each other; a hub that nobody reaches, read and written."""
    monkeypatch.setenv("AWS_PROFILE_OF_THIS_TEST", "a file system of its own")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"key": "a", "username": "b"})
    one_line(run("classify", "s3://b/a.mp4", *LABELS), 2, "s3:// cannot be used", "Supply either")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_OF_THIS_TEST", "another one")
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": "http://127.0.0.1:9"})
    with pytest.raises(OSError, match="not to be had: Connection refused"):
        remote.state_of(Address("hf://datasets/a/b/x.mp4"))
    with pytest.raises(WriteError, match=r"cannot be reached or written: .*Connection refused"):
        Folder("hf://datasets/a/b").content("x")


def test_another_server_in_the_environment_is_asked(bucket: Store, monkeypatch) -> None:
    first = remote.file_system("s3")
    assert remote.file_system("s3") is first
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(OSError, match="not to be had: Could not connect"):
        remote.state_of(Address("s3://shelf/1.mp4"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    assert remote.file_system("s3") is first


# Frames


FORMS = {
    "end.mp4": {},
    "front.mp4": {"container_options": {"movflags": "faststart"}},
    "b.mp4": {"b_frames": 2},
    "pieces.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "a.mkv": {"b_frames": 2},
    "a.avi": {"codec": "mpeg4"},
    "m.mp4": {"codec": "mpeg4", "b_frames": 2},
    "a.webm": {"codec": "libvpx-vp9"},
    "a.ts": {},
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mood", ["", "whole"])
def test_frames_are_those_of_the_file(
    site: Site, tmp_path: Path, name: str, mood: str, monkeypatch
) -> None:
    monkeypatch.setattr(ranges, "BLOCK", 1 << 10)
    count = 400 if name.endswith(".mp4") else 90
    file = make_video(tmp_path / name, count, **FORMS[name])  # type: ignore[arg-type]
    site.files[name], site.moods[name] = file.read_bytes(), mood
    wanted = [0, count // 3, count // 3 + 1, count - 1]
    with Video(file) as local, Video(f"{site.url}/{name}") as far:
        assert torch.equal(local.read(wanted), far.read(wanted))
        assert far.times() == local.times() and far.seconds == local.seconds
        assert (far.fps, far.num_frames, far.damaged) == (local.fps, local.num_frames, 0)
        assert far.timing == local.timing
    # Where it gives no parts it is asked once for one, and sends all of it.
    assert site.sent < (1.6 if not mood else 2.1) * file.stat().st_size
    site.begin()
    with Stream.of_file(file) as local_frames, Stream.of_file(f"{site.url}/{name}") as frames:
        assert [f.time for f in frames] == [f.time for f in local_frames]
    assert site.sent < (1.2 if not mood else 2.1) * file.stat().st_size + 4 * ranges.BLOCK


@pytest.mark.parametrize(("ending", "share"), [("mp4", 0.5), ("front.mp4", 0.5), ("mkv", 1.1)])
def test_few_bytes_of_a_long_video(
    site: Site, tmp_path: Path, ending: str, share: float, monkeypatch
) -> None:
    """Eight frames need the list of an mp4 and what they are predicted from."""
    monkeypatch.setattr(ranges, "BLOCK", 1 << 15)
    file = long_video(tmp_path / f"long.{ending}", 3000)
    site.files[file.name] = file.read_bytes()
    size = file.stat().st_size
    with Video(file) as local, Video(f"{site.url}/{file.name}") as far:
        wanted = eight_of(local.num_frames)
        assert torch.equal(far.read(wanted), local.read(wanted))
    assert size > 50 * ranges.BLOCK and site.sent < share * size and len(site.asked) < 40


def test_pictures_that_are_turned_on_the_way(site: Site, tmp_path: Path, monkeypatch) -> None:
    """Of which an mp4's list of packets says nothing."""
    monkeypatch.setattr(ranges, "BLOCK", 1 << 10)
    for number, places in enumerate(({0: 90}, {130: 180}, {0: 90, 200: 180})):
        messages = {place: orientation_message(turn) for place, turn in places.items()}
        plain = make_video(tmp_path / f"plain{number}.mp4", 400)
        file = with_units(
            plain, tmp_path / f"{number}.mp4", lambda _, n, of=messages: of.get(n, b"")
        )
        site.files[file.name] = file.read_bytes()
        with Video(file) as local, Video(f"{site.url}/{file.name}") as far:
            for wanted in ([5], [131], [100, 140, 390]):
                assert torch.equal(local.read(wanted), far.read(wanted))


def test_what_is_cut_off_reads_as_far_as_it_goes(site: Site, tmp_path: Path) -> None:
    file = make_video(tmp_path / "a.mp4", 200, container_options={"movflags": "faststart"})
    half = tmp_path / "half.mp4"
    half.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    site.files["half.mp4"] = half.read_bytes()
    with Video(half) as local, Video(f"{site.url}/half.mp4") as far:
        assert local.num_frames == far.num_frames
        assert torch.equal(local.read([0, 60, 99]), far.read([0, 60, 99]))
        assert local.damaged == far.damaged


@pytest.mark.parametrize(
    "mood", ["", "whole", "total unknown", "cut once", "busy once", "silent once", "to /plain.mp4"]
)
def test_servers_that_come_back(nano, site: Site, clips: list[Path], mood: str) -> None:
    site.files |= {"a.mp4": clips[0].read_bytes(), "plain.mp4": clips[0].read_bytes()}
    site.moods["a.mp4"] = mood
    assert nano.classify(f"{site.url}/a.mp4", ["a", "b"]) == nano.classify(clips[0], ["a", "b"])


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("404", "the server says 404"),
        ("403", "the server says 403"),
        ("500", "the server says 500 .* 3 times"),
        ("silent", "said nothing for 0.5 seconds, 3 times"),
        ("drips", "less than 8192 bytes a second"),
        ("cut", "cut off after"),
        ("lies", "ended after|cut off after"),
        ("lies whole", "cut off after|ended after"),
        ("another part", "another part than"),
        ("to file:///etc/passwd", "does not follow|unknown url"),
        ("to /a.mp4", "redirects without an end"),
    ],
)
def test_servers_that_do_not(run, site: Site, clips: list[Path], mood: str, words: str) -> None:
    address = f"{site.url}/a.mp4"
    site.files["a.mp4"], site.moods["a.mp4"] = clips[0].read_bytes(), mood
    began = time.monotonic()
    with pytest.raises(VideoError, match=words) as caught, Video(address) as video:
        video.read([0])
    assert str(caught.value).startswith(address) and "\n" not in str(caught.value)
    assert time.monotonic() - began < 20
    # A row with its cause; of a run, one of its failures.
    assert run("timeline", address, *LABELS).code == 1


def test_a_file_that_changes_while_it_is_read(site: Site, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ranges, "BLOCK", 1 << 10)
    site.files["a.mp4"] = make_video(tmp_path / "a.mp4", 400).read_bytes()
    before = file_state(f"{site.url}/a.mp4")
    assert before == file_state(f"{site.url}/a.mp4")
    site.versions["a.mp4"] = 7
    assert file_state(f"{site.url}/a.mp4") != before
    site.moods["a.mp4"] = "changes"
    with pytest.raises(VideoError, match="changed while it was read"):
        Video(f"{site.url}/a.mp4")


def test_a_far_file_leads_to_no_other(site: Site, clips: list[Path]) -> None:
    texts = {
        "a.ffconcat": f"ffconcat version 1.0\nfile '{clips[0]}'\n",
        "a.m3u8": f"#EXTM3U\n#EXTINF:1,\nfile://{clips[0]}\n#EXT-X-ENDLIST\n",
    }
    for name, text in texts.items():
        site.files[name] = text.encode()
        with pytest.raises(VideoError, match=r"text or a play list|not a readable video"):
            Video(f"{site.url}/{name}")


# Commands


def test_videos_of_a_bucket(run, bucket: Store, clips: list[Path], tmp_path: Path) -> None:
    bucket.bucket("films")
    for number, clip in enumerate(clips):
        bucket.put("films", f"set/{'ab'[number % 2]}/{number}.mp4", clip.read_bytes())
    rows = "".join(f"{'ab'[n % 2]}/{n}.mp4,{'ab'[n % 2]},test\n" for n in range(4))
    bucket.put("films", "set/m.csv", f"path,label,split\n{rows}".encode())
    keys = [f"s3://films/set/{'ab'[n % 2]}/{n}.mp4" for n in range(4)]
    by_hand = [run("classify", clip, *LABELS, "--json").json["results"][0] for clip in clips]
    for source in (("s3://films/set/m.csv",), ("s3://films/set/",), keys):
        rows = run("classify", *source, *LABELS, "--json").json["results"]
        assert sorted(row["video"] for row in rows) == sorted(keys)
        for row in rows:
            expected = by_hand[keys.index(row.pop("video"))]
            assert row == {name: value for name, value in expected.items() if name != "video"}
    out = tmp_path / "o.jsonl"
    for new in (4, 0):
        report = run("classify", "s3://films/set/m.csv", *LABELS, "--out", out, "--json").json
        assert (report["rows"], report["new"]) == (4, new)
    assert {json.loads(line)["path"] for line in out.read_text().splitlines()} == set(keys)
    list_file = tmp_path / "list"
    list_file.write_text("\n".join(["a/0.mp4", keys[1]]))
    listing = list_videos([], files_from=list_file, root=as_path("s3://films/set"))
    assert [video.key for video in listing] == keys[:2]
    assert [str(item.path) for item in read_items("s3://films/set/m.csv")] == keys
    assert [(str(i.path), i.label) for i in read_items("s3://films/set")] == [
        (key, "ab"[n % 2]) for n, key in sorted(enumerate(keys), key=lambda pair: pair[1])
    ]
    rows = [
        json.loads(run("evaluate", "--data", source, "--model", "nano", "--json").out)
        for source in ("s3://films/set/m.csv",)
    ]
    assert rows[0]["splits"]["test"]["videos"] == 4


def test_an_index_of_a_bucket(run, bucket: Store, clips: list[Path], tmp_path: Path) -> None:
    bucket.bucket("shelf")
    keys = [f"s3://shelf/{number}.mp4" for number in range(3)]
    for number in range(3):
        bucket.put("shelf", f"{number}.mp4", clips[number].read_bytes())
    index = ("index", *keys, "--out", tmp_path / "index", "--model", "nano", "--json")
    assert run(*index).json["new"] == 3
    assert run(*index).json["new"] == 0
    remote.file_system("s3").pipe_file("shelf/2.mp4", clips[3].read_bytes())
    again = run(*index).json
    assert (again["new"], again["changed"], again["gone"]) == (0, 1, [])
    search = ("search", tmp_path / "index", "--json", "--model", "nano")
    hits = run(*search, "cat", "--thumbnails", tmp_path / "p.png").json["hits"]
    assert {hit["video"] for hit in hits} == set(keys) and (tmp_path / "p.png").exists()
    found = run(*search, "--video", keys[0]).json["hits"]
    assert keys[0] not in {hit["video"] for hit in found}


def test_other_commands_at_addresses(run, bucket: Store, clips: list[Path], tmp_path: Path) -> None:
    bucket.bucket("kinds")
    for number, clip in enumerate(clips):
        bucket.put("kinds", f"{'ab'[number % 2]}/{number}.mp4", clip.read_bytes())
    bucket.put("kinds", "labels.txt", b"cat spinning\nkey pacing\n")
    film = "s3://kinds/a/0.mp4"
    labelled = ("--labels-file", "s3://kinds/labels.txt", "--model", "nano")
    row = run("classify", film, *labelled, "--json").json["results"][0]
    assert row == run("classify", film, *LABELS, "--json").json["results"][0]
    report = run("doctor", "s3://kinds/", "--workers", 0, "--json").json
    assert report["videos"] == 4 and report["errors"] == 0
    picture = tmp_path / "a.png"
    assert run("attend", film, "--models", "nano", "--out", picture).code == 0
    assert picture.exists()
    assert run("timeline", film, *labelled, "--out", tmp_path / "t.json", "--json").code == 0
    taught = run("teach", "s3://kinds/", "--out", tmp_path / "t", "--model", "nano", "--json")
    assert taught.code == 0, taught.err


def test_a_model_at_an_address_is_copied_once(
    nano, run, bucket: Store, clips: list[Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("FROSTER_CACHE", str(tmp_path / "cache"))
    nano.save(tmp_path / "model")
    bucket.bucket("models")
    for file in (tmp_path / "model").iterdir():
        bucket.put("models", f"run/model/{file.name}", file.read_bytes())
    expected = nano.classify(clips[0], ["a", "b"])
    for name in ("s3://models/run", "s3://models/run/model/", as_path("s3://models/run/model")):
        assert froster.load(name, device="cpu").classify(clips[0], ["a", "b"]) == expected
    assert len(list((tmp_path / "cache" / "addresses").iterdir())) == 1
    one_line(run("classify", clips[0], *LABELS, "--model", "s3://models/no"), 1, "s3://models/no")


def test_buckets_that_are_not_there_or_shut(run, bucket: Store, tmp_path: Path) -> None:
    commands = [
        ("classify", "s3://nothing/m.csv", *LABELS),
        ("timeline", "s3://nothing/a.mp4", *LABELS),
        ("train", "--data", "s3://nothing/m.csv", "--out", tmp_path / "r", "--model", "nano"),
        ("classify", "--files-from", "s3://nothing/list", *LABELS),
    ]
    for command in commands:
        one_line(run(*command), 1, "s3://nothing/", "no such")
    bucket.bucket("shut")
    bucket.put("shut", "m.csv", b"path,label\na.mp4,x\n")
    bucket.lock()
    for command in commands:
        shut = [str(word).replace("nothing", "shut") for word in command]
        one_line(run(*shut), 1, "s3://shut/", "no right to read it")


@pytest.mark.slow
def test_figures_are_measured() -> None:
    shares = [line.after for line in measure(toy=True) if line.unit == "share"]
    assert len(shares) == 4 and all(0 < share <= 1.2 for share in shares)
