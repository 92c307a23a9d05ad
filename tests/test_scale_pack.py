"""The figures of packed videos, at toy size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.scale_pack import run


@pytest.mark.slow
def test_its_lines_are_measured() -> None:
    files, shards, size, packing = run(toy=True)
    assert files.before == shards.before and min(files.before, files.after, shards.after) > 0
    assert 0 < size.after < size.before
    assert packing.after > 0 and "PSNR" in packing.note
