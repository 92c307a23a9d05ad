"""The ways to the same numbers that `python -m benchmarks.gpu` compares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from froster.encoders import kernels


@dataclass(frozen=True)
class Way:
    name: str
    compiled: bool = False
    kernels: bool = True
    """Those of `encoders/kernels.py`."""
    looked_up: bool = True
    """Neighbour frames by FlexAttention where it compiles, not as copies."""

    @contextmanager
    def taken(self, device: torch.device) -> Iterator[None]:
        """Within, what is computed goes this way. What was compiled before is forgotten: of one
        function PyTorch compiles a few forms only."""
        torch._dynamo.reset()
        kernels.ENABLED = self.kernels
        kernels.WINDOW_DEVICES.clear()
        if self.compiled and self.looked_up:
            kernels.try_window_kernel(device)
        try:
            yield
        finally:
            kernels.ENABLED = True


PLAIN = Way("eager, no kernels of ours", kernels=False)
EAGER = Way("eager")
COPIES = Way("compiled with copies", compiled=True, looked_up=False)
COMPILED = Way("compiled", compiled=True)
