"""MoTE: a temporal head whose MLPs have experts, merged at test time and switched off for classes
far from those that were learned.

    y = blocks(z + P);  video = u(mean_t (z + f y))        z: frame embeddings, f = 1 in training
    pass 1: one expert a block, drawn with soft-max(1..n);          L  = CE
    pass 2: soft-max((1..n) / tau) of the experts, tau drawn;       L += CE / 2 + MSE(z + y, z) / 10
    test:   the uniform mean of the experts' weights, and
            f = exp(-(1 - m) / 0.05)

m: of the five test classes nearest to the video, the mean cosine with the nearest of the video's
five nearest training classes. The training classes are kept with the head.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.mlp import MLP
from froster.encoders.model import CLIP, unit
from froster.encoders.reading import State
from froster.errors import UsageError
from froster.methods.actionclip import HEAD_NAMES
from froster.methods.base import Features, Method, Objective, Official, VideoCLIP
from froster.methods.heads import TemporalTransformer, heads_of
from froster.methods.recipe import Preset, tuned, with_head
from froster.methods.weight_names import count_layers, has, ours, rename
from froster.text.prompts import KINETICS_28, Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling

TEMPERATURES = (*(sign * t for t in (0.6, 1.2, 2.4, 4.8, 9.6) for sign in (1, -1)), math.inf)
"""Of the merged pass; a negative one favours the early experts, infinity none."""
NEAREST, SHARPNESS = 5, 0.05


class ExpertMLP(nn.Module):
    """Several MLPs, used as one whose weights are their weighted mean."""

    def __init__(self, width: int, experts: int, activation: nn.Module):
        super().__init__()
        self.fc_up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(experts))
        self.fc_dn = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(experts))
        self.gelu = activation
        self.mote_fusion_weight: Tensor
        self.register_buffer("mote_fusion_weight", torch.zeros(experts))

    def forward(
        self, x: Float[Tensor, "*tokens width"], shares: Float[Tensor, " experts"]
    ) -> Float[Tensor, "*tokens width"]:
        """`shares`: how much of each expert's weights goes into the MLP; they sum to 1."""
        return merged(self.fc_dn, shares, self.gelu(merged(self.fc_up, shares, x)))


def merged(layers: nn.ModuleList, shares: Tensor, x: Tensor) -> Tensor:
    weight, bias = (
        torch.stack([getattr(layer, name) for layer in layers]) for name in ("weight", "bias")
    )
    return F.linear(x, torch.einsum("n,nij->ij", shares, weight), shares @ bias)


class ExpertHead(TemporalTransformer):
    """A temporal transformer that looks up its experts' shares for every pass."""

    def __init__(
        self, width: int, heads: int, layers: int, positions: int, experts: int, seen: int
    ):
        super().__init__(width, heads, layers, positions, eps=1e-12)
        self.experts = experts
        for block in self.transformer.blocks():
            assert isinstance(block.mlp, MLP)
            block.mlp = ExpertMLP(width, experts, block.mlp.gelu)  # type: ignore[assignment]
        self.initialise(std=0.02, positions_std=0.02)
        self.spe_cls_feature: Tensor | None
        self.register_buffer("spe_cls_feature", torch.zeros(seen, width) if seen else None)

    def forward(self, z: Float[Tensor, "batch time embed"]) -> Float[Tensor, "batch embed"]:
        return (z + self.change(z, self.fused())).mean(dim=1)

    def change(
        self, z: Float[Tensor, "batch time embed"], shares: Sequence[Float[Tensor, " experts"]]
    ) -> Float[Tensor, "batch time embed"]:
        """y: what the blocks make of the frames, which is added to them. `shares`: the experts' of
        each block."""
        x = z + self.positions(z.shape[1])
        for block, share in zip(self.transformer.blocks(), shares, strict=True):
            x = block.attention_sublayer(x, 1)
            x = x + block.mlp(block.ln_2(x), share)
        return x

    def fused(self) -> list[Tensor]:
        """As at test time: uniform, unless a release says otherwise."""
        return [
            block.mlp.mote_fusion_weight.softmax(-1)  # type: ignore[union-attr, operator]
            for block in self.transformer.blocks()
        ]

    def one_each(self, experts: Int[Tensor, " layers"]) -> list[Tensor]:
        return list(F.one_hot(experts, self.experts).float().to(self.positional_embedding.device))

    def at(self, temperatures: Sequence[float]) -> list[Tensor]:
        ranks = torch.arange(1.0, self.experts + 1, device=self.positional_embedding.device)
        return [(ranks / t).softmax(-1) for t in temperatures]

    def drawn_experts(self) -> list[Tensor]:
        chances = torch.arange(1.0, self.experts + 1).softmax(-1)
        return self.one_each(chances.multinomial(len(self.transformer.resblocks), True))

    def drawn_mixtures(self) -> list[Tensor]:
        places = torch.randint(len(TEMPERATURES), (len(self.transformer.resblocks),))
        return self.at([TEMPERATURES[place] for place in places])

    def nearness(
        self, frames: Float[Tensor, "batch embed"], classes: Float[Tensor, "classes embed"]
    ) -> Float[Tensor, " batch"]:
        """f, of the videos' mean frame embeddings and unit test classes; 1 where the training
        classes are not known."""
        if self.spe_cls_feature is None:
            return frames.new_ones(len(frames))
        v, seen = unit(frames), self.spe_cls_feature
        ours, theirs = (
            rows[(v @ rows.T).topk(min(NEAREST, len(rows)), dim=-1).indices]
            for rows in (classes, seen)
        )  # (B, 5, E)
        m = (ours @ theirs.transpose(1, 2)).max(dim=-1).values.mean(dim=-1)
        return torch.exp((m - 1) / SHARPNESS)


class MoTENet(VideoCLIP):
    head: ExpertHead

    def pool_frames(self, z: Tensor, context: Tensor | None = None) -> Features:
        """In training of one drawn expert a block."""
        shares = self.head.drawn_experts() if self.training else self.head.fused()
        means = torch.stack([z.mean(dim=1), self.head.change(z, shares).float().mean(dim=1)], dim=1)
        pooled = means.sum(dim=1)
        return Features(z, pooled, unit(pooled), means)

    @property
    def logit_scale(self) -> float:
        return float(self.clip.logit_scale.detach().exp())

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        if not self.training and context is not None:
            frames, change = context.unbind(dim=1)
            video = unit(frames + self.head.nearness(frames, classes)[:, None] * change)
        return super().logits(video, classes)

    def losses(
        self, features: Features, classes: Tensor, logits: Tensor, objective: Objective
    ) -> dict[str, Tensor]:
        """With a second pass, of merged experts. Keeps the classes for the test."""
        z = features.frames
        changed = z + self.head.change(z, self.head.drawn_mixtures())
        second = self.logits(unit(changed.mean(dim=1)), classes)
        if self.head.spe_cls_feature is not None:
            self.head.spe_cls_feature.copy_(classes.detach())
        return {
            "ce": objective(logits),
            "merged": 0.5 * objective(second),
            "kept": 0.1 * F.mse_loss(changed, z),
        }


@dataclass(frozen=True)
class MoTE(Method):
    """The image tower, the head and the logit scale are trained; the text never."""

    name = "mote"
    summary = (
        "a temporal transformer whose MLPs have experts, merged at test time and faded out for"
        " classes unlike those learned"
    )
    reference = "Zhu et al., MoTE, NeurIPS 2024"

    layers: int = 4
    """6 in the paper's ViT-L/14."""
    experts: int = 4
    heads: int | None = None
    """Attention heads; default: `heads_of`."""
    positions: int = 77
    """The most frames that the head can take."""
    seen: int = 0
    """Training classes whose embeddings the head keeps; 0: the head is never faded out."""
    clip_share: float = 0.01
    """How much of CLIP's weights is in the final ones."""

    def __post_init__(self) -> None:
        if self.layers < 1 or self.experts < 1 or self.seen < 0 or not 0 <= self.clip_share <= 1:
            raise UsageError("layers, experts and seen are counts, and clip_share lies in [0, 1]")

    @property
    def patch(self) -> float:
        return self.clip_share

    def for_classes(self, labels: Sequence[str]) -> Method:
        return dataclasses.replace(self, seen=len(labels))

    def build(self, clip: CLIP) -> VideoCLIP:
        heads = self.heads or heads_of(clip)
        width = clip.config.embed_dim
        head = ExpertHead(width, heads, self.layers, self.positions, self.experts, self.seen)
        return MoTENet(clip, "mean_then_unit", head)

    def trains(self, name: str) -> bool:
        return not name.startswith("clip.text.")

    def preset(self) -> Preset:
        recipe = tuned(
            3.5e-6,
            epochs=30,
            batch_size=64,
            new_scale=1 / 0.07,
            warmup_epochs=5,
            lr_ends=0.0,
            weight_decay=0.2,
            decay="all",
        )
        augment = Augment(crop="multiscale", grayscale=0.2)
        note = "64 clips a step, which the release takes on each of its GPUs"
        prompting, sampling = Prompting(KINETICS_28, "plain"), Sampling("uniform", 8)
        return Preset(recipe, prompting, augment, sampling, note=note)

    def froster_preset(self) -> Preset:
        return with_head(5e-5)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        """Image tower, logit scale and head in one, as Text4Vis'; the text tower may be there."""
        if not has(state, r"^fusion_model\..*\.mlp\.fc_up\."):
            return None
        blocks = "fusion_model.transformer.resblocks"
        seen = state.get("fusion_model.spe_cls_feature")
        method = cls(
            count_layers(state, blocks),
            count_layers(state, f"{blocks}.0.mlp.fc_up"),
            positions=len(state["fusion_model.frame_position_embeddings.weight"]),
            seen=0 if seen is None else len(seen),
        )
        return Official("MoTE", method, rename(ours(state), HEAD_NAMES))
