"""The half of a block that treats every token by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders import kernels


class QuickGELU(nn.Module):
    def forward(self, x: Float[Tensor, ...]) -> Float[Tensor, ...]:
        return x * torch.sigmoid(kernels.QUICK * x)


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "quick_gelu": QuickGELU,
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
}


class MLP(nn.Module):
    """Two layers. `hidden`: their width in between; 0: four times the tower's."""

    def __init__(self, width: int, activation: str, hidden: int = 0):
        super().__init__()
        self.c_fc = nn.Linear(width, hidden or 4 * width)
        self.gelu = _MODULES[activation]()
        self.c_proj = nn.Linear(hidden or 4 * width, width)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        if type(self.c_fc) is type(self.c_proj) is nn.Linear and kernels.use_two_layers(
            x, self.activation
        ):
            return kernels.two_layers(x, self.c_fc, self.c_proj, self.activation)
        return self.c_proj(self.gelu(self.c_fc(x)))


class GatedMLP(nn.Module):
    """EVA02's: c_proj( LN( silu(c_gate x) * c_fc x ) )."""

    def __init__(self, width: int, hidden: int, eps: float):
        super().__init__()
        self.c_gate, self.c_fc = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.ln = nn.LayerNorm(hidden, eps)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        if kernels.use_cpu_kernels(x) and not torch.is_grad_enabled():
            # In place: memory that is new costs more here than the sums do.
            return self.c_proj(self.ln(F.silu(self.c_gate(x), inplace=True).mul_(self.c_fc(x))))
        return self.c_proj(self.ln(F.silu(self.c_gate(x)) * self.c_fc(x)))
