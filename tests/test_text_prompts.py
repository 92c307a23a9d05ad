"""Prompts are the released code's; label files fail early and say why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from froster.errors import UsageError
from froster.text.label_set import read_label_set
from froster.text.labels import check_labels, label_file, read_labels, split_labels
from froster.text.prompts import KINETICS_28, Prompting
from froster.text.sentences import read_descriptions, with_descriptions
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
    assert Prompting(("a {b} of {}.",)).prompts(["archery"]) == [
        ["a {b} of archery. archery"],
        ["archery"],
    ]
    assert Prompting(("a {}.",)).prompts(["{x}: y"]) == [["a {x}. {x}: y"], ["{x}: y"]]
    with pytest.raises(UsageError, match="'a photo'"):
        Prompting(("a photo",))


def test_plain_prompts_are_the_templates_alone() -> None:
    assert Prompting(("{}, an action", "{}"), "plain").prompts(["golf"]) == [
        ["golf, an action"],
        ["golf"],
    ]
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
        ([*"abcdefg"] * 2, "more than once: 'a'; 'b'; 'c'; 'd'; 'e'; and 2 more"),
        (["a", "b\nc"], r"label 2 of 2 holds a line end: 'b\\nc'"),
        (["a\r", "b"], r"label 1 of 2 holds a line end: 'a\\r'"),
        (["a", "b\u2028c"], r"label 2 of 2 holds a line end: 'b\\u2028c'"),
        (["a", "b\vc"], r"label 2 of 2 holds a line end: 'b\\x0bc'"),
        (["a", " None  of these"], "label 2 of 2 is .* no label fits"),
    ],
)
def test_bad_labels_are_named(labels: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_labels(labels)


def test_one_name_may_have_two_descriptions() -> None:
    check_labels(["kick: a ball", "kick: a person"])


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (" archery, tai chi ,surfing", ["archery", "tai chi", "surfing"]),
        ("  ", []),
        (" ,; \n", []),
        ("archery; tai chi, surfing", ["archery", "tai chi", "surfing"]),
        ("archery\ttai chi", ["archery", "tai chi"]),
        ("archery\ntai chi\nsurfing", ["archery", "tai chi", "surfing"]),
        ("archery\r\n\r\ntai chi\rsurfing\n", ["archery", "tai chi", "surfing"]),
        ("archery\u2028tai chi\vsurfing\x85golf", ["archery", "tai chi", "surfing", "golf"]),
        ("archery, tai chi,\nsurfing;\n", ["archery", "tai chi", "surfing"]),
        ("archery, tai chi,", ["archery", "tai chi"]),
        (", archery;", ["archery"]),
        ("archery,, surfing", ["archery", "", "surfing"]),
        ('"salt, pepper", other', ["salt, pepper", "other"]),
        ('other; "salt; pepper"', ["other", "salt; pepper"]),
        ('"say ""cheese""", a 5" disc', ['say "cheese"', 'a 5" disc']),
        ('"salt, pepper"\nother', ["salt, pepper", "other"]),
        ('"Heroes" scene, b', ['"Heroes" scene', "b"]),
        ('["salt, pepper", "b"]', ["salt, pepper", "b"]),
        ("kick: a ball, punch: a sack", ["kick: a ball", "punch: a sack"]),
        (
            "kick: a ball, hard\npunch: a sack; often,\n",
            ["kick: a ball, hard", "punch: a sack; often"],
        ),
        ("run, kick: a ball\nswim", ["run", "kick: a ball", "swim"]),
        ("\ufeffarchery, surfing", ["archery", "surfing"]),
    ],
)
def test_labels_as_people_write_them(text: str, labels: list[str]) -> None:
    assert split_labels(text) == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [('"salt, pepper', "not closed"), ("[a, b]", "JSON"), ("[" * 10**5, "JSON")],
)
def test_labels_that_do_not_end_are_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_labels(text)


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


LISTS = [
    ("l.txt", "archery\nsalt, pepper\n"),
    ("l.txt", 'archery,\n\n"salt, pepper",\n'),
    ("l.txt", 'archery; "salt, pepper";\n'),
    ("l.csv", 'label\narchery\n"salt, pepper"\n'),
    ("l.csv", '\ufeffid,Name\r\n0,archery\r\n1,"salt, pepper"\r\n'),
    ("l.csv", 'Class Name, id\narchery, 0\n"salt, pepper", 1\n'),
    ("l.csv", 'label,name\n0,archery\n1,"salt, pepper"\n'),
    ("l.csv", 'label,sport\n0,archery\n1,"salt, pepper"\n'),
    ("l.csv", '0,archery\n1,"salt, pepper"\n'),
    ("l.csv", "nr;sport\n0;archery\n1;salt, pepper\n"),
    ("l.csv", 'archery\n"salt, pepper"\n'),
    ("l.csv", 'archery,"salt, pepper"\n'),
    ("l.csv:what", 'path,what\na.mp4,archery\nb.mp4,"salt, pepper"\n'),
    ("l.csv:Id", 'id,name\narchery,x\n"salt, pepper",y\n'),
    ("l.tsv", "id\tclass\n7\tarchery\n8\tsalt, pepper\n"),
    ("l.json", '["archery", "salt, pepper"]'),
    ("l.json", '{"0": "archery", "1": "salt, pepper"}'),
    ("l.json", '{"salt, pepper": 1, "archery": 0}'),
    ("l.json", '[{"id": 0, "name": "archery"}, {"id": 1, "name": "salt, pepper"}]'),
]


@pytest.mark.parametrize(("name", "content"), LISTS)
def test_label_files_as_people_have_them(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name.partition(":")[0]).write_bytes(content.encode())
    assert read_label_set(tmp_path / name) == ["archery", "salt, pepper"]
    assert label_file(f" {tmp_path / name} ") == tmp_path / name


def test_sentences_by_name_are_labels(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text('{"archery": "shooting\\n arrows", "surfing": ""}')
    assert read_label_set(tmp_path / "l.json") == ["archery: shooting arrows", "surfing"]


def test_what_is_no_file_of_labels(tmp_path: Path) -> None:
    assert (
        label_file("archery, tai chi")
        is label_file("Mr. Bean")
        is label_file("x" * 5000)
        is label_file("a\0b")
        is None
    )
    assert label_file("archery, l.txt") is None
    for name in ("l.txt", "l.csv:name", "l.JSON"):
        with pytest.raises(UsageError, match="no such file of labels"):
            label_file(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "l.txt",
            b"archery\n\n surfing\nArchery\n",
            r"l\.txt: .*'archery' and 'Archery' \(line 1, line 4\)",
        ),
        ("l.txt", b"archery\n\n: a bow\n", r"l\.txt: line 3 is empty: ': a bow'"),
        (
            "l.txt",
            b"archery\nNone of these\n",
            r"l\.txt: line 2 is 'None of these', which is the answer where no label fits",
        ),
        ("l.txt", "archery\nsurfing".encode("utf-16"), "UTF-16"),
        ("l.txt", "archery\nsurfing".encode("utf-16-le"), "zero bytes"),
        ("l.csv", b"id,name\n0,archery\n1,\n", r"l\.csv: line 3 is empty"),
        ("l.csv", b"name\narchery\n\narchery\n", r"'archery' \(line 2, line 4\)"),
        ("l.csv", b"label\n", "no labels were given"),
        (
            "l.csv",
            b"a,b\nc,d\ne,f\n",
            r"which column holds the labels\? Name it: l\.csv:COLUMN; there is a, b",
        ),
        ("l.csv:x", b"id,name\n0,archery\n", "no column 'x', but id, name"),
        ("l.csv", b'name\n"arch\nery"\n', r"holds a line end: 'arch\\nery'"),
        ("l.json", b'["a\\u000b"]', r"holds a line end: 'a\\x0b'"),
        ("l.json", b"[" * 100_000, "not valid JSON"),
        (
            "l.txt",
            "archery\ncafé\n".encode("latin-1"),
            r"l\.txt, line 2: not UTF-8.*iconv -f latin1",
        ),
        ("l.json", b"[1, 2]", "expected a JSON list"),
        ("l.json", b'"archery"', "expected a JSON list"),
        ("l.json", b"[", "not valid JSON"),
        ("l.json", b'{"0": "a", "2": "b"}', 'keys "0" to "1"'),
        ("l.json", b'{"archery": 5.5}', "expected a JSON list"),
        ("l.json", b'{"archery": [5.5]}', "'archery' needs a description"),
    ],
)
def test_a_bad_label_file_is_explained(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name.partition(":")[0]).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_label_set(tmp_path / name)


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.txt.*No such file"):
        read_labels(tmp_path / "none.txt")


def test_descriptions_join_the_names_they_belong_to() -> None:
    texts = {"Brush Hair": "a comb moves", "apply eye makeup": "a pencil: black"}
    names = ["brush_hair", "ApplyEyeMakeup", "archery"]
    assert with_descriptions(names, texts) == [
        "brush_hair: a comb moves",
        "ApplyEyeMakeup: a pencil: black",
        "archery",
    ]
    assert with_descriptions(names, {}) == names
    with pytest.raises(UsageError, match="two descriptions for 'archery'"):
        with_descriptions(names, {"archery": "one", "Archery": "two"})


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
    assert read_descriptions(tmp_path / name) == {
        "archery": "arrows fly",
        "tai chi": "slow: flowing",
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.txt", "archery\n", r"d\.txt: expected.*found 'archery'"),
        ("d.txt", "archery: one\narchery: two\n", r"d\.txt: there are two descriptions"),
        ("d.json", '{"archery": 1}', "class names and sentences"),
    ],
)
def test_a_bad_description_file_is_explained(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        read_descriptions(tmp_path / name)
