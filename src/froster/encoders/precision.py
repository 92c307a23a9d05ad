"""Which number format the towers run in: bfloat16 where the chip computes it in hardware and the
model is big enough."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import nn

from froster.encoders.block import Attention
from froster.encoders.text import TextTower
from froster.encoders.vision import VisionTower
from froster.errors import UsageError

Precision = Literal["auto", "float32", "bfloat16"]
_SPELLINGS: dict[str, Precision] = {
    "auto": "auto",
    "float32": "float32",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
}
Network = TypeVar("Network", bound=nn.Module)

# Below this width the casts cost more than the matrix units save (the nano CLIP, width 128, is
# about half as fast).
SMALLEST_BF16_WIDTH = 512


def parse_precision(wanted: object) -> Precision:
    """`"bf16"`, `"torch.float32"`, `torch.bfloat16`, … -> our name of it. Raises UsageError on what
    there is not."""
    name = (
        str(wanted).lower().removeprefix("torch.") if isinstance(wanted, (str, torch.dtype)) else ""
    )
    if name not in _SPELLINGS:
        raise UsageError(
            f"precision is auto, float32 (fp32) or bfloat16 (bf16), not {wanted!r:.100}"
        )
    return _SPELLINGS[name]


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The named device, or CUDA where there is one, or the CPU. Raises UsageError on one that is
    not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # nor one that has no numbers, such as meta
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
        ImportError,
        TypeError,
        ValueError,
    ) as error:
        cause = next(iter(str(error).splitlines()), "")
        raise UsageError(
            f"no device {str(name)[:100]!r} here: there is {', '.join(devices_here())}"
            f" ({cause[:150]})"
        ) from None
    return device


def devices_here() -> list[str]:
    names = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def pick_dtype(
    device: torch.device, width: int, precision: str | torch.dtype = "auto"
) -> torch.dtype:
    """The type of the towers' matrix products. Weights, losses and logits are always float32."""
    precision = parse_precision(precision)
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bf16 = (
        device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    )
    return torch.bfloat16 if has_bf16 and width >= SMALLEST_BF16_WIDTH else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


@torch.no_grad()
def with_cast_weights(network: Network, dtype: torch.dtype) -> Network:
    """The network for inference under `autocast`, which casts every matrix of the two towers each
    time it is used: here they are cast once, with equal results. Everything else is shared with the
    original."""
    shared: dict[int, object] = {id(x): x for x in [*network.parameters(), *network.buffers()]}
    for tower in [x for x in network.modules() if isinstance(x, (VisionTower, TextTower))]:
        for module in tower.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, Attention)):
                for parameter in module.parameters(recurse=False):
                    shared[id(parameter)] = nn.Parameter(parameter.to(dtype), requires_grad=False)
    return copy.deepcopy(network, shared)
