"""`train --kept-views`: a frozen tower is computed once, and the run is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import froster
from froster.data.dataset import VideoDataset
from froster.data.manifest import Item
from froster.methods.efficient_prompt import EfficientPrompt
from froster.methods.recipe import Recipe
from froster.methods.text4vis import Text4Vis
from froster.methods.vclip import VCLIP
from froster.training import train as training
from froster.training.kept import KeptClips, KeptTower, moves_frames
from froster.training.reporter import Reporter
from froster.utils.files import read_lines
from froster.video.sampling import Sampling
from shared_files import World

pytestmark = pytest.mark.usefixtures("few_templates_throughout")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of each of four classes, and two files that are none."""
    root, world = tmp_path_factory.mktemp("videos"), World("base", 6)
    for i in range(24):
        world.write(i, root / world.label(i) / f"{i}.mp4")
        (root / world.label(i) / f"broken{i % 2}.mp4").write_bytes(b"no video")
    return root


OPTIONS = {
    "epochs": 3,
    "batch_size": 2,
    "frames": 2,
    "kept_views": 2,
    "novel_fraction": 0.5,
    "validation": 0.3,
    "blend_points": 0,
    "look": False,
    "device": "cpu",
    "seed": 3,
}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(
            {"method": "efficient-prompt", "option": {"prefix": 2, "postfix": 2}},
            marks=pytest.mark.slow,  # as the next, without a teacher
        ),
        {"method": "efficient-prompt", "option": {"prefix": 2, "postfix": 2}, "preset": "froster"},
        pytest.param(
            {"method": "text4vis", "option": {"layers": 1}, "tune": "head"},
            marks=pytest.mark.slow,  # as the one before: something is trained behind the tower
        ),
        {"method": "finetuned", "tune": "text"},
    ],
    ids=["efficient-prompt", "distilled", "head alone", "text alone"],
)
def test_the_run_is_the_same(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: dict
) -> None:
    options = {**OPTIONS, **method}
    kept = froster.train(videos, tmp_path / "kept", "nano", **options)
    monkeypatch.setattr(training, "moves_frames", lambda *_: "this test wants it so")
    plain = froster.train(videos, tmp_path / "plain", "nano", **options)
    assert kept is not None and plain is not None
    assert list((tmp_path / "kept" / "features").glob("*/*.safetensors"))
    assert not (tmp_path / "plain" / "features").exists()
    ours, theirs = (read_lines(tmp_path / name / "metrics.jsonl")[0] for name in ("kept", "plain"))
    assert len(ours) == len(theirs) > 8
    for line, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert mine.keys() == other.keys()
        near = 2e-3 if line else 1e-5  # AdamW makes steps of what is rounded
        for name, value in mine.items():
            if isinstance(value, float):
                assert value == pytest.approx(other[name], rel=near, abs=near), (name, mine)
    assert any("whose features are computed once" in line for line in kept.report["chosen"])
    assert kept.trained.unreadable == plain.trained.unreadable != {}
    for name, predictions in plain.rows[1].predictions.items():
        torch.testing.assert_close(
            kept.rows[1].predictions[name].logits,
            predictions.logits,
            rtol=0,
            atol=1e-2,
            equal_nan=True,
        )


def test_a_kept_run_goes_on_from_what_it_has(videos: Path, tmp_path: Path, monkeypatch) -> None:
    options = {**OPTIONS, "method": "efficient-prompt", "option": {"prefix": 2, "postfix": 2}}
    towers: list[KeptTower] = []
    make = training.KeptTower

    def tower(*arguments) -> KeptTower:
        towers.append(make(*arguments))
        return towers[-1]

    monkeypatch.setattr(training, "KeptTower", tower)
    froster.train(videos, tmp_path / "run", "nano", **{**options, "epochs": 2})
    again = froster.train(videos, tmp_path / "other", "nano", **options)
    first, second = towers
    assert first.new and first.new <= second.new
    (tmp_path / "run").rename(tmp_path / "moved")
    result = froster.train(
        videos, tmp_path / "moved", "nano", **{**options, "epochs": 2}, resume=True
    )
    assert result is not None and again is not None
    assert 0 < towers[2].new < first.new / 2, "broken files alone are tried again"
    with pytest.raises(froster.UsageError, match="kept_views"):
        froster.train(
            videos,
            tmp_path / "moved",
            "nano",
            **{**options, "epochs": 2, "kept_views": 3},
            resume=True,
        )


def test_what_is_not_frozen_is_not_kept(nano, videos: Path, tmp_path: Path) -> None:
    recipe = Recipe()
    assert moves_frames(nano, EfficientPrompt(prefix=2, postfix=2), recipe) == ""
    assert "is trained" in moves_frames(nano, VCLIP(), recipe)
    assert "is trained" in moves_frames(nano, Text4Vis(), recipe)
    head = Recipe(tune="head")
    assert moves_frames(nano, Text4Vis(), head) == ""
    assert "changes the image tower" in moves_frames(nano, VCLIP(), Recipe(tune="text"))
    mixed = Recipe(tune="head", mixup=0.5)
    assert "mixed" in moves_frames(nano, Text4Vis(), mixed)
    result = froster.train(videos, tmp_path / "run", "nano", **{**OPTIONS, "epochs": 1})
    assert result is not None and not (tmp_path / "run" / "features").exists()
    assert any("the image tower is trained, so none is kept" in x for x in result.report["chosen"])


def test_without_kept_views_the_clips_are_new_in_every_epoch(videos: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "method": "efficient-prompt", "option": {"prefix": 2, "postfix": 2}}
    del options["kept_views"]
    result = froster.train(videos, tmp_path / "run", "nano", **{**options, "epochs": 2})
    assert result is not None and not (tmp_path / "run" / "features").exists()
    assert any("--kept-views N would" in line for line in result.report["chosen"])
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "kept_views" not in json.dumps(report)


def test_parts_of_a_video_have_features_of_their_own(nano, videos: Path, tmp_path: Path) -> None:
    path = next(videos.glob("*/0.mp4"))
    items = [Item(path, label, span=span) for label, span in (("a", (0, 1)), ("b", (1, 2)))]
    reading = Sampling("uniform", 8)
    dataset = VideoDataset(items, ["a", "b"], reading, nano.image_size, train=False)
    clips = KeptTower(nano, tmp_path, 0, Reporter()).clips(dataset)
    clips.fill()
    first, second = clips[0].frames, clips[1].frames
    assert first is not None and second is not None and not torch.equal(first, second)


def test_videos_without_a_fingerprint_are_kept_apart(nano, videos: Path, tmp_path: Path) -> None:
    """A server may have failed for a moment, just when the fingerprints were asked for."""
    items = [Item(path, "a") for path in sorted(videos.glob("*/[02].mp4"))]
    reading = Sampling("uniform", 8)
    dataset = VideoDataset(items, ["a", "b"], reading, nano.image_size, train=False)
    clips = KeptClips(dataset, [None] * 2, KeptTower(nano, tmp_path, 0, Reporter()))
    clips.fill()
    first, second = clips[0].frames, clips[1].frames
    assert first is not None and second is not None and not torch.equal(first, second)
