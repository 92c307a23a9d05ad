"""The demo's folder and its JSON, at a small size; what comes out of it is not asserted, only how."""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import pytest
import torch

import quick
from froster.errors import FrosterError, UsageError
from froster.evaluation.metrics import Predictions
from froster.report import clips, page, plots
from froster.text.labels import as_option, some_labels, split_labels
from froster.training import plan as experiment
from froster.training.measure import EvalRow
from froster.utils import text
from froster.utils.files import sole_writer
from froster.utils.text import printable
from froster.world import demo
from froster.world.sets import SETS

CLASSES = 4
"""Of each set of the world: a sixth of what `froster demo` takes."""


@dataclasses.dataclass(frozen=True)
class Demos:
    """Two demos of one seed, one after the other in one folder; no video could be written by the
    second. Each page as it was when its demo had ended."""

    out: Path
    written: list[str]
    results: list[dict]
    errors: list[str]
    pages: list[str]
    printed: list[str]
    rows: list[EvalRow]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Demos:
    """In a window of 80 columns."""
    out = tmp_path_factory.mktemp("demo") / "my $demo, it's 1"
    found = Demos(out, [], [], [], [], [], [])

    def fail(*_: object) -> Path:
        raise FrosterError("no encoder")

    def watched(plain: Callable[[Path, str], None], path: Path, text: str) -> None:
        found.written.append(path.name)
        if importlib.util.find_spec("fcntl"):
            with pytest.raises(UsageError, match="another froster is writing"), sole_writer(out):
                pass
        plain(path, text)

    def kept(plain: Callable[..., tuple[list[EvalRow], list]], *arguments: object) -> tuple:
        rows, shown = plain(*arguments)
        found.rows.extend(rows)
        return rows, shown

    recipe = dataclasses.replace(experiment.SMALL_RECIPE, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SHOTS", 2)
        patch.setattr(demo, "TESTS_PER_CLASS", 1)
        patch.setattr(experiment, "SMALL_RECIPE", recipe)
        for name in demo.TEST_SETS:
            few = {k: getattr(SETS[name], k)[:CLASSES] for k in ("actions", "habits")}
            fewer = dataclasses.replace(SETS[name], **few)
            patch.setitem(SETS, name, fewer)
        patch.setenv("COLUMNS", "80")
        patch.chdir(out.parent)
        for number in range(2):
            with (
                patch.context() as once,
                redirect_stderr(io.StringIO()) as err,
                redirect_stdout(io.StringIO()) as printed,
            ):
                if number == 0:
                    for place in (demo, page):
                        once.setattr(place, "write_text", partial(watched, place.write_text))
                else:
                    once.setattr(demo, "write_video", fail)
                    once.setattr(demo, "measured", partial(kept, demo.measured))
                demo.run(3, Path(out.name), as_json=number == 1)
            found.errors.append(err.getvalue())
            found.printed.append(printed.getvalue())
            found.results.append(json.loads((out / "report.json").read_text()))
            found.pages.append((out / "report.html").read_text())
    return found


def test_demo(demos: Demos) -> None:
    result, out = demos.results[0], demos.out
    assert result["seed"] == 3 and result["seconds"] > 0
    rows = {row["method"]: row for row in result["rows"]}
    assert len(rows) == len(result["rows"])
    assert rows.keys() == {"frozen", "finetuned", "finetuned_blend", "froster", "froster_blend"}
    for row in rows.values():
        assert row["cross"].keys() == {"base-swapped", "far"}
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
    assert len(list((out / "videos").glob("*.mp4"))) == 2


def test_the_demo_works_twice_in_a_row_and_the_same_seed_gives_the_same_numbers(
    demos: Demos,
) -> None:
    printed = json.loads(demos.printed[1].strip().splitlines()[-1])
    assert printed.items() <= demos.results[1].items()
    assert demos.results[0]["rows"] == printed["rows"]


def test_the_last_line_of_the_demo_works_as_it_is_pasted(demos: Demos) -> None:
    err, page = demos.errors[0], demos.pages[0]
    last = err.rstrip("\n").splitlines()[-1]
    assert len(last) > 80, "it is one line, however narrow the window"
    assert "\\" not in err.replace(last, ""), "a line end is a line end"
    shown = err[err.index("accuracy in per cent") :].splitlines()
    assert shown[-2] == "try:" and re.fullmatch(r"[0-9]+ s\. Report: .*", shown[-3]), shown[-4:]
    told = " ".join(err.split())
    for words in ("HM: the harmonic mean of base and novel", "base-swapped: the same classes"):
        assert words in told and words in page
    printed = demos.printed[0]
    assert " HM " in printed and " hm " not in printed + told, "one name for one thing"
    in_page = html.unescape(
        page[page.index("<h2>Use the model</h2>") :].split("<pre>")[1].split("</pre>")[0]
    )
    for line, folder in ((last, demos.out.parent), (in_page.strip(), Path("/"))):
        done = quick.pasted(f"{line} --json", folder)
        assert done.returncode == 0, done.stderr
        (answer,) = json.loads(done.stdout)["results"]
        right = Path(answer["video"]).stem.replace("_", " ").removesuffix(" in another scene")
        assert right in {score["label"] for score in answer["scores"]}
        assert right in SETS["base"].classes and 2 <= len(answer["scores"]) <= 4


def made_up(method: str, **right: list[int]) -> EvalRow:
    """Of each set the videos of two classes by turns; a 1 is one that is named right."""
    predictions = {}
    for name, hits in right.items():
        labels = torch.arange(len(hits)) % 2
        best = (labels + 1 - torch.tensor(hits)) % 2
        logits = torch.nn.functional.one_hot(best, 2).float()
        classes = SETS["base"].classes[:2]
        predictions[name.replace("_", "-")] = Predictions(classes, labels, logits)
    return EvalRow(method, "", predictions)


def test_numbers_choose_the_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wins: the same sentence with the other sign."""
    all_right, half, none = [1] * 40, [1, 0] * 20, [0] * 40
    frozen = made_up("frozen", base=half, base_swapped=half, novel=half, far=half)
    good = made_up("x", base=all_right, base_swapped=half, novel=all_right, far=all_right)
    bad = made_up("x", base=all_right, base_swapped=none, novel=half, far=none)
    for alone, froster, sign, words in (
        (bad, good, "+", "a gain beyond two standard errors"),
        (good, bad, "-", "a loss beyond two standard errors"),
    ):
        rows = [
            frozen,
            dataclasses.replace(alone, method="finetuned"),
            dataclasses.replace(froster, method="froster"),
        ]
        usual, other, novel, far, swapped = demo.findings(rows)
        assert "FROSTER less tuned alone +0.0 ± 0.0, the same videos right" in usual
        assert f"FROSTER less tuned alone {sign}50.0 ± 11.2, {words}" in other
        assert f"{sign}50.0" in novel and f"{sign}100.0 ± 15.8, {words}" in far
        assert "frozen CLIP +0.0" in swapped and "-100.0 ± 0.0" in swapped
        fewer = dataclasses.replace(SETS["base"], actions=SETS["base"].actions[:2])
        with monkeypatch.context() as patch:
            patch.setitem(SETS, "base", fewer)
            assert demo.most_misled(rows) == 1, "which of the two lost it does not matter"
    lost_first = made_up("x", base=all_right, base_swapped=[0, 1] * 20, novel=half, far=half)
    rows = [dataclasses.replace(lost_first, method=m) for m in ("finetuned", "froster")]
    with monkeypatch.context() as patch:
        patch.setitem(SETS, "base", fewer)
        assert demo.most_misled([frozen, *rows]) == 0


def test_a_demo_whose_videos_cannot_be_shown_ends_as_well(
    demos: Demos, capfd: pytest.CaptureFixture[str]
) -> None:
    err, page = demos.errors[1], demos.pages[1]
    assert (
        "left out: a class in its usual scene and elsewhere: no encoder" in err
        and "left out: report.html" not in err
    )
    demo.show(demos.rows, [], demos.out, 7.4)
    err = capfd.readouterr().err
    assert re.fullmatch(r"7 s\. Report: .*report\.html", err.splitlines()[-1])
    assert "try:" not in err and demo.try_it([], demos.out) is None
    assert (
        "<h2>Training</h2>" in page
        and "Two videos of one class" not in page
        and "Use the model" not in page
    )


def test_all_that_the_demo_writes_is_written_under_its_lock(demos: Demos) -> None:
    pytest.importorskip("fcntl")
    assert demos.written == ["demo.txt", "report.json", "report.html"]


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
    gap = [plots.Bars(name, [None, 50, 60], [None, 1, 1]) for name in ("x", "y")]
    plots.accuracy_bars(["UCF*", "HMDB*", "K600"], gap, tmp_path / "c.png", [None, 2, 1])
    legend = drawn.pop().axes[0].get_legend()
    assert {text.get_text() for text in legend.texts} == {"x", "y", "chance"}
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
