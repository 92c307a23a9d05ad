"""The figures of training on many processes, at toy size."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.scale_train import run


def test_its_lines_are_measured() -> None:
    checkpoint, lost, evaluation, memory = run(toy=True)
    assert checkpoint.after > 0
    assert lost.before == 6 and lost.after == 1
    assert 0 < evaluation.after < 1
    assert memory.before > 1 > memory.after
