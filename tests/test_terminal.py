"""What is shown to people: nothing that comes from a file, a label or a message is obeyed, in
terminals of any encoding."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

import quick
from froster.evaluation.calibration import Calibration
from froster.inference.hub import card, escaped
from froster.report import page
from froster.report.distance import confusion_picture
from froster.utils.progress import Plain
from froster.utils.text import printable, short_names
from shared_files import World

CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""All but the line feed that ends our own lines."""
LABELS = [
    "=cmd|' /C calc'!A0",
    "\x1b[31mred\x1b[0m",
    "**md** [l](javascript:alert(1)) |pipe|",
    "[red]x[/red]",
    "\u202ename",
    "$\\frac$",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return World("base", 1).write(0, tmp_path_factory.mktemp("clip") / "a.mp4")


def test_what_is_written_out_and_what_is_not() -> None:
    assert (
        printable("a\x1b[31m\n\r\t\x07\u202e\x9b\u2028.mp4")
        == "a\\x1b[31m\\n\\r\\t\\x07\\u202e\\x9b\\u2028.mp4"
    )
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    shown = (
        "旅行\u3000動画 my\u00a0film 9.41\u202fAM \U0001f468\u200d\U0001f469 e\u0301 [red] :cat:"
    )
    assert printable(shown) == shown, "spaces of all kinds and joined emoji are shown as they are"


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_character_gets_through(text: str) -> None:
    file = io.StringIO()
    console = Plain(file=file, width=500)
    table = Table(text, box=None)
    table.add_row(text)
    console.print(text)
    console.print(table)
    console.tell(text)
    assert not CONTROL.search(file.getvalue())
    assert len(file.getvalue().splitlines()) <= 5


def test_markup_and_emoji_of_names_mean_nothing() -> None:
    file = io.StringIO()
    Plain(file=file, width=100, force_terminal=True, color_system="truecolor").print(
        "[red]x[/red] :cat: http://x 12"
    )
    assert file.getvalue() == "[red]x[/red] :cat: http://x 12\n"


def test_short_names() -> None:
    assert short_names(["base/x.mp4", "novel/x.mp4", "novel/y.mp4"]) == [
        "base/x.mp4",
        "novel/x.mp4",
        "y.mp4",
    ]
    assert short_names(["/a/b/x", "/c/b/x", "x", "/a/b/x"]) == ["a/b/x", "c/b/x", "x", "a/b/x"]
    assert short_names([]) == []


def test_short_names_of_models() -> None:
    from froster.cli.common import short_name

    named = {
        "runs/first/model": "first",
        "runs/first": "first",
        "openai/clip": "clip",
        "nano": "nano",
        "model": "model",
    }
    assert {name: short_name(name) for name in named} == named


def test_odd_names_and_labels_in_all_commands(run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    for name in ("\x1b[31mred.mp4", "two\nlines.mp4", "[red]x.mp4", "\u202e4pm.mp4"):
        shutil.copyfile(clip, tmp_path / "v" / name)
    (tmp_path / "v" / "\x1b[2Jbroken.mp4").write_text("none")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    labels = ("--labels-file", tmp_path / "labels.txt")
    video = tmp_path / "v" / "\x1b[31mred.mp4"
    nano = ("--model", "nano")
    commands = (
        ("classify", tmp_path / "v", *labels, *nano, "--workers", 0),
        ("timeline", video, *labels, *nano),
        ("doctor", tmp_path / "v", "--workers", 0),
        ("index", tmp_path / "v", "--out", tmp_path / "i", *nano, "--workers", 0),
        ("search", tmp_path / "i", "cat", "--top", 9),
        ("classify", tmp_path / "\x1b[31mgone", *labels),
        ("\x1b[31m",),
        ("classify", "--\x1b[31m"),
        ("timeline", tmp_path / "v" / "\x1b[2Jbroken.mp4", *labels, *nano),
        ("watch", video, *labels, *nano, "--limit", 1),
        ("evaluate", "--data", tmp_path / "\x1b[31m.csv"),
        ("timeline", video, *labels, *nano, "--out", tmp_path / "t.png"),
    )
    for command in commands:
        found = run(*command)
        assert found.code in (0, 1, 2)
        assert not CONTROL.search((found.out + found.err).replace("\r", "")), command
    assert "\\x1b[31mred.mp4" in run(*commands[0]).out and "[red]x.mp4" in run(*commands[0]).out


def test_pictures_and_pages_of_odd_labels(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of signs that have no picture
        confusion_picture(
            torch.eye(len(LABELS)), LABELS, tmp_path / "c.png", os.fsdecode(b"$\\frac$ \xe9")
        )
    written = page.write_page(tmp_path / "page.html", "t", [("", [page.paragraph(LABELS[4])])])
    text = written.read_text()
    assert "\u202e" not in text and "\\u202e" in text


# ASCII and Latin-1 lack what cp1252 lacks.
@pytest.mark.parametrize(
    "encoding",
    [
        "cp1252",
        "utf-8",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ascii", "latin-1")),
    ],
)
def test_terminals_of_any_encoding(clip: Path, tmp_path: Path, encoding: str) -> None:
    """No sign without a code ends a command."""
    (tmp_path / "v").mkdir()
    for name in (b"caf\xe9.mp4", "旅行.mp4".encode()):
        shutil.copyfile(clip, tmp_path / "v" / os.fsdecode(name))
    for command in (
        [
            "classify",
            tmp_path / "v",
            "--labels",
            "cat spinning, ボート",
            "--model",
            "nano",
            "--workers",
            "0",
        ],
        ["timeline", clip, "--labels", "cat, boat", "--model", "nano"],
        ["doctor", tmp_path / "v", "--workers", "0"],
        ["methods"],
        ["classify", "--help"],
    ):
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "120"}
        done = quick.run(
            [sys.executable, "-m", "froster", *map(str, command)],
            capture_output=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode(encoding)
        if command[0] == "classify" and "--help" not in command:
            assert "caf\\xe9.mp4" in text and ("#" in text or "█" in text)
            assert ("旅行.mp4" if encoding == "utf-8" else "??.mp4") in text
    bad = [sys.executable, "-m", "froster", "classify", "旅行…", "--labels", "a"]
    done = quick.run(bad, capture_output=True, env=environment)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
@pytest.mark.parametrize("command", [("--help",), ("describe", "--show-prompt", "--json")])
def test_a_full_device_is_one_line(command: tuple[str, ...]) -> None:
    """Little text was kept to the end of Python, which then complained itself, with code 120."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(  # quick's end is not Python's own
            [sys.executable, "-m", "froster", *command], stdout=full, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (1, b"froster: No space left on device\n")


AT_ITS_WORD = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("asked", "more"),
    [
        (["旅行.mp4", "."], {}),
        (["m.csv"], AT_ITS_WORD),
        pytest.param(["m.csv"], {}, marks=pytest.mark.slow),
        pytest.param(["旅行.mp4", "."], AT_ITS_WORD, marks=pytest.mark.slow),
    ],
)
def test_a_system_without_utf8(
    asked: list[str], more: dict[str, str], clip: Path, tmp_path: Path
) -> None:
    """LC_ALL=C, and with Python told to take it at its word."""
    shutil.copyfile(clip, tmp_path / "旅行.mp4")
    (tmp_path / "m.csv").write_text("path\n旅行.mp4\n", encoding="utf-8")
    command = [sys.executable, "-m", "froster", "classify"]
    options = ["--labels", "cat, boat", "--model", "nano"]
    environment = {**os.environ, "LC_ALL": "C", **more}
    environment.pop("PYTHONIOENCODING", None)
    done = subprocess.run(
        [*command, *asked, *options], capture_output=True, env=environment, cwd=tmp_path
    )
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0 or (asked == ["m.csv"] and more), done.stderr


def test_the_card_shows_labels_as_text() -> None:
    """No link, no mark-up, no cell, no tag, and the hub's metadata is not theirs to write."""
    labels = [
        *LABELS,
        "`code`",
        "<script>alert(1)</script>",
        "---\nlicense: mit",
        "_em_ # head https://x.org www.y.org a@b.c",
    ]
    report = {
        "base_classes": labels,
        "training_videos": 3,
        "source": {"model": "nano"},
        "distill": {"kind": "<b>"},
        "rows": [{"base": 1.0}, {}],
        "test": {"a | b": {"videos": 1, "classes": 2, "top1": 1.0, "standard_error": 1.0}},
    }
    text = card({"method": {"name": "v`c|lip"}}, report, Calibration(), "me/x", None)
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert "license" not in head and not CONTROL.search(text)
    data = body[body.index("## Data") : body.index("## Accuracy")]
    assert not set("*[]()|`<>_#@!") & set(data.replace("## Data", "").replace("&#", ""))
    assert "https://" not in data and "www." not in data and "\n---" not in data
    assert "| 1 of 2 a &#124; b |" in body
    import html

    assert html.unescape(escaped(LABELS[2])) == LABELS[2], "what a reader sees is the label"
    assert '["surfing", "skiing"]' in body, (
        "an example to copy holds nothing that a shell would run"
    )
