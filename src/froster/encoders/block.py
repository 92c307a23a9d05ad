"""The transformer's block, which every video method changes in one place.

A method of the literature changes one step of `Block` (what the attention sees, an extra branch, an
extra pass) and is built *from* a CLIP block, so the pretrained weights carry over.

Sizes in comments: B videos, T frames, L tokens a frame (or a prompt), D width, h heads, d = D/h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from froster.encoders import kernels
from froster.encoders.kernels import dot_product_attention
from froster.errors import UsageError


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(kernels.QUICK * x)


class MLP(nn.Module):
    def __init__(self, width: int, activation: str):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU() if activation == "quick_gelu" else nn.GELU()
        self.c_proj = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if type(self.c_fc) is type(self.c_proj) is nn.Linear and kernels.use_cpu_kernels(x):
            return kernels.two_layers(x, self.c_fc, self.c_proj, self.activation)
        return self.c_proj(self.gelu(self.c_fc(x)))


class Attention(nn.Module):
    """Multi-head attention with one fused q/k/v projection."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageError(f"{heads} attention heads do not divide a width of {width}")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def project(self, x: Tensor, queries_of: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(N, L, D) -> q, k, v, each (N, h, L, d); with `queries_of` (N, L', D) the queries are
        those of these tokens alone."""
        if queries_of is None:
            q, k, v = self._heads(x, 0, 3)
            return q, k, v
        (q,), (k, v) = self._heads(queries_of, 0, 1), self._heads(x, 1, 3)
        return q, k, v

    def _heads(self, x: Tensor, first: int, end: int) -> Tensor:
        """Of q, k and v those from `first` to before `end`: (end - first, N, h, L, d)."""
        rows = slice(first * x.shape[-1], end * x.shape[-1])
        some = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return some.unflatten(-1, (end - first, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def merge(self, heads: Tensor) -> Tensor:
        """(N, h, L, d) -> (N, L, D), through the output projection."""
        return self.out_proj(heads.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Every token of (N, L, D) attends to all L of its row."""
        return self.merge(dot_product_attention(*self.project(x)))


class Block(nn.Module):
    """A pre-norm residual block: x + attend(ln_1 x), then x + mlp(ln_2 x)."""

    def __init__(
        self, width: int, heads: int, activation: str, causal: bool = False, eps: float = 1e-5
    ):
        super().__init__()
        self.causal = causal
        self.ln_1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps)
        self.mlp = MLP(width, activation)

    def init_from(self, block: Block) -> None:
        """For subclasses, in place of `super().__init__`: take over the weights of `block`, which
        are shared, not copied."""
        nn.Module.__init__(self)
        self.causal = block.causal
        self.ln_1, self.attn, self.ln_2, self.mlp = block.ln_1, block.attn, block.ln_2, block.mlp

    @property
    def width(self) -> int:
        return self.ln_1.normalized_shape[0]

    def forward(self, x: Tensor, num_frames: int = 1) -> Tensor:  # (B*T, L, D) -> the same
        return self.mlp_sublayer(self.attention_sublayer(x, num_frames))

    def attention_sublayer(self, x: Tensor, num_frames: int) -> Tensor:
        """The half of the block in which tokens see each other."""
        return x + self.attend(self.ln_1(x), num_frames)

    def mlp_sublayer(self, x: Tensor) -> Tensor:
        """The half that treats every token by itself: (…, D) -> the same."""
        return x + self.mlp(self.ln_2(x))

    def attend(self, x: Tensor, num_frames: int, positions: Tensor | None = None) -> Tensor:
        """(B*T, L, D) -> the same; with `positions`, (B*T,), only for that token of each row, (B*T,
        1, D)."""
        if positions is None:
            return self.attn.merge(self.attention(*self.attn.project(x), num_frames))
        rows = torch.arange(len(x), device=x.device)
        q, k, v = self.attn.project(x, x[rows, positions][:, None])
        if self.causal:
            mask = torch.arange(k.shape[2], device=x.device) <= positions[:, None]
            return self.attn.merge(dot_product_attention(q, k, v, mask[:, None, None]))
        return self.attn.merge(self.attention(q, k, v, num_frames))

    def attention(self, q: Tensor, k: Tensor, v: Tensor, num_frames: int) -> Tensor:
        """Queries (B*T, h, L', d) over what their frames attend to, made of k and v (B*T, h, L, d)
        -> (B*T, h, L', d)."""
        k, v, mask = self.keys_values(k, v, num_frames)
        return dot_product_attention(q, k, v, mask, self.causal)

    def keys_values(
        self, k: Tensor, v: Tensor, num_frames: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What each frame attends to: keys, values (B*T, h, L', d) and a mask (True = seen), or
        None for no mask."""
        return k, v, None

    def forward_at(self, x: Tensor, positions: Tensor, num_frames: int = 1) -> Tensor:
        """One token of each row of `forward(x)`, (B*T, D), without making the others: all that is
        used of a last block.

        Subclasses with an `attention_sublayer` of their own save what follows the attention, with a
        `forward` of their own nothing.
        """
        kind, rows = type(self), torch.arange(len(x), device=x.device)
        if kind.forward is not Block.forward:
            return self(x, num_frames)[rows, positions]
        if (
            kind.attention_sublayer is not Block.attention_sublayer
            or kind.attend is not Block.attend
        ):
            return self.mlp_sublayer(self.attention_sublayer(x, num_frames)[rows, positions])
        attended = self.attend(self.ln_1(x), num_frames, positions)[:, 0]
        return self.mlp_sublayer(x[rows, positions] + attended)


class Transformer(nn.Module):
    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        activation: str,
        causal: bool = False,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.resblocks = nn.ModuleList(
            Block(width, heads, activation, causal, eps) for _ in range(layers)
        )
        self.checkpointing = False
        """Training keeps what goes into each block and computes the rest again: less memory, a
        third more time."""

    def forward(self, x: Tensor, num_frames: int = 1, layers: list[Tensor] | None = None) -> Tensor:
        for block in self.resblocks:
            x = self.run_block(block, x, num_frames)
            if layers is not None:
                layers.append(x)
        return x

    def forward_at(self, x: Tensor, positions: Tensor, num_frames: int = 1) -> Tensor:
        """One token of each row of `forward(x)`: (B*T, L, D), (B*T,) -> (B*T, D)."""
        if not self.blocks():
            return x[torch.arange(len(x), device=x.device), positions]
        *first, last = self.blocks()
        for block in first:
            x = self.run_block(block, x, num_frames)
        return last.forward_at(x, positions, num_frames)

    def run_block(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """The work of one block, kept for the backward pass or computed again there."""
        if not (self.checkpointing and torch.is_grad_enabled()):
            return function(*inputs)
        if isinstance(function, nn.Module):
            # It may have weights that it was lent, and gives back before the backward pass.
            weights = dict(function.named_parameters())
            return checkpoint(functional_call, function, weights, inputs, use_reentrant=False)
        return checkpoint(function, *inputs, use_reentrant=False)

    def blocks(self) -> list[Block]:
        return list(self.resblocks)  # type: ignore[arg-type]
