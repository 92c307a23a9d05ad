"""TACO's specialisation projection: a linear residual on the video's features that only training
sees, so that what must differ for the base classes does not have to go into CLIP's weights.

    v = u(m + B(A m))            A: E -> 2E, B: 2E -> E, with biases and nothing between them; B = 0

m: the mean of the raw frame embeddings. The text has none; at the test it is dropped.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from froster.encoders.model import unit
from froster.methods.base import Features, VideoCLIP


class Specialisation(nn.Module):
    """(…, E) -> (…, E); the identity at the start."""

    def __init__(self, width: int):
        super().__init__()
        self.linear_a = nn.Linear(width, 2 * width)
        self.linear_b = nn.Linear(2 * width, width)
        nn.init.zeros_(self.linear_b.weight)
        nn.init.zeros_(self.linear_b.bias)

    def forward(self, m: Tensor) -> Tensor:
        return m + self.linear_b(self.linear_a(m))

    def features(self, student: VideoCLIP, features: Features) -> Features:
        """A clip's features, projected. What pools frames by a mean pools the projected ones, which
        for `mean_then_unit` is the formula above; of a temporal head the result is projected."""
        if student.head is None:
            return student.pool_frames(self(features.frames), features.context)
        pooled = self(features.pooled)
        return dataclasses.replace(features, pooled=pooled, video=unit(pooled))
