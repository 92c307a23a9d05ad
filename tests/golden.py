"""Golden files of the reference implementations, and where the shared research data lies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from froster.encoders.checkpoints import architecture_from_state_dict, from_official, strict_load
from froster.encoders.model import CLIP

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(*parts: str) -> Path:
    """A path in the shared research data; the test is skipped where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"needs the research data {'/'.join(parts)}, which is not part of the repository"
        )
    return path


def golden(name: str) -> dict[str, Tensor]:
    """A fixture's tensors by their full names; floats as float32, integers as int64."""
    tensors = load_file(shared("fixtures", f"{name}.safetensors"))
    return {key: t.float() if t.is_floating_point() else t.long() for key, t in tensors.items()}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }


def clip_from(official: dict[str, Tensor]) -> CLIP:
    """A CLIP from weights under OpenAI's names."""
    clip = CLIP(architecture_from_state_dict(official))
    strict_load(clip, {from_official(name): tensor for name, tensor in official.items()})
    return clip


def close(found: Tensor, expected: Tensor, atol: float = 5e-5, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(found.detach(), expected, atol=atol, rtol=rtol)
