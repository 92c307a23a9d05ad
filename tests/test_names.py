"""Names of files are bytes: whatever a file system allows comes back as the same file from all that
is written."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from froster.data.listing import list_videos, passed_over
from froster.data.manifest import read_items
from froster.data.shards import Shard
from froster.errors import DataError, UsageError
from froster.inference.old_index import convert, named_as_file
from froster.inference.results import ResultFile
from froster.inference.store import Store
from froster.utils.files import csv_text, json_line, write_csv, write_text
from froster.utils.tensors import save_tensors
from shared_files import World
from typed import one_line

pytestmark = pytest.mark.usefixtures("few_templates_throughout")
NANO = ("--model", "nano", "--workers", 0)
ODD = [
    b"plain.mp4",
    "旅行\u3000動画.mp4".encode(),
    "my\u00a0film.mp4".encode(),
    "9.41\u202fAM.mp4".encode(),
    "so\u00adft.mp4".encode(),
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467.mp4".encode(),
    b"a\tb.mp4",
    b"two\nlines.mp4",
    b"two\r\nends\r.mp4",
    b"quo\"te, and comma's.mp4",
    b"  spaces  .mp4",
    b"-dash.mp4",
    b"#hash.mp4",
    b"=1+1.mp4",
    b"@at.mp4",
    b"caf\xe9.mp4",
    b"[red]x :cat:.mp4",
    b"back\\slash.mp4",
    b"back\\u202fslash.mp4",
    b"Case.mp4",
    b"case.mp4",
    "nfc \u00e9.mp4".encode(),
    "nfd e\u0301.mp4".encode(),
    b"\x1b[31mred.mp4",
    "\u202etxt.mp4".encode(),
    b"l" * 251 + b".mp4",
]


def touch(folder: Path, name: bytes) -> Path:
    """An empty file; the test is skipped where the file system takes text only."""
    path = folder / os.fsdecode(name)
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system does not take every name")
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    videos, root = World("base", 1), tmp_path_factory.mktemp("clips")
    return videos.write(0, root / "a.mp4"), videos.write(12, root / "b.mp4")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, clips: tuple[Path, Path]) -> Path:
    """A folder with a clip under every odd name."""
    folder = tmp_path_factory.mktemp("odd") / "videos"
    folder.mkdir()
    for name in ODD:
        shutil.copyfile(clips[0], touch(folder, name))
    return folder


def names_of(folder: Path) -> set[bytes]:
    return set(os.listdir(os.fsencode(folder)))


def read_paths(path: Path) -> list[bytes]:
    """As a program without froster reads them."""
    if path.suffix == ".jsonl":
        return [os.fsencode(json.loads(text)["path"]) for text in path.read_bytes().splitlines()]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return [os.fsencode(row["path"]) for row in csv.DictReader(file)]
    import pyarrow.parquet as pq

    return [os.fsencode(row["path"]) for row in pq.read_table(path).to_pylist()]


def test_every_name_through_classify(run, odd: Path, tmp_path: Path) -> None:
    expected = names_of(odd)
    ask = ("classify", odd, *NANO, "--labels", "cat spinning, boat pacing", "--top", 1)
    found = run(*ask, "--json").json["results"]
    assert {os.fsencode(Path(result["video"]).name) for result in found} == expected
    assert all(os.path.exists(result["video"]) and "error" not in result for result in found)
    for suffix in ("csv", "jsonl", "parquet"):
        if suffix == "parquet":
            pytest.importorskip("pyarrow")
        out = tmp_path / f"r.{suffix}"
        assert run(*ask, "--out", out, "--json").json["new"] == len(ODD)
        assert sorted(read_paths(out)) == sorted(expected)
        assert run(*ask, "--out", out, "--json").json["new"] == 0, "what is written is known again"
        if suffix != "parquet":  # results are manifests too
            assert {
                os.fsencode(video.key) for video in list_videos([out], root=odd, base=odd)
            } == expected


def test_every_name_through_index_and_search(run, odd: Path, tmp_path: Path) -> None:
    index = ("index", odd, "--out", tmp_path / "i", *NANO)
    report = run(*index, "--json").json
    assert (report["new"], report["gone"], report["failed"]) == (len(ODD), [], 0)
    report = run(*index, "--prune", "--json").json
    assert (report["videos"], report["new"], report["gone"]) == (len(ODD), 0, [])
    hits = run(
        "search", tmp_path / "i", "cat", "--top", 99, "--json", "--thumbnails", tmp_path / "t"
    ).json["hits"]
    assert {os.fsencode(Path(hit["video"]).name) for hit in hits} == names_of(odd)
    assert all(os.path.exists(hit["video"]) for hit in hits)
    assert len(os.listdir(tmp_path / "t")) == len(ODD)
    assert (
        run("search", tmp_path / "i", "cat", "--top", 99, "--thumbnails", tmp_path / "s.png").code
        == 0
    )


def test_a_manifest_of_the_doctor_is_read_by_all(
    run, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    for number, name in enumerate(ODD):
        label = ("cat spinning", "boat_pacing")[number % 2]
        (tmp_path / "v" / label).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clips[number % 2], touch(tmp_path / "v" / label, name))
    clean = tmp_path / "clean.csv"
    assert run("doctor", tmp_path / "v", "--out", clean, "--drop", "none", "--workers", 0).code == 0
    assert run(
        "doctor", tmp_path / "v", "--out", clean, "--drop", "none", "--workers", 0, "--json"
    ).json["kept"] == len(ODD)
    items = read_items(clean)
    assert sorted(os.fsencode(item.path.name) for item in items) == sorted(ODD)
    assert [item.label for item in items] == [
        item.path.parent.name.replace("_", " ") for item in items
    ]
    assert run("evaluate", "--data", clean, *NANO, "--out", tmp_path / "e").code == 0
    with (tmp_path / "e" / "predictions_all.csv").open(
        encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        assert {row["video"] for row in csv.DictReader(file)} == {str(item.path) for item in items}


NAMES = st.binary(min_size=1, max_size=40).map(
    lambda raw: raw.replace(b"\0", b"0").replace(b"/", b"_")
)


@settings(deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_any_name_comes_back_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, names: list[bytes]
) -> None:
    """list -> write -> read, names as the bytes that they are."""
    folder = tmp_path_factory.mktemp("any")
    texts = [os.fsdecode(b"x" + name + b".mp4") for name in names]  # hidden ones are passed over
    for text in texts:
        (folder / text).touch()
    listing = list_videos([folder])
    assert sorted(video.key for video in listing) == sorted(texts)
    keys = [video.key for video in listing]
    row = {
        "label": "a",
        "score": 0.5,
        "labels": ["a"],
        "scores": [0.5],
        "answer": "a",
        "none": 0.5,
        "cosine": None,
        "seconds": 1.0,
        "frames": 1,
        "damaged": 0,
    }
    for suffix in ("csv", "jsonl", "parquet"):
        out = folder / f"r.{suffix}"
        for done in (set(), set(keys)):
            results = ResultFile(out, 1)
            assert len(results.done) == len(done) and all(key in results.done for key in done)
            results.add([{"path": key, **row} for key in keys if key not in results.done])
            results.close()
            results.finish()
        assert [os.fsdecode(path) for path in read_paths(out)] == keys
    write_csv(folder / "m.csv", [["path", "label"], *([key, "a"] for key in keys)])
    write_text(folder / "m.jsonl", "".join(json_line({"path": key, "label": "a"}) for key in keys))
    (folder / "list").write_bytes(b"".join(os.fsencode(key) + b"\0" for key in keys))
    for manifest in ("m.csv", "m.jsonl"):
        assert [item.path for item in read_items(folder / manifest)] == [
            folder / key for key in keys
        ]
    assert [video.path for video in list_videos([], files_from=folder / "list", root=folder)] == [
        folder / key for key in keys
    ]
    assert sum(len(Shard(i, 3).of(listing)) for i in range(3)) == len(keys)


def test_cells_of_a_table_are_what_was_given() -> None:
    """Also the ones that a spreadsheet would run: files and programs are named by them, so no sign
    is put before them."""
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "a\rb", "a\r\nb", 'q"q', "a,b", "", " x "]
    assert list(csv.reader(io.StringIO(csv_text([cells, ["a"]]), newline=""))) == [cells, ["a"]]


def test_a_list_says_what_to_do_with_line_ends(run, tmp_path: Path) -> None:
    touch(tmp_path, b"a\nb.mp4")
    (tmp_path / "list").write_bytes(b"a\nb.mp4\n")
    one_line(
        run(
            "classify",
            "--files-from",
            tmp_path / "list",
            "--root",
            tmp_path,
            *NANO,
            "--labels",
            "a",
        ),
        2,
        "NUL",
    )


def test_white_space_and_backslashes_of_a_manifest_are_meant_where_there_is_such_a_file(
    tmp_path: Path,
) -> None:
    for name in (b" a.mp4", b"a.mp4", b"c\\d.mp4"):
        touch(tmp_path, name)
    (tmp_path / "e").mkdir()
    touch(tmp_path / "e", b"f.mp4")
    (tmp_path / "m.csv").write_text("path,label\n a.mp4,x\na.mp4 ,x\nc\\d.mp4,x\ne\\f.mp4,x\n")
    assert [
        item.path.relative_to(tmp_path).as_posix() for item in read_items(tmp_path / "m.csv")
    ] == [" a.mp4", "a.mp4", "c\\d.mp4", "e/f.mp4"]


def test_a_class_folder_whose_name_is_no_text(run, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes text only")
    (folder / "a.mp4").touch()
    with pytest.raises(
        DataError, match=r"caf\\xe9: the name of this class folder is not UTF-8 text"
    ):
        read_items(tmp_path)
    one_line(
        run("evaluate", "--data", tmp_path, *NANO), 1, r"caf\xe9: the name of this class folder"
    )
    one_line(run("doctor", tmp_path, "--workers", 0), 1, r"caf\xe9: the name of this class folder")


OLD = {
    "9.41\\u202fAM.mp4": "9.41\u202fAM.mp4".encode(),
    "a\\xa0b.mp4": "a\u00a0b.mp4".encode(),
    "caf\\xe9.mp4": b"caf\xe9.mp4",
    "two\\nlines.mp4": b"two\nlines.mp4",
    "back\\slash.mp4": b"back\\slash.mp4",
}


def test_an_index_of_an_earlier_version_keeps_its_videos(tmp_path: Path) -> None:
    """Its paths are what was printed: they are known as the files that they were printed for, and
    nothing is pruned."""
    (tmp_path / "v").mkdir()
    for name in OLD.values():
        touch(tmp_path / "v", name).write_bytes(b"12345")
    about = {
        "root": str(tmp_path / "v"),
        "dtype": "float32",
        "model": "m",
        "segment": 4.0,
        "frames": 8,
        "source": "nano",
    }
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "index.json").write_text(json.dumps(about))
    entries = []
    for number, path in enumerate([*OLD, "gone\\x01.mp4"]):
        size = (tmp_path / "v" / os.fsdecode(OLD.get(path, b"caf\xe9.mp4"))).stat()
        values = (path, size.st_size, size.st_mtime_ns, 1.0, number, 0, [0.0], [1.0])
        names = ("path", "size", "mtime", "seconds", "frames", "damaged", "starts", "ends")
        entries.append(dict(zip(names, values, strict=True)))
    lines = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    (tmp_path / "i" / "0001.jsonl").write_text(lines)
    vectors = {name: torch.ones(len(entries), 2) for name in ("segments", "videos")}
    save_tensors(vectors, tmp_path / "i" / "0001.safetensors")
    with pytest.raises(DataError, match="--convert"):
        Store(tmp_path / "i")
    convert(tmp_path / "i")
    store = Store(tmp_path / "i")
    files = store.files()
    assert {os.fsencode(path) for path in files} == {*OLD.values(), b"gone\\x01.mp4"}
    gone = [key for key, file in files.items() if file.is_gone(store.root)]
    assert gone == ["gone\\x01.mp4"]
    store.remove(gone)
    assert {os.fsencode(path) for path in Store(tmp_path / "i").files()} == set(OLD.values())
    moved = Path(shutil.move(tmp_path / "v", tmp_path / "w"))
    entry = store.videos(["back\\slash.mp4"])["back\\slash.mp4"].entry
    assert named_as_file(dataclasses.replace(entry, size=1), moved).path == "back\\slash.mp4"


def test_files_passed_over_are_named_by_their_endings(
    run, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "v"
    (folder / "sub").mkdir(parents=True)
    for name in (
        "a.mp4",
        "a.3g2",
        "a.MXF",
        "a.m2t",
        "a.qt",
        "a.f4v",
        "a.dv",
        "a.m2v",
        "sub/a.BRAW",
        "b.braw",
        "c.r3d",
    ):
        shutil.copyfile(clips[0], folder / name)
    for name in ("notes.txt", "a.srt", "a.jpg", ".hidden.braw", "README"):
        (folder / name).touch()
    listing = list_videos([folder])
    assert {video.path.suffix for video in listing} == {
        ".mp4",
        ".3g2",
        ".MXF",
        ".m2t",
        ".qt",
        ".f4v",
        ".dv",
        ".m2v",
    }
    expected = {".braw": 2, ".r3d": 1, ".txt": 1, ".srt": 1, ".jpg": 1, "": 1}
    assert (listing.passed_over, listing.ignored) == (expected, 8)
    said = "2 .braw, 1 .r3d"
    assert said in passed_over(listing.passed_over) and ".txt" not in passed_over(
        listing.passed_over
    )
    ask = ("classify", folder, *NANO, "--labels", "a, b")
    found = run(*ask, "--json")
    assert found.json["passed_over"] == expected and said in found.err
    assert run(*ask, "--out", tmp_path / "r.csv", "--json").json["passed_over"] == expected
    assert (
        run("index", folder, *NANO, "--out", tmp_path / "i", "--json").json["passed_over"]
        == expected
    )
    found = run("doctor", folder, "--workers", 0, "--json")
    assert found.json["passed_over"] == expected
    (tmp_path / "only").mkdir()
    shutil.copyfile(clips[0], tmp_path / "only" / "a.braw")
    with pytest.raises(DataError, match=r"no videos .*1 \.braw"):
        list_videos([tmp_path / "only"])


def test_missing_files_are_named_before_anything_is_loaded(
    run, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    """The model does not exist either, and is not asked for."""
    gone, model = tmp_path / "gone.mp4", ("--model", tmp_path / "no-model")
    commands = (
        ("classify", gone, "--labels", "a, b"),
        ("timeline", gone, "--labels", "a, b"),
        ("index", gone, "--out", tmp_path / "i"),
        ("attend", gone, "--models", "frozen", "--out", tmp_path / "a.png"),
        ("search", tmp_path / "i", "--video", gone),
    )
    for command in commands:
        one_line(run(*command, *model), 2, "no such file: " + str(gone))
    one_line(
        run("classify", tmp_path / "*.mp4", *model, "--labels", "a"), 2, "nothing fits this pattern"
    )
    one_line(
        run("classify", gone, tmp_path / "none.csv", *model, "--labels", "a"),
        1,
        "none.csv: cannot be read",
    )
    one_line(run("classify", tmp_path, *model, "--labels", "a"), 1, "no videos")
    assert list(tmp_path.iterdir()) == []
    shutil.copyfile(clips[0], tmp_path / "x.mp4")
    one_line(run("evaluate", "--data", tmp_path, *model), 1, "its 1 videos lie in no class folders")


def test_what_failed_stands_below_the_table(run, clips: tuple[Path, Path], tmp_path: Path) -> None:
    """One of several files is missing: it is named at once, the others are answered, and the exit
    code is 1."""
    (tmp_path / "text.mp4").write_text("no video")
    found = run(
        "classify",
        tmp_path / "gone.mp4",
        clips[0],
        tmp_path / "text.mp4",
        *NANO,
        "--labels",
        "a, b",
    )
    assert found.code == 1
    assert "gone" not in found.out and "text.mp4" not in found.out
    first, *rest = found.err.splitlines()
    assert first == f"no such file: {tmp_path / 'gone.mp4'}; the other 2 are there"
    assert any("text.mp4: not a readable video" in text for text in rest)


@pytest.mark.parametrize(
    ("others", "words"), [(1, "the other 1 is there"), (3, "the other 3 are there")]
)
def test_how_many_others_are_there(
    clips: tuple[Path, Path], tmp_path: Path, others: int, words: str
) -> None:
    copies = [
        Path(shutil.copyfile(clips[0], tmp_path / f"{number}.mp4")) for number in range(others)
    ]
    notes = list_videos([*copies, tmp_path / "gone.mp4"]).notes()
    assert notes == [f"no such file: {tmp_path / 'gone.mp4'}; {words}"]


def test_videos_of_one_name_are_told_apart(run, clips: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("base/x.mp4", "novel/x.mp4", "novel/y.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(clips[0], tmp_path / name)
    found = run("classify", tmp_path, *NANO, "--labels", "a, b", "--top", 1)
    assert [
        text.split("  ")[0] for text in found.out.splitlines()[1:] if not text.startswith(" ")
    ] == ["base/x.mp4", "novel/x.mp4", "y.mp4"]


ADDRESSES = ("https://host/a.mp4", "hf://org/x", "S3://b")
MORE = ("s3://bucket/x", "gs://b/x", "file:///tmp/a.mp4", "rtsp://cam/live")


@pytest.mark.parametrize(
    "address", [*ADDRESSES, *(pytest.param(address, marks=pytest.mark.slow) for address in MORE)]
)
def test_addresses_are_refused_where_a_file_of_this_machine_is_meant(
    run, clips: tuple[Path, Path], tmp_path: Path, address: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = ("--labels", "a, b")
    commands = (
        ("timeline", clips[0], *labels, "--out", f"{address}.srt"),
        ("search", tmp_path, "cat", "--thumbnails", address),
        ("blend", address),
        ("train", "--data", tmp_path, "--out", address),
        ("calibrate", address),
        ("push", address, "me/x"),
        ("serve", "--samples", address),
        ("serve", "--model", address),
        ("serve", "--compare", address),
        ("distance", address, "k400"),
        ("prepare", "ucf101", "--videos", address, "--out", "o.csv"),
        ("export", "--out", address),
        ("demo", "--out", address),
        ("reproduce", "table1", "--data-root", address),
    )
    for command in commands:
        one_line(run(*command), 2, address, "is an address; froster reads and writes local files")
    assert list(tmp_path.iterdir()) == []


def test_addresses_that_are_not_read_are_refused_by_name(
    run, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    labels = ("--labels", "a, b")
    for command in (
        ("classify", "rtsp://cam/live", *labels),
        ("classify", "--files-from", "rtsp://cam/live", *labels),
        ("classify", clips[0], "--root", "rtsp://cam/live", *labels),
        ("classify", clips[0], *labels, "--model=rtsp://cam/live"),
        ("doctor", "rtsp://cam/live"),
        ("search", tmp_path, "--video", "rtsp://cam/live"),
        ("evaluate", "--data", "rtsp://cam/live"),
        ("train", "--data", "rtsp://cam/live", "--out", "r"),
        ("attend", clips[0], "--models", "frozen,rtsp://cam/live", "--out", "a.png"),
    ):
        one_line(run(*command), 2, "rtsp://cam/live is an address")


def test_addresses_in_lists_manifests_and_python(
    nano, clips: tuple[Path, Path], tmp_path: Path
) -> None:
    import froster

    (tmp_path / "m.csv").write_text("path,label\nssh://b/a.mp4,x\n")
    (tmp_path / "list").write_text("ssh://b/a.mp4\n")
    for read in (read_items, lambda path: list_videos([path])):
        with pytest.raises(DataError, match=r"m\.csv, line 2: ssh://b/a.mp4 is an address"):
            read(tmp_path / "m.csv")
    with pytest.raises(UsageError, match=r"ssh://b/a\.mp4 is an address"):
        list_videos([], files_from=tmp_path / "list")
    for call in (
        lambda path: froster.load(path),
        lambda path: nano.classify(path, ["a", "b"]),
        lambda path: nano.embed_video(path),
        lambda path: froster.timeline(nano, path, ["a", "b"]),
        lambda path: read_items(path),
        lambda path: nano.save(path),
    ):
        for address in ("ssh://b/a.mp4", "rtsp://h/a.mp4", Path("rtsp://b/a.mp4")):
            with pytest.raises(UsageError, match="is an address"):
                call(address)
    with pytest.raises(UsageError, match="is an address"):
        nano.save(Path("s3://b/model"))
    assert not Path("s3:").exists()


def test_what_looks_like_an_address_and_is_none(tmp_path: Path, monkeypatch) -> None:
    from froster.utils.address import is_address

    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    (tmp_path / "s3:" / "a.mp4").touch()
    paths = (
        "C:\\x",
        "C:/x",
        "c:x",
        "a:b.mp4",
        "notes:/a.mp4",
        "org/name",
        Path("s3:/a.mp4"),
        Path("notes:/a"),
    )
    assert not any(map(is_address, paths))
    assert is_address(Path("s3://b/x")) and is_address(" https://x")
