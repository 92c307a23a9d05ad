"""What every part measures: a CLIP ViT-B/16 with random weights, described labels, clips of noise;
or all of it tiny."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.encoders.precision import pick_dtype
from froster.encoders.tokenizer import Tokenizer
from froster.inference.loading import NANO
from froster.text.sentences import SHIPPED, read_descriptions
from tests.hf_folder import save_hf_folder

os.environ["FROSTER_CACHE"] = "off"  # what is timed is computed
FRAMES = 8
SHARED_VOCABULARY = Path(__file__).resolve().parents[2] / "shared" / "vocab"
_folders: list[tempfile.TemporaryDirectory] = []  # they live as long as the process


@dataclass(frozen=True)
class Scene:
    """A network's sizes and vocabulary."""

    config: CLIPConfig
    tokenizer: Tokenizer
    folder: Path
    """The random weights as a Hugging Face CLIP folder, for every contender to load."""

    @property
    def image_size(self) -> int:
        return self.config.vision.image_size


@cache
def scene(toy: bool = False) -> Scene:
    """The B/16 needs CLIP's vocabulary: the environment variable FROSTER_BPE says where it is, or
    the hub is asked."""
    if SHARED_VOCABULARY.exists():
        os.environ.setdefault("FROSTER_BPE", str(SHARED_VOCABULARY))
    torch.manual_seed(0)
    if toy:
        tokenizer = Tokenizer.from_file(NANO / "tokenizer.json")
        text = TextConfig(256, tokenizer.vocab_size, 32, 2, 2)
        config = CLIPConfig(VisionConfig(32, 8, 64, 2, 2), text, 32)
    else:
        tokenizer, config = Tokenizer.find(), CLIPConfig()
    parent = tempfile.TemporaryDirectory(prefix="froster-bench-")
    _folders.append(parent)
    folder = Path(parent.name) / "clip"
    save_hf_folder(CLIP(config), tokenizer, folder)
    return Scene(config, tokenizer, folder)


def labels(count: int) -> list[str]:
    """Described class names of the data sets, Kinetics-400 first."""
    described: dict[str, str] = {}
    for dataset in SHIPPED:
        for name, sentence in read_descriptions(dataset).items():
            described.setdefault("".join(name.casefold().split()), f"{name}: {sentence}")
    names = [*described.values()]
    # Beyond what the data sets hold, the same once more with a number.
    return [*names, *(label.replace(":", " again:", 1) for label in names)][:count]


def clips(count: int, size: int, frames: int = FRAMES) -> Tensor:
    """uint8 (count, frames, 3, size, size)"""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(
        0, 256, (count, frames, 3, size, size), generator=generator, dtype=torch.uint8
    )


def precisions(toy: bool = False) -> list[torch.dtype]:
    """float32, and bfloat16 where the chip has it."""
    best = pick_dtype(torch.device("cpu"), 768)
    return [torch.float32] if best == torch.float32 or toy else [torch.float32, torch.bfloat16]


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
