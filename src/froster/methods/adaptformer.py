"""AdaptFormer: a bottleneck beside the MLP of every block. Official: 64 wide, ReLU, times 0.1,
reads x before ln_2.

x + mlp(ln_2 x) + s * up(relu(down x))     FROSTER's version: D/4 wide, GELU, s = 0.5, reads ln_2 x
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import UsageError, one_of
from froster.methods.base import Method, Official, Pooling, VideoCLIP, replace_blocks
from froster.methods.heads import Adapter
from froster.methods.recipe import Preset, tuned, with_adapters
from froster.methods.weight_names import has, ours, rename, width_of
from froster.text.prompts import FROSTER_PROMPTS
from froster.video.augment import Augment
from froster.video.sampling import Sampling

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


# FROSTER's code names its adapters so, AIM's and AdaptFormer's alike.
FROSTER_ADAPTERS = [
    (r"\.ffn_adapter\.", ".mlp_adapter."),
    (r"\.adapter\.0\.", ".down."),
    (r"\.adapter\.2\.", ".up."),
]


class AdaptFormerBlock(Block):
    def __init__(
        self, block: Block, bottleneck: int, scale: float, activation: str, after_norm: bool
    ):
        self.init_from(block)
        self.scale, self.after_norm = scale, after_norm
        width = bottleneck or block.width // 4
        self.mlp_adapter = Adapter(block.width, width, ACTIVATIONS[activation])

    def mlp_sublayer(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
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
        )
        note = (
            "published for a VideoMAE with a batch-normalised classifier; CLIP's projection and"
            " text replace it"
        )
        augment, sampling = Augment(crop="multiscale"), Sampling("dense", 8)
        return Preset(recipe, FROSTER_PROMPTS, augment, sampling, fusion="probs", note=note)

    def froster_preset(self) -> Preset:
        return with_adapters(3e-4)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if has(state, r"\.adaptmlp\.down_proj\."):
            rules = [
                (r"\.adaptmlp\.down_proj\.", ".mlp_adapter.down."),
                (r"\.adaptmlp\.up_proj\.", ".mlp_adapter.up."),
            ]
            weights, width = rename(ours(state), rules), width_of(state, "adaptmlp.down_proj.bias")
            return Official("AdaptFormer (official adapter)", cls(width), weights)
        if has(state, r"\.ffn_adapter\.adapter\.0\.") and not has(state, r"\.t_adapter\."):
            width = width_of(state, "ffn_adapter.adapter.0.bias")
            method = cls.make("froster", bottleneck=width)
            weights = rename(ours(state), FROSTER_ADAPTERS)
            return Official("AdaptFormer (FROSTER's version)", method, weights)
        return None
