"""AIM: three adapters a block around CLIP's frozen layers, and the block's own attention used a
second time, over time.

    x += A_T( attend over T of ln_1 x )            same attention weights, same ln_1; no skip inside A_T
    y  = attend( ln_1 x );       x += y + A_S(y)
    n  = ln_2 x;                 x += mlp(n) + scale * A_M(n)

With two temporal adapters (SSv2) ln_1 x also passes through x + A_T_in(x) before the temporal
attention. FROSTER's version has no temporal embedding, so it cannot tell the order of the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP
from froster.errors import UsageError
from froster.methods.adapter import Adapter
from froster.methods.method import Method, adapters, tuned
from froster.methods.official import Official, State, has, ours, rename
from froster.methods.recipe import Preset
from froster.methods.video_clip import Pooling, VideoCLIP, drop_path, over_space, over_time
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
        width = block.width
        adapter = lambda: Adapter(width, bottleneck or width // 4, nn.GELU, std)  # noqa: E731
        self.t_adapter_in = adapter() if t_adapters == 2 else None
        self.t_adapter, self.s_adapter, self.mlp_adapter = adapter(), adapter(), adapter()

    def over_frames(self, x: Tensor, num_frames: int) -> Tensor:
        """The block's attention along time, for every token position by itself."""
        n = over_time(self.ln_1(x), num_frames)
        if self.t_adapter_in is not None:
            n = n + self.t_adapter_in(n)
        return over_space(self.attn(n), x.shape[1])

    def attention_sublayer(self, x: Tensor, num_frames: int) -> Tensor:
        x = x + drop_path(self.t_adapter(self.over_frames(x, num_frames)), self.drop, self.training)
        y = self.attend(self.ln_1(x), num_frames)
        return x + y + self.s_adapter(y)

    def mlp_sublayer(self, x: Tensor) -> Tensor:
        n = self.ln_2(x)
        return (
            x + self.mlp(n) + drop_path(self.scale * self.mlp_adapter(n), self.drop, self.training)
        )


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
            blocks[i] = AIMBlock(
                block,
                self.bottleneck,
                self.scale,
                self.t_adapters,
                rate,
                std=0.02 if self.frames else None,
            )
        if self.frames:
            clip.visual.temporal_embedding = nn.Parameter(
                torch.zeros(self.frames, clip.config.vision.width)
            )
        return VideoCLIP(clip, self.pooling)

    def trains(self, name: str) -> bool:
        return (
            "adapter" in name
            or name == "clip.visual.temporal_embedding"
            or name.startswith("clip.visual.ln_post.")
        )

    def preset(self) -> Preset:
        ssv2 = self.t_adapters == 2
        recipe = tuned(
            3e-4,
            epochs=50 if ssv2 else 30,
            batch_size=64,
            warmup_epochs=2.5,
            lr_ends=0.0,
            weight_decay=0.05,
            draw="all",
            decay="no positions",
            label_smoothing=0.1 if ssv2 else 0.0,
        )
        augment = (
            Augment(crop="resized", rand_augment=(4, 7), erasing=0.25)
            if ssv2
            else Augment(crop="resized")
        )
        note = "the classifier and its dropout .5 are replaced by CLIP's projection and text"
        return Preset(
            recipe,
            FROSTER_PROMPTS,
            augment,
            Sampling("dense", self.frames or 8),
            fusion="probs",
            note=note,
        )

    def froster_preset(self) -> Preset:
        return adapters(3e-4)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if has(state, r"resblocks\.\d+\.t_adapter\.adapter\.0"):
            rules = [
                (r"\.ffn_adapter\.", ".mlp_adapter."),
                (r"\.adapter\.0\.", ".down."),
                (r"\.adapter\.2\.", ".up."),
            ]
            width = next(
                len(t) for name, t in state.items() if name.endswith("t_adapter.adapter.0.bias")
            )
            method = cls.make("froster", bottleneck=width)
            return Official("AIM (FROSTER's version)", method, rename(ours(state), rules))
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
        ours_ = rename(
            {name: tensor for name, tensor in backbone.items() if name not in ignored}, rules
        )
        ours_["visual.temporal_embedding"] = ours_["visual.temporal_embedding"][0]
        t_adapters = 2 if has(state, "T_Adapter_in") else 1
        width = next(len(t) for name, t in state.items() if name.endswith("T_Adapter.D_fc1.bias"))
        method = cls(t_adapters, 0.5, len(ours_["visual.temporal_embedding"]), width)
        notes = [
            "the weights do not tell the scale of the MLP adapter: 0.5 assumed (SSv2 runs used 1)"
        ]
        return Official(f"AIM (official, {t_adapters} temporal)", method, ours_, ignored, notes)
