"""The image tower: frames -> frame embeddings.

Sizes in comments: B videos, T frames, L tokens a frame, D width, E joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders import merging
from froster.encoders.attention_pool import AttentionPool
from froster.encoders.block import Transformer
from froster.encoders.config import VisionConfig
from froster.encoders.rope import Rotary
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


def mobileclip_stem(width: int) -> nn.Sequential:
    """MobileCLIP-B's: three convolutions of total stride 16, whose batch norms are folded into
    them."""
    return nn.Sequential(
        nn.Conv2d(3, width // 4, 4, stride=4),
        nn.GELU(),
        nn.Conv2d(width // 4, width // 4, 2, stride=2),
        nn.GELU(),
        nn.Conv2d(width // 4, width, 2, stride=2),
    )


class VisionTower(nn.Module):
    """The image encoder, applied to every frame; blocks may look at neighbouring frames.

    What `config` says it lacks is None: the class token, `ln_pre`, `attn_pool`, `proj`, its bias.
    """

    class_embedding: nn.Parameter | None
    proj: nn.Parameter | None
    proj_bias: nn.Parameter | None
    temporal_embedding: nn.Parameter | None
    merge_tokens = 0
    """Tokens of a frame that every block merges, in a network that computes frame embeddings alone
    (`merging`)."""

    def __init__(self, config: VisionConfig, embed_dim: int, activation: str):
        super().__init__()
        width, patch, eps = config.width, config.patch_size, config.eps
        activation = config.activation or activation
        self.config = config
        self.conv1: nn.Module
        if config.stem:
            self.conv1 = conv_stem(width) if config.stem is True else mobileclip_stem(width)
        else:
            self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=config.patch_bias)
        token = nn.Parameter(torch.empty(width)) if config.class_token else None
        self.register_parameter("class_embedding", token)
        self.positional_embedding = nn.Parameter(torch.empty(config.tokens, width))
        self.ln_pre = nn.LayerNorm(width, eps) if config.pre_norm else None
        rotary = None
        if config.rope:
            rotary = Rotary(config.rope, config.side, config.prefix, width // config.heads)
        self.transformer = Transformer(
            width,
            config.layers,
            config.heads,
            activation,
            eps=eps,
            mlp_width=config.mlp_width,
            rotary=rotary,
            gated=config.gated,
        )
        self.ln_post = nn.LayerNorm(width, eps)
        self.attn_pool = None
        if config.pool == "map":
            heads = config.pool_heads or config.heads
            self.attn_pool = AttentionPool(width, heads, activation, config.mlp_width, eps)
        has_proj, has_bias = config.projection != "none", config.projection == "affine"
        proj = nn.Parameter(torch.empty(width, embed_dim)) if has_proj else None
        self.register_parameter("proj", proj)
        self.register_parameter(
            "proj_bias", nn.Parameter(torch.zeros(embed_dim)) if has_bias else None
        )
        # (T, D), for methods that tell the frames apart: added to every token of frame t. CLIP has
        # none.
        self.register_parameter("temporal_embedding", None)

    def patches(
        self, images: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames patches dim"]:
        """The patches do not overlap: a convolution is one matrix product of them."""
        P, side = self.config.patch_size, self.config.side
        images = images[..., : side * P, : side * P]
        if not isinstance(self.conv1, nn.Conv2d):
            return self.conv1(images).flatten(2).transpose(1, 2)
        grid = images.unflatten(3, (side, P)).unflatten(2, (side, P))
        return F.linear(
            grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
            self.conv1.weight.flatten(1),
            self.conv1.bias,
        )

    def embed(
        self, images: Float[Tensor, "frames 3 height width"], num_frames: int = 1
    ) -> Float[Tensor, "frames tokens dim"]:
        """The tokens before the first block: the class token if there is one, then the patches, row
        by row.

        Raises UsageError where the network has time embeddings for another number of frames.
        """
        x = self.patches(images)
        if self.class_embedding is not None:
            cls = self.class_embedding.expand(len(x), 1, -1).to(x.dtype)
            x = torch.cat([cls, x], dim=1)
        x = x + self.positional_embedding
        if self.temporal_embedding is not None:
            known = len(self.temporal_embedding)
            if known != num_frames:
                raise UsageError(
                    f"this network was made for clips of {known} frames, not of {num_frames}"
                )
            x = (x.unflatten(0, (-1, num_frames)) + self.temporal_embedding[:, None]).flatten(0, 1)
        return x if self.ln_pre is None else self.ln_pre(x)

    def forward(
        self, frames: Float[Tensor, "batch time 3 height width"], layers: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        """Normalised frames -> frame embeddings, not unit length.

        `layers`: a list that receives every block's output, (B*T, L, D) each.
        """
        B, T = self.check(frames)
        if self.merge_tokens and layers is None:
            z = merging.pooled(self, self.embed(frames.flatten(0, 1), T), T)
        else:
            z = self.pooled(frames, layers)
        return self.project(z).unflatten(0, (B, T))

    def pooled(
        self, frames: Float[Tensor, "batch time 3 height width"], layers: list[Tensor] | None = None
    ) -> Float[Tensor, "frames dim"]:
        """One vector a frame, before the projection into the joint space."""
        T = frames.shape[1]
        x = self.embed(frames.flatten(0, 1), T)
        if layers is None and self.config.pool == "class":
            cls = self.transformer.forward_at(
                x, torch.zeros(len(x), dtype=torch.long, device=x.device), T
            )
            return self.ln_post(cls)
        return self.pool(self.transformer(x, T, layers))

    def pool(self, x: Float[Tensor, "frames tokens dim"]) -> Float[Tensor, "frames dim"]:
        """What the last block makes of a frame's tokens -> one vector a frame, after `ln_post`.

        Tokens that a method appended are not looked at.
        """
        x = x[:, : self.config.tokens]
        if self.attn_pool is not None:
            return self.attn_pool(self.ln_post(x))
        return self.ln_post(x[:, 0] if self.config.pool == "class" else self.mean(x))

    def project(self, z: Float[Tensor, "*frames dim"]) -> Float[Tensor, "*frames embed"]:
        """One vector a frame -> the joint space."""
        z = z if self.proj is None else z @ self.proj
        return z if self.proj_bias is None else z + self.proj_bias

    def mean(self, x: Float[Tensor, "frames tokens dim"]) -> Float[Tensor, "frames dim"]:
        """Of a frame's patches."""
        return x[:, self.config.prefix : self.config.tokens].mean(dim=1)

    def check(self, frames: Tensor) -> tuple[int, int]:
        """B and T of frames (B, T, 3, H, W). Raises ValueError on another shape."""
        size = self.config.image_size
        if frames.ndim != 5 or frames.shape[2:] != (3, size, size):
            raise ValueError(
                f"expected frames (B, T, 3, {size}, {size}), got {tuple(frames.shape)}"
            )
        return frames.shape[0], frames.shape[1]
