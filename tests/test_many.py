"""Many videos: killed at any time and gone on with, every video has one row, and the row it would
have had."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import froster
import quick
from froster.errors import DataError, VideoError
from froster.evaluation.calibration import NONE, Calibration, NoneRule
from froster.inference.batch import ReadOptions
from froster.inference.index import IndexSettings
from froster.inference.recognizer import load
from froster.inference.results import BatchProgress, ResultFile, ResultRow
from froster.utils.pool import processes
from froster.video.container import unchanged
from shared_files import World
from typed import one_line
from video_files import make_video

LABELS = ("--labels", "cat spinning, key pacing, fish bouncing", "--model", "nano", "--top", 2)
pytestmark = pytest.mark.usefixtures("few_templates_throughout")
WHY = "not installed: pip install -e '.[parquet]'"
needs_parquet = pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason=WHY)
FORMATS = ["csv", "jsonl", pytest.param("parquet", marks=needs_parquet)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen videos in folders, a broken one, an empty one, and a file that is no video."""
    root = tmp_path_factory.mktemp("many") / "videos"
    videos = World("base", 2)
    for i in range(16):
        videos.write(i, root / f"{i % 3}" / f"{i:02d}.mp4")
    (root / "1" / "broken.mp4").write_bytes(b"not a video")
    (root / "2" / "empty.mp4").touch()
    (root / "notes.txt").touch()
    return root


def table(path: Path) -> list[ResultRow]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def row(number: int) -> ResultRow:
    best = {
        "label": "sürfing, “big”",
        "score": 0.5,
        "labels": ["sürfing, “big”", "b"],
        "scores": [0.5, 0.25],
    }
    best |= {"answer": best["label"], "none": 0.125, "cosine": 0.25}
    return {"path": f'f/{number}, "ü".mp4', **best, "seconds": 1.5, "frames": 12, "damaged": 0}


def test_python_is_refused_what_the_commands_are(nano, tmp_path: Path) -> None:
    """No label a row was an IndexError, -1 all but one; -1 processes waited for ever."""
    wrong: list[dict[str, float]] = [{"top": 0}, {"top": -1}, {"batch_size": 0}, {"time_limit": 0}]
    for options in wrong:
        with pytest.raises(froster.UsageError, match=next(iter(options))):
            ReadOptions(**options)  # type: ignore[arg-type]
    for segment in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(froster.UsageError, match="segment"):
            IndexSettings(segment)
    with pytest.raises(froster.UsageError, match="float16 or float32"):
        IndexSettings(dtype="int8")
    with pytest.raises(froster.UsageError, match="workers"):
        processes(-1, 3)
    for views in (0, -1, 1.5, True, 10**20):
        with pytest.raises(froster.UsageError, match="views is a whole number from 1 to 1000"):
            nano.classify(tmp_path / "a.mp4", ["a", "b"], views=views)
    for size in (0, -1, math.nan):
        with pytest.raises(froster.UsageError, match="batch_size"):
            nano.classify(tmp_path / "a.mp4", ["a", "b"], batch_size=size)
    with pytest.raises(froster.UsageError, match="names no file"):
        nano.classify("", ["a", "b"])
    with pytest.raises(froster.UsageError, match="names no model"):
        froster.load("")
    for top in (0, -1):
        with pytest.raises(froster.UsageError, match="top"):
            froster.search(tmp_path / "index", "a cat", top=top)


@pytest.mark.parametrize("suffix", FORMATS)
def test_cut_at_any_byte_a_file_goes_on_with_whole_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r.{suffix}"
    written = path if suffix == "jsonl" else path.with_name(f"{path.name}.rows.jsonl")
    rows = [row(number) for number in range(3)]
    results = ResultFile(path, 2)
    results.add(rows)
    results.close()
    whole = written.read_bytes()
    for length in range(0, len(whole), 5):
        written.write_bytes(whole[:length])
        results = ResultFile(path, 2)
        results.add([row for row in rows if row["path"] not in results.done])
        results.close()
        assert written.read_bytes() == whole, length
    results.finish()
    assert [found["path"] for found in table(path)] == [row["path"] for row in rows]


@needs_parquet
def test_parquet_killed_between_its_last_two_steps(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    for again in (False, True):
        results = ResultFile(path, 2)
        results.add([row(1), row(2)] if not again else [row(3)])
        journal = (tmp_path / "r.parquet.rows.jsonl").read_bytes()
        results.close()
        results.finish()
        (tmp_path / "r.parquet.rows.jsonl").write_bytes(journal)
    assert [found["path"] for found in table(path)] == [row(number)["path"] for number in (1, 2, 3)]


def test_a_file_that_was_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    for name, text in (
        ("a.csv", "path,label\nx,y\n"),
        ("b.csv", '"a"b\nx\n'),
        ("c.jsonl", "[]\n{}\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="changed"):
            ResultFile(tmp_path / name, 2)
        assert (tmp_path / name).read_text() == text


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_failures_and_a_second_run(run, folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"r.{suffix}"
    ask = ("classify", folder, *LABELS, "--out", out, "--workers", 0)
    result = run(*ask, "--json")
    assert result.code == 1
    report = result.json
    assert (report["videos"], report["rows"], report["new"], report["failed"]) == (18, 16, 16, 2)
    rows = table(out)
    assert [found["path"] for found in rows] == sorted(f"{i % 3}/{i:02d}.mp4" for i in range(16))
    assert all(found["frames"] in (16, "16") for found in rows)
    failures = {}
    for line in Path(report["failures"]).read_text().splitlines():
        entry = json.loads(line)
        failures[entry["path"]] = entry["error"]
    assert (
        set(failures) == {"1/broken.mp4", "2/empty.mp4"} and failures["2/empty.mp4"] == "empty file"
    )
    before = out.read_bytes()
    assert run(*ask, "--json").json["new"] == 0
    assert suffix == "parquet" or out.read_bytes() == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_says_what_a_model_said(run, folder: Path, tmp_path: Path, suffix: str) -> None:
    """Without a fit no verdict; with one, the answer that `classify --json` gives."""
    nano, sure = load("nano", device="cpu"), tmp_path / "sure"
    nano.calibration = Calibration(1.0, NoneRule(12.1, 43.2, 0.88), {"to": "a test"})
    nano.save(sure)
    for model, calibrated in (("nano", False), (sure, True)):
        ask = (
            "classify",
            folder / "0",
            "--labels",
            "moon glowing, clock circling",
            "--model",
            model,
            "--workers",
            0,
        )
        out = tmp_path / f"{calibrated}.{suffix}"
        told = run(*ask, "--out", out)
        hint = (
            f'not calibrated, so never "none of these": froster calibrate {model} --data'
            " YOUR_VIDEOS"
        )
        assert told.code == 0 and (hint in told.err) != calibrated
        assert run(*ask, "--out", out, "--json").json["calibrated"] == calibrated
        shown = {
            found["video"].rpartition("/")[2]: found
            for found in run(*ask, "--json").json["results"]
        }
        rows = table(out)
        for found in rows:
            said = shown[found["path"]]
            assert found["label"] == said["label"]
            assert float(found["cosine"]) == pytest.approx(said["cosine"], abs=1e-5)
            blank = "" if suffix == "csv" else None
            none = found["none"] if found["none"] == blank else float(found["none"])
            assert none == (pytest.approx(said["none"], abs=1e-5) if calibrated else blank)
            assert found["answer"] == (said["answer"] or (NONE if suffix == "csv" else None))
        assert any(said["answer"] is None for said in shown.values()) == calibrated
        assert all(
            said["cosine"] < 1 and said["label"] == said["scores"][0]["label"]
            for said in shown.values()
        )


def test_a_file_of_the_form_before_is_not_gone_on_with(run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    ask = ("classify", folder / "0", *LABELS, "--out", out, "--workers", 0)
    assert run(*ask).code == 0
    origin = tmp_path / "r.jsonl.run.json"
    made = json.loads(origin.read_text())
    assert made["calibration"] == {"temperature": 1.0, "none": None}
    del made["rows"]
    origin.write_text(json.dumps(made))
    one_line(run(*ask), 2, "rows", "another --out")


def test_what_was_made_otherwise_is_refused(run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    ask = ("classify", folder / "0", "--model", "nano", "--out", out, "--workers", 0, "--labels")
    assert run(*ask, "a, b").code == 0
    before = out.read_bytes()
    one_line(run(*ask, "a, b, c"), 2, "labels list of 2", "list of 3", "another --out")
    one_line(run(*ask, "a, c"), 2, "labels", "another one of that length")
    one_line(run(*ask, "a, b", "--views", 2), 2, "views 1, now it is 2")
    one_line(run("classify", folder / "1", *ask[2:], "a, b"), 2, "root")
    assert out.read_bytes() == before
    (tmp_path / "r.csv.run.json").unlink()
    one_line(run(*ask, "a, b"), 2, "r.csv.run.json", "another --out")
    (tmp_path / "r.csv.run.json").write_text("{")
    one_line(run(*ask, "a, b"), 2, "cannot be read")
    one_line(run(*ask[:5], tmp_path / "r.xlsx", "--labels", "a"), 2, "must end in .jsonl")
    one_line(run(*ask[:5], tmp_path, "--labels", "a"), 2, "must end in")
    one_line(run(*ask[:4], "--labels", "a, b", "--shard", "0/2"), 2, "give --out")
    one_line(run(*ask[:5], "/proc/nowhere/r.csv", "--labels", "a"), 1, "cannot write")


def test_what_failed_is_retried_when_asked(run, folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    good = (folder / "0" / "00.mp4").read_bytes()
    (clips / "a.mp4").write_bytes(good)
    (clips / "b.mp4").write_bytes(good[:100])
    ask = ("classify", clips, *LABELS, "--out", tmp_path / "r.csv", "--workers", 0)
    assert run(*ask).code == 1
    (clips / "b.mp4").write_bytes(good)
    assert run(*ask).code == 1
    assert len(table(tmp_path / "r.csv")) == 1
    assert run(*ask, "--retry-failed").code == 0
    assert [found["path"] for found in table(tmp_path / "r.csv")] == ["a.mp4", "b.mp4"]
    assert not (tmp_path / "r.csv.failures.jsonl").exists()


def start(*arguments: object) -> quick.Popen:
    command = [sys.executable, "-m", "froster", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return quick.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_killed_again_and_again_it_ends_as_if_it_had_not_been(folder: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "killed.csv"
    ask = ("classify", folder, *LABELS)
    assert start(*ask, "--out", whole, "--workers", 0).wait() == 1
    journal = tmp_path / "killed.csv.rows.jsonl"
    for rows in (1, 9):
        process = start(*ask, "--out", out, "--workers", 1)
        deadline = time.monotonic() + 120
        while (
            not journal.exists() or journal.read_bytes().count(b"\n") <= rows
        ) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with journal.open("ab") as file:
        file.write(b'{"path": "0/00.mp4", "la')  # as if the kill had come in the middle of a line
    assert start(*ask, "--out", out, "--workers", 1).wait() == 1
    assert out.read_bytes() == whole.read_bytes() and not journal.exists()
    assert sorted(Path(f"{out}.failures.jsonl").read_text().splitlines()) == sorted(
        Path(f"{whole}.failures.jsonl").read_text().splitlines()
    )


def test_shards_together_have_every_row_once(
    run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("classify", folder, *LABELS, "--out", tmp_path / "whole.csv", "--workers", 0)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        run(
            "classify",
            folder,
            *LABELS,
            "--out",
            tmp_path / "r.csv",
            "--workers",
            0,
            "--shard",
            "auto",
        )
    parts = [table(tmp_path / f"r.{rank}-of-3.csv") for rank in range(3)]
    assert sorted((row for part in parts for row in part), key=lambda row: row["path"]) == table(
        tmp_path / "whole.csv"
    )


def test_as_a_function_with_progress(run, folder: Path, tmp_path: Path) -> None:
    asked: list[BatchProgress] = []
    labels, out = ["cat spinning", "key pacing", "fish bouncing"], tmp_path / "function.csv"
    options = ReadOptions(workers=0, top=2)
    report = froster.classify(
        "nano", folder, labels, out, options=options, on_progress=asked.append
    )
    assert run("classify", folder, *LABELS, "--out", tmp_path / "command.csv").code == 1
    assert table(out) == table(tmp_path / "command.csv")
    assert (report["rows"], report["failed"], report["calibrated"]) == (16, 2, False)
    assert [(step.done, step.total) for step in (asked[0], asked[-1])] == [(0, 18), (18, 18)]
    assert asked[-1].failed == 2


def test_without_a_file_the_answers_are_the_same(run, folder: Path, tmp_path: Path) -> None:
    """And they are those of a batch, of processes, and of the Python API."""
    alone = run("classify", folder / "0", *LABELS, "--json").json["results"]
    many = run("classify", folder / "0", *LABELS, "--json", "--workers", 2, "--batch-size", 4).json[
        "results"
    ]
    assert [found["video"] for found in alone] == [found["video"] for found in many]
    for one, other in zip(alone, many, strict=True):
        assert one["label"] == other["label"]
        for a, b in zip(one["scores"], other["scores"], strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=1e-5)


def test_a_file_that_grows_is_said_to(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 8)
    with unchanged(path):
        pass
    with (
        pytest.raises(VideoError, match=r"a\.mp4: the file changed while it was read"),
        unchanged(path),
        path.open("ab") as file,
    ):
        file.write(b"x")
