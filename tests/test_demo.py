"""The demo's folder and its JSON, at a small size; what comes out of it is not asserted, only how."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from froster import experiment
from froster.world import demo, study


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SHOTS", 2)
    monkeypatch.setattr(demo, "TESTS_PER_CLASS", 1)
    monkeypatch.setattr(study, "SHOTS", 2)
    monkeypatch.setattr(experiment, "SMALL_RECIPE", dataclasses.replace(experiment.SMALL_RECIPE, epochs=2))


def test_demo(small: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    for _ in range(2):  # it works twice in a row
        demo.run(3, out, as_json=True)
    printed = capfd.readouterr().out.strip().splitlines()
    result = json.loads(printed[-1])
    assert result["seed"] == 3 and result["seconds"] > 0
    rows = {row["method"]: row for row in result["rows"]}
    assert len(rows) == len(result["rows"])
    assert rows.keys() == {
        "frozen", "finetuned", "finetuned_last", "finetuned_blend", "froster", "froster_last", "froster_blend"
    }  # fmt: skip
    for row in rows.values():
        assert row["cross"].keys() == {"near", "mid", "far"}
        assert all(0 <= row[key] <= 100 for key in ("base", "novel", "hm"))
    for name in ("report.html", "report.json", "figures/accuracy.png", "figures/training.png", "figures/clips.png"):
        assert (out / name).stat().st_size > 0
    assert (out / "froster" / "model.safetensors").is_file()
    assert len(list((out / "videos").glob("*.mp4"))) == 3
    first, second = (json.loads(line)["rows"] for line in printed)
    assert first == second, "the same seed gives the same numbers"


def test_study(small: None, tmp_path: Path) -> None:
    out = tmp_path / "study"
    study.run(out, ["VCLIP", "FROSTER"], [3e-4], seeds=1, videos=24, shard=(0, 1))
    cells = study.read_cells(out)
    assert len(cells) == 2
    assert study.chosen_rates(cells) == {"VCLIP": 3e-4, "FROSTER": 3e-4}
    text = study.tables(out)
    assert "| FROSTER - VCLIP | 0.0003, 0.0003 | average, 1 seeds |" in text


def test_the_rate_is_chosen_on_held_out_base_videos_only() -> None:
    def cell(rate: float, val: float, other: float) -> dict:
        return {"arm": "VCLIP", "rate": rate, "results": {"average": {"val": val, "novel": other, "far": other}}}

    assert study.chosen_rates([cell(1e-4, 40, 99), cell(1e-3, 50, 1)]) == {"VCLIP": 1e-3}
