"""The image tower: frames -> frame embeddings.

Sizes in comments: B videos, T frames, L tokens a frame, D width, E joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Transformer
from froster.encoders.config import VisionConfig
from froster.errors import UsageError


def conv_stem(width: int) -> nn.Sequential:
    """Three convolutions of total stride 12. Learns nouns from far fewer images than one linear
    patch projection."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 6, stride=3, padding=2, bias=False),
        nn.GroupNorm(8, 32),
        nn.GELU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(8, 64),
        nn.GELU(),
        nn.Conv2d(64, width, 3, stride=2, padding=1, bias=False),
    )


class VisionTower(nn.Module):
    """The image encoder, applied to every frame; blocks may look at neighbouring frames."""

    def __init__(self, config: VisionConfig, embed_dim: int, activation: str):
        super().__init__()
        width, patch = config.width, config.patch_size
        self.config = config
        self.conv1 = (
            conv_stem(width)
            if config.stem
            else nn.Conv2d(3, width, patch, stride=patch, bias=False)
        )
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))
        self.temporal_embedding: nn.Parameter | None
        # (T, D), for methods that tell the frames apart: added to every token of frame t. CLIP has
        # none.
        self.register_parameter("temporal_embedding", None)

    def patches(
        self, images: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames patches dim"]:
        """The patches do not overlap: a convolution is one matrix product of them."""
        if isinstance(self.conv1, nn.Sequential):
            return self.conv1(images).flatten(2).transpose(1, 2)
        P = self.config.patch_size
        side = self.config.image_size // P
        grid = images[..., : side * P, : side * P].unflatten(3, (side, P)).unflatten(2, (side, P))
        return F.linear(
            grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), self.conv1.weight.flatten(1)
        )

    def embed(
        self, images: Float[Tensor, "frames 3 height width"], num_frames: int = 1
    ) -> Float[Tensor, "frames tokens dim"]:
        """The tokens before the first block; token 0 is the class token.

        Raises UsageError where the network has time embeddings for another number of frames.
        """
        patches = self.patches(images)
        cls = self.class_embedding.expand(len(patches), 1, -1).to(patches.dtype)
        x = torch.cat([cls, patches], dim=1) + self.positional_embedding
        if self.temporal_embedding is not None:
            known = len(self.temporal_embedding)
            if known != num_frames:
                raise UsageError(
                    f"this network was made for clips of {known} frames, not of {num_frames}"
                )
            x = (x.unflatten(0, (-1, num_frames)) + self.temporal_embedding[:, None]).flatten(0, 1)
        return self.ln_pre(x)

    def forward(
        self, frames: Float[Tensor, "batch time 3 height width"], layers: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        """Normalised frames -> frame embeddings, not unit length.

        `layers`: a list that receives every block's output, (B*T, L, D) each.
        """
        B, T = self.check(frames)
        x = self.embed(frames.flatten(0, 1), T)
        if layers is None:
            cls = self.transformer.forward_at(
                x, torch.zeros(len(x), dtype=torch.long, device=x.device), T
            )
        else:
            cls = self.transformer(x, T, layers)[:, 0]
        return (self.ln_post(cls) @ self.proj).unflatten(0, (B, T))

    def check(self, frames: Tensor) -> tuple[int, int]:
        """B and T of frames (B, T, 3, H, W). Raises ValueError on another shape."""
        size = self.config.image_size
        if frames.ndim != 5 or frames.shape[2:] != (3, size, size):
            raise ValueError(
                f"expected frames (B, T, 3, {size}, {size}), got {tuple(frames.shape)}"
            )
        return frames.shape[0], frames.shape[1]
