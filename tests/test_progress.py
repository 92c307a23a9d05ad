"""What takes longer than a second says what it is doing; what does not says nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from froster import progress as module
from froster.progress import progress, working
from froster.recognizer import Recognizer
from froster.world.files import write_video
from froster.world.sets import render_set
from test_cli import run  # noqa: F401


def test_only_what_takes_long_says_so(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
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
            assert [task.description for task in bars.tasks] == ["encoding 2 labels"] and bars.tasks[0].completed == 2
        assert bars.tasks == []


@pytest.mark.parametrize("count", [2, 60, 200])
def test_labels_that_are_encoded_in_steps_have_the_same_embeddings(nano: Recognizer, count: int) -> None:
    labels = [f"label {number}" for number in range(count)]
    bank = nano.bank(labels)
    with torch.no_grad():
        at_once = nano.model.prompts(bank, bank.rows)
        assert torch.equal(nano.prompts(labels), at_once)


def test_a_command_says_what_it_waits_for(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)
    video = write_video(tmp_path / "a.mp4", render_set("base", 1, split="test").frames[0])
    result = run("classify", video, "--labels", "cat spinning, boat pacing", "--model", "nano")
    told = [line for line in result.err.splitlines() if line.endswith("…")]
    assert result.code == 0 and told == ["loading nano …", "encoding 2 labels …", "reading a.mp4 …"]
