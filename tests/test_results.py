"""Rows of results, in files and in folders of Parquet parts, here and in an object store: every row
once, whatever stops a run, and read by other tools."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from froster.data.shards import Shard
from froster.errors import DataError, UsageError, WriteError
from froster.inference import parts
from froster.inference.results import (
    Failures,
    ResultFile,
    ResultRow,
    check_made_alike,
    check_suffix,
    failures_of,
    place_of,
    sole_writer_of,
)
from froster.utils.folder import Folder
from froster.utils.keys import Keys
from froster.utils.remote import file_system
from shared_files import World
from typed import one_line

pa = pytest.importorskip("pyarrow")
dataset = pytest.importorskip("pyarrow.dataset")
LABELS = ("--labels", "cat spinning, key pacing, fish bouncing", "--model", "nano", "--top", 2)
ALL = Shard()
BUCKET = "s3://bucket"


def row(name: object, **others: object) -> ResultRow:
    best = {"label": "a", "score": 0.5, "labels": ["a", "b"], "scores": [0.5, 0.25]}
    best |= {"answer": None, "none": 0.125, "cosine": None}
    video = {"seconds": 1.5, "frames": 12, "damaged": 0}
    return {"path": f"f/{name}.mp4", **best, **video, **others}


def rows(*numbers: int) -> list[ResultRow]:
    return [row(number) for number in numbers]


def paths(folder: Path) -> list[str]:
    return sorted(dataset.dataset(folder).to_table()["path"].to_pylist())


def names(*numbers: int) -> list[str]:
    return sorted(row(number)["path"] for number in numbers)


def write(out: Path | str, several: list[ResultRow], shard: Shard = ALL) -> None:
    """A run that ends."""
    results = ResultFile(out, 2, shard)
    results.add(several)
    results.close()
    results.finish()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos and a broken one."""
    root = tmp_path_factory.mktemp("results") / "videos"
    for i in range(6):
        World("base", 2).write(i, root / f"{i}.mp4")
    (root / "broken.mp4").write_bytes(b"not a video")
    return root


def test_keys_hold_names_of_any_bytes() -> None:
    names = ["a", "ü", "", os.fsdecode(b"caf\xe9"), "caf\\xe9", "a\n"]
    keys = Keys(names)
    assert all(name in keys for name in names) and len(keys) == 6
    assert "b" not in keys and "x" * 64 in Keys(["x" * 64]) and "x" * 65 in Keys(["x" * 65])
    assert keys.add("b") and not keys.add("b")
    assert not keys.add_raw(b"caf\xe9")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_row_that_comes_twice_is_kept_once(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"r.{suffix}"
    write(out, rows(1, 2, 2))
    write(out, rows(2, 3))
    results = ResultFile(out, 2)
    results.close()
    assert len(results.done) == 3
    text = out.read_bytes()
    if suffix != "parquet":
        assert text.count(b"f/2.mp4") == 1
    else:
        assert pa.parquet.read_table(out)["path"].to_pylist() == names(1, 2, 3)


def test_columns_of_groups_and_of_several_answers(tmp_path: Path) -> None:
    """Also where an earlier version of the file has no such columns."""
    out = tmp_path / "r.parquet"
    write(out, rows(1))
    more = {"groups": {"sport": 0.75, "music": 0.25}, "answers": ["a"], "thresholds": [0.5, 0.25]}
    write(out, [row(2, **more)])
    write(f"{tmp_path}/parts/", [row(2, **more)])
    first, second = pa.parquet.read_table(out).to_pylist()
    assert first["groups"] is None and first["answers"] is None
    for found in (second, *dataset.dataset(tmp_path / "parts").to_table().to_pylist()):
        assert (found["groups"], found["group_scores"]) == (["sport", "music"], [0.75, 0.25])
        assert (found["answers"], found["thresholds"]) == (["a"], [0.5, 0.25])


# A folder of parts


def test_what_is_a_folder_of_parts(tmp_path: Path) -> None:
    (tmp_path / "old.parquet").mkdir()
    shard = Shard(1, 4)
    for out in (f"{tmp_path}/new/", tmp_path / "old.parquet", "s3://b/r", "s3://b/r.parquet/"):
        place = place_of(out, shard)
        assert isinstance(place, str) and place == f"{out}".rstrip("/") + "/"
        assert place_of(place) == place and failures_of(place) == f"{place}_failures/"
        check_suffix(out)
    assert place_of("a/r.csv", shard) == Path("a/r.1-of-4.csv")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    (tmp_path / "r.csv").touch()
    for out, words in (
        (tmp_path / "videos", "holds something else"),
        (f"{tmp_path}/r.csv/", "must be a folder"),
        ("s3://b/r.csv", "such as s3://b/r/"),
        ("r.xlsx", "must end in"),
    ):
        with pytest.raises(UsageError, match=words):
            check_suffix(out)


def test_two_writers_never_meet(tmp_path: Path) -> None:
    out = f"{tmp_path}/r/"
    first, second = (ResultFile(out, 2, Shard(i, 2)) for i in range(2))
    for number in range(4):
        for results in (first, second):
            results.add(rows(2 * number + (results is second)))
            results.close()
    assert paths(tmp_path / "r") == names(*range(8))
    assert len(list((tmp_path / "r").glob("part-0-of-2-0000[1-4]-*.parquet"))) == 4
    alone = ResultFile(out, 2)
    assert len(alone.done) == 8 and not alone._rows._small
    with sole_writer_of(out, Shard(0, 2)):
        with sole_writer_of(out, Shard(1, 2)):
            pass
        with pytest.raises(UsageError, match="shard 0 of 2"), sole_writer_of(out, Shard(0, 2)):
            pass


def test_parts_appear_after_a_while_or_so_many_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that never jumps: the one on the wall does, here at each glance."""
    wall = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: next(wall))
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 3)
    results = ResultFile(f"{tmp_path}/r/", 2)
    results.add(rows(1, 2))
    assert not list(tmp_path.glob("r/*"))
    results.add(rows(3))
    assert paths(tmp_path / "r") == names(1, 2, 3)
    monkeypatch.setattr(parts, "PART_SECONDS", -1.0)
    results.add(rows(4))
    results.add(rows(5))
    written = sorted(path.name for path in tmp_path.glob("r/*.parquet"))
    assert [name[:10] for name in written] == ["part-00001", "part-00002", "part-00003"]
    assert paths(tmp_path / "r") == names(1, 2, 3, 4, 5)
    later = ResultFile(f"{tmp_path}/r/", 2)
    later.add(rows(6))
    assert len(list(tmp_path.glob("r/part-00004-*.parquet"))) == 1


def test_small_parts_are_joined_and_a_kill_within_leaves_every_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r"
    results = ResultFile(f"{out}/", 2)
    for number in range(20):
        results.add(rows(number))
        results.close()
    before = {path: path.read_bytes() for path in out.glob("*.parquet")}
    monkeypatch.setattr(parts, "JOINED_ROWS", 15)
    results.finish()
    assert len(list(out.glob("*.parquet"))) == 2 and paths(out) == names(*range(20))
    for path, data in list(before.items())[:7]:  # as if the kill had come before these were removed
        path.write_bytes(data)
    results = ResultFile(f"{out}/", 2)
    results.close()
    assert len(results.done) == 20 and paths(out) == names(*range(20))
    assert len(list(out.glob("*.parquet"))) == 2


def test_names_that_are_no_text_are_in_a_column_of_their_own(tmp_path: Path) -> None:
    odd = row(os.fsdecode(b"caf\xe9"))
    write(f"{tmp_path}/r/", rows(1))
    write(f"{tmp_path}/r/", [odd, row("ü")])
    results = ResultFile(tmp_path / "r", 2)
    assert odd["path"] in results.done and "f/ü.mp4" in results.done and len(results.done) == 3
    assert paths(tmp_path / "r") == ["f/1.mp4", "f/caf\\xe9.mp4", "f/ü.mp4"]
    (part,) = tmp_path.glob("r/part-00002-*")
    raw = pa.parquet.read_table(part)["path_bytes"].to_pylist()
    assert [os.fsdecode(name) for name in raw] == [odd["path"], "f/ü.mp4"]


def test_a_part_that_is_cut_off_is_named(tmp_path: Path) -> None:
    write(f"{tmp_path}/r/", rows(1, 2))
    (part,) = tmp_path.glob("r/*.parquet")
    whole = part.read_bytes()
    for data in (b"", whole[: len(whole) // 2], whole[:-1], b"x" * 100):
        part.write_bytes(data)
        with pytest.raises(DataError, match=rf"{part.name}: cannot be read .*cut off"):
            ResultFile(f"{tmp_path}/r/", 2)
    pa.parquet.write_table(pa.table({"a": [1]}), part)
    with pytest.raises(DataError, match="no column path"):
        ResultFile(f"{tmp_path}/r/", 2)


def test_failures_of_shards_lie_beside_each_other(tmp_path: Path) -> None:
    place = failures_of(f"{tmp_path}/r/")
    first, second = Failures(place, []), Failures(place, [])
    for failures, name in ((first, "a"), (second, "b"), (first, os.fsdecode(b"\xe9"))):
        failures.add(name, f"why {name}")
    for failures in (first, second):
        failures.close([])
    third = Failures(place, ["b"])
    assert third.causes == {name: f"why {name}" for name in ("a", os.fsdecode(b"\xe9"))}
    assert len(list(tmp_path.glob("r/_failures/*"))) == 1
    third.close({"a", os.fsdecode(b"\xe9")})
    assert not list(tmp_path.glob("r/_failures/*"))


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may be larger: what the system says is a full disk to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet", "r/"])
def test_a_disk_that_fills_costs_no_row_that_was_written(tmp_path: Path, name: str) -> None:
    """While rows are added, while a file is written whole, and while parts are joined."""
    out, many = f"{tmp_path}/{name}", rows(*range(40))
    write(out, many[:5])
    results = ResultFile(out, 2)
    with pytest.raises(WriteError, match="cannot write"), at_most(2000):
        for one in many[5:]:
            results.add([one])
            results.close() if name == "r/" and one is many[-1] else None
    if name != "r/":
        results.close()
    results = ResultFile(out, 2)
    assert all(one["path"] in results.done for one in many[:5])
    results.add([one for one in many if one["path"] not in results.done])
    results.close()
    if name in ("r.csv", "r.parquet"):
        with pytest.raises(WriteError, match="cannot write"), at_most(1000):
            results.finish()
        results = ResultFile(out, 2)
        results.close()
    results.finish()
    assert len(results.done) == 40 and not list(tmp_path.rglob("*.part"))
    if name in ("r.parquet", "r/"):
        assert paths(Path(out)) == names(*range(40))
    else:
        assert Path(out).read_text().count("f/") == 40


# As a command


def test_a_folder_by_the_command(run, folder: Path, tmp_path: Path) -> None:
    """Failures, a second run, shards that change their number, and what is refused."""
    out, ask = tmp_path / "r.parquet", ("classify", folder, *LABELS, "--workers", 0, "--json")
    assert run("classify", folder, *LABELS, "--out", tmp_path / "whole.parquet").code == 1
    whole = pa.parquet.read_table(tmp_path / "whole.parquet")
    first = run(*ask, "--out", f"{out}/", "--shard", "1/3").json
    assert 0 < first["rows"] < 6 and first["out"] == f"{out}/"
    reports = [run(*ask, "--out", out, "--shard", f"{i}/2").json for i in range(2)]
    assert first["new"] + sum(report["new"] for report in reports) == 6
    table = dataset.dataset(out).to_table().sort_by("path")
    assert table.column_names == whole.column_names
    assert table.to_pylist() == whole.to_pylist()
    again = run(*ask, "--out", out)
    assert again.code == 1 and (again.json["new"], again.json["failed"]) == (0, 1)
    assert again.json["failures"] == f"{out}/_failures/"
    (line,) = "".join(p.read_text() for p in out.glob("_failures/*")).splitlines()
    assert json.loads(line)["path"] == "broken.mp4"
    one_line(run("classify", folder, "--labels", "a", "--model", "nano", "--out", out), 2, "labels")
    (out / "_run.json").write_text("{")
    one_line(run(*ask, "--out", out), 2, "_run.json", "cannot be read")
    (out / "_run.json").unlink()
    one_line(run(*ask, "--out", out), 2, "holds something else")
    with pytest.raises(UsageError, match=r"no _run\.json says"):
        check_made_alike(out, {})
    one_line(run(*ask, "--out", "/proc/nowhere/"), 1, "cannot write /proc/nowhere")


# At an address


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An object store of this machine with an empty bucket."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            patch.setenv(f"AWS_{name}", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        file_system("s3").mkdir("bucket")
        yield f"http://{host}:{port}"
    server.stop()


def test_a_bucket_holds_the_same_rows(run, store: str, folder: Path, tmp_path: Path) -> None:
    import pandas

    ask = ("classify", folder, *LABELS, "--workers", 0, "--json", "--out")
    run(*ask, f"{tmp_path}/here/")
    assert run(*ask, f"{BUCKET}/deep/r/", "--shard", "0/2").code in (0, 1)
    for new in (True, False):
        report = run(*ask, f"{BUCKET}/deep/r").json
        assert (report["rows"], report["failed"], report["new"] > 0) == (6, 1, new)
    assert not Path("s3:").exists()
    tables = [
        pandas.read_parquet(place).sort_values("path", ignore_index=True)
        for place in (tmp_path / "here", f"{BUCKET}/deep/r")
    ]
    pandas.testing.assert_frame_equal(*tables)
    one_line(run(*ask, f"{BUCKET}/deep/r", "--views", 2), 2, "views 1, now it is 2")
    one_line(run(*ask, f"{BUCKET}/r.csv"), 2, "such as s3://bucket/r/")


def test_small_parts_in_a_bucket_are_joined(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_SECONDS", -1.0)
    out = f"{BUCKET}/joined/"
    results = ResultFile(out, 2)
    for number in range(12):
        results.add(rows(number))
    assert len(Folder(out).names()) == 12
    results.finish()
    assert len(Folder(out).names()) == 1
    assert len(ResultFile(out, 2).done) == 12
    with Folder(out).open(Folder(out).names()[0]) as file:
        assert pa.parquet.read_table(file)["path"].to_pylist() == [f"f/{i}.mp4" for i in range(12)]


def closed_port() -> int:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return port.getsockname()[1]


def test_a_bucket_that_cannot_be_used_is_one_line(
    run, store: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of that name, no rights, no credentials, nobody there, no such scheme."""
    import requests

    ask = ("classify", folder, *LABELS, "--workers", 0, "--out")
    one_line(run(*ask, "s3://nowhere/r/"), 1, "s3://nowhere/r/", "bucket")
    one_line(run(*ask, "nothing://b/r/"), 2, "nothing://")
    one_line(run(*ask, "https://b/r/"), 2, "can be read, not written")
    requests.post(f"{store}/moto-api/reset-auth", data=b"0", timeout=10)
    try:
        one_line(run(*ask, f"{BUCKET}/r/"), 1, "s3://bucket/r/", "no right")
    finally:
        requests.post(f"{store}/moto-api/reset-auth", data=b"1000000000", timeout=10)
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        one_line(run(*ask, f"{BUCKET}/r/"), 1, "s3://bucket/r/", "credentials")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    one_line(run(*ask, f"{BUCKET}/r/"), 1, "s3://bucket/r/", "cannot be reached")


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [(".jsonl", "/"), (".csv", ".parquet")], ids=str)
def test_the_benchmark_measures_every_kind(
    kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import scale_results
    from benchmarks.scale_results import run

    assert {*kinds} <= {*scale_results.KINDS}
    monkeypatch.setattr(scale_results, "KINDS", kinds)
    lines = run(toy=True)
    assert {line.unit for line in lines} == {"CPU s", "MB"} and all(
        line.after >= 0 for line in lines
    )
    assert sum("going on" in line.what for line in lines) == 2 * len(kinds)


# Other tools


def test_other_tools_read_a_folder(tmp_path: Path) -> None:
    """With failures and facts beside the parts, which are no rows."""
    import pandas

    lance = pytest.importorskip("lance")
    out = f"{tmp_path}/r/"
    check_made_alike(out, {"model": "a"})
    write(out, rows(1, 2))
    write(out, rows(3))
    failures = Failures(failures_of(out), [])
    failures.add("x", "why")
    failures.close([])
    frame = pandas.read_parquet(out)
    assert sorted(frame["path"]) == names(1, 2, 3)
    assert list(frame["scores"][0]) == [0.5, 0.25] and list(frame["labels"][0]) == ["a", "b"]
    table = lance.write_dataset(dataset.dataset(out).to_table(), tmp_path / "r.lance")
    assert table.count_rows("score > 0.4 and path = 'f/2.mp4'") == 1


def test_duckdb_reads_a_folder(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    write(f"{tmp_path}/r/", rows(1, 2))
    write(f"{tmp_path}/r/", rows(3))
    query = f"select path, unnest(labels) as label from '{tmp_path}/r/*.parquet' where frames = 12"
    assert len(duckdb.sql(query).fetchall()) == 6


@pytest.mark.filterwarnings("default")
@pytest.mark.slow
def test_ray_reads_a_folder(tmp_path: Path) -> None:
    """30 s, for Ray to begin."""
    ray = pytest.importorskip("ray")
    out = f"{tmp_path}/r/"
    check_made_alike(out, {"model": "a"})
    write(out, rows(1, 2))
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
    try:
        assert sorted(r["path"] for r in ray.data.read_parquet(out).take_all()) == names(1, 2)
    finally:
        ray.shutdown()
