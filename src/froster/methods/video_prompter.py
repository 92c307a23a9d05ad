"""What TC-CLIP makes its text prompts with: learned tokens that attend to those of a video."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.reading import State


class VideoPrompter(nn.Module):
    """x + attend(ln_1 x, ln_1_kv video), then + mlp(ln_2 x). It starts as a copy of a text block,
    as far as the widths agree."""

    def __init__(self, block: Block, video_width: int):
        super().__init__()
        width = block.width
        self.heads = block.attn.heads
        self.ln_1, self.ln_2 = copy.deepcopy(block.ln_1), copy.deepcopy(block.ln_2)
        self.ln_1_kv = nn.LayerNorm(video_width, block.ln_1.eps)
        self.q_proj = nn.Linear(width, width)
        self.k_proj, self.v_proj = (nn.Linear(video_width, width) for _ in range(2))
        self.out_proj = copy.deepcopy(block.attn.out_proj)
        self.mlp = copy.deepcopy(block.mlp)
        with torch.no_grad():
            rows = zip(
                block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3), strict=True
            )
            for layer, (weight, bias) in zip(
                (self.q_proj, self.k_proj, self.v_proj), rows, strict=True
            ):
                layer.bias.copy_(bias)
                if layer.weight.shape == weight.shape:
                    layer.weight.copy_(weight)
            if video_width == width:
                self.ln_1_kv.load_state_dict(block.ln_1.state_dict())

    def forward(
        self, x: Float[Tensor, "1 learned width"], video: Float[Tensor, "batch tokens embed"]
    ) -> Float[Tensor, "batch learned width"]:
        seen = self.ln_1_kv(video)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj(self.ln_1(x)), self.k_proj(seen), self.v_proj(seen))
        )
        attended = F.scaled_dot_product_attention(q.expand(len(video), -1, -1, -1), k, v)
        x = x + self.out_proj(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.ln_2(x))


def split_attention(state: State) -> State:
    """The names that PyTorch's attention has, with one projection or with three -> ours."""
    start = "text_prompter.attn."
    split: State = {}
    for name, tensor in state.items():
        if not name.startswith(start):
            split[name] = tensor
            continue
        rest = name.removeprefix(start)
        if rest.startswith("in_proj_"):
            kind = rest.removeprefix("in_proj_")
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                split[f"text_prompter.{part}_proj.{kind}"] = rows
        else:
            split[f"text_prompter.{rest.replace('_proj_weight', '_proj.weight')}"] = tensor
    return split
