"""Packs at addresses: members of shards are read by ranges, as they are on this machine."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from froster.data.diagnose import labels_of, rows_of
from froster.data.fingerprint import file_fingerprint
from froster.data.listing import Listing, Source, list_videos
from froster.data.manifest import read_items
from froster.data.pack import PackOptions
from froster.data.pack import pack as make_pack
from froster.data.pack_folder import unpacked
from froster.errors import VideoError
from froster.utils import remote
from froster.utils.address import Address
from froster.utils.work import Means
from froster.video import tar_shards
from froster.video.container import file_state
from froster.video.reader import Video
from http_server import Site
from object_store import Store
from shared_files import World

WHY = "not installed: pip install -e '.[remote,dev]'"
pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("s3fs", "moto"))), reason=WHY
)
PACK = "s3://films/packed"


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.stop()


@pytest.fixture(scope="module")
def pack(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On this machine, and the same in the bucket: six videos of two classes in some shards."""
    root = tmp_path_factory.mktemp("packs")
    for number in range(6):
        World("base", 2).write(number, root / "videos" / "ab"[number // 3] / f"{number} é.mp4")
    listing, out = list_videos([root / "videos"]), root / "pack"
    rows = rows_of(listing, labels_of(listing), [], None)
    make_pack(listing, rows, out, PackOptions(30_000), Means())
    shutil.rmtree(root / "videos")
    upload(store, "films", {path.name: path.read_bytes() for path in out.iterdir()})
    assert len(list(out.glob("*.tar"))) >= 2
    return out


def upload(store: Store, bucket: str, files: dict[str, bytes]) -> None:
    store.bucket(bucket)
    for name, content in files.items():
        store.put(bucket, f"packed/{name}", content)


@pytest.fixture(autouse=True)
def client(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which has read no table yet."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    tar_shards._table_at.cache_clear()


def frames_of(path: Path) -> torch.Tensor:
    with Video(path) as video:
        return video.read(range(video.num_frames))


def count_requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    parts = []
    part = remote.StoreSource.part

    def counted(source, start: int, end: int):
        parts.append((source.place, start, end))
        return part(source, start, end)

    monkeypatch.setattr(remote.StoreSource, "part", counted)
    return parts


def test_the_same_videos_are_read(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: a request for each table, and one for each video."""
    here, there = read_items(pack), read_items(Address(PACK))
    assert [i.label for i in here] == [i.label for i in there] == ["a"] * 3 + ["b"] * 3
    requests = count_requests(monkeypatch)
    for one, other in zip(here, there, strict=True):
        assert str(other.path) == f"{PACK}/{one.path.relative_to(pack)}"
        assert torch.equal(frames_of(one.path), frames_of(other.path))
    shards = {request[0] for request in requests if request[0].endswith(".tar")}
    tables = [request for request in requests if request[0].endswith(".jsonl")]
    assert len(tables) == len(shards) >= 2 and len(requests) == len(tables) + 6
    for one, other in zip(here, there, strict=True):
        assert file_fingerprint(one.path) == file_fingerprint(other.path) is not None
        assert file_state(one.path).size == file_state(other.path).size
    monkeypatch.setattr(tar_shards, "WHOLE", 100)
    assert torch.equal(frames_of(here[4].path), frames_of(there[4].path)), "in parts"


def test_commands_take_a_pack_in_a_bucket(run, pack: Path, tmp_path: Path) -> None:
    words = ("--labels", "cat, boat", "--model", "nano", "--json")
    scores = []
    for source, workers in ((pack, 0), (PACK, 2), (f"{PACK}/manifest.csv", 0)):
        result = run("classify", source, *words, "--workers", workers)
        assert result.code == 0, result.err
        scores.append([line["scores"] for line in result.json["results"]])
    assert len(scores[0]) == 6 and scores[0] == scores[1] == scores[2]
    reports = [
        run("evaluate", "--data", source, "--model", "nano", "--json").json
        for source in (pack, PACK)
    ]
    assert reports[0]["splits"] == reports[1]["splits"]
    recipe = ("--model", "nano", "--epochs", 1, "--batch-size", 3, "--workers", 0)
    assert run("train", "--data", PACK, *recipe, "--out", tmp_path / "run").code == 0
    report = run("doctor", PACK, "--workers", 0, "--json").json
    assert report["videos"] == 6 and report["errors"] == 0


def test_videos_in_a_bucket_are_packed(run, store: Store, tmp_path: Path) -> None:
    """From a copy of each; one that is broken is named by its address."""
    store.bucket("raw")
    for number in range(2):
        path = World("base", 1).write(number, tmp_path / "v.mp4")
        store.put("raw", f"v/{'ab'[number]}/{number}.mp4", path.read_bytes())
    store.put("raw", "v/b/broken.mp4", b"no video")
    words = ("pack", "s3://raw/v", "--out", tmp_path / "pack", "--workers", 0, "--json")
    for _ in range(2):
        report = run(*words).json
        assert (report["videos"], report["failed"]) == (2, 1)
        (failure,) = report["failures"]
        assert failure["path"] == "s3://raw/v/b/broken.mp4" and "froster-" not in failure["why"]
    items = read_items(tmp_path / "pack")
    names = [str(item.path.relative_to(tmp_path / "pack")) for item in items]
    assert names == ["s3/raw/v/a/0.mp4", "s3/raw/v/b/1.mp4"]
    assert [item.label for item in items] == ["a", "b"]


def test_damaged_shards(run, pack: Path, store: Store) -> None:
    path = list_videos([Address(PACK)])[0].path
    shard, table = (pack / f"00000{ending}" for ending in (".tar", ".offsets.jsonl"))
    place = tar_shards.member(path)
    assert place is not None
    edited = bytearray(shard.read_bytes())
    edited[place.offset + place.size // 2] ^= 255
    other = (pack / "00001.offsets.jsonl").read_bytes()
    changes = (
        ({shard.name: bytes(edited)}, "changed since"),
        ({shard.name: shard.read_bytes()[:-5000]}, "cut off"),
        ({table.name: other}, "another shard's"),
        ({table.name: b"{}"}, "no offset table"),
        ({table.name: b"\xff"}, "no offset table"),
    )
    files = {file.name: file.read_bytes() for file in (shard, table)}
    for number, (change, words) in enumerate(changes):
        upload(store, f"damaged{number}", files | change)
        damaged = Address(str(path).replace("films", f"damaged{number}"))
        with pytest.raises(VideoError, match=words) as caught:
            Video(damaged)
        assert str(caught.value).startswith(f"{damaged}: ") and "\n" not in str(caught.value)
    with pytest.raises(VideoError, match="no such member"):
        Video(Address(f"{PACK}/00000.tar/none.mp4"))
    with pytest.raises(VideoError, match="no such file"):
        Video(Address(f"{PACK}/other.tar/none.mp4"))
    none = f"{PACK}/00000.tar/none.mp4"
    result = run("classify", none, "--labels", "a, b", "--model", "nano")
    assert result.code == 1 and f"{none}: no such member" in result.err


def test_a_pack_on_the_web(pack: Path) -> None:
    """By the manifest; a server without parts of files is refused in a line."""
    site = Site()
    try:
        for path in pack.iterdir():
            site.files[path.name] = path.read_bytes()
        items = read_items(Address(f"{site.url}/manifest.csv"))
        for one, other in zip(read_items(pack), items, strict=True):
            assert torch.equal(frames_of(one.path), frames_of(other.path))
        tar_shards._table_at.cache_clear()
        site.moods["00000.tar"] = "whole"
        with pytest.raises(VideoError, match="gives no parts"):
            Video(items[0].path)
    finally:
        site.stop()


def test_a_folder_whose_name_has_a_dot_is_a_pack_too(store: Store, pack: Path) -> None:
    upload(store, "dotted.v1", {file.name: file.read_bytes() for file in pack.iterdir()})
    whole = unpacked(Address("s3://dotted.v1/packed"))
    store.put("dotted.v1", "ucf.v1/pack.json", (pack / "pack.json").read_bytes())
    store.put("dotted.v1", "ucf.v1/manifest.csv", (pack / "manifest.csv").read_bytes())
    dotted = unpacked(Address("s3://dotted.v1/ucf.v1"))
    assert (str(whole), str(dotted)) == (
        "s3://dotted.v1/packed/manifest.csv",
        "s3://dotted.v1/ucf.v1/manifest.csv",
    )


def test_folders_of_a_bucket_are_no_labels_but_below_what_was_given() -> None:
    def labels(root: str, *keys: str) -> list[str | None]:
        listing = Listing(Address(root))
        listing.fill([Source(list(keys), None)])
        return [columns.get("label") for columns in labels_of(listing).values()]

    assert labels("s3://films/2026", "s3://films/2026/a.mp4") == [None]
    assert labels("s3://films/2026", "s3://films/2026/cat/a.mp4") == ["cat"]
    assert labels("s3://films/2026", "s3://other/cat/a.mp4") == [None]
