"""What every method builds: a CLIP that reads videos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from froster.encoders.block import Block, Transformer
from froster.encoders.model import CLIP, CLIPConfig, VisionTower, blank, unit
from froster.errors import UsageError, one_of
from froster.text.bank import PromptBank

Pooling = Literal["frame_unit", "mean_then_unit"]


def pool(frame_embeddings: Tensor, pooling: Pooling) -> Tensor:
    """Frame embeddings (B, T, E) -> video embeddings (B, E).

    `frame_unit` (FROSTER, Open-VCLIP): mean of the unit frame embeddings, not made unit again, so
    that the logits are the mean of the frames' logits. `mean_then_unit` (ViFi-CLIP and most
    others): the mean of the raw ones, made unit.
    """
    if pooling == "frame_unit":
        return unit(frame_embeddings).mean(dim=1)
    return unit(frame_embeddings.mean(dim=1))


def class_embeddings(prompts: Tensor) -> Tensor:
    """Raw prompt embeddings (P, K, E) -> unit class embeddings (K, E): u(mean over prompts of
    u(prompt))."""
    return unit(unit(prompts).mean(dim=0))


@dataclass
class Features:
    """What a network makes of B clips."""

    frames: Tensor
    """(B, T, E), raw: after the projection, before any temporal pooling. Distillation at frame
    level holds these."""
    pooled: Tensor
    """(B, E), raw: the mean of the frames, or what the temporal head makes of them."""
    video: Tensor
    """(B, E), as it is multiplied with the classes."""
    context: Tensor | None = None
    """What the text side wants to know of the clip (X-CLIP: (B, N, E), its patches), or None."""


class VideoCLIP(nn.Module):
    """A CLIP, whose blocks a method may have changed, with a temporal pooling. This is what is
    trained and saved.

    The way of the data is `encode_frames` -> `pool_frames` -> `logits`, and `encode_text` ->
    `classes` -> `logits`; a method overrides the step that it changes. New weights beside the CLIP
    are modules of the subclass: what stands on top of the frames in `head`, learned prompts in
    `text_prompt`.
    """

    reserved_tokens = 0
    """Places of the text context that `encode_text` fills itself."""
    shared_prompts = True
    """Learned prompts serve every class; such prompts can be distilled."""

    def __init__(self, clip: CLIP, pooling: Pooling = "frame_unit", head: nn.Module | None = None):
        super().__init__()
        one_of("pooling", pooling, "frame_unit", "mean_then_unit")
        self.clip = clip
        self.pooling: Pooling = pooling
        self.head = head

    @property
    def logit_scale(self) -> float | None:
        """What cosines are multiplied with to give logits; None where logits are no cosines, or
        that is not known.

        A method that overrides `logits` says here what it is.
        """
        return (
            float(self.clip.logit_scale.detach().exp())
            if type(self).logits is VideoCLIP.logits
            else None
        )

    @property
    def frames_apart(self) -> bool:
        """Is a frame embedded without a look at the others? Then one that several clips share is
        embedded once.

        Known only of networks whose towers and blocks are CLIP's own, whatever follows the frame
        embeddings; of others it is not assumed.
        """
        visual, own = self.clip.visual, type(self)
        return (
            own.encode is VideoCLIP.encode
            and own.encode_frames is VideoCLIP.encode_frames
            and (type(visual), type(visual.transformer)) == (VisionTower, Transformer)
            and visual.temporal_embedding is None
            and all(type(block) is Block for block in visual.transformer.resblocks)
        )

    def encode(self, frames: Tensor) -> Features:
        """frames (B, T, 3, H, W), normalised -> everything that scoring and distillation need, in
        float32."""
        return self.pool_frames(self.encode_frames(frames).float())

    def encode_frames(self, frames: Tensor) -> Tensor:
        """frames (B, T, 3, H, W), normalised -> frame embeddings (B, T, E), not unit length."""
        return self.clip.encode_image(frames)

    def pool_frames(self, z: Tensor, context: Tensor | None = None) -> Features:
        """Frame embeddings (B, T, E) -> the clip's features."""
        if self.head is None:
            return Features(z, z.mean(dim=1), pool(z, self.pooling), context)
        pooled = self.head(z).float()
        return Features(z, pooled, unit(pooled), context)

    def encode_video(self, frames: Tensor) -> Tensor:
        """frames (B, T, 3, H, W), normalised -> video embeddings (B, E)."""
        return self.encode(frames).video

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids (K, L) -> (K, E), not unit length."""
        return self.clip.encode_text(tokens)

    def prompts(self, bank: PromptBank, rows: list[int]) -> Tensor:
        """The raw embeddings of the given rows of prompts of every class, (len(rows), K, E)."""
        return bank.embed(self.encode_text, rows)

    def classes(self, prompts: Tensor) -> Tensor:
        """Raw prompt embeddings (P, K, E) -> what `logits` compares videos with."""
        return class_embeddings(prompts)

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        """Video embeddings (B, E), the result of `classes` and the clip's context -> (B, K)."""
        return self.clip.logit_scale.exp() * video @ classes.T

    def forward(self, frames: Tensor, classes: Tensor) -> Tensor:
        """frames (B, T, 3, H, W), normalised, and the result of `classes` -> logits (B, K)."""
        features = self.encode(frames)
        return self.logits(features.video, classes, features.context)

    def merged(self) -> CLIP | None:
        """A plain CLIP that computes the same frame by frame, where there is one (LoRA)."""
        return None


def check_reserved(count: int, context: int) -> int:
    """Learned tokens, of which a name must still fit beside. Raises UsageError."""
    if not 0 <= count <= context - 3:
        raise UsageError(
            f"{count} learned tokens do not fit a context of {context} with start, name and end"
        )
    return count


def replace_blocks(clip: CLIP, make: Callable[[Block], Block]) -> None:
    """Put `make(block)` in the place of every block of the image tower."""
    blocks = clip.visual.transformer.resblocks
    for i, block in enumerate(blocks):
        assert isinstance(block, Block)
        blocks[i] = make(block)


def saved_names(model: nn.Module) -> dict[str, str]:
    """Name of a weight in a saved model -> its name in the `VideoCLIP`. A plain network is saved
    under CLIP's names."""
    return {name.removeprefix("clip."): name for name in model.state_dict()}


_OF_THE_MOMENT = ("training", "checkpointing")


def structure(network: nn.Module) -> dict[str, tuple[object, ...]]:
    """Every module of a network by its name: its class, its plain settings, the shapes of its own
    weights."""
    found: dict[str, tuple[object, ...]] = {}
    for name, module in network.named_modules():
        settings = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, (bool, int, float, str, tuple)) and key not in _OF_THE_MOMENT
        }
        shapes = {
            key: tuple(weight.shape) for key, weight in module.named_parameters(recurse=False)
        }
        found[name] = type(module).__qualname__, settings, shapes
    return found


def first_difference(one: nn.Module, other: nn.Module) -> str:
    """The first module in which two networks differ beside the values of their weights, in words,
    or ""."""
    mine, theirs = structure(one), structure(other)
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            kinds = [
                str(found[name][0]) if name in found else "nothing" for found in (mine, theirs)
            ]
            return f"{name or 'the whole'} is {kinds[0]} where it should be {kinds[1]}" + (
                " with other settings or sizes" if kinds[0] == kinds[1] else ""
            )
    return ""


def plain_clip(model: VideoCLIP) -> CLIP:
    """A CLIP with blocks of its own and a copy of the network's weights, of which it has no more
    than a CLIP."""
    with blank():
        clip = CLIP(model.clip.config)
    clip.load_state_dict(
        {name: weight.clone() for name, weight in model.clip.state_dict().items()}, assign=True
    )
    return clip.eval()


def start_of(clip: CLIP) -> dict[str, Tensor]:
    """CLIP's weights under the names they have in a `VideoCLIP`, as constants."""
    return {f"clip.{name}": parameter.detach() for name, parameter in clip.named_parameters()}


def new_weights(model: VideoCLIP) -> set[str]:
    """Names of the weights that a plain CLIP does not have."""
    return set(model.state_dict()) - clip_names(model.clip.config)


@cache
def clip_names(config: CLIPConfig) -> frozenset[str]:
    with blank():
        return frozenset(f"clip.{name}" for name in CLIP(config).state_dict())


def over_time(x: Tensor, num_frames: int) -> Tensor:
    """(B*T, L, D) -> (B*L, T, D): rows of the same token at all times."""
    return x.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(0, 1)


def over_space(x: Tensor, num_tokens: int) -> Tensor:
    """The inverse of `over_time`: (B*L, T, D) -> (B*T, L, D)."""
    return x.unflatten(0, (-1, num_tokens)).transpose(1, 2).flatten(0, 1)


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth: a row's whole branch is dropped with probability `rate`, the rest is scaled
    up."""
    if not training or rate == 0.0:
        return x
    keep = 1 - rate
    mask = torch.empty(len(x), *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype).bernoulli_(keep)
    return x * mask / keep
