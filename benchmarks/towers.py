"""The image towers against open_clip's, 8 frames a clip: `pip install open_clip_torch`, which brings
timm and torchvision; on a GPU where there is one, there against transformers too.

The weights are random and theirs: ours are read from a folder in open_clip's format.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.encoders import GOALS, by_transformers, same
from benchmarks.setup import FRAMES, name_of, precisions
from benchmarks.timing import Row, compare, interleave
from froster.encoders.checkpoints import load_clip
from froster.encoders.model import CLIP
from froster.encoders.precision import autocast, with_cast_weights

NAMES = {
    "clip-b16": "ViT-B-16-quickgelu",
    "pe-core-b16": "PE-Core-B-16",
    "siglip-b16": "ViT-B-16-SigLIP",
    "eva02-b16": "EVA02-B-16",
}
CLIPS_ON_GPU = 32


@torch.no_grad()
def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    if not find_spec("open_clip"):
        raise SystemExit("towers: pip install open_clip_torch")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        rows = [row for name in NAMES for row in measured(name, device, rounds or 7, toy)]
    finally:
        torch.set_num_threads(threads)
    return rows, [
        "Weights in the type that is named, on both sides; float32 on a GPU is without TF32."
        " The clock is the processor's time of one thread, on a GPU the wall's."
    ]


def measured(name: str, device: torch.device, rounds: int, toy: bool) -> list[Row]:
    import open_clip  # type: ignore[import-not-found]

    torch.manual_seed(0)
    theirs = open_clip.create_model(NAMES[name], load_weights=False).eval()
    ours = read(theirs, NAMES[name]).to(device)
    towers = {"open_clip": theirs.visual.to(device)}
    if device.type == "cuda" and name in ("clip-b16", "siglip-b16"):
        towers["transformers"] = by_transformers(ours).to(device)
    size = ours.config.vision.image_size
    count = 1 if device.type == "cpu" or toy else CLIPS_ON_GPU
    frames = torch.randn(count, FRAMES, 3, size, size, device=device)
    contenders: dict[str, Callable[[], Tensor]] = {}
    rows: list[Row] = []
    for dtype in precisions(toy=False):
        kind = name_of(dtype)
        cast = ours if dtype == torch.float32 else with_cast_weights(ours, dtype)
        contenders[f"{name}, {kind}"] = lambda cast=cast, dtype=dtype: forward(cast, frames, dtype)
        for source, tower in towers.items():
            tower.to(dtype)
            if dtype == torch.float32:
                same(contenders[f"{name}, {kind}"](), tower(frames.flatten(0, 1)))
            contenders[f"{name} by {source}, {kind}"] = lambda tower=tower, dtype=dtype: tower(
                frames.flatten(0, 1).to(dtype)
            )
        seconds = interleave(
            {what: run for what, run in contenders.items() if what.endswith(kind)},
            rounds,
            sync=torch.cuda.synchronize if device.type == "cuda" else None,
            clock=time.perf_counter if device.type == "cuda" else time.process_time,
        )
        rows += [
            compare(
                f"image tower forward, {count} x {FRAMES} frames, {device.type}",
                seconds,
                f"{name}, {kind}",
                f"{name} by {source}, {kind}",
                GOALS[kind],
            )
            for source in towers
        ]
    return rows


def read(theirs: nn.Module, name: str) -> CLIP:
    """The same network as ours, through a folder as open_clip writes it."""
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(config))
        state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
        save_file(state, Path(folder) / "open_clip_model.safetensors")
        return load_clip(folder)[0].eval().requires_grad_(False)


def forward(network: CLIP, frames: Tensor, dtype: torch.dtype) -> Tensor:
    with autocast(frames.device, dtype):
        return network.encode_image(frames)
