"""What was computed from a network's weights, kept as long as the weights stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from weakref import ref

from torch import Tensor, nn

from froster.methods import VideoCLIP


class WeightCache:
    """Class embeddings and the network with cast weights, of one network and its settings. A copy
    of it, and what comes out of a pickle, is empty."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.cast: VideoCLIP | None = None
        self._classes: dict[tuple[object, ...], tuple[Tensor, int]] = {}
        self._stamp: WeightStamp | None = None
        self._settings: tuple[object, ...] = ()

    def __reduce__(self) -> tuple[type[WeightCache], tuple[()]]:
        return WeightCache, ()

    def holds(self, network: nn.Module, settings: tuple[object, ...]) -> bool:
        """May results be kept? Those of other weights or settings are dropped."""
        if changes_unseen(network):
            self.clear()
            return False
        if self._stamp is None or self._settings != settings or not self._stamp.fits(network):
            self.clear()
            self._stamp, self._settings = WeightStamp(network), settings
        return True

    def classes(self, key: tuple[object, ...], compute: Callable[[], Tensor], keep: int) -> Tensor:
        """The class embeddings of `key`, computed where they are not kept; the last `keep` are."""
        embeddings, version = self._classes.pop(key, (None, 0))
        if embeddings is None or embeddings._version != version:  # a caller has written to it
            embeddings = compute()
        if keep and not embeddings.is_inference():
            self._classes[key] = embeddings, embeddings._version
        while len(self._classes) > keep:
            del self._classes[next(iter(self._classes))]
        return embeddings


class WeightStamp:
    """What tells weights from later ones: the tensors, their memory, and how often PyTorch counted
    a write to them. A write through `weight.data` is not counted, so it is not noticed."""

    def __init__(self, network: nn.Module):
        self._earlier = [(ref(x), x.data_ptr(), x._version) for x in _tensors(network)]

    def fits(self, network: nn.Module) -> bool:
        now = list(_tensors(network))
        return len(now) == len(self._earlier) and all(
            earlier() is x and address == x.data_ptr() and version == x._version
            for x, (earlier, address, version) in zip(now, self._earlier, strict=True)
        )


def changes_unseen(network: nn.Module) -> bool:
    """Can weights change without a trace? Those that are trained can, by a fused optimiser, and so
    can those of inference mode, whose writes PyTorch does not count."""
    return any(x.requires_grad or x.is_inference() for x in _tensors(network))


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
