"""Prompts are the released code's; label files fail early and say why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from froster.errors import UsageError
from froster.text.descriptions import describe, read_descriptions
from froster.text.prompts import KINETICS_28, Prompting, check_labels, read_labels, split_labels
from golden import shared


def test_the_released_templates_and_prompts() -> None:
    facts = json.loads(shared("fixtures", "facts_prompts.json").read_text(encoding="utf-8"))
    assert list(KINETICS_28) == facts["templates"]
    built = Prompting().prompts(facts["labels"])
    assert built == facts["eval_prompts"]
    for draw in facts["train"]:
        assert [built[draw["index"]], built[-1]] == [draw["template"], draw["bare"]]
        assert draw["randint_range"] == [0, len(KINETICS_28) - 1]


def test_a_plain_name_is_named_twice_and_braces_are_kept() -> None:
    assert Prompting(("a {b} of {}.",)).prompts(["archery"]) == [["a {b} of archery. archery"], ["archery"]]
    assert Prompting(("a {}.",)).prompts(["{x}: y"]) == [["a {x}. {x}: y"], ["{x}: y"]]
    with pytest.raises(UsageError, match="'a photo'"):
        Prompting(("a photo",))


def test_plain_prompts_are_the_templates_alone() -> None:
    assert Prompting(("{}, an action", "{}"), "plain").prompts(["golf"]) == [["golf, an action"], ["golf"]]
    with pytest.raises(UsageError, match="need a template"):
        Prompting((), "plain")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no labels"),
        (["a", " "], "label 2 of 2 is empty"),
        (["a", ": a description"], "label 2 of 2 is empty: ': a description'"),
        (["tai chi", "a", "Tai  Chi"], "'tai chi' and 'Tai  Chi'"),
        (["a", "b", "a", "b", "a"], "more than once: 'a'; 'b'"),
    ],
)
def test_bad_labels_are_named(labels: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_labels(labels)


def test_one_name_may_have_two_descriptions() -> None:
    check_labels(["kick: a ball", "kick: a person"])


def test_labels_from_a_line() -> None:
    assert split_labels(" archery, tai chi ,surfing") == ["archery", "tai chi", "surfing"]
    assert split_labels("  ") == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"\xef\xbb\xbf#1 fan\r\n\r\n  caf\xc3\xa9: drinking, slowly\r\n"),
        ("a.json", '["#1 fan", "café: drinking, slowly"]'.encode()),
        ("a.json", '{"1": "café: drinking, slowly", "0": "#1 fan"}'.encode()),
    ],
)
def test_labels_from_a_file(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_labels(tmp_path / name) == ["#1 fan", "café: drinking, slowly"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", "archery\ncafé\n".encode("latin-1"), r"l\.txt, line 2: not UTF-8.*iconv -f latin1"),
        ("l.json", b"[1, 2]", "expected a JSON list"),
        ("l.json", b'"archery"', "expected a JSON list"),
        ("l.json", b"[", "not valid JSON"),
        ("l.json", b'{"0": "a", "2": "b"}', 'keys "0" to "1"'),
        ("l.json", b'{"archery": "shooting arrows"}', "as descriptions"),
    ],
)
def test_a_bad_label_file_is_explained(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path / name)


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.txt.*No such file"):
        read_labels(tmp_path / "none.txt")


def test_descriptions_join_the_names_they_belong_to() -> None:
    texts = {"Brush Hair": "a comb moves", "apply eye makeup": "a pencil: black"}
    names = ["brush_hair", "ApplyEyeMakeup", "archery"]
    assert describe(names, texts) == [
        "brush_hair: a comb moves",
        "ApplyEyeMakeup: a pencil: black",
        "archery",
    ]
    assert describe(names, {}) == names
    with pytest.raises(UsageError, match="two descriptions for 'archery'"):
        describe(names, {"archery": "one", "Archery": "two"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.json", '{"archery": "arrows fly", "tai chi": "slow: flowing"}'),
        ("d.json", '{"0": "archery: arrows fly", "1": "tai chi: slow: flowing"}'),
        ("d.txt", "archery: arrows fly\n\ntai chi:slow: flowing\n"),
    ],
)
def test_descriptions_from_a_file(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_descriptions(tmp_path / name) == {"archery": "arrows fly", "tai chi": "slow: flowing"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.txt", "archery\n", r"d\.txt: expected.*found 'archery'"),
        ("d.txt", "archery: one\narchery: two\n", r"d\.txt: there are two descriptions"),
        ("d.json", '{"archery": 1}', "class names and sentences"),
    ],
)
def test_a_bad_description_file_is_explained(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        read_descriptions(tmp_path / name)
