"""The text tower: token ids -> text embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.block import Block, Transformer
from froster.encoders.config import TextConfig
from froster.encoders.kernels import use_cpu_kernels
from froster.encoders.packed import Packed


class TextTower(nn.Module):
    def __init__(self, config: TextConfig, embed_dim: int, activation: str):
        """`activation`: where the config names none."""
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context, config.width))
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            config.activation or activation,
            causal=config.causal,
            eps=config.eps,
            mlp_width=config.mlp_width,
        )
        self.ln_final = nn.LayerNorm(config.width, config.eps)
        self.text_projection = nn.Parameter(torch.empty(config.width, embed_dim))
        self.projection_bias: nn.Parameter | None
        bias = nn.Parameter(torch.zeros(embed_dim)) if config.projection_bias else None
        self.register_parameter("projection_bias", bias)

    def forward(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts embed"]:
        """Token ids, at most `context` a text -> embeddings, not unit length.

        Pooled at the end token, or at the last place. Under a causal mask columns behind the last
        end token can be cut off; on a CPU nothing behind a row's own is computed, and what all rows
        begin with is computed once. Where a token sees what follows, or the last place is pooled,
        padding counts: rows are then filled up to the context.
        """
        if self.config.full_length:
            short = self.config.context - tokens.shape[1]
            tokens = F.pad(tokens, (0, short), value=self.config.pad)
        end = (
            torch.full_like(tokens[:, 0], tokens.shape[1] - 1)
            if self.config.pool == "last"
            else self.config.ends(tokens)
        )
        differ = (tokens != tokens[:1]).any(0).nonzero()
        same = int(differ[0]) if len(differ) else tokens.shape[1]
        return self.encode(
            self.token_embedding(tokens.to(self.positional_embedding.device)), end, same
        )

    def encode(
        self, words: Float[Tensor, "texts length width"], end: Int[Tensor, " texts"], same: int = 0
    ) -> Float[Tensor, "texts embed"]:
        """Token embeddings, of whatever source, and the place that is pooled of each row ->
        embeddings.

        `same`: that many columns are the same in all rows.
        """
        x = words + self.positional_embedding[: words.shape[1]]
        blocks = self.transformer.blocks()
        plain = blocks and all(type(block) is Block for block in blocks)
        # An accelerator would rather pad rows than start many small kernels.
        if self.config.full_length or not plain or not len(x) or not use_cpu_kernels(x):
            return self.project(self.transformer.forward_at(x, end.to(x.device)))
        packed = Packed.of(end + 1, min(same, int(end.min())), self.config.width)
        x = packed.pack(x)
        *first, last = blocks
        for block in first:
            x = self.transformer.run_block(packed.block, block, x)
        x = packed.last_block(last, x)
        return packed.unsort(self.project(x))

    def project(self, pooled: Float[Tensor, "*texts width"]) -> Float[Tensor, "*texts embed"]:
        """What is pooled of the last block, or all of its tokens -> embeddings."""
        embeddings = self.ln_final(pooled) @ self.text_projection
        return embeddings if self.projection_bias is None else embeddings + self.projection_bias
