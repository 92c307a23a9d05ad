"""AdaptFormer: a bottleneck beside the MLP of every block. Official: 64 wide, ReLU, times 0.1,
reads x before ln_2.

x + mlp(ln_2 x) + s * up(relu(down x))         FROSTER's version: D/4 wide, GELU, s = 0.5, reads ln_2 x
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP
from froster.errors import UsageError, one_of
from froster.methods.adapter import Adapter
from froster.methods.method import Method, adapters, tuned
from froster.methods.official import Official, State, has, ours, rename
from froster.methods.recipe import Preset
from froster.methods.video_clip import Pooling, VideoCLIP, replace_blocks
from froster.text.prompts import FROSTER_PROMPTS
from froster.video.augment import Augment
from froster.video.sampling import Sampling

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class AdaptFormerBlock(Block):
    def __init__(
        self, block: Block, bottleneck: int, scale: float, activation: str, after_norm: bool
    ):
        self.init_from(block)
        width = block.width
        self.scale, self.after_norm = scale, after_norm
        self.mlp_adapter = Adapter(width, bottleneck or width // 4, ACTIVATIONS[activation])

    def mlp_sublayer(self, x: Tensor) -> Tensor:
        n = self.ln_2(x)
        return x + self.mlp(n) + self.scale * self.mlp_adapter(n if self.after_norm else x)


@dataclass(frozen=True)
class AdaptFormer(Method):
    """Only the adapters are trained."""

    name = "adaptformer"
    summary = "a bottleneck beside the MLP of every block; frames do not see each other"
    reference = "Chen et al., AdaptFormer, NeurIPS 2022"
    trains_clip = False
    small_scale = 100.0
    variants = {
        "official": {},
        "froster": {
            "bottleneck": 0,
            "scale": 0.5,
            "activation": "gelu",
            "after_norm": True,
            "pooling": "frame_unit",
        },
    }
    output_layers = r"mlp_adapter\.up\."

    bottleneck: int = 64
    """Its width; 0: a quarter of the tower's."""
    scale: float = 0.1
    activation: Literal["relu", "gelu"] = "relu"
    after_norm: bool = False
    """Read ln_2 x in place of x."""
    pooling: Pooling = "mean_then_unit"

    def __post_init__(self) -> None:
        one_of("activation", self.activation, *ACTIVATIONS)
        if self.bottleneck < 0:
            raise UsageError(f"bottleneck is a width, not {self.bottleneck}")

    def build(self, clip: CLIP) -> VideoCLIP:
        replace_blocks(
            clip,
            lambda block: AdaptFormerBlock(
                block, self.bottleneck, self.scale, self.activation, self.after_norm
            ),
        )
        return VideoCLIP(clip, self.pooling)

    def trains(self, name: str) -> bool:
        return ".mlp_adapter." in name

    def preset(self) -> Preset:
        recipe = tuned(
            0.4,
            epochs=90,
            batch_size=1024,
            warmup_epochs=10,
            lr_ends=0.0,
            weight_decay=0.0,
            optimizer="sgd",
            draw="all",
        )
        note = (
            "published for a VideoMAE with a batch-normalised classifier; CLIP's projection and"
            " text replace it"
        )
        return Preset(
            recipe,
            FROSTER_PROMPTS,
            Augment(crop="multiscale"),
            Sampling("dense", 8),
            fusion="probs",
            note=note,
        )

    def froster_preset(self) -> Preset:
        return adapters(3e-4)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if has(state, r"\.adaptmlp\.down_proj\."):
            rules = [
                (r"\.adaptmlp\.down_proj\.", ".mlp_adapter.down."),
                (r"\.adaptmlp\.up_proj\.", ".mlp_adapter.up."),
            ]
            width = next(
                len(t) for name, t in state.items() if re.search(r"adaptmlp\.down_proj\.bias", name)
            )
            return Official(
                "AdaptFormer (official adapter)", cls(width), rename(ours(state), rules)
            )
        if has(state, r"\.ffn_adapter\.adapter\.0\.") and not has(state, r"\.t_adapter\."):
            rules = [
                (r"\.ffn_adapter\.", ".mlp_adapter."),
                (r"\.adapter\.0\.", ".down."),
                (r"\.adapter\.2\.", ".up."),
            ]
            width = next(
                len(t) for name, t in state.items() if name.endswith("ffn_adapter.adapter.0.bias")
            )
            method = cls.make("froster", bottleneck=width)
            return Official("AdaptFormer (FROSTER's version)", method, rename(ours(state), rules))
        return None
