"""Golden files of the reference implementations, and where the shared research data lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
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


def write_checkpoint(
    config: dict[str, Any], weights: dict[str, Tensor], folder: Path, **others: Any
) -> Path:
    """A golden file's weights as its family publishes them: a folder of Hugging Face's or of
    open_clip's, or, where the authors give no config, a lone `.pt`. What `load_clip` is given.

    `others`: entries of open_clip's config beside `model_cfg`.
    """
    whole = {name: tensor.contiguous() for name, tensor in weights.items()}
    if "model_type" in config:
        (folder / "config.json").write_text(json.dumps(config))
        save_file(whole, folder / "model.safetensors")
        return folder
    if "open_clip" in config:
        stated = {"model_cfg": config["open_clip"], **others}
        (folder / "open_clip_config.json").write_text(json.dumps(stated))
        save_file(whole, folder / "open_clip_model.safetensors")
        return folder
    torch.save(whole, folder / "encoder.pt")
    return folder / "encoder.pt"


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
