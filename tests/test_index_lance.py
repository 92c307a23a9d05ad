"""What an index can do as a Lance table: several writers, conditions, an object store, a search that
is estimated, and the way from an index of froster 0.1."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import froster
import quick
from froster.errors import DataError, UsageError
from froster.inference.approximate import approximate, exactly, is_estimated, search_options
from froster.inference.failed import FailureTable
from froster.inference.results import BatchProgress
from froster.inference.search import nearest
from froster.inference.store import IndexEntry, Store
from froster.inference.tables import file_name, manifest_row, text_name
from froster.utils.tensors import save_tensors
from shared_files import World
from typed import one_line

NANO = ("--model", "nano", "--workers", 0)
ABOUT = {
    "model": "x",
    "source": "x",
    "segment": 1.0,
    "frames": 8,
    "dtype": "float16",
    "root": "/videos",
}


def entry(name: str, count: int, mtime: int = 1, **columns: str) -> IndexEntry:
    starts = [float(i) for i in range(count)]
    ends = [start + 1 for start in starts]
    return IndexEntry(name, 1, mtime, float(count), 9, 0, starts, ends, None, columns)


def unit_rows(count: int, seed: int = 0, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, size, generator=generator), dim=-1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of two seconds."""
    root, videos = tmp_path_factory.mktemp("lance") / "videos", World("base", 1)
    for i in range(6):
        videos.write(i, root / f"{i}.mp4")
    return root


# Several writers

WRITER = """
import sys, torch
from froster.inference.store import IndexEntry, Store
store = Store(sys.argv[1])
for i in range(8):
    rows = torch.nn.functional.normalize(torch.ones(3, 16) + int(sys.argv[2]), dim=-1)
    entry = IndexEntry(f"{sys.argv[2]}-{i}.mp4", 1, 1, 3.0, 9, 0, [0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    both = IndexEntry("both.mp4", 1, 1, 1.0, 9, 0, [0.0], [1.0], None, {f"by{sys.argv[2]}": "x"})
    store.add([(entry, rows), (both, rows[:1])])
"""


def test_two_processes_write_to_one_index(tmp_path: Path) -> None:
    """Each row once, also of the video that both replace at every turn, and a new column each."""
    Store.create(tmp_path / "i", ABOUT, 16)
    writers = [
        quick.Popen([sys.executable, "-c", WRITER, str(tmp_path / "i"), str(number)])
        for number in range(2)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    store = Store(tmp_path / "i")
    store.drop_doubles()
    assert store.count == 17 == len(store.files())
    assert store.segments == 2 * 8 * 3 + 1
    assert set(store.columns) == {"by0", "by1"}
    store.table.compact()
    assert Store(tmp_path / "i").segments == 49


def test_two_indexers_at_once(folder: Path, tmp_path: Path) -> None:
    """Neither waits for the other or is refused, whoever makes the table; a shared file is in the
    index once."""
    code = "from froster.cli import main; main()"
    out = ("--out", tmp_path / "i", "--json", "--workers", 1, "--device", "cpu")
    lists = [[folder / f"{i}.mp4" for i in numbers] for numbers in ((0, 1, 2, 3), (2, 3, 4, 5))]
    indexers = [
        quick.Popen(
            [sys.executable, "-c", code, *map(str, ("index", *files, "--model", "nano", *out))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for files in lists
    ]
    reports = [json.loads(indexer.communicate(timeout=240)[0]) for indexer in indexers]
    assert [indexer.returncode for indexer in indexers] == [0, 0]
    assert sum(report["new"] for report in reports) >= 6
    froster.index(None, folder, tmp_path / "i")
    store = Store(tmp_path / "i")
    assert store.count == 6 == len(store.videos())


def test_what_two_have_added_at_once_counts_once(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "i", ABOUT, 16)
    rows = unit_rows(6)
    store.add([(entry("a.mp4", 2, mtime=1), rows[:2])])
    other = Store(tmp_path / "i")
    other.table.append(other._rows([(entry("a.mp4", 3, mtime=2), rows[2:5])]))
    store.table.refresh()
    assert len(store.videos()["a.mp4"].rows) == 3, "that of the newer file"
    hits = nearest(store, rows[0], 9, join=False)
    assert len(hits) == 3 and len(hits[0].entry.starts) == 3
    store.drop_doubles()
    assert (store.segments, store.files()["a.mp4"].mtime) == (3, 2)


# Conditions


def test_conditions_choose_segments(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "i", ABOUT, 16)
    rows = unit_rows(40)
    for number in range(4):
        part = rows[10 * number : 10 * number + 10]
        store.add([(entry(f"{number}.mp4", 10, label=("it's", "cat")[number % 2]), part)])
    scores = rows.half().float() @ rows[3]
    hits = nearest(store, rows[3], 40, join=False, where="label = 'it''s' and start > 5")
    assert {(hit.entry.path, hit.start) for hit in hits} == {
        (f"{number}.mp4", float(start)) for number in (0, 2) for start in range(6, 10)
    }
    assert [hit.score for hit in hits] == pytest.approx(
        scores[[6, 7, 8, 9, 26, 27, 28, 29]].sort(descending=True)[0].tolist(), abs=1e-6
    )
    assert len(hits[0].entry.starts) == 10, "the entry is that of the whole video"
    assert nearest(store, rows[3], 5, where="label = 'dog'") == []
    # Neighbours that do not meet the condition end a stretch.
    alike = Store.create(tmp_path / "j", ABOUT, 16)
    alike.add([(entry("a.mp4", 9), rows[:1].expand(9, 16)), (entry("b.mp4", 9), rows[1:10])])
    (hit,) = nearest(alike, rows[0], 1, where="start < 3 or start = 5")
    assert (hit.entry.path, hit.start, hit.end) == ("a.mp4", 0, 3)
    for wrong in ("start >", "colour = 'red'", "label = ", "; drop"):
        with pytest.raises(UsageError, match="--where"):
            nearest(store, rows[0], 5, where=wrong)
    # Lance takes what it understands, and passes over the rest.
    for rest in ("; start > 5", ";", " start > 5", ", start > 5", " limit 3", ") or (start < 9"):
        with pytest.raises(UsageError, match=r"--where .*(follows the condition|not supported)"):
            nearest(store, rows[0], 5, where=f"start > 1{rest}")
    for whole in ("label <> 'cat; (dog'", "start > 1 -- and more", "(start > 1) or (start < 1)"):
        assert nearest(store, rows[0], 1, where=whole)


def test_the_manifests_columns_travel(run, folder: Path, tmp_path: Path) -> None:
    manifest, index = tmp_path / "videos.csv", tmp_path / "i"

    def write(labels: list[str]) -> None:
        lines = [f"{folder}/{i}.mp4,{label},{i},x" for i, label in enumerate(labels)]
        manifest.write_text("\n".join(["path,label,size,_rowaddr", *lines]))

    write(["a", "a", "b", "b", "c", "d"])
    assert run("index", manifest, *NANO, "--out", index, "--json").json["new"] == 6
    asked = run("search", index, "a cat", "--where", "label = 'b'", "--json", "--by-video").json
    assert {Path(hit["video"]).name for hit in asked["hits"]} == {"2.mp4", "3.mp4"}
    assert asked["estimated"] is False
    assert set(Store(index).columns) == {"label", "size_", "_rowaddr_"}, "the table's are its own"
    write(["a", "a", "b", "e", "c", "d"])
    report = run("index", manifest, "--out", index, "--workers", 0, "--json").json
    assert (report["new"], report["relabelled"]) == (0, 1), "nothing is embedded again"
    store = Store(index)
    labels = {Path(p).name: v.entry.columns["label"] for p, v in store.videos().items()}
    assert labels == dict(zip((f"{i}.mp4" for i in range(6)), "aabecd", strict=True))
    assert all(video.entry.video for video in store.videos().values()), "fingerprints"
    assert run("index", folder, "--out", index, "--workers", 0, "--json").json["relabelled"] == 0
    one_line(run("search", index, "a cat", "--where", "colour = 1"), 2, "--where", "colour")
    number = run("search", index, "a cat", "--where", "CAST(label AS INT) > 1")
    one_line(number, 2, "--where", "Cannot cast string 'a'")


def test_two_columns_of_a_manifest_do_not_become_one(run, folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "videos.csv"
    for names in ("a b,a.b", "start,start_"):
        manifest.write_text(f"path,{names}\n{folder}/0.mp4,1,2\n")
        done = run("index", manifest, *NANO, "--out", tmp_path / "i")
        one_line(done, 2, "would both be", "rename", *map(repr, names.split(",")))
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("name", ["a.mp4", "caf\udce9.mp4", "a\\udce9.mp4", "\\udc5cudc", "'\\"])
def test_names_come_back(name: str) -> None:
    assert file_name(text_name(name)) == name
    assert text_name(name).encode("utf-8")
    assert manifest_row({"path": "x", "a.b c": "1", "start": "2", "": "3"}) == {
        "a_b_c": "1",
        "start_": "2",
    }


# Pruning and damage


def test_prune_rewrites_nothing(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "i", ABOUT, 16)
    store.add([(entry(f"{i}.mp4", 5), unit_rows(5, i)) for i in range(20)])
    data = tmp_path / "i" / "segments.lance" / "data"
    before = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    store.remove(["3.mp4", "4.mp4"])
    assert (Store(tmp_path / "i").count, store.segments) == (18, 90)
    assert {path.name: path.stat().st_mtime_ns for path in data.iterdir()} == before


def test_progress_counts_the_failures_of_its_own_videos(folder: Path, tmp_path: Path) -> None:
    """Other shards, and other videos of earlier runs, keep theirs in the same table."""
    failures = FailureTable(tmp_path / "i", ())
    failures.add("other.mp4", "cut off")
    failures.close(())
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "0.mp4").write_bytes((folder / "0.mp4").read_bytes())
    (tmp_path / "v" / "broken.mp4").write_bytes(b"x" * 1000)
    steps: list[BatchProgress] = []
    report = froster.index("nano", tmp_path / "v", tmp_path / "i", on_progress=steps.append)
    assert report["failed"] == 1 and [step.failed for step in steps][-1] == 1
    assert steps[0].failed == 0
    froster.index(None, tmp_path / "v", tmp_path / "i", on_progress=steps.append)
    assert steps[-1].failed == 1, "of an earlier run"


def test_what_a_full_disk_has_left_is_gone_on_with(run, folder: Path, tmp_path: Path) -> None:
    """Lance makes the folders of a table before it finds that nothing can be written to them."""
    for name in ("segments.lance", "failures.lance"):
        (tmp_path / "i" / name / "_versions").mkdir(parents=True)
        (tmp_path / "i" / name / "_transactions").mkdir()
    one_line(run("search", tmp_path / "i", "a cat"), 1, "not an index of froster index")
    (tmp_path / "broken.mp4").write_bytes(b"x" * 1000)
    done = run("index", folder / "0.mp4", tmp_path / "broken.mp4", *NANO, "--out", tmp_path / "i")
    assert done.code == 1, "a video has failed"
    assert Store(tmp_path / "i").count == 1 == len(FailureTable(tmp_path / "i", ()).causes)


def test_failures_are_kept_by_several(tmp_path: Path) -> None:
    one, other = FailureTable(tmp_path / "i", ()), FailureTable(tmp_path / "i", ())
    one.add("a.mp4", "cut off")
    other.add("b\udce9.mp4", "no frame")
    one.close(())
    other.close(())
    assert FailureTable(tmp_path / "i", ()).causes == {
        "a.mp4": "cut off",
        "b\udce9.mp4": "no frame",
    }
    FailureTable(tmp_path / "i", {"a.mp4"}).close(())
    assert set(FailureTable(tmp_path / "i", ()).causes) == {"b\udce9.mp4"}


def test_without_lance_it_is_one_line(run, tmp_path: Path, monkeypatch) -> None:
    Store.create(tmp_path / "i", ABOUT, 16)
    monkeypatch.setitem(sys.modules, "lance", None)
    one_line(
        run("search", tmp_path / "i", "cat"), 2, "an index needs Lance", "froster-video[search]"
    )


# A search that is estimated


def test_estimated_answers_and_their_recall(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "i", ABOUT, 32)
    rows = unit_rows(3000, size=32)
    store.add([(entry(f"{i}.mp4", 10), rows[10 * i : 10 * i + 10]) for i in range(300)])
    recall = approximate(store, unit_rows(20, 1, 32))
    assert is_estimated(store) and recall["cells"] == 1
    assert min(recall["text"], recall["video"]) >= 0.95
    assert search_options(store, False)["maximum_nprobes"] == 1
    assert search_options(store, True) == {"use_index": False}
    query = unit_rows(1, 2, 32)[0]
    exact, estimated = (
        [(hit.entry.path, hit.start) for hit in nearest(store, query, 10, exact=choice)]
        for choice in (True, False)
    )
    assert len(set(exact) & set(estimated)) >= 9
    # What is added later is compared as well, before it is in the search index and after.
    store.add([(entry("new.mp4", 1), query[None])])
    for _ in range(2):
        assert nearest(store, query, 1, exact=False)[0].entry.path == "new.mp4"
        store.table.compact()
    chosen = nearest(store, query, 5, where="path = '7.mp4'", exact=False)
    assert {hit.entry.path for hit in chosen} == {"7.mp4"}
    exactly(store)
    assert not is_estimated(Store(tmp_path / "i"))


def test_a_search_index_is_made_of_rows_that_are_there(tmp_path: Path) -> None:
    """Lance makes a mask of every row that a search may meet where a single one is deleted."""
    store = Store.create(tmp_path / "i", ABOUT, 32)
    rows = unit_rows(300, size=32)
    store.add([(entry(f"{i}.mp4", 10), rows[10 * i : 10 * i + 10]) for i in range(30)])
    store.remove(["3.mp4"])
    approximate(store, unit_rows(4, 1, 32))
    assert [part.num_deletions for part in store.table.dataset.get_fragments()] == [0]
    assert store.segments == 290
    (hit,) = nearest(store, rows[45], 1, exact=False, join=False)
    assert (hit.entry.path, hit.start) == ("4.mp4", 5.0)


def test_an_index_that_was_estimated_before_candidates_were_chosen_still_is(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "i", ABOUT, 32)
    rows = unit_rows(300, size=32)
    store.add([(entry(f"{i}.mp4", 10), rows[10 * i : 10 * i + 10]) for i in range(30)])
    approximate(store, unit_rows(4, 1, 32))
    store.table.dataset.delete_config_keys(["froster.estimated"])
    store.table.set("froster.probes", "1")
    former = Store(tmp_path / "i")
    assert is_estimated(former) and search_options(former, False)["maximum_nprobes"] == 1
    assert nearest(former, rows[0], 1, exact=False)[0].entry.path == "0.mp4"
    exactly(former)
    assert not is_estimated(Store(tmp_path / "i"))


def test_vectors_that_are_much_alike_are_told_apart(tmp_path: Path) -> None:
    """The graph sees 8 bits of the range of all numbers, which a few odd segments make wide."""
    store = Store.create(tmp_path / "i", ABOUT, 32)
    rows, odd = unit_rows(3000, size=32) / 20, torch.eye(32)[:10]
    rows = torch.nn.functional.normalize(rows + unit_rows(1, 5, 32), dim=-1)
    store.add([(entry(f"{i}.mp4", 10), rows[10 * i : 10 * i + 10]) for i in range(300)])
    store.add([(entry("odd.mp4", 10), odd), (entry("odder.mp4", 10), -odd)])
    recall = approximate(store, unit_rows(20, 1, 32))
    assert recall["candidates"] > 1 and min(recall["text"], recall["video"]) >= 0.99


def test_the_commands_say_that_it_is_estimated(run, folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    assert run("index", folder, *NANO, "--out", index, "--segment", 0.5).code == 0
    made = run("index", "--out", index, "--approximate")
    assert made.code == 0 and "recall at 10 of" in made.out, made.err
    asked = run("search", index, "a cat")
    assert asked.code == 0 and "estimated: not every segment was compared" in asked.err
    assert run("search", index, "a cat", "--json").json["estimated"] is True
    assert "estimated" not in run("search", index, "a cat", "--exact").err
    assert run("index", "--out", index, "--no-approximate").code == 0
    assert run("search", index, "a cat", "--json").json["estimated"] is False


# From froster 0.1


def old_index(folder: Path, parts: dict[str, list[tuple[str, int, torch.Tensor]]]) -> None:
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps(ABOUT))
    for name, videos in parts.items():
        names = ("path", "size", "mtime", "seconds", "frames", "damaged", "starts", "ends")
        lines = []
        for path, size, rows in videos:
            starts = [float(i) for i in range(len(rows))]
            values = (path, size, 1, 1.0, 8, 0, starts, [start + 1 for start in starts])
            lines.append(json.dumps(dict(zip(names, values, strict=True))) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines))
        rows = torch.cat([rows for _, _, rows in videos])
        save_tensors({"segments": rows.half()}, folder / f"{name}.safetensors")


def test_an_old_index_is_converted(run, tmp_path: Path) -> None:
    """The newest entry of a path wins, also that of the part after the 9999th; a part that was not
    finished is none, and features that lie beside are left alone."""
    rows, index = unit_rows(12), tmp_path / "i"
    old_index(
        index,
        {
            "0001": [("a.mp4", 1, rows[:2]), ("b.mp4", 1, rows[2:5])],
            "9999": [("a.mp4", 2, rows[5:6])],
            "10000": [("a.mp4", 3, rows[6:9]), ("c.mp4", 1, rows[9:12])],
        },
    )
    (index / "10001.safetensors").write_bytes(b"cut")
    (index / "failures.jsonl").write_text('{"path": "bad.mp4", "error": "no frame"}\n')
    (index / "features").mkdir()
    one_line(run("search", index, "cat"), 1, f"froster index --convert --out {index}")
    one_line(run("index", tmp_path, "--out", index), 1, "--convert")
    (index / "segments.lance").mkdir()  # of a conversion that was killed
    report = run("index", "--convert", "--out", index, "--json").json
    assert (report["videos"], report["segments"]) == (3, 9)
    store = Store(index)
    videos = store.videos()
    assert list(videos) == ["b.mp4", "a.mp4", "c.mp4"]
    assert videos["a.mp4"].entry.size == 3
    assert torch.equal(videos["a.mp4"].vectors, rows[6:9].half())
    assert torch.equal(videos["b.mp4"].vectors, rows[2:5].half())
    assert FailureTable(index, ()).causes == {"bad.mp4": "no frame"}
    kept = {"segments.lance", "failures.lance", "features", "10001.safetensors"}
    assert {path.name for path in index.iterdir()} == kept
    one_line(run("index", "--convert", "--out", index), 2, "nothing to convert")


def test_a_damaged_old_index_stays_as_it_is(run, tmp_path: Path) -> None:
    index = tmp_path / "i"
    old_index(index, {"0001": [("a.mp4", 1, unit_rows(2))]})
    (index / "0001.safetensors").write_bytes(b"cut")
    before = sorted(path.name for path in index.iterdir())
    one_line(run("index", "--convert", "--out", index), 1, "0001.safetensors")
    assert sorted(path.name for path in index.iterdir()) == before
    with pytest.raises(DataError, match="--convert"):
        Store(index)


# An object store


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server of S3 on this machine."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    request = urllib.request.Request(f"{address}/froster-test", method="PUT")
    urllib.request.urlopen(request, timeout=30).close()
    yield "s3://froster-test"
    server.stop()


def test_an_index_in_an_object_store(run, bucket: str, folder: Path, tmp_path: Path) -> None:
    index = f"{bucket}/indexes/one"
    (tmp_path / "bad.mp4").write_bytes(b"x")
    made = run("index", folder, tmp_path / "bad.mp4", *NANO, "--out", index, "--json")
    assert made.code == 1, made.err
    assert (made.json["new"], made.json["failed"], made.json["index"]) == (6, 1, index)
    again = run("index", folder, *NANO, "--out", index, "--json").json
    assert (again["new"], again["videos"]) == (0, 6)
    local = tmp_path / "local"
    assert run("index", folder, *NANO, "--out", local, "--root", folder).code == 0
    one, other = (
        run("search", place, "a cat", "--json", "--where", "start < 1").json["hits"]
        for place in (index, local)
    )
    assert one == other and one
    assert not Path("s3:").exists()
    one_line(run("search", f"{bucket}/nothing", "cat"), 1, "not an index of froster index")
    one_line(run("search", "s3://no-such-bucket/i", "cat"), 1, "s3://no-such-bucket/i")


@pytest.mark.slow
def test_the_benchmark_of_the_index_runs() -> None:
    from benchmarks.scale_index import run as benchmark

    lines = benchmark(toy=True)
    assert all(line.after >= 0 for line in lines) and len(lines) == 17
