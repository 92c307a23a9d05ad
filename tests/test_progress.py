"""What takes longer than a second says what it is doing; what does not says nothing."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
import torch

from froster.inference.recognizer import Recognizer
from froster.utils import progress as module
from froster.utils.progress import Plain, progress, working
from shared_files import World


def test_only_what_takes_long_says_so(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.2)
    with working("loading nano"):
        pass
    with working("encoding 400 labels", 4) as advance:
        advance(1)
        time.sleep(0.5)
    assert capfd.readouterr().err.splitlines() == ["encoding 400 labels …"]
    with progress() as bars:  # beside a bar that is there already
        with working("encoding 2 labels", 3) as advance:
            advance(2)
            assert [task.description for task in bars.tasks] == [
                "encoding 2 labels"
            ] and bars.tasks[0].completed == 2
        assert bars.tasks == []


def in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    file = io.StringIO()
    monkeypatch.setattr(module, "console", Plain(file=file, force_terminal=True, width=100))
    return file


def test_what_is_done_within_shares_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of rich refuse a second one, in a thread where nothing catches that."""
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.1)
    in_a_terminal(monkeypatch)
    started: list[object] = []
    start = module.Progress.start
    monkeypatch.setattr(module.Progress, "start", lambda bars: started.append(bars) or start(bars))
    with working("writing out"):
        with working("encoding 2 labels", 3) as advance:  # begins before the other one is shown
            advance(1)
            time.sleep(0.3)
            (display,) = module._shown
            bars = [(task.description, task.completed) for task in display.tasks]
            assert bars == [("writing out", 0), ("encoding 2 labels", 1)]
        assert [task.description for task in display.tasks] == ["writing out"]
    assert started == [display] and module._shown == []


def test_a_log_has_a_line_of_what_is_done_within(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.1)
    with working("writing out"):
        time.sleep(0.3)
        with working("encoding 2 labels"):
            time.sleep(0.3)
    assert capfd.readouterr().err.splitlines() == ["writing out …", "encoding 2 labels …"]


@pytest.mark.parametrize(("rank", "lines"), [("0", ["loading nano …"]), ("1", [])])
def test_of_several_processes_the_first_speaks(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str, lines: list[str]
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.1)
    monkeypatch.setenv("RANK", rank)
    with working("loading nano", 2) as advance:
        advance(1)
        time.sleep(0.3)
    assert capfd.readouterr().err.splitlines() == lines


def test_names_before_a_bar_are_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)
    file = in_a_terminal(monkeypatch)
    name = "\x1b]0;owned\x07\u202e.mp4"
    with working(f"reading {name}"), working(f"within {name}"):
        time.sleep(0.3)
    with progress() as bars:
        bars.update(bars.add_task(name, total=1, note=name), description=f"then {name}", note=name)
    shown = file.getvalue()
    for word in ("reading", "within", "then"):
        assert f"{word} \\x1b]0;owned\\x07\\u202e.mp4" in shown
    assert "\x1b]" not in shown and "\x07" not in shown and "\u202e" not in shown


@pytest.mark.parametrize("count", [2, 60, pytest.param(200, marks=pytest.mark.slow)])
def test_labels_that_are_encoded_in_steps_have_the_same_embeddings(
    nano: Recognizer, count: int
) -> None:
    labels = [f"label {number}" for number in range(count)]
    bank = nano.bank(labels)
    with torch.no_grad():
        at_once = nano.model.prompts(bank, bank.rows)
        assert torch.equal(nano.prompts(labels), at_once)


def test_a_command_says_what_it_waits_for(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)
    video = World("base", 1, "test").write(0, tmp_path / "a.mp4")
    result = run("classify", video, "--labels", "cat spinning, boat pacing", "--model", "nano")
    told = [line for line in result.err.splitlines() if line.endswith("…")]
    assert result.code == 0 and told == ["loading nano …", "encoding 2 labels …", "reading a.mp4 …"]
