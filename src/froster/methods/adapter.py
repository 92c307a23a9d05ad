"""The bottleneck that AIM and AdaptFormer put beside CLIP's frozen layers."""

from __future__ import annotations

import math

from torch import Tensor, nn


class Adapter(nn.Module):
    """W2 act(W1 x), (…, D) -> (…, D), no skip. W2 = 0 at the start, so that nothing changes."""

    def __init__(
        self, width: int, bottleneck: int, activation: type[nn.Module], std: float | None = None
    ):
        """W1 is drawn as PyTorch does by default, or from a truncated normal distribution of
        deviation `std`."""
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.act = activation()
        self.up = nn.Linear(bottleneck, width)
        if std is None:
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        else:
            nn.init.trunc_normal_(self.down.weight, std=std)
        for parameter in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.act(self.down(x)))
