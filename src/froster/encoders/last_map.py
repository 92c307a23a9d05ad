"""The last linear map of an image tower: all before it can be computed once, as it never changes
while that map alone is trained.

    embedding = x W + rest                  x: what is kept of a frame; W (D, E)

CLIP, PE-Core, EVA02, MobileCLIP: W is the projection, x what it reads, rest its bias. SigLIP has no
projection: W is the output layer of its attention pool's MLP, x that MLP's hidden layer with the
pool's answer, which is added, beside it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from froster.encoders.vision import VisionTower
from froster.errors import UsageError


class LastMap:
    """Raises UsageError for a tower that is computed in another way than `VisionTower`, or ends in
    no linear map."""

    def __init__(self, visual: VisionTower):
        self.visual = visual
        if type(visual).forward is not VisionTower.forward:
            raise UsageError(
                f"this image tower ({type(visual).__name__}) has no last linear map by itself"
            )
        if visual.proj is None and visual.attn_pool is None:
            raise UsageError(
                "this image tower has no projection and no attention pool: it ends in no linear map"
            )

    @property
    def name(self) -> str:
        """Of its weight in the tower."""
        return "proj" if self.visual.proj is not None else "attn_pool.mlp.c_proj.weight"

    @property
    def weight(self) -> Float[Tensor, "dim embed"]:
        """W, not copied."""
        if self.visual.proj is not None:
            return self.visual.proj.detach()
        assert self.visual.attn_pool is not None
        return self.visual.attn_pool.mlp.c_proj.weight.detach().T

    @torch.no_grad()
    def set(self, weight: Float[Tensor, "dim embed"]) -> None:
        """Another W."""
        self.weight.copy_(weight)

    def features(
        self, frames: Float[Tensor, "batch time 3 height width"]
    ) -> Float[Tensor, "batch time kept"]:
        """Normalised frames -> what is kept of each."""
        visual = self.visual
        B, T = visual.check(frames)
        if visual.proj is not None:
            return visual.pooled(frames).unflatten(0, (B, T))
        pool = visual.attn_pool
        assert pool is not None
        tokens = visual.transformer(visual.embed(frames.flatten(0, 1), T), T)
        y = pool.attend(visual.ln_post(tokens[:, : visual.config.tokens]))
        hidden = pool.mlp.gelu(pool.mlp.c_fc(pool.layernorm(y)))
        return torch.cat([hidden, y], dim=-1).unflatten(0, (B, T))

    def embed(
        self, kept: Float[Tensor, "*frames kept"], weight: Float[Tensor, "dim embed"] | None = None
    ) -> Float[Tensor, "*frames embed"]:
        """What is kept -> frame embeddings, not unit length, by W or by another weight."""
        weight = self.weight if weight is None else weight
        x, rest = kept[..., : len(weight)], kept[..., len(weight) :]
        z = x @ weight
        if self.visual.proj is not None:
            return z if self.visual.proj_bias is None else z + self.visual.proj_bias
        assert self.visual.attn_pool is not None
        return z + self.visual.attn_pool.mlp.c_proj.bias + rest
