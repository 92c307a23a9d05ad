"""The demo's folder and its JSON, at a small size; what comes out of it is not asserted, only how."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from froster.errors import FrosterError, UsageError
from froster.report import clips, page, plots
from froster.text.labels import as_option, some_labels, split_labels
from froster.training import plan as experiment
from froster.utils import text
from froster.utils.files import sole_writer
from froster.utils.text import printable
from froster.world import demo


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SHOTS", 2)
    monkeypatch.setattr(demo, "TESTS_PER_CLASS", 1)
    monkeypatch.setattr(
        experiment, "SMALL_RECIPE", dataclasses.replace(experiment.SMALL_RECIPE, epochs=2)
    )


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
        "frozen",
        "finetuned",
        "finetuned_last",
        "finetuned_blend",
        "froster",
        "froster_last",
        "froster_blend",
    }
    for row in rows.values():
        assert row["cross"].keys() == {"near", "mid", "far"}
        assert all(0 <= row[key] <= 100 for key in ("base", "novel", "hm"))
    for name in (
        "report.html",
        "report.json",
        "figures/accuracy.png",
        "figures/training.png",
        "figures/clips.png",
    ):
        assert (out / name).stat().st_size > 0
    assert (out / "froster" / "model.safetensors").is_file()
    assert len(list((out / "videos").glob("*.mp4"))) == 3
    first, second = (json.loads(line)["rows"] for line in printed)
    assert first == second, "the same seed gives the same numbers"


def test_the_last_line_of_the_demo_works_as_it_is_pasted(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    out = Path("my $demo, it's 1")
    demo.run(3, out)
    found = capfd.readouterr()
    last = found.err.rstrip("\n").splitlines()[-1]
    assert len(last) > 80, "it is one line, however narrow the window"
    assert "\\" not in found.err.replace(last, ""), "a line end is a line end"
    shown = found.err[found.err.index("accuracy in per cent") :].splitlines()
    assert shown[-2] == "try:" and re.fullmatch(r"[0-9]+ s\. Report: .*", shown[-3]), shown[-4:]
    assert [line for line in shown if line.endswith(":")] == [
        "fine-tuned (VCLIP):",
        "FROSTER:",
        "try:",
    ]
    told = " ".join(found.err.split())
    assert (
        "near, mid and far: labels ever less like base ones" in told
        and "hm: the harmonic mean of both" in told
    )
    assert (
        "FROSTER: gained on base classes" in told
        and "asked for all 48 labels together (chance 2.1)" in told
    )
    page = (out / "report.html").read_text()
    assert "near, mid and far: labels ever less like base ones" in page
    in_page = html.unescape(
        page[page.index("<h2>Use the model</h2>") :].split("<pre>")[1].split("</pre>")[0]
    )
    for line, folder in ((last, tmp_path), (in_page, Path("/"))):
        done = subprocess.run(
            ["sh", "-c", f"{line.strip()} --json"], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        (answer,) = json.loads(done.stdout)["results"]
        right = Path(answer["video"]).stem.replace("_", " ")
        assert (
            right in {score["label"] for score in answer["scores"]} and len(answer["scores"]) == 3
        )


def test_a_demo_whose_videos_cannot_be_shown_ends_as_well(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Path:
        raise FrosterError("no encoder")

    monkeypatch.setattr(demo, "write_video", fail)
    out = tmp_path / "demo"
    demo.run(3, out)
    err = capfd.readouterr().err
    assert (
        "left out: videos of novel classes: no encoder" in err
        and "left out: report.html" not in err
    )
    assert re.fullmatch(r"[0-9]+ s\. Report: .*report\.html", err.splitlines()[-1])
    assert "try:" not in err and demo.try_it([], out) is None
    page = (out / "report.html").read_text()
    assert (
        "<h2>Training</h2>" in page
        and "novel classes</h2>" not in page
        and "Use the model" not in page
    )


def test_all_that_the_demo_writes_is_written_under_its_lock(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl")
    out, written = tmp_path / "demo", []
    for place in (demo, page):
        plain = place.write_text

        def watched(path: Path, text: str, plain: Callable[[Path, str], None] = plain) -> None:
            written.append(path.name)
            with pytest.raises(UsageError, match="another froster is writing"), sole_writer(out):
                pass
            plain(path, text)

        monkeypatch.setattr(place, "write_text", watched)
    demo.run(3, out, as_json=True)
    assert written == ["demo.txt", "report.json", "report.html"]


def test_a_command_names_this_very_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program of that name may be on the path."""
    ours, other = tmp_path / "my venv" / "froster", tmp_path / "other" / "froster"
    for path in (ours, other):
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(ours)])
    path = shlex.quote(str(ours))
    for folder, expected in ((ours.parent, "froster"), (other.parent, path), (tmp_path, path)):
        monkeypatch.setenv("PATH", str(folder))
        assert text.program() == expected
    monkeypatch.setattr(sys, "argv", [str(Path(text.__file__).with_name("__main__.py"))])
    assert (
        text.shell_command("classify", "a b.mp4")
        == f"{shlex.quote(sys.executable)} -m froster classify 'a b.mp4'"
    )


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["b", "c"], "b, c"),
        (["c, d", "e"], '"c, d", "e"'),
        (["a\tb", "c"], '"a\tb", "c"'),
        (["[sic] a", "b"], '"[sic] a", "b"'),
        (["a", "[sic] b"], "a, [sic] b"),
        (['"Heroes', "b"], '"""Heroes", "b"'),
        (['say "cheese"', 'a 5" disc'], 'say "cheese", a 5" disc'),
        (['"quoted"', "b"], '"""quoted""", "b"'),
        (["kick: a ball, hard", "b"], '"kick: a ball, hard", "b"'),
        (["two\nlines", "b"], None),
        ([" outer blanks ", "b"], None),
    ],
)
def test_labels_of_a_command_are_read_as_they_were(labels: list[str], text: str | None) -> None:
    assert as_option(labels) == text
    assert text is None or split_labels(text) == labels


def test_a_few_labels_of_many() -> None:
    assert some_labels("b", ["a", "b", "two\nlines", "c, d", "e"]) == ["a", "b", "c, d"]


@pytest.mark.parametrize(
    "name",
    [
        b"v\xe94.mp4",
        "旅 行.mp4".encode(),
        b"a\x1b[31m'\\\n\xe9f.mp4",
        "it's\u202e4pm".encode(),
        b"a b",
    ],
)
def test_a_shell_finds_a_file_of_any_name(name: bytes) -> None:
    word = text.quoted(os.fsdecode(name))
    assert printable(word) == word, "shown on a page or a terminal it is still the same"
    assert subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True).stdout == name


def test_pictures_say_what_tables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One decimal in every bar, and no title on the bars of the video above it."""
    drawn = []
    for module in (plots, clips):
        monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure) or path)
    plots.accuracy_bars(
        ["base", "novel"], [plots.Bars("x", [75.4, 2.25], [1, 1])], tmp_path / "a.png", [50, None]
    )
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["75.4", "2.2"]
    verdict = clips.Verdict("x", ["a", "b", "c"], [0.7, 0.2, 0.1])
    videos = [
        clips.Clip(f"{i}.mp4", torch.zeros(4, 3, 8, 8, dtype=torch.uint8), "a", [verdict])
        for i in range(3)
    ]
    clips.classified_clips(videos, tmp_path / "b.png")
    drawn[1].canvas.draw()
    axes = drawn[1].axes  # of each clip four frames, then its bars
    for above, below in ((4, 5), (9, 10)):
        bars = axes[above].get_tightbbox()
        assert axes[below]._left_title.get_window_extent().y1 < bars.y0
