"""AIM: three adapters a block around CLIP's frozen layers, and the block's own attention used a
second time, over time.

    x += A_T( attend over T of ln_1 x )        same attention weights, same ln_1; no skip inside A_T
    y  = attend( ln_1 x );       x += y + A_S(y)
    n  = ln_2 x;                 x += mlp(n) + scale * A_M(n)

With two temporal adapters (SSv2) ln_1 x also passes through x + A_T_in(x) before the temporal
attention. FROSTER's version has no temporal embedding, so it cannot tell the order of the frames.
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
from froster.methods.adaptformer import FROSTER_ADAPTERS
from froster.methods.base import Method, Official, Pooling, VideoCLIP
from froster.methods.heads import Adapter, drop_path, over_space, over_time
from froster.methods.recipe import Preset, tuned, with_adapters
from froster.methods.weight_names import has, ours, rename, width_of, without
from froster.text.prompts import FROSTER_PROMPTS
from froster.video.augment import Augment
from froster.video.sampling import Sampling


class AIMBlock(Block):
    def __init__(
        self,
        block: Block,
        bottleneck: int,
        scale: float,
        t_adapters: int,
        drop: float,
        std: float | None,
    ):
        self.init_from(block)
        self.scale, self.drop = scale, drop
        width = bottleneck or block.width // 4
        adapter = lambda: Adapter(block.width, width, nn.GELU, std)  # noqa: E731
        self.t_adapter_in = adapter() if t_adapters == 2 else None
        self.t_adapter, self.s_adapter, self.mlp_adapter = adapter(), adapter(), adapter()

    def over_frames(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        """The block's attention along time, for every token position by itself."""
        n = over_time(self.ln_1(x), num_frames)
        if self.t_adapter_in is not None:
            n = n + self.t_adapter_in(n)
        return over_space(self.attn(n), x.shape[1])

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        x = x + drop_path(self.t_adapter(self.over_frames(x, num_frames)), self.drop, self.training)
        y = self.attend(self.ln_1(x), num_frames)
        return x + y + self.s_adapter(y)

    def mlp_sublayer(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        n = self.ln_2(x)
        adapted = self.scale * self.mlp_adapter(n)
        return x + self.mlp(n) + drop_path(adapted, self.drop, self.training)


@dataclass(frozen=True)
class AIM(Method):
    """Adapters, the temporal embedding and ln_post are trained; CLIP is not."""

    name = "aim"
    summary = (
        "adapters after a second, temporal use of each attention, after the spatial one and beside"
        " the MLP"
    )
    reference = "Yang et al., AIM, ICLR 2023"
    trains_clip = False
    variants = {
        "official": {},
        "ssv2": {"t_adapters": 2, "scale": 1.0},
        "froster": {"frames": 0, "drop_path": 0.0, "pooling": "frame_unit"},
    }
    output_layers = r"adapter(_in)?\.up\."

    t_adapters: int = 1
    scale: float = 0.5
    """Of the adapter beside the MLP."""
    frames: int = 8
    """Rows of the temporal embedding; 0: none, as in FROSTER's version."""
    bottleneck: int = 0
    """Width of the adapters; 0: a quarter of the tower's."""
    drop_path: float = 0.2
    """Of the last block; it grows linearly from 0 in the first."""
    pooling: Pooling = "mean_then_unit"

    def __post_init__(self) -> None:
        if self.t_adapters not in (1, 2):
            raise UsageError(f"AIM has 1 or 2 temporal adapters, not {self.t_adapters!r}")
        if not (self.bottleneck >= 0 and 0 <= self.drop_path < 1):
            raise UsageError("bottleneck is a width, and drop_path lies in [0, 1)")

    def build(self, clip: CLIP) -> VideoCLIP:
        blocks = clip.visual.transformer.resblocks
        for i, block in enumerate(blocks):
            assert isinstance(block, Block)
            rate = self.drop_path * i / max(1, len(blocks) - 1)
            std = 0.02 if self.frames else None
            blocks[i] = AIMBlock(block, self.bottleneck, self.scale, self.t_adapters, rate, std)
        if self.frames:
            zeros = torch.zeros(self.frames, clip.config.vision.width)
            clip.visual.temporal_embedding = nn.Parameter(zeros)
        return VideoCLIP(clip, self.pooling)

    def trains(self, name: str) -> bool:
        others = ("clip.visual.temporal_embedding", "clip.visual.ln_post.")
        return "adapter" in name or name.startswith(others)

    def preset(self) -> Preset:
        ssv2 = self.t_adapters == 2
        recipe = tuned(
            3e-4,
            epochs=50 if ssv2 else 30,
            batch_size=64,
            warmup_epochs=2.5,
            lr_ends=0.0,
            weight_decay=0.05,
            decay="no positions",
            label_smoothing=0.1 if ssv2 else 0.0,
        )
        augment = Augment(crop="resized")
        if ssv2:
            augment = Augment(crop="resized", rand_augment=(4, 7), erasing=0.25)
        sampling = Sampling("dense", self.frames or 8)
        note = "the classifier and its dropout .5 are replaced by CLIP's projection and text"
        return Preset(recipe, FROSTER_PROMPTS, augment, sampling, fusion="probs", note=note)

    def froster_preset(self) -> Preset:
        return with_adapters(3e-4)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if has(state, r"resblocks\.\d+\.t_adapter\.adapter\.0"):
            width = width_of(state, "t_adapter.adapter.0.bias")
            method = cls.make("froster", bottleneck=width)
            return Official(
                "AIM (FROSTER's version)", method, rename(ours(state), FROSTER_ADAPTERS)
            )
        if not has(state, r"T_Adapter\.D_fc1"):
            return None
        # The official backbone is an image tower alone: no prefix, no projection, a closed-set head
        # beside it.
        backbone = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
        ignored = [name for name in backbone if name.startswith("cls_head.")]
        rules = [
            (r"\.T_Adapter_in\.", ".t_adapter_in."),
            (r"\.T_Adapter\.", ".t_adapter."),
            (r"\.S_Adapter\.", ".s_adapter."),
            (r"\.MLP_Adapter\.", ".mlp_adapter."),
            (r"\.D_fc1\.", ".down."),
            (r"\.D_fc2\.", ".up."),
            ("^", "visual."),
        ]
        image = rename(without(backbone, ignored), rules)
        image["visual.temporal_embedding"] = image["visual.temporal_embedding"][0]
        t_adapters = 2 if has(state, "T_Adapter_in") else 1
        frames, width = (
            len(image["visual.temporal_embedding"]),
            width_of(state, "T_Adapter.D_fc1.bias"),
        )
        method = cls(t_adapters, 0.5, frames, width)
        notes = [
            "the weights do not tell the scale of the MLP adapter: 0.5 assumed (SSv2 runs used 1)"
        ]
        return Official(f"AIM (official, {t_adapters} temporal)", method, image, ignored, notes)
