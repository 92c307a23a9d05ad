"""The attention pool of SigLIP and PE-Core: one learned probe asks all tokens of a frame.

n = ln_post(x)
y = attention(query = probe, keys and values = n)
z = y + mlp(layernorm(y))            no residual from the probe

One query a head needs no keys and values of its own of every token: the key matrix goes to the
query, the value matrix to the mean of the tokens. The keys' bias is the same for all tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Attention
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

    def forward(
        self,
        x: Float[Tensor, "frames tokens width"],
        bias: Float[Tensor, "frames tokens"] | None = None,
    ) -> Float[Tensor, "frames width"]:
        """Tokens after `ln_post` -> one vector a frame. `bias` is added to their scores."""
        y = self.attend(x, bias)
        return y + self.mlp(self.layernorm(y))

    def attend(
        self,
        x: Float[Tensor, "frames tokens width"],
        bias: Float[Tensor, "frames tokens"] | None = None,
    ) -> Float[Tensor, "frames width"]:
        """y, what the probe is answered."""
        heads = self.attn.heads
        (w_q, w_k, w_v), (b_q, _, b_v) = self.attn.in_proj_weight.chunk(3), self.attn.bias.chunk(3)
        q = F.linear(self.probe[0].to(x.dtype), w_q, b_q).view(heads, 1, -1)
        asked = (q @ w_k.unflatten(0, (heads, -1)).to(q.dtype))[:, 0] * q.shape[-1] ** -0.5
        scores = asked @ x.transpose(1, 2)
        weights = (scores if bias is None else scores + bias[:, None]).softmax(-1)
        means = (weights.to(x.dtype) @ x).transpose(0, 1)  # (h, N, D)
        values = means @ w_v.unflatten(0, (heads, -1)).transpose(1, 2).to(means.dtype)
        return self.attn.out_proj(values.transpose(0, 1).flatten(1) + b_v.to(values.dtype))
