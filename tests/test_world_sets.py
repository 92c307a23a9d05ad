"""The class sets: how many classes, and that nothing of base leaks into the sets it is measured
against."""

from __future__ import annotations

from froster.world.sets import BASE_NOUNS, SETS
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
    assert list(SETS) == ["base", "novel", "near", "mid", "far", "order", "wide"]
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
