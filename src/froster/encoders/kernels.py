"""Faster ways through what a block computes, on a CPU above all; else PyTorch's own are taken.

- Attention in bfloat16: PyTorch's fused kernel is slower there than its own matrix products, but
  for the forward pass on a chip with AMX. So rows are taken a few at a time, scores and all, and
  the scores are made again in the backward pass.
- The two-layer perceptron: its activation costs one pass over memory, and training keeps half as
  much. QuickGELU is x * sigmoid(1.702 x) = silu(1.702 x) / 1.702. The two factors go into the
  matrix products, which scale for nothing, so that one fused kernel remains of three; in the
  backward pass they cancel. What the activation makes is not kept for that pass but made again.
  GELU by tanh costs PyTorch four times what SiLU does. In bfloat16 oneDNN makes it within the
  matrix product, from sums that are not yet rounded; in float32 it is x * sigmoid(2u), while a
  few rows are in the cache.
- The frames around a frame (VCLIP): overlapping views of one padded copy in place of many copies.
  Where a compiler makes kernels for a GPU, FlexAttention looks them up in the keys as they lie.
- QuickGELU's two factors in the matrix products: on a GPU too.

`ENABLED` is the one switch. Sizes in comments: N rows, h heads, L queries, M keys, d = D/h.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ENABLED = True
WINDOW_DEVICES: set[str] = set()
"""Kinds of devices for which FlexAttention has been compiled here."""
QUICK = 1.702
# Scores of the rows that are taken together: what stays in a core's share of the cache.
_SCORES = 1 << 21
# Numbers of float32 that stay in it through a few operations, by measurement.
_CACHED = 1 << 17


def use_cpu_kernels(x: Tensor) -> bool:
    """Whether the kernels of this file, and prompts without padding, are used for `x`.

    A compiler makes kernels of its own.
    """
    return ENABLED and x.device.type == "cpu" and not torch.compiler.is_compiling()


def use_two_layers(x: Tensor, activation: str) -> bool:
    """Whether `two_layers` is used for `x`: on a GPU for QuickGELU alone, of which PyTorch has no
    kernel."""
    on_gpu = x.device.type == "cuda" and activation == "quick_gelu"
    return use_cpu_kernels(x) or (ENABLED and on_gpu and not torch.compiler.is_compiling())


def use_window_kernel(x: Tensor) -> bool:
    """Whether `window_attention` is used for `x`: in what is compiled for a GPU that it compiles
    for (`try_window_kernel`). Uncompiled it holds all scores in memory."""
    compiling = torch.compiler.is_compiling() and x.device.type in WINDOW_DEVICES
    return ENABLED and compiling and x.shape[-1] >= 16  # what FlexAttention asks of heads


def dot_product_attention(
    q: Float[Tensor, "rows heads queries dim"],
    k: Float[Tensor, "rows heads keys dim"],
    v: Float[Tensor, "rows heads keys dim"],
    mask: Bool[Tensor, ...] | Float[Tensor, ...] | None = None,
    causal: bool = False,
) -> Float[Tensor, "rows heads queries dim"]:
    """Soft-max attention.

    `mask`: broadcast to (rows, heads, queries, keys), True = seen, or numbers of q's type that are
    added to the scores and get no gradient. `causal`: token i sees the keys up to i. Any strides.
    """
    if q.dtype != torch.bfloat16 or not use_cpu_kernels(q):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    hidden = ~mask if mask is not None and mask.dtype == torch.bool else mask
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return _AttentionInParts.apply(q, k, v, hidden)
    return _attention_in_parts(q, k, v, hidden)


def _parts(q: Tensor, k: Tensor) -> list[slice]:
    rows = max(1, _SCORES // (q.shape[1] * q.shape[2] * k.shape[2]))
    return [slice(start, start + rows) for start in range(0, len(q), rows)]


def _weights(q: Tensor, k: Tensor, hidden: Tensor | None) -> Tensor:
    """Rows' soft-max weights (n * h, L, M). `hidden`: True = not seen, or what is added."""
    n, h, L, d = q.shape
    scores = torch.bmm((q * d**-0.5).reshape(n * h, L, d), _flat(k).transpose(1, 2))
    if hidden is not None and hidden.dtype == torch.bool:
        scores.unflatten(0, (n, h)).masked_fill_(hidden, float("-inf"))
    elif hidden is not None:
        scores.unflatten(0, (n, h)).add_(hidden)
    return scores.softmax(-1)


def _flat(x: Tensor) -> Tensor:
    """(n, h, M, d) -> (n * h, M, d), without a copy where the strides allow it."""
    return x[0] if len(x) == 1 else x.flatten(0, 1)


def _rows(hidden: Tensor | None, part: slice) -> Tensor | None:
    return hidden if hidden is None or hidden.ndim < 4 or len(hidden) == 1 else hidden[part]


def _attention_in_parts(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
    if _has_amx():
        mask = ~hidden if hidden is not None and hidden.dtype == torch.bool else hidden
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    N, h, L, d = q.shape
    # Tokens before heads in memory, as the output projection reads them.
    out = q.new_empty(N, L, h, d).transpose(1, 2)
    with torch.autocast("cpu", enabled=False):
        for part in _parts(q, k):
            weights = _weights(q[part], k[part], _rows(hidden, part))
            out[part] = torch.bmm(weights, _flat(v[part])).unflatten(0, (-1, h))
    return out


@cache
def _has_amx() -> bool:
    return torch.cpu._is_amx_tile_supported()


class _AttentionInParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
        out = _attention_in_parts(q, k, v, hidden)
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
                dot = (grad[part] * out[part]).sum(-1, keepdim=True).flatten(0, 1)
                scores = torch.bmm(g, _flat(v[part]).transpose(1, 2)).sub_(dot).mul_(P).mul_(scale)
                dq[part] = torch.bmm(scores, K).unflatten(0, (-1, h))
                dk[part] = torch.bmm(scores.transpose(1, 2), Q).unflatten(0, (-1, h))
        return dq, dk, dv, None


class Activation(NamedTuple):
    """f(x) = function(scale * x) / scale"""

    scale: float
    function: Callable[[Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    """(gradient of the output, input) -> gradient of the input"""
    is_costly: bool = False
    """Whether a pass of PyTorch's over memory is the smaller part of its cost."""


_aten = torch.ops.aten
# GELU by tanh is x * sigmoid(2u), 2u = x (TWO_U + CUBIC x^2).
_TWO_U = math.sqrt(8 / math.pi)
_CUBIC = 0.044715 * _TWO_U


def _gelu_tanh_(x: Tensor) -> Tensor:
    """GELU by tanh, in place."""
    if x.dtype != torch.float32:
        return _aten.gelu_(x, approximate="tanh")
    return x.mul_(torch.addcmul(x.new_tensor(_TWO_U), x, x, value=_CUBIC).mul_(x).sigmoid_())


ACTIVATIONS = {
    "quick_gelu": Activation(QUICK, F.silu, _aten.silu_, _aten.silu_backward),
    "gelu": Activation(1.0, F.gelu, _aten.gelu_, _aten.gelu_backward),
    "gelu_tanh": Activation(
        1.0,
        partial(F.gelu, approximate="tanh"),
        _gelu_tanh_,
        partial(_aten.gelu_backward, approximate="tanh"),
        is_costly=True,
    ),
}


@cache
def _fuses() -> bool:
    """Whether this PyTorch was built with oneDNN, and it computes in bfloat16 here."""
    mkldnn = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(mkldnn, "_linear_pointwise")
        and mkldnn._is_mkldnn_bf16_supported()
    )


def two_layers(
    x: Float[Tensor, "*tokens width"], first: nn.Linear, second: nn.Linear, activation: str
) -> Float[Tensor, "*tokens width"]:
    """second(f(first(x))), in autocast's type where autocast is on."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    w1, b1, w2, b2 = (w.to(dtype) for w in (first.weight, first.bias, second.weight, second.bias))
    rows, f = x.flatten(0, -2).to(dtype), ACTIVATIONS[activation]
    with torch.autocast(device, enabled=False):
        y = (
            _TwoLayers.apply(rows, w1, b1, w2, b2, f)
            if torch.is_grad_enabled()
            else _output(_active(rows, w1, b1, f), w2, b2, f)
        )
    return y.view(x.shape)


def _hidden(x: Tensor, w1: Tensor, b1: Tensor, f: Activation) -> Tensor:
    # The bias is scaled by itself: cuBLAS adds one within the product only as it is.
    return torch.addmm(b1 * f.scale, x, w1.T, alpha=f.scale)


def _active(x: Tensor, w1: Tensor, b1: Tensor, f: Activation) -> Tensor:
    """What the activation makes of `_hidden`, where no gradient is asked for."""
    if f.is_costly and x.dtype == torch.bfloat16 and _fuses():
        return torch.ops.mkldnn._linear_pointwise(x, w1, b1, "gelu", [], "tanh")
    if not (f.is_costly and x.dtype == torch.float32):
        return f.in_place(_hidden(x, w1, b1, f))
    y = x @ w1.T
    for rows in y.split(max(1, _CACHED // len(b1))):
        f.in_place(rows.add_(b1))
    return y


def _output(active: Tensor, w2: Tensor, b2: Tensor, f: Activation) -> Tensor:
    return torch.addmm(b2, active, w2.T, alpha=1 / f.scale)


class _TwoLayers(torch.autograd.Function):
    """W2 f(W1 x + b1) + b2 for x (N, D)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, f: Activation
    ) -> Tensor:
        ctx.activation = f
        hidden = _hidden(x, w1, b1, f)
        ctx.save_for_backward(x, w1, w2, hidden)
        return _output(f.function(hidden), w2, b2, f)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, w2, hidden = ctx.saved_tensors
        f = ctx.activation
        need_x, need_w1, need_b1, need_w2, need_b2, _ = ctx.needs_input_grad
        dw2 = (grad.T @ f.function(hidden)).div_(f.scale) if need_w2 else None
        du = f.backward(grad @ w2, hidden)
        dw1 = du.T @ x if need_w1 else None
        db1, db2 = (du.sum(0) if need_b1 else None), (grad.sum(0) if need_b2 else None)
        return (du @ w1 if need_x else None), dw1, db1, dw2, db2, None


def try_window_kernel(device: torch.device) -> bool:
    """Compiles `window_attention` for a GPU, forward and backward, on next to nothing; where that
    fails, towers that are compiled keep their copies of neighbours."""
    if device.type == "cuda" and not WINDOW_DEVICES:
        x = torch.ones(2, 1, 16, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
        try:
            torch.compile(window_attention)(x, x, x, 2, 1, True).sum().backward()
            WINDOW_DEVICES.add(device.type)
        except Exception:  # of whatever part of the compiler
            return False
    return device.type in WINDOW_DEVICES


def window_attention(
    q: Float[Tensor, "frames heads tokens dim"],
    k: Float[Tensor, "frames heads tokens dim"],
    v: Float[Tensor, "frames heads tokens dim"],
    num_frames: int,
    radius: int,
    zeros: bool,
) -> Float[Tensor, "frames heads tokens dim"]:
    """Attention of each frame over itself, the `radius` frames before it and those behind it, in
    the keys of its clip as they lie: those of other frames are left out by blocks.

    `zeros`: keys and values of zero stand for the frames that are missing at a clip's ends. They
    have logits of 0 and add nothing but their number to the sum of the exponentials.
    """
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

    T, L = num_frames, k.shape[2]
    q, k, v = (x.transpose(1, 2).unflatten(0, (-1, T)).flatten(1, 2) for x in (q, k, v))

    def seen(clip: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query // L - key // L).abs() <= radius

    mask = create_block_mask(seen, None, None, T * L, T * L, device=q.device)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (clips, heads, tokens of all frames, dim)
    out, sums = flex_attention(q, k, v, block_mask=mask, return_aux=AuxRequest(lse=True))
    if zeros:
        t = torch.arange(T, device=q.device)
        missing = (radius - t).clamp(min=0) + (t + radius + 1 - T).clamp(min=0)
        assert sums.lse is not None
        share = (sums.lse - (missing * L).log().repeat_interleave(L)).sigmoid()
        out = (out * share[..., None]).to(q.dtype)
    return out.transpose(1, 2).unflatten(1, (T, L)).flatten(0, 1).transpose(1, 2)


class NeighbourFrames(torch.autograd.Function):
    """Each frame of one clip with the r before and the r behind it, (T, h, L, d) -> (T, h, (2r+1)L,
    d), zeros beyond the ends: overlapping views of one copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, radius: int) -> Tensor:
        T, h, L, d = x.shape
        padded = x.new_empty(T + 2 * radius, L, h, d)
        padded[:radius], padded[radius + T :] = 0, 0
        padded[radius : radius + T] = x.transpose(1, 2)
        ctx.radius = radius
        return padded.as_strided((T, h, (2 * radius + 1) * L, d), (L * h * d, d, h * d, 1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        r, T = ctx.radius, len(grad)
        parts = grad.unflatten(2, (2 * r + 1, -1))  # part i of window t is frame t + i - r
        total = parts[:, :, r].contiguous()
        for shift in [s for s in range(-r, r + 1) if s and abs(s) < T]:
            frames = slice(max(0, shift), T + min(0, shift))
            windows = slice(max(0, -shift), T + min(0, -shift))
            total[frames] += parts[windows, :, r + shift]
        return total, None
