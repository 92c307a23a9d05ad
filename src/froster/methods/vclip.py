"""VCLIP, the video network of Open-VCLIP and FROSTER: every frame attends to its neighbours, with
CLIP's own weights.

In every block the queries of frame t see the keys and values of frames t-r … t+r (r = 1: three
frames, `3L` keys). No parameter is added. The released code puts *zero* keys and values, unmasked,
where a clip has no neighbour: logit 0, so they take softmax weight and shrink the output at the
ends of a clip. Weights trained that way need it (`pad="zero"`); `pad="mask"` leaves the missing
neighbours out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from froster.encoders import kernels
from froster.encoders.block import Block
from froster.encoders.config import CLIPConfig
from froster.encoders.model import CLIP
from froster.errors import UsageError, one_of
from froster.methods.base import Method, Pooling, VideoCLIP, replace_blocks
from froster.methods.recipe import FROSTER, Preset

Pad = Literal["", "zero", "mask"]
WIDEST = 64
"""Neighbours on each side. Keys are made for all of them, in the clip or beyond its ends."""
SMALL_CLIP = 1 << 18
"""Numbers in the keys of a clip below which copies cost less than many calls: B/16 has five times
as many, the nano a tenth."""


def neighbours(
    x: Float[Tensor, "frames heads tokens dim"], num_frames: int, radius: int
) -> Float[Tensor, "frames heads keys dim"]:
    """(2r + 1) tokens for each token: the frames t-r to t+r one after the other; zeros
    beyond the clip's ends."""
    x = x.transpose(1, 2).unflatten(0, (-1, num_frames))  # (B, T, L, h, d), as it lies in memory
    padded = F.pad(x, (0, 0, 0, 0, 0, 0, radius, radius))  # (B, T+2r, L, h, d)
    frames = torch.cat([padded[:, s : s + num_frames] for s in range(2 * radius + 1)], dim=2)
    return frames.flatten(0, 1).transpose(1, 2)


class VCLIPBlock(Block):
    """A CLIP block whose keys and values come from the neighbouring frames too."""

    def __init__(self, block: Block, radius: int, pad: Pad):
        self.init_from(block)
        self.radius, self.pad = radius, pad

    @property
    def merges_tokens(self) -> bool:
        return True  # the neighbours' keys are gathered

    def keys_values(
        self,
        k: Float[Tensor, "frames heads tokens dim"],
        v: Float[Tensor, "frames heads tokens dim"],
        num_frames: int,
    ) -> tuple[
        Float[Tensor, "frames heads keys dim"],
        Float[Tensor, "frames heads keys dim"],
        Bool[Tensor, ...] | None,
    ]:
        mask = None
        if self.pad == "mask":
            ones = torch.ones_like(k[:, :1, :, :1])
            mask = neighbours(ones, num_frames, self.radius).transpose(-1, -2).bool()
        return neighbours(k, num_frames, self.radius), neighbours(v, num_frames, self.radius), mask

    def attention(
        self,
        q: Float[Tensor, "frames heads queries dim"],
        k: Float[Tensor, "frames heads tokens dim"],
        v: Float[Tensor, "frames heads tokens dim"],
        num_frames: int,
    ) -> Float[Tensor, "frames heads queries dim"]:
        if kernels.use_window_kernel(q) and q.shape[2] == k.shape[2]:
            return kernels.window_attention(
                q, k, v, num_frames, self.radius, zeros=self.pad == "zero"
            )
        small = k[0].numel() * num_frames < SMALL_CLIP
        if small or self.pad == "mask" or not kernels.use_cpu_kernels(q):
            return super().attention(q, k, v, num_frames)
        # Clip by clip: windows over several clips are no views of one copy.
        clips = zip(*(x.split(num_frames) for x in (q, k, v)), strict=True)
        windows = kernels.NeighbourFrames.apply
        heads = [
            kernels.dot_product_attention(q, windows(k, self.radius), windows(v, self.radius))
            for q, k, v in clips
        ]
        # Joined with tokens before heads, as they lie in memory and as the output projection reads
        # them.
        return torch.cat([x.transpose(1, 2) for x in heads]).transpose(1, 2)


@dataclass(frozen=True)
class VCLIP(Method):
    """Neighbour-frame attention in every block of the image tower; both towers are trained, as in
    FROSTER."""

    name = "vclip"
    summary = "every frame attends to its neighbours, in all layers; no new weights"
    reference = "Weng et al., Open-VCLIP, ICML 2023; Huang et al., FROSTER, ICLR 2024"
    variants = {
        "step1": {"radius": 1},
        "step2": {"radius": 2},
        "step3": {"radius": 3},
        "mask": {"pad": "mask"},
    }

    radius: int = 1
    """Neighbours seen on each side (the released code's step 1, 2, 3)."""
    pad: Pad = ""
    """Empty: "zero" where frames are embedded by a class token of plain positions, as in all
    released weights of this network, else "mask"."""
    pooling: Pooling = "frame_unit"

    def __post_init__(self) -> None:
        if self.pad:
            one_of("pad", self.pad, "zero", "mask")
        one_of("pooling", self.pooling, "frame_unit", "mean_then_unit")
        if not isinstance(self.radius, int) or not 1 <= self.radius <= WIDEST:
            raise UsageError(f"radius must be 1 to {WIDEST}, not {self.radius!r:.100}")

    def for_encoder(self, config: CLIPConfig) -> VCLIP:
        vision = config.vision
        as_released = vision.pool == "class" and not vision.rope
        return replace(self, pad=self.pad or ("zero" if as_released else "mask"))

    def build(self, clip: CLIP) -> VideoCLIP:
        pad = self.for_encoder(clip.config).pad
        replace_blocks(clip, lambda block: VCLIPBlock(block, self.radius, pad))
        return VideoCLIP(clip, self.pooling)

    def preset(self) -> Preset:
        return FROSTER
