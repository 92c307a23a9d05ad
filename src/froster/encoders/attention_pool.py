"""The attention pool of SigLIP and PE-Core: one learned probe asks all tokens of a frame.

n = ln_post(x)
y = attention(query = probe, keys and values = n)
z = y + mlp(layernorm(y))            no residual from the probe
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Attention
from froster.encoders.kernels import dot_product_attention
from froster.encoders.mlp import MLP


class AttentionPool(nn.Module):
    def __init__(self, width: int, heads: int, activation: str, mlp_width: int, eps: float):
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.attn = Attention(width, heads)
        self.layernorm = nn.LayerNorm(width, eps)
        self.mlp = MLP(width, activation, mlp_width)

    def queries_keys_values(
        self, x: Float[Tensor, "frames tokens width"]
    ) -> tuple[
        Float[Tensor, "frames heads 1 dim"],
        Float[Tensor, "frames heads tokens dim"],
        Float[Tensor, "frames heads tokens dim"],
    ]:
        return self.attn.project(x, self.probe.to(x.dtype).expand(len(x), -1, -1))

    def forward(self, x: Float[Tensor, "frames tokens width"]) -> Float[Tensor, "frames width"]:
        """Tokens after `ln_post` -> one vector a frame."""
        y = self.attend(x)
        return y + self.mlp(self.layernorm(y))

    def attend(self, x: Float[Tensor, "frames tokens width"]) -> Float[Tensor, "frames width"]:
        """y, what the probe is answered."""
        return self.attn.merge(dot_product_attention(*self.queries_keys_values(x)))[:, 0]
