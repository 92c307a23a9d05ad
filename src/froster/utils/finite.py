"""Where numbers leave a network: none of them may be NaN or infinite, for no label is given where
there is no score."""

from __future__ import annotations

from torch import Tensor

from froster.errors import CheckpointError


def finite(numbers: Tensor, what: str) -> Tensor:
    """The same numbers. Raises CheckpointError where one of them is none."""
    if not bool(numbers.isfinite().all()):
        raise CheckpointError(
            f"the network's {what} are not finite numbers (NaN or infinite): its weights are"
            " damaged, or too large to compute with; load another copy or checkpoint"
        )
    return numbers
