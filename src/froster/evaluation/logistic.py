"""Logistic regression, small and exact."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor


def logistic(x: Float64[Tensor, "n d"], y: Float64[Tensor, " n"], steps: int = 50) -> list[float]:
    """Logistic regression of y on x by Newton's method: the constant, then d coefficients."""
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-12)
    z = torch.cat([torch.ones_like(x[:, :1]), (x - mean) / spread], dim=1)
    w = torch.zeros(z.shape[1], dtype=x.dtype)
    # The ridge keeps a few videos that can be told apart from certainty.
    ridge = 1e-3 * len(x) * torch.eye(len(w), dtype=x.dtype)
    ridge[0, 0] = 0.0
    for _ in range(steps):
        p = (z @ w).sigmoid()
        curvature = z.T @ (z * (p * (1 - p))[:, None]) + ridge
        change = torch.linalg.solve(curvature, z.T @ (y - p) - ridge @ w)
        w = w + change
        if float(change.abs().max()) < 1e-9:
            break
    slopes = w[1:] / spread
    return [float(w[0] - (slopes * mean).sum()), *slopes.tolist()]
