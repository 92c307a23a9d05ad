"""TSM-ResNet (Lin et al., ICCV 2019): a ResNet of frames whose residual branches see a part of the
channels of the neighbouring frames. ER-ZASR's video stream.

Modules are named as in the authors' release (`base_model.layer1.0.conv1.net.weight`, `new_fc`), and
every size is read from the weights.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.checkpoints import strict_load
from froster.encoders.reading import State
from froster.errors import CheckpointError

SHIFT = 8
"""One channel in so many comes from the next frame, and one from the frame before."""


def shift(
    x: Float[Tensor, "frames channels height width"], num_frames: int
) -> Float[Tensor, "frames channels height width"]:
    """The first eighth of the channels as the next frame of the clip has them, the second as the
    frame before has them, zeros beyond the ends. Below eight channels nothing moves."""
    fold = x.shape[1] // SHIFT
    after, before, rest = x.unflatten(0, (-1, num_frames)).split(
        [fold, fold, x.shape[1] - 2 * fold], dim=2
    )
    after = F.pad(after[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    before = F.pad(before[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([after, before, rest], dim=2).flatten(0, 1)


class Shifted(nn.Module):
    """A convolution on shifted frames."""

    def __init__(self, net: nn.Conv2d):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        return self.net(shift(x, num_frames))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which has the stride), 1x1. Its shortcut sees the frames as they are."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, downsample: bool):
        super().__init__()
        self.conv1 = Shifted(nn.Conv2d(inputs, width, 1, bias=False))
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if downsample
            else None
        )

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x, num_frames)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Frames -> the mean over the places of the last layer. `state` tells the sizes."""

    def __init__(self, state: State):
        super().__init__()
        width = state["conv1.weight"].shape[0]
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layers: list[str] = sorted(
            {match[1] for name in state if (match := re.match(r"(layer\d+)\.", name))}
        )
        for layer in self.layers:
            numbers = {name.split(".")[1] for name in state if name.startswith(f"{layer}.")}
            blocks = []
            for block in range(len(numbers)):
                start = f"{layer}.{block}"
                middle, inputs = state[f"{start}.conv1.net.weight"].shape[:2]
                blocks.append(
                    Bottleneck(
                        inputs,
                        middle,
                        state[f"{start}.conv3.weight"].shape[0],
                        stride=2 if block == 0 and layer != "layer1" else 1,
                        downsample=f"{start}.downsample.0.weight" in state,
                    )
                )
            self.add_module(layer, nn.ModuleList(blocks))

    def forward(
        self, frames: Float[Tensor, "frames 3 height width"], num_frames: int
    ) -> Float[Tensor, "frames features"]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(frames))), 3, 2, padding=1)
        for layer in self.layers:
            for block in self.get_submodule(layer):  # type: ignore[attr-defined]
                x = block(x, num_frames)
        return x.mean((2, 3))


class TSMResNet(nn.Module):
    """Clips -> features of their frames. The release's closed-set head is kept beside it."""

    def __init__(self, state: State):
        super().__init__()
        start = "base_model."
        self.base_model = ResNet(
            {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
        )
        classes, features = state["new_fc.weight"].shape
        self.new_fc = nn.Linear(features, classes)

    @classmethod
    def of(cls, state: State) -> TSMResNet:
        """From weights under the release's names, without `module.`. Raises CheckpointError."""
        counters = [name for name in state if name.endswith(".num_batches_tracked")]
        state = {name: tensor for name, tensor in state.items() if name not in counters}
        try:
            network = cls(state)
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"no TSM-ResNet of bottlenecks: {error} is missing") from None
        zeros = {
            name: tensor
            for name, tensor in network.state_dict().items()
            if name.endswith(".num_batches_tracked")
        }
        strict_load(network, state | zeros)
        return network.eval()

    def forward(
        self, clips: Float[Tensor, "batch time 3 height width"]
    ) -> Float[Tensor, "batch time features"]:
        """Normalised by ImageNet's mean and deviation -> the features of each segment; ER-ZASR
        stores their mean."""
        return self.base_model(clips.flatten(0, 1), clips.shape[1]).unflatten(0, clips.shape[:2])
