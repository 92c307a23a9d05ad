"""The benchmarks run at toy size, do the same work as their baselines, and write a table that says
so."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import decode, loader, merging
from benchmarks.__main__ import PARTS, main
from benchmarks.setup import FRAMES, clips, labels, scene
from benchmarks.step import TEMPLATE, OurStep
from benchmarks.timing import Row, Spread, compare, interleave

# What takes seconds to import is imported within the tests: others' processes collect this file too.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="the baselines are of transformers"
)
PARTS_AT_TOY_SIZE = ["step", "evaluate", "classify", "encoders", "teach", "serve", "merging"]
QUICK = "step"


@pytest.mark.parametrize(
    "part",
    [p if p == QUICK else pytest.param(p, marks=pytest.mark.slow) for p in PARTS_AT_TOY_SIZE],
)
def test_a_part_writes_its_rows(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "COUNTS", [0, 4])
    monkeypatch.setattr(merging, "OF_NANO", [0, 12])
    monkeypatch.setattr("benchmarks.serve.CLIENTS", 3)
    main([part, "--toy", "--rounds", "1", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "speed.json").read_text())[part]
    assert found["rows"] and found["toy"] and "torch" in found["machine"]
    text = (tmp_path / "speed.md").read_text()
    assert f"python -m benchmarks {part}" in text and "it says nothing" in text


def test_parts_are_kept_beside_each_other(tmp_path: Path) -> None:
    for part in ("startup", "flops"):
        main([part, "--toy", "--rounds", "1", "--out", str(tmp_path)])
    assert set(json.loads((tmp_path / "speed.json").read_text())) == {"startup", "flops"}
    assert {"memory", "decode", "loader", "startup", "demo", "export", "growth"} < set(PARTS)


def test_the_gpu_script_runs_on_what_is_there(tmp_path: Path) -> None:
    from benchmarks.gpu import main as gpu

    gpu(["--toy", "--eager", "--repeats", "1", "--batch", "2", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    words = ["times as fast as (a)", "text tower, siglip-b16", "training from packed shards"]
    assert all(any(what in row["what"] for row in rows) for what in words)
    assert all(row.get("seconds", 1) > 0 for row in rows)
    with pytest.raises(SystemExit, match="--toy"):
        gpu(["--out", str(tmp_path)]) if not torch.cuda.is_available() else sys.exit("--toy")


def test_the_baseline_takes_the_same_steps_whether_its_text_is_in_one_piece_or_more() -> None:
    from benchmarks.baselines import ReleasedStep

    stage, names = scene(toy=True), labels(6)
    seen, targets = clips(2, stage.image_size), torch.arange(2)
    ours = OurStep(stage, names, FRAMES)
    whole, parts = (ReleasedStep(stage, names, FRAMES, text_chunks=chunks) for chunks in (1, 3))
    losses = [step(seen, targets, TEMPLATE) for step in (ours, whole, parts)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_ratios_are_taken_turn_by_turn() -> None:
    row = compare(
        "work", {"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 4.0, 4.0]}, "ours", "theirs", goal=2
    )
    assert row.ratio == Spread(2.0, 1.0, 3.0) and row.reached
    assert Row.from_dict(row.to_dict()) == row
    order: list[str] = []
    interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, warmup=1)
    assert "".join(order) == "ababab"


def test_decode_compares_with_whatever_is_installed():
    rows, notes = decode.run("decode", rounds=1, toy=True)
    others = len(decode.installed()[0]) - 1
    assert len(rows) == 4 * others
    assert [row.goal for row in rows] == [0.9, *[None] * (others - 1)] * 4 if others else not rows
    assert all(row.ours == "froster" and row.ratio.median > 0 for row in rows)
    assert len(notes) >= 1


@pytest.mark.slow
def test_the_loader_counts_clips_with_workers_and_without(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader, "WORKERS", 1)
    rows, notes = loader.run("loader", rounds=1, toy=True)
    assert [row.what for row in rows] == ["training clips", "evaluation, 3 views"]
    assert all(row.goal == 1.7 and row.ratio.median > 0 and row.unit == "clips/s" for row in rows)
    assert "16 clips a turn" in notes[0]
