"""Classifiers of the classes that they were taught, on the embeddings of a network that stays as it
is: LP++ (Huang et al., CVPR 2024) and Tip-Adapter (Zhang et al., ECCV 2022). `froster teach` makes
them; `training/lp_plus.py` and `training/tip_adapter.py` compute what they hold.

    LP++          f (w_k + a_k t_k)
    Tip-Adapter   s v t_k + alpha * sum over the keys n of class k of exp(-beta (1 - f key_n))

v: the network's video embedding, f: v made unit, t_k: the class embedding of the text, s: CLIP's
scale.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.model import CLIP, unit
from froster.errors import UsageError
from froster.methods.base import Method, VideoCLIP
from froster.methods.heads import ones_at_classes
from froster.text.bank import PromptBank


class TaughtHead(nn.Module):
    """The tensors of a classifier, by name."""

    weight: nn.Parameter
    text: nn.Parameter
    keys: nn.Parameter
    values: nn.Parameter

    def __init__(self, **shapes: tuple[int, ...]):
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))


class TaughtNet(VideoCLIP):
    """A network with a classifier of known classes; a text is the place of its class among them."""

    shared_prompts = False
    compares = False

    def __init__(self, inner: VideoCLIP, classes: tuple[str, ...], **shapes: tuple[int, ...]):
        super().__init__(inner.clip, inner.pooling, inner.head)
        self.class_names = classes
        self.closed = TaughtHead(**shapes)

    def prompts(self, bank: PromptBank, rows: list[int]) -> Float[Tensor, "prompts classes known"]:
        """Ones at the places of the classes. Raises UsageError on a class that was not taught."""
        otherwise = "froster teach --method prolip makes one that takes any label"
        ones = ones_at_classes(bank, rows, self.class_names, otherwise)
        return ones.to(self.clip.logit_scale.device)

    def classes(self, prompts: Tensor) -> Tensor:
        return prompts[0]

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        return self.taught_logits(video) @ classes.T

    @abstractmethod
    def taught_logits(
        self, video: Float[Tensor, "batch embed"]
    ) -> Float[Tensor, "batch known"]: ...


class LPNet(TaughtNet):
    def __init__(self, inner: VideoCLIP, classes: tuple[str, ...]):
        super().__init__(inner, classes, weight=(len(classes), inner.clip.config.embed_dim))

    def taught_logits(self, video: Tensor) -> Tensor:
        return unit(video) @ self.closed.weight.T


class TipNet(TaughtNet):
    def __init__(
        self, inner: VideoCLIP, classes: tuple[str, ...], keys: int, alpha: float, beta: float
    ):
        embed = inner.clip.config.embed_dim
        of_classes, of_keys = (len(classes), embed), (keys, embed)
        super().__init__(inner, classes, text=of_classes, keys=of_keys, values=(keys, len(classes)))
        self.alpha, self.beta = alpha, beta

    def taught_logits(self, video: Tensor) -> Tensor:
        head = self.closed
        near = torch.exp(-self.beta * (1 - unit(video) @ head.keys.T))
        return self.clip.logit_scale.exp() * video @ head.text.T + self.alpha * near @ head.values


@dataclass(frozen=True)
class TaughtMethod(Method):
    """`network` and `options`: the method that the frames are embedded by."""

    network: str = "frozen"
    options: tuple[Any, ...] = ()
    """Pairs of name and value."""
    known: tuple[str, ...] = ()
    """The classes, in their order."""

    def __post_init__(self) -> None:
        pairs = tuple((name, as_tuple(value)) for name, value in self.options)
        object.__setattr__(self, "options", pairs)
        object.__setattr__(self, "known", tuple(self.known))

    @property
    def closed(self) -> bool:
        return True

    @property
    def inner(self) -> Method:
        from froster.methods import method_from_dict  # which knows all methods

        return method_from_dict({"name": self.network, **dict(self.options)})

    def trains(self, name: str) -> bool:
        return False

    def build(self, clip: CLIP) -> VideoCLIP:
        """Raises UsageError without classes, and where the embeddings are compared in another way
        than CLIP's."""
        if not self.known:
            raise UsageError(f"{self.name} is not trained but taught: froster teach --method")
        inner = self.inner.build(clip)
        if type(inner) is not VideoCLIP:
            raise UsageError(
                f"{self.name} classifies embeddings that CLIP's text is compared with, which"
                f" {self.network} does in a way of its own: froster teach --method prolip"
            )
        return self.build_on(inner)

    @abstractmethod
    def build_on(self, inner: VideoCLIP) -> VideoCLIP: ...


def as_tuple(value: Any) -> Any:
    """Lists, as JSON has them, as tuples."""
    return tuple(map(as_tuple, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class LPPlusPlus(TaughtMethod):
    """A linear probe whose weights blend class means and text, each class by its own factor."""

    name = "lp++"
    summary = "a linear classifier of image and text weights on frozen embeddings; closed set"
    reference = "Huang et al., LP++, CVPR 2024"

    def build_on(self, inner: VideoCLIP) -> VideoCLIP:
        return LPNet(inner, self.known)


@dataclass(frozen=True)
class TipAdapter(TaughtMethod):
    """CLIP's logits, and those of a cache of the examples, whose keys Tip-Adapter-F trains."""

    name = "tip-adapter"
    summary = "CLIP's scores beside those of a cache of the examples; closed set"
    reference = "Zhang et al., Tip-Adapter, ECCV 2022"

    keys: int = 1
    alpha: float = 1.0
    """Weight of the cache."""
    beta: float = 5.5
    """How sharply near keys are preferred."""

    def build_on(self, inner: VideoCLIP) -> VideoCLIP:
        return TipNet(inner, self.known, self.keys, self.alpha, self.beta)
