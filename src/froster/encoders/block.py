"""The transformer's block, which every video method changes in one place.

A method of the literature changes one step of `Block` (what the attention sees, an extra branch, an
extra pass) and is built *from* a CLIP block, so the pretrained weights carry over.

Sizes: `frames` are those of all clips, one clip after the other (B*T), or prompts; D width, h
heads, `dim` is D/h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from froster.encoders.kernels import dot_product_attention
from froster.encoders.mlp import MLP, GatedMLP
from froster.encoders.rope import Rotary
from froster.errors import UsageError


class Attention(nn.Module):
    """Multi-head attention with one fused q/k/v projection.

    `rotary` turns queries and keys by their tokens' places. With `inner_eps` it is EVA02's: keys
    have no bias, and a LayerNorm stands before the output projection.
    """

    rotary: Rotary | None
    ln: nn.LayerNorm | None

    def __init__(
        self, width: int, heads: int, rotary: Rotary | None = None, inner_eps: float | None = None
    ):
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageError(f"{heads} attention heads do not divide a width of {width}")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.rotary = rotary
        self.ln = None if inner_eps is None else nn.LayerNorm(width, inner_eps)
        self.out_proj = nn.Linear(width, width)

    def project(
        self,
        x: Float[Tensor, "rows tokens width"],
        queries_of: Float[Tensor, "rows queries width"] | None = None,
    ) -> tuple[
        Float[Tensor, "rows heads _ dim"],
        Float[Tensor, "rows heads tokens dim"],
        Float[Tensor, "rows heads tokens dim"],
    ]:
        """Queries, keys and values, turned where the tower turns them.

        With `queries_of` the queries are those of these tokens alone, turned as the first of a row
        are.
        """
        q, k, v = self.plain(x, queries_of)
        return self.turn(q), self.turn(k), v

    def plain(self, x: Tensor, queries_of: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as the matrices give them, before they are turned."""
        if queries_of is None:
            q, k, v = self._heads(x, 0, 3)
            return q, k, v
        (q,), (k, v) = self._heads(queries_of, 0, 1), self._heads(x, 1, 3)
        return q, k, v

    def turn(
        self, x: Float[Tensor, "rows heads tokens dim"]
    ) -> Float[Tensor, "rows heads tokens dim"]:
        """Queries or keys of a frame's tokens, in the tower's order, by their places."""
        return x if self.rotary is None else self.rotary(x)

    @property
    def bias(self) -> Tensor:
        """Of q, k and v, (3D,). EVA02's keys have none: that part is zero, whatever is stored."""
        if self.ln is None:
            return self.in_proj_bias
        q, k, v = self.in_proj_bias.chunk(3)
        return torch.cat([q, torch.zeros_like(k), v])

    def _heads(self, x: Tensor, first: int, end: int) -> Tensor:
        """Of q, k and v those from `first` to before `end`: (end - first, N, h, L, d)."""
        rows = slice(first * x.shape[-1], end * x.shape[-1])
        some = F.linear(x, self.in_proj_weight[rows], self.bias[rows])
        return some.unflatten(-1, (end - first, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def merge(
        self, heads: Float[Tensor, "rows heads tokens dim"]
    ) -> Float[Tensor, "rows tokens width"]:
        """The heads side by side, through the output projection."""
        return self.out_proj(self.joined(heads))

    def joined(
        self, heads: Float[Tensor, "rows heads tokens dim"]
    ) -> Float[Tensor, "rows tokens width"]:
        """What the output projection is given."""
        x = heads.transpose(1, 2).flatten(2)
        return x if self.ln is None else self.ln(x)

    def forward(self, x: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows tokens width"]:
        """Every token attends to all tokens of its row. The rows are whatever a method makes of the
        tokens, of no place in a frame: nothing is turned."""
        return self.merge(dot_product_attention(*self.plain(x)))


class Block(nn.Module):
    """A pre-norm residual block: x + attend(ln_1 x), then x + mlp(ln_2 x).

    `mlp_width`: 0 is four times the width. `gated`: EVA02's block.
    """

    mlp: MLP | GatedMLP

    def __init__(
        self,
        width: int,
        heads: int,
        activation: str,
        causal: bool = False,
        eps: float = 1e-5,
        mlp_width: int = 0,
        rotary: Rotary | None = None,
        gated: bool = False,
    ):
        super().__init__()
        self.causal = causal
        self.ln_1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads, rotary, eps if gated else None)
        self.ln_2 = nn.LayerNorm(width, eps)
        self.mlp = (
            GatedMLP(width, mlp_width or 4 * width, eps)
            if gated
            else MLP(width, activation, mlp_width)
        )

    def init_from(self, block: Block) -> None:
        """For subclasses, in place of `super().__init__`: take over the weights of `block`, which
        are shared, not copied."""
        nn.Module.__init__(self)
        self.causal = block.causal
        self.ln_1, self.attn, self.ln_2, self.mlp = block.ln_1, block.attn, block.ln_2, block.mlp

    @property
    def width(self) -> int:
        return self.ln_1.normalized_shape[0]

    @property
    def merges_tokens(self) -> bool:
        """May tokens become fewer between its attention and its MLP (`merging`)? Not assumed of a
        block that changes how tokens see each other; one whose `keys_values` does no more than
        gather rows, with zeros where there is none, may say so."""
        return self.frames_apart

    @property
    def frames_apart(self) -> bool:
        """Do the tokens of a frame see each other alone, and as in CLIP? What a block does to every
        token by itself (`mlp_sublayer`) is its own affair."""
        kind = type(self)
        return all(
            getattr(kind, step) is getattr(Block, step)
            for step in ("forward", "attention_sublayer", "attend", "attention", "keys_values")
        )

    def forward(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int = 1
    ) -> Float[Tensor, "frames _ width"]:
        """As many tokens as there were, unless a subclass passes others on behind them."""
        return self.mlp_sublayer(self.attention_sublayer(x, num_frames))

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        """The half of the block in which tokens see each other."""
        return x + self.attend(self.ln_1(x), num_frames)

    def mlp_sublayer(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        """The half that treats every token by itself."""
        return x + self.mlp(self.ln_2(x))

    def attend(
        self,
        x: Float[Tensor, "frames tokens width"],
        num_frames: int,
        positions: Int[Tensor, " frames"] | None = None,
    ) -> Float[Tensor, "frames _ width"]:
        """What attention makes of every token; with `positions` of that token of each row alone."""
        if positions is None:
            return self.attn.merge(self.attention(*self.attn.project(x), num_frames))
        rows = torch.arange(len(x), device=x.device)
        q, k, v = self.attn.project(x, x[rows, positions][:, None])
        if self.causal:
            mask = torch.arange(k.shape[2], device=x.device) <= positions[:, None]
            return self.attn.merge(dot_product_attention(q, k, v, mask[:, None, None]))
        return self.attn.merge(self.attention(q, k, v, num_frames))

    def attention(
        self,
        q: Float[Tensor, "frames heads queries dim"],
        k: Float[Tensor, "frames heads tokens dim"],
        v: Float[Tensor, "frames heads tokens dim"],
        num_frames: int,
    ) -> Float[Tensor, "frames heads queries dim"]:
        """Queries over what their frames attend to, which is made of k and v."""
        k, v, mask = self.keys_values(k, v, num_frames)
        return dot_product_attention(q, k, v, mask, self.causal)

    def keys_values(
        self,
        k: Float[Tensor, "frames heads tokens dim"],
        v: Float[Tensor, "frames heads tokens dim"],
        num_frames: int,
    ) -> tuple[
        Float[Tensor, "frames heads keys dim"],
        Float[Tensor, "frames heads keys dim"],
        Bool[Tensor, ...] | None,
    ]:
        """What each frame attends to: keys, values and a mask (True = seen), or None for none."""
        return k, v, None

    def forward_at(
        self,
        x: Float[Tensor, "frames tokens width"],
        positions: Int[Tensor, " frames"],
        num_frames: int = 1,
    ) -> Float[Tensor, "frames width"]:
        """One token of each row of `forward(x)`, without making the others: all that is
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
        mlp_width: int = 0,
        rotary: Rotary | None = None,
        gated: bool = False,
    ):
        super().__init__()
        self.resblocks = nn.ModuleList(
            Block(width, heads, activation, causal, eps, mlp_width, rotary, gated)
            for _ in range(layers)
        )
        self.checkpointing = False
        """Training keeps what goes into each block and computes the rest again: less memory, a
        third more time."""

    def forward(
        self,
        x: Float[Tensor, "frames tokens width"],
        num_frames: int = 1,
        layers: list[Tensor] | None = None,
    ) -> Float[Tensor, "frames _ width"]:
        for block in self.resblocks:
            x = self.run_block(block, x, num_frames)
            if layers is not None:
                layers.append(x)
        return x

    def forward_at(
        self,
        x: Float[Tensor, "frames tokens width"],
        positions: Int[Tensor, " frames"],
        num_frames: int = 1,
    ) -> Float[Tensor, "frames width"]:
        """One token of each row of `forward(x)`."""
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
        # One whose weights are shared out over processes has them while it is called (FSDP2).
        if isinstance(function, nn.Module) and not hasattr(function, "unshard"):
            # It may have weights that it was lent, and gives back before the backward pass.
            weights = dict(function.named_parameters())
            return checkpoint(functional_call, function, weights, inputs, use_reentrant=False)
        return checkpoint(function, *inputs, use_reentrant=False)

    def blocks(self) -> list[Block]:
        return list(self.resblocks)  # type: ignore[arg-type]
