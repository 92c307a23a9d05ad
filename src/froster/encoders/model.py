"""CLIP: an image tower and a text tower, with the seams that the video methods need.

A method of the literature changes one step of `block.Block`, in one tower or both. Parameter names
are OpenAI's, except that the text tower's begin with `text.` (`checkpoints.from_official` maps
between the two).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.block import Attention
from froster.encoders.config import CLIPConfig
from froster.encoders.mlp import MLP, GatedMLP
from froster.encoders.text import TextTower
from froster.encoders.vision import VisionTower

MAX_INITIAL_SCALE = math.log(1 / 0.07)


def unit(x: Float[Tensor, "*rows embed"]) -> Float[Tensor, "*rows embed"]:
    """u(x): x divided by its L2 norm over the last dimension."""
    return x / x.norm(dim=-1, keepdim=True)


class CLIP(nn.Module):
    """An image tower and a text tower that meet in a joint space of width E."""

    logit_bias: nn.Parameter | None

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.visual = VisionTower(config.vision, config.embed_dim, config.activation)
        self.text = TextTower(config.text, config.embed_dim, config.activation)
        self.logit_scale = nn.Parameter(torch.tensor(MAX_INITIAL_SCALE))
        bias = nn.Parameter(torch.tensor(0.0)) if config.logit_bias else None
        self.register_parameter("logit_bias", bias)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """CLIP's own initialisation: widths and depth decide the spread."""
        for tower in (self.visual, self.text):
            width, layers = tower.config.width, tower.config.layers
            for block in tower.transformer.blocks():
                initialise_block(block.attn, block.mlp, width, layers)
        visual = self.visual
        scale = visual.config.width**-0.5
        for parameter in (visual.class_embedding, visual.positional_embedding, visual.proj):
            if parameter is not None:
                nn.init.normal_(parameter, std=scale)
        if visual.attn_pool is not None:
            nn.init.normal_(visual.attn_pool.probe, std=scale)
            initialise_block(visual.attn_pool.attn, visual.attn_pool.mlp, visual.config.width, 1)
        nn.init.normal_(self.text.token_embedding.weight, std=0.02)
        nn.init.normal_(self.text.positional_embedding, std=0.01)
        nn.init.normal_(self.text.text_projection, std=self.text.config.width**-0.5)

    def encode_image(
        self, frames: Float[Tensor, "batch time 3 height width"], layers: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        """Normalised frames -> frame embeddings, not unit length."""
        return self.visual(frames, layers)

    def encode_text(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts embed"]:
        """Token ids -> text embeddings, not unit length."""
        return self.text(tokens)

    def architecture(self) -> dict[str, Any]:
        """The sizes as plain values, for `config.json`, where the preprocessing has a place of its
        own."""
        return self.config.to_dict()


def initialise_block(attn: Attention, mlp: MLP | GatedMLP, width: int, layers: int) -> None:
    nn.init.normal_(attn.in_proj_weight, std=width**-0.5)
    nn.init.normal_(attn.out_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
    nn.init.normal_(mlp.c_fc.weight, std=(2 * width) ** -0.5)
    nn.init.normal_(mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
    for layer in (attn.out_proj, mlp.c_fc, mlp.c_proj):
        nn.init.zeros_(layer.bias)
