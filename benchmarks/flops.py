"""What the image tower achieves of the chip: counted operations a second, against a large matrix
product of the same type."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.setup import FRAMES, name_of, precisions, scene
from benchmarks.timing import Row, Spread, interleave
from froster.encoders.checkpoints import load_clip
from froster.encoders.precision import autocast, with_cast_weights
from froster.methods import VCLIP, Frozen, Method

GOAL = 0.7
CLIPS = 2
SIZE = 4096
CPU = torch.device("cpu")


@torch.no_grad()
def run(part: str, rounds: int | None, toy: bool) -> tuple[list[Row], list[str]]:
    stage, size, rows = scene(toy), 256 if toy else SIZE, []
    frames = torch.randn(CLIPS, FRAMES, 3, stage.image_size, stage.image_size)
    for dtype in precisions(toy):
        a, b = torch.randn(2, size, size).to(dtype)
        contenders = {"a matrix product": lambda a=a, b=b: a @ b}
        work = {"a matrix product": 2 * size**3}
        methods: dict[str, Method] = {"CLIP": Frozen(), "VCLIP": VCLIP()}
        for name, method in methods.items():
            network = method.build(load_clip(stage.folder)[0]).eval()
            work[name] = operations(network, frames)
            if dtype != torch.float32:
                network = with_cast_weights(network, dtype)
            contenders[name] = lambda network=network, dtype=dtype: encode(network, frames, dtype)
        seconds = interleave(contenders, rounds or 9)
        rate = {name: [work[name] / t / 1e9 for t in seconds[name]] for name in contenders}
        for name in methods:
            share = Spread.of(
                [a / b for a, b in zip(rate[name], rate["a matrix product"], strict=True)]
            )
            what = f"image tower forward, {name}, {CLIPS} clips of {FRAMES} frames"
            mine, other = Spread.of(rate[name]), Spread.of(rate["a matrix product"])
            against = f"a {size} x {size} matrix product, {name_of(dtype)}"
            rows.append(
                Row(
                    what, f"froster, {name_of(dtype)}", against, mine, other, "GFLOP/s", share, GOAL
                )
            )
    return rows, [
        "Operations are counted by PyTorch for the work that is really done, without what the last"
        " block leaves out."
    ]


def encode(network: torch.nn.Module, frames: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    with autocast(CPU, dtype):
        return network.encode_frames(frames)  # type: ignore[operator]


def operations(network: torch.nn.Module, frames: torch.Tensor) -> int:
    """Of one forward pass, in float32: there every product is one that the counter knows."""
    counted = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_operations}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        encode(network, frames, torch.float32)
    return counter.get_total_flops()


def attention_operations(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *_: object, **__: object
) -> int:
    """Of queries (N, h, L, d) over keys and values (N, h, M, d): two products."""
    N, h, L, d = q
    return 4 * N * h * L * k[2] * d
