"""The figures of training on many processes, at toy size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import quick

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import scale_train


@pytest.mark.slow
@pytest.mark.usefixtures("few_templates")
def test_its_lines_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = SimpleNamespace(Popen=quick.Popen, PIPE=subprocess.PIPE)
    monkeypatch.setattr(scale_train, "subprocess", starts)
    checkpoint, lost, evaluation, memory = scale_train.run(toy=True)
    assert checkpoint.after > 0
    assert lost.before == 6 and lost.after == 1
    assert 0 < evaluation.after < 1
    assert memory.before > 1 > memory.after
