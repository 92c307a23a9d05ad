"""STAN: a second branch beside the last layers of the image tower, which sees space and time by
turns.

Layer i of the branch reads h + [mean over T of CLS ; patches] of CLIP's layer (the first one starts
h from them), then
    patches += W_t MHA(LN patches) over T, at every position          W_t = 0 at the start
    one CLIP block per frame, the branch's class token shown to every frame and averaged back
Output: CLS_t + branch CLS -> ln_post -> proj -> mean over T.

With an attention pool (PE-Core) the sum takes the place of CLS_t among the tokens that the pool
reads; that is ours, and was never trained.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Attention, Block
from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.encoders.vision import VisionTower
from froster.errors import UsageError
from froster.methods.base import Method, Official, Pooling, VideoCLIP
from froster.methods.heads import require
from froster.methods.recipe import Preset, tuned, with_head
from froster.methods.weight_names import (
    count_layers,
    fuse_attention,
    has,
    hf_blocks,
    rename,
    text_of_huggingface,
    without,
)
from froster.methods.xclip import xavier
from froster.text.prompts import FROSTER_PROMPTS
from froster.video.augment import Augment
from froster.video.sampling import Sampling

# Its release keeps the tower deep inside a retrieval model.
_PREFIX = re.compile(
    r"^.*?(?=STAN_|layers\.|class_embedding|patch_embedding|position_embedding|pre_layrnorm"
    r"|post_layernorm|visual_projection)"
)


class BranchLayer(nn.Module):
    """Time, then space, on a clip's state: class token (B, 1, D) and patches (B, T, N, D)."""

    def __init__(self, block: Block):
        super().__init__()
        width = block.width
        self.time_ln = nn.LayerNorm(width)
        self.time_attn = xavier(Attention(width, block.attn.heads))
        self.time_fc = nn.Linear(width, width)
        nn.init.zeros_(self.time_fc.weight)
        nn.init.zeros_(self.time_fc.bias)
        self.space = copy.deepcopy(block)

    def forward(
        self,
        cls: Float[Tensor, "batch 1 width"],
        patches: Float[Tensor, "batch time patches width"],
        last: bool,
    ) -> tuple[Float[Tensor, "batch 1 width"], Float[Tensor, "batch time patches width"]]:
        """Of the last layer only the class token is asked for: its patches are returned as they
        came from time."""
        B, T, N, _ = patches.shape
        times = patches.transpose(1, 2).flatten(0, 1)  # (B*N, T, D)
        change = self.time_fc(self.time_attn(self.time_ln(times)))
        patches = patches + change.unflatten(0, (B, N)).transpose(1, 2)
        # The block's attention per frame; the class token takes the mean of what the frames give
        # it, then its MLP.
        block = self.space
        x = torch.cat([cls[:, None].expand(-1, T, -1, -1), patches], dim=2).flatten(
            0, 1
        )  # (B*T, 1+N, D)
        q, k, v = block.attn.project(block.ln_1(x))
        heads = F.scaled_dot_product_attention(q[:, :, :1] if last else q, k, v)
        y = block.attn.merge(heads).unflatten(0, (B, T))
        cls = cls + y[:, :, :1].mean(dim=1)
        cls = cls + block.mlp(block.ln_2(cls))
        if last:
            return cls, patches
        patches = patches + y[:, :, 1:]
        return cls, patches + block.mlp(block.ln_2(patches))


class STANTower(VisionTower):
    """CLIP's image tower with the branch. It takes the tower's own weights, so their names stay
    CLIP's."""

    def __init__(self, tower: VisionTower, depth: int, max_frames: int):
        nn.Module.__init__(self)
        self.config = tower.config
        for name in ("class_embedding", "positional_embedding", "proj", "temporal_embedding"):
            self.register_parameter(name, getattr(tower, name))
        self.register_parameter("proj_bias", tower.proj_bias)
        for name in ("conv1", "ln_pre", "transformer", "ln_post", "attn_pool"):
            self.add_module(name, getattr(tower, name))
        blocks = list(self.transformer.resblocks)
        if not 1 <= depth <= len(blocks):
            raise UsageError(f"the branch stands beside 1 to {len(blocks)} layers, not {depth}")
        self.depth = depth
        last = blocks[-depth:]
        self.branch = nn.ModuleList(BranchLayer(block) for block in last)  # type: ignore[arg-type]
        self.time_embedding = nn.Parameter(torch.randn(max_frames, self.config.width))

    def forward(
        self, frames: Float[Tensor, "batch time 3 height width"], layers: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        B, T = self.check(frames)
        states: list[Tensor] = [] if layers is None else layers
        x = self.transformer(self.embed(frames.flatten(0, 1), T), T, states)
        cls = x[:, 0].unflatten(0, (B, T)) + self.branch_class_token(states[-self.depth :], T)
        if self.attn_pool is None:
            return self.project(self.ln_post(cls))
        x = torch.cat([cls.flatten(0, 1)[:, None], x[:, 1:]], dim=1)
        return self.project(self.pool(x)).unflatten(0, (B, T))

    def branch_class_token(
        self, states: list[Float[Tensor, "frames tokens width"]], num_frames: int
    ) -> Float[Tensor, "batch 1 width"]:
        """The outputs of the last CLIP layers -> the branch's class token."""
        if num_frames > len(self.time_embedding):
            raise UsageError(
                f"this network was made for at most {len(self.time_embedding)} frames, not for"
                f" {num_frames}"
            )
        cls = patches = states[0]
        for i, (layer, state) in enumerate(zip(self.branch, states, strict=True)):
            clip = state.unflatten(0, (-1, num_frames))  # (B, T, 1+N, D)
            mean = clip[:, :, :1].mean(dim=1)
            if i == 0:
                cls = (mean + self.class_embedding + self.positional_embedding[0]) / 2
                patches = (
                    clip[:, :, 1:]
                    + self.positional_embedding[1:]
                    + self.time_embedding[:num_frames, None]
                )
            else:
                cls, patches = cls + mean, patches + clip[:, :, 1:]
            cls, patches = layer(cls, patches, last=i == self.depth - 1)
        return cls


@dataclass(frozen=True)
class STAN(Method):
    """All of CLIP is trained with the branch."""

    name = "stan"
    summary = (
        "a branch beside the last layers that attends over time and space by turns; its class token"
        " is added"
    )
    reference = (
        "Liu et al., Revisiting Temporal Modeling for CLIP-based Image-to-Video Knowledge"
        " Transferring, CVPR 2023"
    )
    small_scale = 10.0
    variants = {"third": {}, "depth2": {"depth": 2}}
    output_layers = r"time_fc\."

    depth: int = 0
    """Layers of the branch, at most the tower's; 0: a third of the tower's, which is the release's
    4 for B/16."""
    max_frames: int = 64
    pooling: Pooling = "mean_then_unit"

    def build(self, clip: CLIP) -> VideoCLIP:
        require(self.name, clip, class_token_read=True)
        layers = clip.config.vision.layers
        clip.visual = STANTower(
            clip.visual, min(self.depth or max(1, layers // 3), layers), self.max_frames
        )
        return VideoCLIP(clip, self.pooling)

    def preset(self) -> Preset:
        """The release has retrieval alone; its rates, with the classes' cross-entropy in place of
        the contrast."""
        recipe = tuned(
            2e-6,
            epochs=10,
            batch_size=128,
            new_scale=10,
            warmup_epochs=1,
            weight_decay=0.05,
            clip_norm=5.0,
            betas=(0.9, 0.98),
            draw="one",
        )
        return Preset(recipe, FROSTER_PROMPTS, Augment(), Sampling("uniform", 12), views=1)

    def froster_preset(self) -> Preset:
        return with_head(3.33e-5)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if not has(state, r"STAN_T_layers\."):
            return None
        is_text = re.compile(r"text_model\.|text_projection").search
        text = {name: tensor for name, tensor in state.items() if is_text(name)}
        image = {
            _PREFIX.sub("", name, count=1): tensor
            for name, tensor in without(state, text).items()
            if not name.endswith("position_ids") and "logit_scale" not in name
        }
        depth = count_layers(image, "STAN_S_layers")
        rules = [
            (r"^class_embedding$", "visual.class_embedding"),
            (r"^patch_embedding\.", "visual.conv1."),
            (r"^position_embedding\.weight$", "visual.positional_embedding"),
            (r"^pre_layrnorm\.", "visual.ln_pre."),
            (r"^post_layernorm\.", "visual.ln_post."),
            (r"^visual_projection\.weight$", "visual.proj"),
            (r"^STAN_time_embed\.weight$", "visual.time_embedding"),
            *hf_blocks(r"layers\.", "visual.transformer.resblocks."),
            *hf_blocks(r"STAN_S_layers\.", "visual.space."),
            (r"^visual\.space\.(\d+)\.", r"visual.branch.\1.space."),
            (r"^STAN_T_layers\.(\d+)\.layer_norm1\.", r"visual.branch.\1.time_ln."),
            (r"^STAN_T_layers\.(\d+)\.self_attn\.", r"visual.branch.\1.time_attn."),
            (r"^STAN_T_layers\.(\d+)\.temporal_fc\.", r"visual.branch.\1.time_fc."),
        ]
        weights = rename(fuse_attention(image), rules)
        weights["visual.proj"] = weights["visual.proj"].T.contiguous()
        weights |= text_of_huggingface(text)
        scale = {
            name.split(".")[-1]: t for name, t in state.items() if name.endswith("logit_scale")
        }
        method = cls(depth, len(weights["visual.time_embedding"]))
        return Official(f"STAN (depth {depth})", method, weights | scale)
