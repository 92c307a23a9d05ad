"""Prompts without padding, and what they begin with once: all that a causal text tower has to
compute.

Under a causal mask a token's state depends on what stands before it alone. So what follows a
prompt's end token can be left out, and the tokens that all prompts of a template begin with ("a
video of a person doing …") have the same states for every class. The rest of the rows lies one
after the other in one long row, on which everything but the attention works token by token; for the
attention, rows of about equal length are views of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from froster.encoders.kernels import dot_product_attention

if TYPE_CHECKING:
    from froster.encoders.block import Block

# A run of rows of about equal length ends where padding them to the longest would cost more than
# this share of them, and more than another run would: that is the time of about this many tokens in
# a tower of width 1 (one token at width 512).
_WASTE = 0.02
_RUN = 1 << 18


@dataclass(frozen=True)
class Packed:
    """n rows of tokens as one of N: the `shared` ones that all begin with, then run after run of
    the others' rest."""

    shared: int
    runs: list[tuple[int, int]]
    """(rows, width), in order"""
    order: Tensor
    """(n,): the row that stands at each place in the runs"""
    ends: Tensor
    """(n,): where in the long row each end token is, in the order of the runs"""

    @classmethod
    def of(cls, lengths: Int[Tensor, " rows"], shared: int, width: int) -> Packed:
        """Rows with so many tokens each, (n,), `shared` of them the same in all and fewer than the
        shortest has, for a tower of that width."""
        order = lengths.argsort(stable=True)
        rest = (lengths - shared)[order]
        runs, ends, start = [], [], shared
        for first, end, longest in _runs(rest.tolist(), spare=_RUN // width**2):
            runs.append((end - first, longest))
            ends.append(start + torch.arange(end - first) * longest + rest[first:end] - 1)
            start += (end - first) * longest
        return cls(shared, runs, order, torch.cat(ends))

    def pack(self, x: Tensor) -> Tensor:
        """Padded rows (n, L, …) -> (1, N, …)"""
        x, parts, first = x[self.order], [x[0, : self.shared]], 0
        for rows, width in self.runs:
            parts.append(x[first : first + rows, self.shared : self.shared + width].flatten(0, 1))
            first += rows
        return torch.cat(parts)[None]

    def unsort(self, x: Tensor) -> Tensor:
        """(n, …) in the order of the runs -> in that of the rows."""
        return torch.empty_like(x).index_copy(0, self.order, x)

    def block(
        self, block: Block, x: Float[Tensor, "1 tokens width"]
    ) -> Float[Tensor, "1 tokens width"]:
        """`block(x)`"""
        return block.mlp_sublayer(
            x + block.attn.merge(self.attend(*block.attn.project(block.ln_1(x))))
        )

    def last_block(
        self, block: Block, x: Float[Tensor, "1 tokens width"]
    ) -> Float[Tensor, "rows width"]:
        """The end tokens of `block(x)` alone, in the order of the runs."""
        seen = block.ln_1(x)
        y = block.attn.merge(self.attend_from_ends(*block.attn.project(seen, seen[:, self.ends])))
        return block.mlp_sublayer(x[:, self.ends] + y)[0]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(1, h, N, d) each -> the same: every token looks at those before it in its own row."""
        S = self.shared
        (start_q, *own_q), (start_k, *own_k), (start_v, *own_v) = (
            self._split(x) for x in (q, k, v)
        )
        parts = [dot_product_attention(start_q, start_k, start_v, causal=True)] if S else []
        for Q, K, V in zip(own_q, own_k, own_v, strict=True):
            seen = torch.ones(Q.shape[2], S + Q.shape[2], dtype=torch.bool).tril(S) if S else None
            parts.append(
                dot_product_attention(
                    Q, _behind(start_k, K), _behind(start_v, V), seen, causal=not S
                )
            )
        return torch.cat([x.transpose(1, 2).flatten(0, 1) for x in parts]).transpose(0, 1)[None]

    def attend_from_ends(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same for the end tokens alone, in the order of the runs: q (1, h, n, d) -> (1, h, n,
        d)."""
        S = self.shared
        (start_k, *own_k), (start_v, *own_v) = (self._split(x) for x in (k, v))
        asking, ends = (
            x.split([rows for rows, _ in self.runs], dim) for x, dim in ((q[0], 1), (self.ends, 0))
        )
        parts, start = [], S
        for Q, end, K, V in zip(asking, ends, own_k, own_v, strict=True):
            rows, _, width, _ = K.shape
            place = end - start - torch.arange(rows) * width  # in its row
            seen = torch.arange(S + width) <= S + place[:, None]
            Q = Q.transpose(0, 1)[:, :, None]
            parts.append(
                dot_product_attention(
                    Q, _behind(start_k, K), _behind(start_v, V), seen[:, None, None]
                )[:, :, 0]
            )
            start += rows * width
        return torch.cat(parts).transpose(0, 1)[None]

    def _split(self, x: Tensor) -> list[Tensor]:
        """(1, h, N, d) -> the shared tokens (1, h, shared, d), then the rows of each run (rows, h,
        width, d), as views.

        `split`, not slices: of that many slices each would fill a gradient as long as the whole
        with zeros.
        """
        shared, *rest = x[0].split(
            [self.shared, *(rows * width for rows, width in self.runs)], dim=1
        )
        runs = zip(rest, self.runs, strict=True)
        return [
            shared[None],
            *(part.unflatten(1, (rows, -1)).transpose(0, 1) for part, (rows, _) in runs),
        ]


def _behind(shared: Tensor, rows: Tensor) -> Tensor:
    """What every row of a run looks at: (1, h, shared, d), (rows, h, width, d) -> (rows, h, shared
    + width, d)."""
    return (
        torch.cat([shared.expand(len(rows), -1, -1, -1), rows], dim=2) if shared.shape[2] else rows
    )


def _runs(ascending: list[int], spare: int) -> list[tuple[int, int, int]]:
    """Ascending lengths -> (start, end, longest) of runs that are padded to one width. `spare`:
    tokens that a run is worth."""
    runs: list[tuple[int, int, int]] = []
    start, total = 0, 0
    for i, length in enumerate(ascending):
        rows = i - start
        if rows and rows * length > (1 + _WASTE) * total + spare:
            runs.append((start, i, ascending[i - 1]))
            start, total = i, 0
        total += length
    return [*runs, (start, len(ascending), ascending[-1])]
