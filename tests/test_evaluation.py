"""Accuracies, unreadable videos, splits, and weights after training."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
import torch

from froster.data import splits
from froster.data.manifest import Item
from froster.data.splits import draw_novel, few_shots, split
from froster.errors import CheckpointError, DataError, UsageError
from froster.evaluation.metrics import (
    Predictions,
    ensemble,
    harmonic_mean,
    over_splits,
    standard_error,
)
from froster.methods import METHODS
from froster.training.fine_tune import student_of
from froster.training.measure import EvalRow, EvalSet, asked_together, change, measure
from froster.training.weights import interpolate
from froster.world.clips import WorldClips
from froster.world.sets import SETS, render_set

NAN = float("nan")


def predictions() -> Predictions:
    logits = torch.tensor([[3.0, 1, 2], [3, 2, 1], [1, 2, 3], [NAN, NAN, NAN]])
    return Predictions(
        ["a", "b", "c"],
        torch.tensor([0, 1, 2, 2]),
        logits,
        [(3, "x.mp4: empty file")],
        list("wxyz"),
    )


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


def test_top_5_is_left_out_where_it_is_always_right() -> None:
    assert predictions().summary()["top5"] is None
    for count, known in ((5, False), (6, True)):
        p = Predictions(
            [f"{i}" for i in range(count)], torch.tensor([0, count - 1]), torch.eye(count)[:2]
        )
        assert (p.summary()["top5"] is not None) == known
        assert p.summary()["chance"] == 100 / count


def test_a_change_says_no_more_than_the_videos_do() -> None:
    def answers(*hits: int) -> Predictions:
        """A 1 is a video that is named right."""
        return Predictions(
            ["a", "b"],
            torch.zeros(len(hits), dtype=torch.long),
            torch.tensor([[h, 0.5] for h in hits]),
        )

    same = change(answers(1, 0, 1, 0), answers(1, 0, 1, 0))
    assert (same.gain, same.error, same.kind, same.words) == (0, 0, "", "the same videos right")
    swapped = change(answers(1, 0, 1, 0), answers(0, 1, 1, 0))
    assert (swapped.gain, swapped.words) == (0, "within the error")
    assert swapped.error == pytest.approx(100 * 2**0.5 / 4)
    few = change(answers(1, 1, 1), answers(0, 0, 0))
    assert (few.gain, few.words) == (-100, "within the error"), (
        "three videos, all lost, may be chance"
    )
    lost = change(answers(*[1] * 60, *[0] * 40), answers(*[1] * 40, *[0] * 60))
    assert lost.error == pytest.approx(100 * 20**0.5 / 100)
    assert (lost.kind, lost.words) == ("bad", "a loss beyond two standard errors")
    assert str(lost) == "60.0 -> 40.0 (-20.0 ± 4.5, a loss beyond two standard errors)"
    won = change(answers(*[0] * 50), answers(*[1] * 10, *[0] * 40))
    assert (won.kind, won.words, won.chance) == ("good", "a gain beyond two standard errors", 50)


@pytest.mark.parametrize("name", ["vclip", "actionclip", "xclip", "vita-clip", "efficient-prompt"])
def test_labels_asked_together_are_as_if_asked_for_alone(nano, name: str) -> None:
    """One pass of the videos gives both, also where a logit depends on the other labels or on the
    video."""
    method = (
        METHODS[name]
        .make("class" if name == "vita-clip" else None)
        .for_classes(SETS["base"].classes[:4])
    )
    torch.manual_seed(0)
    model = student_of(nano, method)
    sets = []
    for which, count in (("base", 4), ("novel", 3)):
        videos = render_set(which, 1, split="val")
        some = dataclasses.replace(
            videos,
            frames=videos.frames[:count],
            labels=videos.labels[:count],
            classes=videos.classes[:count],
        )
        sampling = dataclasses.replace(
            model.config.sampling, frames=getattr(method, "frames", 0) or 8
        )
        sets.append(EvalSet(which, WorldClips(some, sampling, train=False), some.classes))
    both = sets[0].classes + sets[1].classes
    together = measure(model, asked_together(sets))
    alone = measure(model, sets)
    classes = model.class_embeddings(both)
    for s in sets:
        assert torch.allclose(together[s.name].logits, alone[s.name].logits, atol=1e-3)
        clips = torch.stack(
            [s.dataset[i].frames for i in range(len(s.classes))]
        )  # (N, V, T, 3, S, S)
        seen = model.encode_clips(clips.flatten(0, 1))
        expected = (
            model.model.logits(seen.video, classes, seen.context)
            .unflatten(0, clips.shape[:2])
            .mean(1)
        )
        found = together[s.name].also["together"]
        assert found.classes == both and torch.allclose(found.logits, expected, atol=1e-3)
        assert [both[i] for i in found.labels.tolist()] == s.classes
    row = EvalRow("", "", together)
    assert row.generalised["base"] == together["base"].also["together"].top(1)


def test_predictions_file(tmp_path: Path) -> None:
    predictions().save(tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["prediction"] for row in rows] == ["a", "a", "c", ""]
    assert rows[0]["video"] == "w"
    assert rows[3]["rank"] == ""


def test_means() -> None:
    assert harmonic_mean(60, 40) == pytest.approx(48)
    assert harmonic_mean(0, 0) == 0
    assert over_splits([70, 72, 74]) == {"mean": 72, "std": 2, "splits": 3}
    assert standard_error(50, 100) == pytest.approx(5)


def items(count: int, labels: str, split: str | None = None) -> list[Item]:
    return [
        Item(Path(f"{label}{i}{split}.mp4"), label, split) for label in labels for i in range(count)
    ]


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


def test_all_novel_videos_test_and_it_is_said_what_is_held_out() -> None:
    every = items(20, "abcd")
    parts = split(every, novel_fraction=0.25)
    assert len(parts.novel) == 2, "one alone would always be right"
    assert parts.novel_test == [item for item in every if item.label in parts.novel]
    (note,) = [note for note in parts.notes if "held out as novel" in note]
    assert note.startswith(
        f"2 of 4 classes held out as novel: {', '.join(parts.novel)}; 2 because one alone"
    )
    named = split(every, novel=parts.novel)
    assert (named.train, named.base_test, named.novel_test) == (
        parts.train,
        parts.base_test,
        parts.novel_test,
    )
    alone = split([item for item in every if item.label in parts.base])
    assert (alone.train, alone.base_test) == (parts.train, parts.base_test), (
        "what trains does not hang on what is held out"
    )
    half = split(every, novel_fraction=0.5)
    assert "because" not in " ".join(half.notes)
    with pytest.raises(DataError, match=r"found 1.*held out as novel"):
        split(items(5, "abc"), novel_fraction=0.3)
    of_a_split = split([*items(4, "abcd", "train"), *items(3, "abcd", "test")], novel=["c", "d"])
    assert len(of_a_split.novel_test) == 6 and any(
        "8 training videos neither train nor test" in n for n in of_a_split.notes
    )


def test_very_many_novel_videos_are_capped_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "MOST_NOVEL", 7)
    every = items(20, "abcd")
    parts = split(every, novel=["c", "d"])
    assert sorted(item.label for item in parts.novel_test) == [*"cccc", *"ddd"]
    assert "of 40 novel videos 7 test, as many of each class: more say no more" in parts.notes
    again, other = (split(every, novel=["c", "d"], split_seed=seed).novel_test for seed in (0, 1))
    assert parts.novel_test == again != other


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
    with pytest.raises(CheckpointError, match="do not match"):
        interpolate(clip, {"v": torch.zeros(3)}, 0.5)
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    assert torch.equal(ensemble(a, b, 1.0), a)
    assert torch.allclose(ensemble(a, b, 0.0, "prob"), b.softmax(-1))
