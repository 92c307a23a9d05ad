"""The block's two-layer perceptron. On a CPU its activation costs one pass over memory, and
training keeps half as much.

QuickGELU is x * sigmoid(1.702 x) = silu(1.702 x) / 1.702. The two factors go into the matrix
products, which scale for nothing, so that one fused kernel remains of three; in the backward pass
they cancel. What the activation makes is not kept for that pass but made again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

QUICK = 1.702


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(QUICK * x)


class Activation(NamedTuple):
    """f(x) = function(scale * x) / scale"""

    scale: float
    function: Callable[[Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    """(gradient of the output, input) -> gradient of the input"""


_aten = torch.ops.aten
ACTIVATIONS = {
    "quick_gelu": Activation(QUICK, F.silu, _aten.silu_, _aten.silu_backward),
    "gelu": Activation(1.0, F.gelu, _aten.gelu_, _aten.gelu_backward),
}


class MLP(nn.Module):
    def __init__(self, width: int, activation: str):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU() if activation == "quick_gelu" else nn.GELU()
        self.c_proj = nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        plain = type(self.c_fc) is type(self.c_proj) is nn.Linear
        if (
            not plain or x.device.type != "cpu" or torch.compiler.is_compiling()
        ):  # there the scaled products are no gain
            return self.c_proj(self.gelu(self.c_fc(x)))
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        w1, b1, w2, b2 = (
            w.to(dtype)
            for w in (self.c_fc.weight, self.c_fc.bias, self.c_proj.weight, self.c_proj.bias)
        )
        rows, activation = x.flatten(0, -2).to(dtype), ACTIVATIONS[self.activation]
        with torch.autocast("cpu", enabled=False):
            if torch.is_grad_enabled():
                y = _TwoLayers.apply(rows, w1, b1, w2, b2, activation)
            else:
                hidden = activation.in_place(_hidden(rows, w1, b1, activation))
                y = _output(hidden, w2, b2, activation)
        return y.view(x.shape)


def _hidden(x: Tensor, w1: Tensor, b1: Tensor, activation: Activation) -> Tensor:
    return torch.addmm(b1, x, w1.T, beta=activation.scale, alpha=activation.scale)


def _output(active: Tensor, w2: Tensor, b2: Tensor, activation: Activation) -> Tensor:
    return torch.addmm(b2, active, w2.T, alpha=1 / activation.scale)


class _TwoLayers(torch.autograd.Function):
    """W2 f(W1 x + b1) + b2 for x (N, D)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, activation: Activation
    ) -> Tensor:
        ctx.activation = activation
        hidden = _hidden(x, w1, b1, activation)
        ctx.save_for_backward(x, w1, w2, hidden)
        return _output(activation.function(hidden), w2, b2, activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, w2, hidden = ctx.saved_tensors
        activation = ctx.activation
        need_x, need_w1, need_b1, need_w2, need_b2, _ = ctx.needs_input_grad
        dw2 = (grad.T @ activation.function(hidden)).div_(activation.scale) if need_w2 else None
        du = activation.backward(grad @ w2, hidden)
        dw1 = du.T @ x if need_w1 else None
        db1, db2 = (du.sum(0) if need_b1 else None), (grad.sum(0) if need_b2 else None)
        return (du @ w1 if need_x else None), dw1, db1, dw2, db2, None
