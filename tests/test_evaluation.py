"""Accuracies, unreadable videos, splits, and weights after training."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from froster.errors import CheckpointError, DataError, UsageError
from froster.evaluation import Predictions, harmonic_mean, over_splits, standard_error
from froster.splits import draw_novel, few_shots, split
from froster.video.dataset import Item
from froster.weights import average, ensemble, interpolate

NAN = float("nan")


def predictions() -> Predictions:
    logits = torch.tensor([[3.0, 1, 2], [3, 2, 1], [1, 2, 3], [NAN, NAN, NAN]])
    return Predictions(["a", "b", "c"], torch.tensor([0, 1, 2, 2]), logits, [(3, "x.mp4: empty file")], list("wxyz"))


def test_unreadable_videos_count_as_wrong() -> None:
    p = predictions()
    assert p.ranks().tolist()[:3] == [0, 1, 0]
    assert p.top(1) == 50.0
    assert p.top(2) == 75.0
    assert p.per_class() == {"a": 100.0, "b": 0.0, "c": 50.0}
    assert p.summary()["unreadable"] == 1


def test_a_model_that_cannot_tell_gets_no_credit() -> None:
    flat = Predictions(["a", "b"], torch.tensor([0, 1, 1, 1]), torch.zeros(4, 2))
    assert flat.top(1) == 25.0
    assert flat.top(2) == 100.0


def test_top_5_of_three_classes_does_not_credit_an_unreadable_video() -> None:
    assert predictions().top(5) == 75.0


def test_predictions_file(tmp_path: Path) -> None:
    predictions().save(tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [row["prediction"] for row in rows] == ["a", "a", "c", ""]
    assert rows[0]["video"] == "w"
    assert rows[3]["rank"] == ""


def test_means() -> None:
    assert harmonic_mean(60, 40) == pytest.approx(48)
    assert harmonic_mean(0, 0) == 0
    assert over_splits([70, 72, 74]) == {"mean": 72, "std": 2, "splits": 3}
    assert standard_error(50, 100) == pytest.approx(5)


def items(count: int, labels: str, split: str | None = None) -> list[Item]:
    return [Item(Path(f"{label}{i}{split}.mp4"), label, split) for label in labels for i in range(count)]


def test_split_by_column_leaves_out_what_it_cannot_place() -> None:
    every = items(4, "abc", "train") + items(3, "abcd", "test") + items(1, "e")
    parts = split(every, novel=["c"])
    assert (parts.base, parts.novel) == (["a", "b"], ["c"])
    assert (len(parts.train), len(parts.base_test), len(parts.novel_test)) == (8, 6, 3)
    assert any("split is empty" in note for note in parts.notes)
    assert "e" not in parts.base + parts.novel
    assert any("neither base nor novel: d" in note for note in parts.notes)


def test_classes_without_training_videos_are_drawn_as_novel_first() -> None:
    every = items(4, "abc", "train") + items(3, "abcd", "test")
    parts = split(every, novel_fraction=0.5)
    assert "d" in parts.novel
    assert len(parts.novel) == 2
    assert parts.novel == split(every, novel_fraction=0.5).novel
    assert len({tuple(draw_novel("abcdefgh", "abcdefgh", 0.5, seed)) for seed in range(8)}) > 1


def test_without_a_split_column_every_class_is_held_out_in_part() -> None:
    parts = split(items(10, "ab"), holdout=0.2)
    assert (len(parts.train), len(parts.base_test)) == (16, 4)
    assert not {i.path for i in parts.train} & {i.path for i in parts.base_test}


def test_shots_depend_on_the_seed_alone() -> None:
    every = items(9, "ab")
    assert few_shots(every, 4, 1) == few_shots(every, 4, 1) != few_shots(every, 4, 2)
    assert len(few_shots(every, 4, 1)) == 8
    assert few_shots(every, None, 0) == every


def test_split_errors() -> None:
    with pytest.raises(DataError, match="two or more base classes"):
        split(items(5, "a"))
    with pytest.raises(UsageError, match="'zebra'"):
        split(items(5, "ab"), novel=["zebra"])
    with pytest.raises(DataError, match="unknown split 'tset'"):
        split(items(2, "ab", "tset"))


def test_weights_after_training() -> None:
    clip, tuned = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    assert torch.equal(interpolate(clip, tuned, 1.0)["w"], clip["w"])
    assert torch.equal(interpolate(clip, tuned, 0.0)["w"], tuned["w"])
    assert interpolate(clip, tuned, 0.25)["w"].tolist() == [0.75] * 3
    assert torch.equal(average([tuned, tuned, tuned])["w"], tuned["w"])
    with pytest.raises(CheckpointError, match="do not match"):
        average([clip, {"v": torch.zeros(3)}])
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    assert torch.equal(ensemble(a, b, 1.0), a)
    assert torch.allclose(ensemble(a, b, 0.0, "prob"), b.softmax(-1))
