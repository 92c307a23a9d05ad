"""BiT (Kolesnikov et al., ECCV 2020): a pre-activation ResNet with standardised weights and group
normalisation. ER-ZASR's object stream: which of ImageNet's 21,843 concepts a video shows.

Modules are named as in the authors' PyTorch code (`body.block1.unit01.conv1`). The names of their
npz and those of timm's `resnetv2_50x1_bit` are read too, and every size is read from the weights.
"""

from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from froster.encoders.checkpoints import strict_load
from froster.encoders.reading import State
from froster.errors import CheckpointError
from froster.methods.weight_names import rename

GROUPS = 32

_UNIT = r"^resnet/(block\d+)/(unit\d+)/"
_NPZ = [
    (r"^resnet/root_block/standardized_conv2d/kernel$", "root.conv.weight"),
    (rf"{_UNIT}a/proj/standardized_conv2d/kernel$", r"body.\1.\2.downsample.weight"),
    *(
        rule
        for number, letter in ((1, "a"), (2, "b"), (3, "c"))
        for rule in (
            (rf"{_UNIT}{letter}/standardized_conv2d/kernel$", rf"body.\1.\2.conv{number}.weight"),
            (rf"{_UNIT}{letter}/group_norm/gamma$", rf"body.\1.\2.gn{number}.weight"),
            (rf"{_UNIT}{letter}/group_norm/beta$", rf"body.\1.\2.gn{number}.bias"),
        )
    ),
    (r"^resnet/group_norm/gamma$", "head.gn.weight"),
    (r"^resnet/group_norm/beta$", "head.gn.bias"),
    (r"^resnet/head/conv2d/kernel$", "head.conv.weight"),
    (r"^resnet/head/conv2d/bias$", "head.conv.bias"),
]


class StandardisedConv(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1 for each channel that they make."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * (variance + 1e-10).rsqrt()
        return F.conv2d(x, weight, None, self.stride, self.padding)


class Unit(nn.Module):
    """A bottleneck after its norm: the shortcut of a first unit sees the normed input too."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, downsample: bool):
        super().__init__()
        self.gn1 = nn.GroupNorm(GROUPS, inputs)
        self.conv1 = StandardisedConv(inputs, width, 1, bias=False)
        self.gn2 = nn.GroupNorm(GROUPS, width)
        self.conv2 = StandardisedConv(width, width, 3, stride, padding=1, bias=False)
        self.gn3 = nn.GroupNorm(GROUPS, width)
        self.conv3 = StandardisedConv(width, outputs, 1, bias=False)
        self.downsample = (
            StandardisedConv(inputs, outputs, 1, stride, bias=False) if downsample else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.gn1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        y = self.conv2(F.relu(self.gn2(self.conv1(y))))
        return shortcut + self.conv3(F.relu(self.gn3(y)))


class BiTResNet(nn.Module):
    """Frames -> logits of the concepts. `state`: weights that tell the sizes."""

    def __init__(self, state: State):
        super().__init__()
        root = StandardisedConv(3, len(state["root.conv.weight"]), 7, 2, padding=3, bias=False)
        self.root = nn.ModuleDict({"conv": root})
        units: dict[str, list[str]] = {}
        for name in sorted(state):
            if name.startswith("body."):
                _, block, unit = name.split(".")[:3]
                if unit not in units.setdefault(block, []):
                    units[block].append(unit)
        self.body = nn.ModuleDict()
        for block, names in sorted(units.items()):
            stack = nn.Sequential()
            for unit in names:
                start = f"body.{block}.{unit}"
                width, inputs = state[f"{start}.conv1.weight"].shape[:2]
                outputs = len(state[f"{start}.conv3.weight"])
                stride = 2 if unit == names[0] and block != "block1" else 1
                downsample = f"{start}.downsample.weight" in state
                stack.add_module(unit, Unit(inputs, width, outputs, stride, downsample))
            self.body[block] = stack
        concepts, width = state["head.conv.weight"].shape[:2]
        self.head = nn.ModuleDict(
            {"gn": nn.GroupNorm(GROUPS, width), "conv": nn.Conv2d(width, concepts, 1)}
        )

    @classmethod
    def of(cls, state: State) -> BiTResNet:
        """From weights under the authors' names, of PyTorch or of the npz, or timm's. Raises
        CheckpointError."""
        if "stem.conv.weight" in state:
            state = from_timm(state)
        try:
            network = cls(state)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"no BiT ResNet: {error}") from None
        strict_load(network, state)
        return network.eval()

    def stem(
        self, frames: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels rows columns"]:
        """What the first block is given. The zeros of the padding take part in the maximum."""
        return F.max_pool2d(F.pad(self.root["conv"](frames), (1, 1, 1, 1)), 3, 2)

    def forward(
        self, frames: Float[Tensor, "*batch 3 height width"]
    ) -> Float[Tensor, "*batch concepts"]:
        """Frames are normalised by mean 0.5 and deviation 0.5."""
        x = self.stem(frames.flatten(0, -4))
        for block in self.body.values():
            x = block(x)
        x = F.relu(self.head["gn"](x)).mean((2, 3), keepdim=True)
        return self.head["conv"](x)[..., 0, 0].unflatten(0, frames.shape[:-3])


def top_concepts(
    logits: Float[Tensor, "time concepts"], count: int
) -> tuple[Int[Tensor, " top"], Float[Tensor, " top"]]:
    """The concepts of a video, the likeliest first, and how likely each is: of the mean of the
    frames' raw logits."""
    top, ids = logits.mean(-2).topk(min(count, logits.shape[-1]))
    return ids, top.sigmoid()


def from_timm(state: State) -> State:
    """Weights under timm's names (`stages.0.blocks.0.norm1`) -> under the authors'."""
    renamed: State = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)", name):
            rest = match[3].replace("norm", "gn").replace("downsample.conv.", "downsample.")
            name = f"body.block{int(match[1]) + 1}.unit{int(match[2]) + 1:02d}.{rest}"
        else:
            rules = [
                (r"^stem\.", "root."),
                (r"^norm\.", "head.gn."),
                (r"^head\.fc\.", "head.conv."),
            ]
            name = next(iter(rename({name: tensor}, rules)))
        renamed[name] = tensor
    return renamed


def from_npz(arrays: dict[str, np.ndarray]) -> State:
    """The arrays of the authors' npz, whose kernels are height, width, in, out."""
    state = {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
    turned = {n: t.permute(3, 2, 0, 1).contiguous() if t.ndim == 4 else t for n, t in state.items()}
    return rename(turned, _NPZ)
