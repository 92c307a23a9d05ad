"""EZ-CLIP: frozen CLIP with temporal prompts and adapters in both towers, and a loss that rewards
change over time.

Block, per frame t:  p_t = P_t + mean over the tokens of frame t;  p = attend(ln_1 p) over the T
                     prompts, by the block's own layers, no skip;  [x_t ; p_t] through the
                     attention, the prompt dropped again;  x += A(x), before the MLP.
Text block:          the adapter alone, in the same place.
L += 1 / (1 + C + V)     of the raw frame embeddings: C the mean absolute central difference over
                         time (the ends repeated), V the variance over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import UsageError
from froster.methods.actionclip import TEMPLATES
from froster.methods.base import Features, Method, Objective, Official, VideoCLIP, replace_blocks
from froster.methods.heads import Adapter, drop_path
from froster.methods.recipe import Preset, tuned, with_adapters
from froster.methods.weight_names import has, ours, rename, width_of
from froster.text.prompts import Prompting
from froster.video.augment import Augment
from froster.video.sampling import Sampling


class AdaptedBlock(Block):
    """A CLIP block with an adapter between attention and MLP: that of the text tower."""

    def __init__(self, block: Block, bottleneck: int, drop: float):
        self.init_from(block)
        self.drop = drop
        self.adapter = Adapter(block.width, bottleneck or block.width // 4, nn.GELU)

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        x = super().attention_sublayer(x, num_frames)
        return x + drop_path(self.adapter(x), self.drop, self.training)


class PromptedBlock(AdaptedBlock):
    """With temporal prompts: that of the image tower."""

    def __init__(self, block: Block, bottleneck: int, drop: float, num_frames: int):
        super().__init__(block, bottleneck, drop)
        spread = (6 / (3 * 16 * 16 + block.width)) ** 0.5
        self.time_prompts = nn.Parameter(
            torch.empty(num_frames, block.width).uniform_(-spread, spread)
        )

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        if num_frames != len(self.time_prompts):
            raise UsageError(
                f"this network was made for clips of {len(self.time_prompts)} frames, not of"
                f" {num_frames}"
            )
        p = x.mean(dim=1).unflatten(0, (-1, num_frames)) + self.time_prompts  # (B, T, D)
        p = self.attn(self.ln_1(p)).flatten(0, 1)[:, None]
        return super().attention_sublayer(torch.cat([x, p], dim=1), num_frames)[:, :-1]


def stillness(z: Float[Tensor, "batch time embed"]) -> Float[Tensor, ""]:
    """1 / (1 + C + V) of raw frame embeddings; 1 where nothing moves."""
    ends = torch.cat([z[:, :1], z, z[:, -1:]], dim=1)
    change = (ends[:, 2:] - ends[:, :-2]).abs().mean() / 2
    variance = z.var(dim=1).mean() if z.shape[1] > 1 else z.new_zeros(())
    return 1 / (1 + change + variance)


class EZNet(VideoCLIP):
    def losses(
        self, features: Features, classes: Tensor, logits: Tensor, objective: Objective
    ) -> dict[str, Tensor]:
        return {"ce": objective(logits), "motion": stillness(features.frames)}


@dataclass(frozen=True)
class EZCLIP(Method):
    """Prompts and adapters are trained; both towers are frozen."""

    name = "ez-clip"
    summary = (
        "temporal prompts between the frames, adapters before the MLPs of both towers; contrast"
        " within the batch, and a loss that rewards motion"
    )
    reference = "Ahmad et al., EZ-CLIP, TMLR 2025"
    trains_clip = False
    objective = "in-batch"

    frames: int = 8
    bottleneck: int = 0
    """Width of the adapters; 0: a quarter of the tower's."""
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        if self.bottleneck < 0 or not 0 <= self.drop_path < 1:
            raise UsageError("bottleneck is a width, and drop_path lies in [0, 1)")

    def build(self, clip: CLIP) -> VideoCLIP:
        width, drop = self.bottleneck, self.drop_path
        replace_blocks(clip, lambda block: PromptedBlock(block, width, drop, self.frames))
        texts = clip.text.transformer.resblocks
        for i, block in enumerate(clip.text.transformer.blocks()):
            texts[i] = AdaptedBlock(block, width, drop)
        zeros = torch.zeros(self.frames, clip.config.vision.width)
        clip.visual.temporal_embedding = nn.Parameter(zeros)
        return EZNet(clip, "mean_then_unit")

    def trains(self, name: str) -> bool:
        return ".adapter." in name or name.endswith(".time_prompts")

    def preset(self) -> Preset:
        recipe = tuned(
            1e-4,
            epochs=150,
            batch_size=80,
            warmup_epochs=5,
            lr_ends=0.0,
            weight_decay=0.2,
            decay="all",
            betas=(0.9, 0.98),
            draw="one a clip",
        )
        augment = Augment(crop="multiscale", color_jitter=0.8, grayscale=0.2)
        note = "base-to-novel is trained for 50 epochs at 1e-5 in the paper"
        prompting, sampling = Prompting(TEMPLATES, "plain"), Sampling("uniform", self.frames)
        return Preset(recipe, prompting, augment, sampling, views=1, note=note)

    def froster_preset(self) -> Preset:
        return with_adapters(1e-4)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        prompts = state.get("visual.transformer.T_prompt_embeddings")
        if prompts is None or not has(state, r"\.Adapter\.D_fc1\."):
            return None
        rules = [(r"\.Adapter\.D_fc1\.", ".adapter.down."), (r"\.Adapter\.D_fc2\.", ".adapter.up.")]
        weights = rename(ours(state), rules)
        del weights["visual.transformer.T_prompt_embeddings"]
        for i, rows in enumerate(prompts):
            weights[f"visual.transformer.resblocks.{i}.time_prompts"] = rows
        times = weights["visual.temporal_embedding"]
        weights["visual.temporal_embedding"] = times.flatten(0, -2)
        # Both towers' adapters are a quarter of their tower, unless the weights say otherwise.
        width, tower = (
            width_of(weights, "visual.transformer.resblocks.0.adapter.down.bias"),
            len(weights["visual.class_embedding"]),
        )
        method = cls(prompts.shape[1], 0 if 4 * width == tower else width)
        return Official("EZ-CLIP", method, weights)
