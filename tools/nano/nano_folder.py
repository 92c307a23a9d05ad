"""The nano CLIP as a model folder, in half precision: a few megabytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from froster.encoders.model import CLIP
from froster.encoders.tokenizer import Tokenizer
from froster.utils import strict_json as json
from froster.utils.files import atomic_folder
from froster.utils.tensors import save_tensors

NANO = Path(__file__).parents[2] / "src" / "froster" / "world" / "nano"


def save_nano(clip: CLIP, tokenizer: Tokenizer, folder: Path, report: dict[str, Any]) -> None:
    """Write weights (float16), config, tokenizer and report. The folder appears whole or not at
    all."""
    config = {
        "format": "froster",
        "version": 1,
        "architecture": clip.architecture(),
        "method": {"name": "frozen"},
        "sampling": {"kind": "uniform"},
        "views": 1,
    }
    with atomic_folder(folder) as part:
        save_tensors(
            {name: tensor.half() for name, tensor in clip.state_dict().items()},
            part / "model.safetensors",
        )
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tokenizer.save(part / "tokenizer.json")
        (part / "report.json").write_text(json.dumps(report, indent=2) + "\n")
