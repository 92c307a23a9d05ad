"""Every golden file of the reference implementations, through the script that checks any such file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import parity
from golden import SHARED, shared

FILES = sorted((SHARED / "fixtures").glob("*.safetensors"))


@pytest.mark.skipif(
    not FILES, reason="needs the golden files, which are not part of the repository"
)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_file(path: Path) -> None:
    with safe_open(path, "pt") as file:
        method = file.metadata()["method"]
    if not parity.known(method):
        pytest.skip(f"{method}: not among the methods of this version")
    lines = parity.check(path)
    assert lines
    assert not [line for line in lines if not line.ok]


def test_a_difference_and_an_unknown_output_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared("fixtures", "clip_plain.safetensors")
    with safe_open(source, "pt") as file:
        header = file.metadata()
    tensors = load_file(source)
    tensors["output/frame_emb"] = tensors["output/frame_emb"] + 1e-3
    tensors["output/aura"] = torch.zeros(3)
    save_file(tensors, tmp_path / "wrong.safetensors", metadata=header)
    assert parity.main([str(source)]) == 0
    assert parity.main([str(source), str(tmp_path / "wrong.safetensors")]) == 1
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert failed == ["aura", "frame_emb"]
