"""Scaled dot-product attention, by the fastest way that the device has.

That is PyTorch's fused kernel, but for bfloat16 on a CPU: there the kernel is slower than its own
matrix products, so rows are taken a few at a time, scores and all, and made again in the backward
pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores of the rows that are taken together: what stays in a core's share of the cache.
_SCORES = 1 << 21


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Queries (N, h, L, d) over keys and values (N, h, M, d) -> (N, h, L, d).

    `mask`: bool, broadcast to (N, h, L, M), True = seen. `causal`: token i sees the keys up to i.
    Any strides.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    hidden = None if mask is None else ~mask
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return _InParts.apply(q, k, v, hidden)
    return _forward(q, k, v, hidden)


def _parts(q: Tensor, k: Tensor) -> list[slice]:
    rows = max(1, _SCORES // (q.shape[1] * q.shape[2] * k.shape[2]))
    return [slice(start, start + rows) for start in range(0, len(q), rows)]


def _weights(q: Tensor, k: Tensor, hidden: Tensor | None) -> Tensor:
    """Rows' soft-max weights (n * h, L, M)."""
    n, h, L, d = q.shape
    scores = torch.bmm((q * d**-0.5).reshape(n * h, L, d), _flat(k).transpose(1, 2))
    if hidden is not None:
        scores.unflatten(0, (n, h)).masked_fill_(hidden, float("-inf"))
    return scores.softmax(-1)


def _flat(x: Tensor) -> Tensor:
    """(n, h, M, d) -> (n * h, M, d), without a copy where the strides allow it."""
    return x[0] if len(x) == 1 else x.flatten(0, 1)


def _rows(hidden: Tensor | None, part: slice) -> Tensor | None:
    return hidden if hidden is None or hidden.ndim < 4 or len(hidden) == 1 else hidden[part]


def _forward(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
    N, h, L, d = q.shape
    # Tokens before heads in memory, as the output projection reads them.
    out = q.new_empty(N, L, h, d).transpose(1, 2)
    with torch.autocast("cpu", enabled=False):
        for part in _parts(q, k):
            found = torch.bmm(_weights(q[part], k[part], _rows(hidden, part)), _flat(v[part]))
            out[part] = found.unflatten(0, (-1, h))
    return out


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
        out = _forward(q, k, v, hidden)
        ctx.save_for_backward(q, k, v, out, *([] if hidden is None else [hidden]))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, *rest = ctx.saved_tensors
        hidden = rest[0] if rest else None
        h, scale = q.shape[1], q.shape[-1] ** -0.5
        dq, dk, dv = (
            x.new_empty(x.shape[0], x.shape[2], h, x.shape[3]).transpose(1, 2) for x in (q, k, v)
        )
        with torch.autocast("cpu", enabled=False):
            for part in _parts(q, k):
                g, K, Q = _flat(grad[part]), _flat(k[part]), _flat(q[part])
                P = _weights(q[part], k[part], _rows(hidden, part))
                dv[part] = torch.bmm(P.transpose(1, 2), g).unflatten(0, (-1, h))
                # d scores = P * (dP - sum of P dP over the keys), and that sum is grad . out.
                own = (grad[part] * out[part]).sum(-1, keepdim=True).flatten(0, 1)
                scores = torch.bmm(g, _flat(v[part]).transpose(1, 2)).sub_(own).mul_(P).mul_(scale)
                dq[part] = torch.bmm(scores, K).unflatten(0, (-1, h))
                dk[part] = torch.bmm(scores.transpose(1, 2), Q).unflatten(0, (-1, h))
        return dq, dk, dv, None
