"""Rotary positions in two dimensions: queries and keys are turned by the row and the column of
their patch.

A head's d numbers are d/2 pairs of neighbours (2i, 2i + 1), each turned by an angle: the first d/4
by one coordinate of the patch, the others by the other, at frequencies 10000^(-i / (d/4)). What is
left of it in a product of a query and a key is how far apart they are.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.kernels import use_cpu_kernels

Rope = Literal["", "columns-1", "columns-0", "rows-16"]
ROPES: tuple[Rope, ...] = ("", "columns-1", "columns-0", "rows-16")
_BASE, _EVA_SIDE = 10000.0, 16.0


def angles(kind: Rope, side: int, dim: int) -> Float[Tensor, "patches half"]:
    """By how much each pair of a head of `dim` is turned, for the patches of a square grid, row by
    row.

    `columns-1` (PE-Core): by column, then by row, both counted from 1; `columns-0`: from 0.
    `rows-16` (EVA02): by row, then by column, as places on a grid of 16 x 16.
    """
    places = torch.arange(side, dtype=torch.float64, device="cpu")
    if kind == "rows-16":
        places = places * (_EVA_SIDE / side)
    elif kind == "columns-1":
        places = places + 1
    frequencies = _BASE ** -(torch.arange(dim // 4, dtype=torch.float64, device="cpu") / (dim // 4))
    turns = places[:, None] * frequencies  # (side, d/4)
    rows = turns[:, None].expand(-1, side, -1)
    columns = turns[None].expand(side, -1, -1)
    both = (rows, columns) if kind == "rows-16" else (columns, rows)
    return torch.cat(both, dim=-1).flatten(0, 1)


class Rotary(nn.Module):
    """Turns the first tokens of every row: `prefix` of them not at all, then the patches. What a
    method adds behind them has no place and is not turned."""

    table: Tensor
    """(tokens, d/2, 2): cosine and sine."""

    def __init__(self, kind: Rope, side: int, prefix: int, dim: int):
        super().__init__()
        turns = torch.cat(
            [
                torch.zeros(prefix, dim // 2, dtype=torch.float64, device="cpu"),
                angles(kind, side, dim),
            ]
        )
        # No weight: it belongs to no file, and stays in float32.
        table = torch.stack([turns.cos(), turns.sin()], dim=-1).float()
        self.register_buffer("table", table, persistent=False)

    def forward(
        self, x: Float[Tensor, "rows heads tokens dim"]
    ) -> Float[Tensor, "rows heads tokens dim"]:
        known = min(x.shape[2], len(self.table))
        table, first = self.table[:known], x[:, :, :known]
        if use_cpu_kernels(x) and x.stride(-1) == 1:
            # A pair is a complex number: one pass over memory instead of several. What must be
            # copied anyway lies then as the attention in bfloat16 wants it.
            first = first.to(torch.float32, memory_format=torch.contiguous_format)
            pairs = torch.view_as_complex(first.unflatten(-1, (-1, 2)))
            turns = torch.view_as_complex(table)
            in_place = x.dtype != torch.float32 and not torch.is_grad_enabled()
            pairs = pairs.mul_(turns) if in_place else pairs * turns
            turned = torch.view_as_real(pairs).flatten(-2)
        else:
            a, b = first.float().unflatten(-1, (-1, 2)).unbind(-1)
            cos, sin = table.unbind(-1)
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        turned = turned.to(x.dtype)
        return turned if known == x.shape[2] else torch.cat([turned, x[:, :, known:]], dim=2)
