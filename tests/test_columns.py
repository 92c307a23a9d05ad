"""Manifests by columns: the same rows, draws and errors as plain code gives, row by row, of any
size."""

from __future__ import annotations

import csv
import itertools
import json
import os
import pickle
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import plain_splits
from benchmarks import scale_data
from froster.data import splits
from froster.data.dataset import VideoDataset
from froster.data.items import Item, Items, label_counts
from froster.data.likeness import GRADIENTS, LENGTH, MOTION, SECONDS, Likeness, pairs
from froster.data.listing import list_videos
from froster.data.manifest import read_items, read_rows
from froster.errors import DataError, UsageError
from froster.training.held_out import novel_by_column
from froster.video.sampling import Sampling

WORDS = {
    "none": [""],
    "two": ["train", "test"],
    "three": ["train", "train", "Val", "TEST", "validation"],
    "some": ["train", "eval", "testing", "Training", "valid", ""],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred files, in two folders."""
    root = tmp_path_factory.mktemp("columns")
    for number in range(100):
        (root / "ab"[number % 2]).mkdir(exist_ok=True)
        (root / "ab"[number % 2] / f"v {number}.mp4").touch()
    return root


def random_rows(rng: random.Random, count: int, words: Sequence[str]) -> list[dict[str, str]]:
    classes = rng.randint(2, 30)
    numbers = [rng.randrange(100) for _ in range(count)]
    return [
        {
            "path": f"{'ab'[number % 2]}/v {number}.mp4",
            "label": f"class {min(rng.randrange(classes), rng.randrange(classes))}",
            "split": rng.choice(words),
            "note": rng.choice(["x", "y, z", 'a "b"', "two\nlines", ""]),
        }
        for number in numbers
    ]


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", WORDS)
def test_draws_are_those_of_plain_code(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = 0
    for seed in range(40):
        rng = random.Random(f"{kind}/{seed}")
        most = rng.choice([(200, 5000), (5, 9)])
        for module in (splits, plain_splits):
            monkeypatch.setattr(module, "SPARE_MOST", most[0])
            monkeypatch.setattr(module, "MOST_NOVEL", most[1])
        rows = random_rows(rng, rng.randint(4, 300), WORDS[kind])
        items = read_items(write_csv(folder / "drawn.csv", rows))
        options = {
            "novel_fraction": rng.choice([0.0, 0.3, 0.5]),
            "holdout": rng.choice([0.0, 0.2, 0.5]),
            "shots": rng.choice([None, 1, 4]),
            "split_seed": rng.randrange(5),
            "validation": rng.choice([None, 0, 0.1, 0.3]),
        }
        try:
            parts = splits.split(items, **options)
        except DataError:
            continue
        expected = plain_splits.split(list(items), **options)
        assert (parts.base, parts.novel) == (expected.base, expected.novel)
        for name in ("train", "base_test", "novel_test", "validation"):
            assert list(getattr(parts, name)) == getattr(expected, name), (seed, name)
        drawn += 1
        of_list = splits.split(list(items), **options)
        assert (of_list.train, of_list.validation) == (expected.train, expected.validation)
    assert drawn > 20


def test_rows_are_those_of_pythons_reader(folder: Path) -> None:
    rows = random_rows(random.Random(0), 20_000, WORDS["three"])
    source = write_csv(folder / "many.csv", rows)
    items = read_items(source)
    assert [dict(item.columns) for item in items] == rows
    assert [item.path for item in items] == [folder / row["path"] for row in rows]
    assert items[-1].columns["note"] == rows[-1]["note"]
    assert items[5:7] == [items[5], items[6]]
    assert list(label_counts(items)) == list(dict.fromkeys(row["label"] for row in rows))
    some = read_items(source, where={"note": "two\nlines", "split": "train"})
    chosen = [r for r in rows if r["note"] == "two\nlines" and r["split"] == "train"]
    assert [dict(item.columns) for item in some] == chosen
    assert items.table is not None
    with source.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        assert items.table.lines.tolist() == [reader.line_num for _ in reader][1:]


def test_an_error_far_down_names_its_line_and_the_first_one_counts(folder: Path) -> None:
    good = ["a/v 0.mp4,x"] * 20_000
    wrong = {
        "a/v 0.mp4": "line 20004: expected 2 values, found 1",
        "a/v 0.mp4,": "line 20004: no label",
        ",x": "line 20004: no path",
        "gone.mp4,x": r"1 of 20002 files do not exist below .*: gone.mp4 \(line 20004\)",
    }
    source = folder / "far.csv"
    for row, message in wrong.items():
        source.write_text("\n".join(["path,label", "", *good, ",", row, "a/v 2.mp4,x"]) + "\n")
        with pytest.raises(DataError, match=message):
            read_items(source)
    source.write_text("\n".join(["path,label", *good, "a,b,c", ",x", "s3://b/v.mp4,"]))
    with pytest.raises(DataError, match="line 20002: expected 2 values, found 3"):
        read_items(source)
    lines = ['{"path": "a/v 0.mp4", "label": "x"}'] * 9000
    source = folder / "far.jsonl"
    source.write_text("\n".join([*lines, "[]", '{"path": "x"}']))
    with pytest.raises(DataError, match="line 9001: expected an object with path and label"):
        read_items(source)
    source.write_text("\n".join([*lines, '{"path": "x"}', "[]"]))
    with pytest.raises(DataError, match="line 9001: no label"):
        read_items(source)


def test_a_parquet_manifest_is_read_as_a_csv(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = random_rows(random.Random(1), 9000, WORDS["some"])
    source = write_csv(folder / "same.csv", rows)
    columns = {name: [row[name] or None for row in rows] for name in rows[0]}
    columns["Number"] = list(range(len(rows)))
    columns["path"] = [os.fsencode(row["path"]) for row in rows]
    columns["label"] = pa.array(columns["label"]).dictionary_encode()
    parquet.write_table(pa.table(columns), folder / "same.parquet")
    items = read_items(folder / "same.parquet")
    assert items == read_items(source)
    assert dict(items[7].columns) == {k: v for k, v in rows[7].items() if v} | {"number": "7"}
    listing = list_videos([folder / "same.parquet"])
    assert [v.key for v in listing] == [v.key for v in list_videos([source])]
    assert listing[0].columns["number"] == "0"
    parquet.write_table(pa.table({"path": ["a/v 0.mp4", "gone"], "label": ["x", "y"]}), source)
    with pytest.raises(DataError, match=r"gone \(row 2\)"):
        read_items(source.rename(folder / "gone.parquet"))
    parquet.write_table(pa.table({"path": ["a/v 0.mp4"], "class": ["x"]}), folder / "c.parquet")
    with pytest.raises(DataError, match="expected a column 'path' and a column 'label', found"):
        read_items(folder / "c.parquet")
    for kind in (pa.dictionary(pa.int8(), pa.binary()), pa.binary(10), pa.binary_view()):
        names = pa.array([b"b/v 11.mp4"]).cast(pa.binary())
        names = names.dictionary_encode() if pa.types.is_dictionary(kind) else names.cast(kind)
        parquet.write_table(pa.table({"path": names, "label": ["x"]}), folder / "b.parquet")
        assert [item.path.name for item in read_items(folder / "b.parquet")] == ["v 11.mp4"]
    parquet.write_table(pa.table({"path": ["a/v 0.mp4"], "label": [["x"]]}), folder / "l.parquet")
    with pytest.raises(DataError, match="column 'label': expected texts, found list"):
        read_items(folder / "l.parquet")
    (folder / "cut.parquet").write_bytes((folder / "same.parquet").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cut\.parquet: cannot be read"):
        read_items(folder / "cut.parquet")


def test_parquet_without_pyarrow_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (folder / "x.parquet").touch()
    with pytest.raises(UsageError, match=r"pip install 'froster-video\[parquet\]'"):
        read_items(folder / "x.parquet")


def test_files_are_looked_for_once_and_by_others_taken_over(folder: Path) -> None:
    source = write_csv(folder / "once.csv", random_rows(random.Random(2), 50, ["train"]))
    kept = []

    def first(work):
        kept.append(work())
        return kept[0]

    items = read_items(source, once=first)
    assert read_items(source, once=lambda work: kept[0]) == items
    source.write_text("path,label\n a\\v 0.mp4 ,x\n a/v 2.mp4,x\ngone.mp4,x\n")
    with pytest.raises(DataError, match=r"1 of 3 .*: gone.mp4 \(line 4\)"):
        read_items(source)
    missing = read_items(source, once=lambda work: (work()[0], np.zeros(0, np.int64)))
    assert [item.path for item in missing[:2]] == [folder / "a/v 0.mp4", folder / "a/v 2.mp4"]


def test_a_row_that_is_sent_does_not_take_the_table_along(folder: Path) -> None:
    rows = random_rows(random.Random(3), 5000, ["train"])
    item = read_items(write_csv(folder / "sent.csv", rows))[1]
    data = pickle.dumps(item)
    assert len(data) < 1000
    assert dict(pickle.loads(data).columns) == rows[1]


def test_rows_of_different_fields_and_their_columns(folder: Path) -> None:
    lines = [
        {"path": "a/v 0.mp4", "label": "x", "zone": "base", "number": 3},
        {"path": "b/v 1.mp4", "label": "y", "split": None},
        {"path": "b/v 3.mp4", "label": "y", "zone": "Novel", "seen": True},
    ]
    source = folder / "fields.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    items = read_items(source)
    assert [dict(item.columns) for item in items] == [
        {"path": "a/v 0.mp4", "label": "x", "zone": "base", "number": "3"},
        {"path": "b/v 1.mp4", "label": "y"},
        {"path": "b/v 3.mp4", "label": "y", "zone": "Novel", "seen": "True"},
    ]
    with pytest.raises(UsageError, match=r"class 'y', it says \['', 'novel'\]"):
        novel_by_column(items, "zone")
    with pytest.raises(UsageError, match="there is label, number, path, seen, zone"):
        novel_by_column(items, "part")
    assert read_items(source, where={"number": "3"}) == [Item(folder / "a/v 0.mp4", "x")]


def test_a_quote_that_is_not_closed_takes_no_rows_away(folder: Path) -> None:
    source = folder / "open.csv"
    for end in ("", "\n"):
        lines = ["path,label", "a/v 0.mp4,x", 'b/v 1.mp4,"y', "b/v 3.mp4,z"]
        source.write_text("\n".join(lines) + end)
        with pytest.raises(DataError, match="line 3: a quote is not closed"):
            read_items(source)
        source.write_text("\n".join([*lines[:2], 'b/v 1.mp4,"y"']) + end)
        assert [item.label for item in read_items(source)] == ["x", "y"]
    source.write_text(f"path,label,{'x' * 200_000}\n")
    with pytest.raises(DataError, match="line 1: field larger"):
        read_items(source)


def test_what_is_no_text_is_no_label_and_no_column(folder: Path) -> None:
    source = folder / "nested.jsonl"
    for label in (["x", "y"], {"x": 1}):
        source.write_text(json.dumps({"path": "a/v 0.mp4", "label": label}) + "\n")
        with pytest.raises(DataError, match="line 1: label: expected a text"):
            read_items(source)
    source.write_text(json.dumps({"path": "a/v 0.mp4", "label": "x", "\udc80": "y"}) + "\n")
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_items(source)


def test_many_rows_take_little_memory(folder: Path) -> None:
    """A thousand rows that are objects took 970 kB."""
    rows = [f"a/v {2 * (i % 50)}.mp4,class {i % 400},train,{i:011d}" for i in range(30_000)]
    source = folder / "large.csv"
    source.write_text("\n".join(["path,label,split,id", *rows]))
    tracemalloc.start()
    try:
        items = read_items(source)
        parts = splits.split(items, novel_fraction=0.5, shots=100)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(parts.train, Items)
    assert held < 3.6e6 and peak < 10.5e6, (held, peak)
    dataset = VideoDataset(parts.train, parts.base, Sampling("uniform", 4), 32, train=True)
    assert dataset.clip(3).path == str(parts.train[3].path)
    assert parts.base[dataset.label(3)] == parts.train[3].label


def plain_pairs(videos: Sequence[Likeness | None]) -> set[tuple[int, int]]:
    """Every two compared."""
    alike = set()
    shown = [
        (n, v, int.from_bytes(v.gradients, "big"), np.frombuffer(v.motion, np.int8).astype(float))
        for n, v in enumerate(videos)
        if v is not None
    ]
    for (i, a, gradients, x), (j, b, others, y) in itertools.combinations(shown, 2):
        longer, shorter = max(a.seconds, b.seconds), min(a.seconds, b.seconds)
        if longer > max(shorter / (1 - LENGTH), shorter + SECONDS):
            continue
        bits, size = gradients ^ others, np.linalg.norm(x) * np.linalg.norm(y)
        same = x @ y / size if size else float(not x.any() and not y.any())
        if bits.bit_count() <= GRADIENTS * 512 and same >= MOTION:
            alike.add((i, j))
    return alike


@pytest.mark.parametrize("kind", ["any", "one camera", "smooth", "still"])
def test_pairs_are_those_of_all_comparisons(kind: str) -> None:
    videos: list[Likeness | None] = [None]
    videos += scale_data.signatures(200, 60, seed=3, kind=kind, noise=0.8)
    random.Random(0).shuffle(videos)
    expected = plain_pairs(videos)
    assert len(expected) > 20
    assert {(pair.first, pair.second) for pair in pairs(videos)} == expected


def test_the_scale_of_data_is_measured() -> None:
    lines = scale_data.run(toy=True)
    assert len(lines) > 6
    assert all(line.after >= 0 for line in lines)


def test_a_path_that_no_file_can_have_is_an_error_of_its_line(folder: Path) -> None:
    """A surrogate stands for a byte that is no UTF-8, and for nothing else."""
    source = folder / "surrogate.jsonl"
    lines = ['{"path": "a/v 0.mp4", "label": "x"}', '{"path": "\\ud800.mp4", "label": "x"}']
    source.write_text("\n".join(lines) + "\n")
    for read in (read_items, read_rows):
        with pytest.raises(DataError, match="line 2: the path is no name"):
            read(source)
