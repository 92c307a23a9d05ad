"""The image towers of other encoders at 8 frames: CPU time an operation against CLIP's, and CPU
time against transformers, which has CLIP and SigLIP.

The sizes are the real ones and the weights random, the same on both sides. One thread, and its
processor time: another process on the machine takes none of it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import attention_operations
from benchmarks.setup import FRAMES, name_of, precisions
from benchmarks.timing import Row, Spread, compare, interleave
from froster.encoders.config import CLIPConfig, TextConfig
from froster.encoders.known import KNOWN
from froster.encoders.model import CLIP
from froster.encoders.precision import autocast, with_cast_weights
from froster.inference.tower_speed import architecture
from tests.hf_folder import config_to_hf, state_to_hf

ENCODERS = ("clip-b16", "pe-core-b16", "siglip-b16", "eva02-b16")
AT_MOST = {"pe-core-b16": 1.1, "siglip-b16": 1.1}
GOALS = {"float32": 1.2, "bfloat16": 2.0}
CPU = torch.device("cpu")
# Of the text tower nothing is measured; Hugging Face's SigLIP must have its kind.
_SIGLIP_TEXT = {"causal": False, "pool": "last", "projection_bias": True}


@torch.no_grad()
def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measured(rounds or 7, toy)
    finally:
        torch.set_num_threads(threads)


def measured(rounds: int, toy: bool) -> tuple[list[Row], list[str]]:
    contenders: dict[str, Callable[[], Tensor]] = {}
    work: dict[str, int] = {}
    for name in ENCODERS:
        network = encoder(name, toy)
        size = network.config.vision.image_size
        frames = torch.randn(1, FRAMES, 3, size, size)
        work[name] = operations(network, frames)
        for dtype in precisions(toy):
            cast = network if dtype == torch.float32 else with_cast_weights(network, dtype)
            contenders[f"{name}, {name_of(dtype)}"] = lambda cast=cast, frames=frames, dtype=dtype: (
                encode(cast, frames, dtype)
            )
            if name in ("clip-b16", "siglip-b16"):
                theirs = by_transformers(network).to(dtype)
                pictures = frames.flatten(0, 1).to(dtype)
                contenders[f"{name} by transformers, {name_of(dtype)}"] = (
                    lambda theirs=theirs, pictures=pictures: theirs(pictures)
                )
        if name in ("clip-b16", "siglip-b16"):
            same(*(contenders[f"{name}{by}, float32"]() for by in ("", " by transformers")))
    seconds = interleave(contenders, rounds, clock=time.process_time)
    kinds = [name_of(dtype) for dtype in precisions(toy)]
    rows = [against_clip(name, kind, seconds, work) for name in ENCODERS[1:] for kind in kinds]
    pairs = [(kind, kind) for kind in kinds] + [(kind, "float32") for kind in kinds[1:]]
    for name in ("clip-b16", "siglip-b16"):
        for kind, other in pairs:
            row = compare(
                f"image tower forward, {FRAMES} frames",
                seconds,
                f"{name}, {kind}",
                f"{name} by transformers, {other}",
                GOALS[kind],
            )
            rows.append(dataclasses.replace(row, unit="CPU s"))
    counted = ", ".join(f"{name} {work[name] / 1e9:.1f}" for name in ENCODERS)
    return rows, [
        f"GFLOP, counted by PyTorch for the work that is really done: {counted}. CLIP and EVA02"
        " leave out of the last block all but the class token; a tower with an attention pool"
        " needs every token.",
        "transformers takes its fused attention, the frames as one batch, and its weights in the"
        " type that is named. open_clip is compared by `python -m benchmarks towers`.",
    ]


def encoder(name: str, toy: bool) -> CLIP:
    """With random weights and a text tower that is next to nothing."""
    vision, embed_dim, activation = architecture(next(k for k in KNOWN if k.name == name))
    if toy:
        small = {"mlp_width": 96} if vision.gated else {}
        small |= {"pool_heads": 2} if vision.pool_heads else {}
        vision = dataclasses.replace(
            vision, image_size=32, patch_size=8, width=64, layers=2, heads=2, **small
        )
        embed_dim = 64 if vision.projection == "none" else 32
    is_siglip = name.startswith("siglip")
    text = TextConfig(8, 16, 64, 1, 1, **(_SIGLIP_TEXT if is_siglip else {}))
    torch.manual_seed(0)
    config = CLIPConfig(vision, text, embed_dim, activation, logit_bias=is_siglip)  # type: ignore[arg-type]
    network = CLIP(config)
    return network.eval().requires_grad_(False)


def encode(network: CLIP, frames: Tensor, dtype: torch.dtype) -> Tensor:
    with autocast(CPU, dtype):
        return network.encode_image(frames)


def operations(network: CLIP, frames: Tensor) -> int:
    """Of one forward pass, in float32: there every product is one that the counter knows."""
    fused = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_operations}
    with FlopCounterMode(display=False, custom_mapping=fused) as counter:
        encode(network, frames, torch.float32)
    return counter.get_total_flops()


class ByTransformers(nn.Module):
    """Pictures (N, 3, H, W) -> image embeddings (N, E)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        return self.model.get_image_features(pictures).pooler_output  # type: ignore[operator]


def by_transformers(network: CLIP) -> ByTransformers:
    """The same weights in transformers' own class."""
    from transformers import AutoConfig, AutoModel

    values = config_to_hf(network.config)
    config = AutoConfig.for_model(**values)
    model = AutoModel.from_config(config, attn_implementation="sdpa")
    model.load_state_dict(state_to_hf(network.state_dict(), network.config))
    return ByTransformers(model.eval().requires_grad_(False))


def against_clip(
    name: str, kind: str, seconds: dict[str, list[float]], work: dict[str, int]
) -> Row:
    """CPU time an operation, turn by turn."""
    mine, clip = (
        [t / work[tower] * 1e12 for t in seconds[f"{tower}, {kind}"]]
        for tower in (name, "clip-b16")
    )
    return Row(
        f"image tower forward, {FRAMES} frames, time an operation",
        f"{name}, {kind}",
        f"clip-b16, {kind}",
        Spread.of(mine),
        Spread.of(clip),
        "CPU s/TFLOP",
        Spread.of([a / b for a, b in zip(mine, clip, strict=True)]),
        AT_MOST.get(name),
        at_most=True,
    )


def same(ours: Tensor, theirs: Tensor) -> None:
    apart = (ours.flatten(0, 1) - theirs).norm() / theirs.norm()
    if not apart < 1e-4:
        raise SystemExit(f"not the same work: embeddings differ by {apart:.1e} of their length")
