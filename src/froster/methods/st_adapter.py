"""ST-Adapter: a bottleneck with a depthwise convolution over time, on the patch tokens.

    x_patch += W2 conv_t( W1 x_patch )            no activation; the class token is untouched

Official: before the MLP of every block (K400), or before the attention and before the MLP (SSv2);
the convolution starts at zero. FROSTER's version sits before the attention and starts with W2 = 0.
The adapter before the last MLP is in the release, but has no effect where the class token is a
frame's embedding: it changes patches that no class token reads any more.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP
from froster.encoders.reading import State
from froster.errors import CheckpointError, UsageError, one_of
from froster.methods.base import Method, Official, Pooling, VideoCLIP, replace_blocks
from froster.methods.recipe import Preset, tuned, with_adapters
from froster.methods.weight_names import has, ours, rename, without
from froster.text.prompts import FROSTER_PROMPTS
from froster.video.augment import Augment
from froster.video.sampling import Sampling

Place = Literal["mlp", "attention", "both"]
Zero = Literal["conv", "up"]


class TimeAdapter(nn.Module):
    def __init__(self, width: int, inner: int, kernel: int, zero: Zero, prefix: int):
        super().__init__()
        self.prefix = prefix
        self.down = nn.Linear(width, inner)
        self.conv = nn.Conv1d(inner, inner, kernel, padding=kernel // 2, groups=inner)
        self.up = nn.Linear(inner, width)
        for layer in (self.down, self.up):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        nn.init.zeros_(self.conv.weight if zero == "conv" else self.up.weight)
        for bias in (self.down.bias, self.conv.bias, self.up.bias):
            nn.init.zeros_(bias)  # type: ignore[arg-type]

    def forward(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        """The first `prefix` tokens stay: the class token, if there is one."""
        cls, patches = x[:, : self.prefix], x[:, self.prefix :]
        y = self.down(patches).unflatten(0, (-1, num_frames))  # (B, T, N, C)
        B, _, N, _ = y.shape
        y = self.conv(y.permute(0, 2, 3, 1).flatten(0, 1)).unflatten(0, (B, N)).permute(0, 3, 1, 2)
        return torch.cat([cls, patches + self.up(y.flatten(0, 1))], dim=1)


class STAdapterBlock(Block):
    def __init__(
        self, block: Block, place: Place, bottleneck: int, kernel: int, zero: Zero, prefix: int
    ):
        self.init_from(block)
        width = block.width
        inner = bottleneck or width // 2
        adapter = lambda: TimeAdapter(width, inner, kernel, zero, prefix)  # noqa: E731
        self.before_attn = adapter() if place != "mlp" else None
        self.before_mlp = adapter() if place != "attention" else None

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        if self.before_attn is not None:
            x = self.before_attn(x, num_frames)
        x = x + self.attend(self.ln_1(x), num_frames)
        if self.before_mlp is not None:
            x = self.before_mlp(x, num_frames)
        return x


@dataclass(frozen=True)
class STAdapter(Method):
    """Only the adapters are trained."""

    name = "st-adapter"
    summary = (
        "bottlenecks with a convolution over time, before the MLP and / or the attention of every"
        " block"
    )
    reference = "Pan et al., ST-Adapter, NeurIPS 2022"
    trains_clip = False
    variants = {
        "k400": {},
        "ssv2": {"place": "both"},
        "froster": {"place": "attention", "zero": "up", "pooling": "frame_unit"},
    }
    output_layers = r"before_(attn|mlp)\.up\."

    place: Place = "mlp"
    bottleneck: int = 0
    """Its width; 0: half of the tower's."""
    kernel: int = 3
    """Frames that the convolution spans, an odd number."""
    zero: Zero = "conv"
    """What is zero at the start, so that the network is CLIP."""
    pooling: Pooling = "mean_then_unit"

    def __post_init__(self) -> None:
        one_of("place", self.place, "mlp", "attention", "both")
        one_of("zero", self.zero, "conv", "up")
        if self.kernel < 1 or self.kernel % 2 == 0 or self.bottleneck < 0:
            raise UsageError(
                f"kernel must be an odd number of frames, bottleneck a width: {self.kernel},"
                f" {self.bottleneck}"
            )

    def build(self, clip: CLIP) -> VideoCLIP:
        prefix = clip.config.vision.prefix
        replace_blocks(
            clip,
            lambda block: STAdapterBlock(
                block, self.place, self.bottleneck, self.kernel, self.zero, prefix
            ),
        )
        return VideoCLIP(clip, self.pooling)

    def trains(self, name: str) -> bool:
        return ".before_attn." in name or ".before_mlp." in name

    def preset(self) -> Preset:
        ssv2 = self.place == "both"
        recipe = tuned(
            1e-3 if ssv2 else 7.5e-4,
            epochs=50 if ssv2 else 12,
            batch_size=256 if ssv2 else 192,
            weight_decay=0.01,
            lr_ends=0.0,
        )
        augment = Augment(crop="resized", flip=False, rand_augment=(4, 7)) if ssv2 else Augment()
        note = "the classifier and its dropout .5 are replaced by CLIP's projection and text"
        sampling = Sampling("uniform" if ssv2 else "dense", 8)
        return Preset(
            recipe, FROSTER_PROMPTS, augment, sampling, 1 if ssv2 else 3, "probs", note=note
        )

    def froster_preset(self) -> Preset:
        return with_adapters(2.5e-4)

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        if has(state, "stadapt_down_1"):
            rules = [
                (r"\.stadapt_(down|up)_1\.", r".before_attn.\1."),
                (r"\.stadapt_conv3d_1\.", ".before_attn.conv."),
            ]
            official = Official(
                "ST-Adapter (FROSTER's version)", cls.make("froster"), rename(ours(state), rules)
            )
        elif has(state, r"adapter_pre_(attn|mlp)\.fc1"):
            ignored = [name for name in state if name.startswith("fc.")]
            rules = [
                (r"\.adapter_pre_", ".before_"),
                (r"\.fc1\.", ".down."),
                (r"\.fc2\.", ".up."),
                ("^", "visual."),
            ]
            attention, mlp = has(state, "adapter_pre_attn"), has(state, "adapter_pre_mlp")
            place: Place = "both" if attention and mlp else "attention" if attention else "mlp"
            image = rename(without(state, ignored), rules)
            official = Official(f"ST-Adapter (official, {place})", cls(place), image, ignored)
        else:
            return None
        changes = {}
        for name, tensor in official.state.items():
            if ".before_" not in name or not name.endswith("weight"):
                continue
            if ".conv." in name:  # depthwise, over images (T, 1) or videos (T, 1, 1)
                if tensor[0, 0].numel() != tensor.shape[2]:
                    raise CheckpointError(
                        f"{name}: convolutions over space, {tuple(tensor.shape)}, are not supported"
                    )
                changes["kernel"] = tensor.shape[2]
                official.state[name] = tensor.reshape(len(tensor), 1, -1)
            else:  # linear layers, or convolutions of one pixel
                official.state[name] = tensor.flatten(1)
                if ".down." in name:
                    changes["bottleneck"] = len(tensor)
        official.method = dataclasses.replace(official.method, **changes)
        return official
