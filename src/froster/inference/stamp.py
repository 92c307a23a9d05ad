"""Are a network's weights still what they were? What was computed from them may be kept as long as
they are."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import ref

from torch import Tensor, nn


def tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def changes_unseen(network: nn.Module) -> bool:
    """Weights that are trained, for nothing tells when a fused optimiser has changed them; and
    those of inference mode, whose changes are not counted either."""
    return any(x.requires_grad or x.is_inference() for x in tensors(network))


class Stamp:
    """What tells the weights of now from later ones: the tensors, where they lie and how often they
    were written to.

    Writing through `weight.data` is not counted by PyTorch, and not seen.
    """

    def __init__(self, network: nn.Module):
        self.seen = [(ref(x), x.data_ptr(), x._version) for x in tensors(network)]

    def fits(self, network: nn.Module) -> bool:
        now = list(tensors(network))
        return len(now) == len(self.seen) and all(
            own() is x and place == x.data_ptr() and version == x._version
            for x, (own, place, version) in zip(now, self.seen, strict=True)
        )
