"""LoRA: low-rank changes of the attention's q, k, v (and output) projections, W x + (alpha / r) B A
x.

Our blocks keep q, k and v in one matrix, which `peft` cannot wrap; this is the same in a few lines.
`merged` folds the change into the weights: a plain CLIP again, which interpolates and saves as one.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Attention, Block
from froster.encoders.model import CLIP
from froster.errors import UsageError, one_of
from froster.methods.base import Method, Pooling, VideoCLIP
from froster.methods.recipe import Preset, tuned, with_adapters
from froster.text.prompts import Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling


class LowRank(nn.Module):
    """(alpha / r) B A x for n projections of the same input; B = 0 at the start."""

    def __init__(self, count: int, width: int, rank: int, alpha: float, dropout: float):
        super().__init__()
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.a = nn.Parameter(torch.empty(count, rank, width))
        self.b = nn.Parameter(torch.zeros(count, width, rank))
        for matrix in self.a:
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows tokens added"]:
        """The projections side by side: `added` is count * width."""
        low = torch.einsum("nld,crd->nlcr", self.dropout(x), self.a)
        return self.scale * torch.einsum("nlcr,cdr->nlcd", low, self.b).flatten(2)

    def change(self) -> Float[Tensor, "added width"]:
        """What it adds to the stacked matrices."""
        return self.scale * (self.b @ self.a).flatten(0, 1)


class LoRAAttention(Attention):
    def __init__(self, attention: Attention, targets: str, rank: int, alpha: float, dropout: float):
        nn.Module.__init__(self)
        self.heads, self.rotary, self.ln = attention.heads, attention.rotary, attention.ln
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        width = self.in_proj_bias.numel() // 3
        self.rows = ["qkv".index(letter) for letter in targets if letter in "qkv"]
        self.lora_in = LowRank(len(self.rows), width, rank, alpha, dropout) if self.rows else None
        self.lora_out = LowRank(1, width, rank, alpha, dropout) if "o" in targets else None

    def plain(self, x: Tensor, queries_of: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        if queries_of is not None:
            return self.plain(queries_of)[0], *self.plain(x)[1:]
        qkv = F.linear(x, self.in_proj_weight, self.bias).unflatten(-1, (3, -1))
        if self.lora_in is not None:
            added = self.lora_in(x).unflatten(-1, (len(self.rows), -1))
            qkv = qkv.index_add(2, torch.tensor(self.rows, device=x.device), added.to(qkv.dtype))
        q, k, v = qkv.unflatten(-1, (self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge(self, heads: Tensor) -> Tensor:
        x = self.joined(heads)
        y = self.out_proj(x)
        return y if self.lora_out is None else y + self.lora_out(x)

    @torch.no_grad()
    def fold(self) -> Attention:
        """An attention of the encoder's own kind with the changes added to its weights."""
        plain = Attention(self.in_proj_bias.numel() // 3, self.heads, self.rotary)
        plain.ln = copy.deepcopy(self.ln)
        plain.in_proj_weight = nn.Parameter(self.in_proj_weight.clone())
        plain.in_proj_bias = nn.Parameter(self.in_proj_bias.clone())
        plain.out_proj = copy.deepcopy(self.out_proj)
        if self.lora_in is not None:
            added = self.lora_in.change().unflatten(0, (len(self.rows), -1))
            for row, change in zip(self.rows, added, strict=True):
                plain.in_proj_weight.unflatten(0, (3, -1))[row] += change
        if self.lora_out is not None:
            plain.out_proj.weight += self.lora_out.change()
        return plain


class LoRANet(VideoCLIP):
    def merged(self) -> CLIP:
        clip = copy.deepcopy(self.clip)
        for block in list(clip.modules()):
            if isinstance(block, Block) and isinstance(block.attn, LoRAAttention):
                block.attn = block.attn.fold()
        return clip


@dataclass(frozen=True)
class LoRA(Method):
    """Only the low-rank matrices are trained."""

    name = "lora"
    summary = (
        "low-rank changes of the attention projections in both towers; can be merged into the"
        " weights"
    )
    reference = "Hu et al., LoRA, ICLR 2022; Zanella & Ben Ayed, CLIP-LoRA, CVPRW 2024"
    trains_clip = False
    variants = {
        "r2-qkv": {},
        "r16-qkvo": {"rank": 16, "targets": "qkvo"},
        "image": {"towers": "image"},
    }
    output_layers = r"lora_(in|out)\.b$"

    rank: int = 2
    alpha: float = 1.0
    targets: str = "qkv"
    """Letters of the projections that are changed: q, k, v, o."""
    dropout: float = 0.25
    towers: Literal["both", "image", "text"] = "both"
    pooling: Pooling = "mean_then_unit"

    def __post_init__(self) -> None:
        one_of("towers", self.towers, "both", "image", "text")
        if (
            not self.targets
            or not set(self.targets) <= set("qkvo")
            or len(set(self.targets)) < len(self.targets)
        ):
            raise UsageError(f"targets are letters of qkvo, each once, not {self.targets!r}")
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise UsageError(
                f"the rank must be 1 or more, dropout in [0, 1): {self.rank}, {self.dropout}"
            )

    def build(self, clip: CLIP) -> VideoCLIP:
        tower: nn.Module = {"image": clip.visual, "text": clip.text, "both": clip}[self.towers]
        for block in list(tower.modules()):
            if isinstance(block, Block):
                block.attn = LoRAAttention(
                    block.attn, self.targets, self.rank, self.alpha, self.dropout
                )
        return LoRANet(clip, self.pooling)

    def trains(self, name: str) -> bool:
        return ".lora_" in name

    def preset(self) -> Preset:
        """CLIP-LoRA trains 500 steps a shot: at 16 shots of 200 classes 80 epochs of batch 32."""
        recipe = tuned(
            2e-4, epochs=80, batch_size=32, warmup_epochs=0, lr_ends=5e-3, weight_decay=0.01
        )
        prompting = Prompting(("a photo of a {}.",), "plain")
        return Preset(recipe, prompting, Augment(crop="resized"), Sampling("uniform", 8), views=1)

    def froster_preset(self) -> Preset:
        return with_adapters(2e-4)
