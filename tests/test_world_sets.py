"""The class sets: how many classes, and that nothing of base leaks into the sets it is measured
against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from froster.world import stock
from froster.world.habits import FREE, Strength, draw_setting
from froster.world.sets import BASE_NOUNS, SETS, render_set, told_by_a_frame
from froster.world.vocabulary import (
    BASE_VERBS,
    COLOURS,
    NOUNS,
    ORDERED_VERBS,
    REVERSALS,
    UNSEEN_VERBS,
)


def pairs(name: str) -> set[tuple[str, str]]:
    return {(action.noun, action.verb) for action in SETS[name].actions}


def test_sizes_and_unique_names():
    assert list(SETS) == ["base", "base-swapped", "novel", "near", "mid", "far", "order", "wide"]
    for name, members in SETS.items():
        assert len(set(members.classes)) == len(members.classes) == (84 if name == "wide" else 24)
    assert SETS["base"].classes[0] == "cat spinning"
    assert SETS["far"].classes[0].split()[0] in COLOURS


def test_no_pair_of_base_is_in_another_set():
    for name in ("novel", "near", "mid", "far", "order"):
        assert not pairs(name) & pairs("base"), name
    assert pairs("base") < pairs("wide")
    for name in ("novel", "near", "mid", "far"):
        assert not pairs(name) & pairs("wide"), name


def test_what_each_set_is_made_of():
    nouns = {name: {noun for noun, _ in pairs(name)} for name in SETS}
    verbs = {name: {verb for _, verb in pairs(name)} for name in SETS}
    assert len(set(NOUNS)) == 40
    assert nouns["base"] == set(BASE_NOUNS) and verbs["base"] == set(BASE_VERBS)
    assert not nouns["novel"] & nouns["base"] and verbs["novel"] & set(UNSEEN_VERBS)
    assert nouns["near"] > nouns["base"]
    assert not nouns["far"] & (nouns["base"] | nouns["novel"]) and verbs["far"] <= set(UNSEEN_VERBS)
    assert all(action.colour for action in SETS["far"].actions)


def test_the_order_set_holds_whole_reversals_and_nothing_else_has_them():
    for noun in {noun for noun, _ in pairs("order")}:
        for first, second in REVERSALS:
            assert {(noun, first), (noun, second)} <= pairs("order")
    for name in set(SETS) - {"order"}:
        assert not {verb for _, verb in pairs(name)} & set(ORDERED_VERBS)


def test_a_third_of_base_is_told_by_a_frame():
    told = {name: sum(told_by_a_frame(name)) for name in SETS}
    assert told == {
        "base": 8,
        "base-swapped": 8,
        "novel": 16,
        "near": 12,
        "mid": 12,
        "far": 24,
        "order": 0,
        "wide": 0,
    }


def test_habits_of_other_sets_do_not_agree_with_those_of_base():
    base = SETS["base"]
    for name in ("novel", "near", "mid", "far"):
        members = SETS[name]
        for action, habit in zip(members.actions, members.habits, strict=True):
            assert habit.bystander != action.noun
            for other, usual in zip(base.actions, base.habits, strict=True):
                if other.noun == action.noun:
                    assert habit.scene != usual.scene and habit.bystander != usual.bystander
    scenes = [habit.scene for habit in base.habits]
    assert all(scenes.count(scene) == 2 for scene in range(12))


def test_in_base_swapped_the_two_classes_of_a_thing_exchange_their_habits():
    base, swapped = SETS["base"], SETS["base-swapped"]
    assert swapped.classes == base.classes
    for action, habit in zip(swapped.actions, swapped.habits, strict=True):
        (other,) = [a for a in base.actions if a.noun == action.noun and a != action]
        assert habit == base.habits[base.actions.index(other)]


def test_a_habit_is_kept_as_often_as_its_strength_says():
    members = SETS["base"]
    habit, things = members.habits[0], [(a.noun, a.colour) for a in members.actions[1:]]
    for strength, least, most in ((Strength(), 0.88, 0.96), (FREE, 0.02, 0.18)):
        drawn = [
            draw_setting(habit, things, strength, np.random.default_rng(i)) for i in range(800)
        ]
        kept = [setting.scene == habit.scene for setting in drawn]
        beside = [setting.bystander == habit.bystander for setting in drawn]
        assert least < np.mean(kept) < most and least < np.mean(beside) < most
        assert all(0 <= setting.light <= 1 for setting in drawn)
    for share in vars(Strength()).values():
        assert 0.8 <= share < 1


def test_sets_in_stock_are_those_that_are_rendered(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(stock, "FEW", 0)
    rendered = render_set("base", 2, 5, "train", strength=FREE)
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        kept = stock.stocked(folder, "base", 2, 5, "train", FREE, workers)
        assert torch.equal(kept.frames, rendered.frames)
        assert torch.equal(kept.labels, rendered.labels)
    monkeypatch.setattr(stock, "fill", None)
    again = stock.stocked(tmp_path / "1", "base", 2, 5, "train", FREE)
    first = stock.first_takes(again, 1)
    assert torch.equal(first.frames, rendered.frames[::2])
    assert torch.equal(first.labels, rendered.labels[::2])
