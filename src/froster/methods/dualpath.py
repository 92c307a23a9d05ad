"""DUALPATH: two paths through one frozen image tower, single frames and mosaics of frames.

Framesets: every 16 consecutive frames as a 4 x 4 mosaic, shrunk to the size of one frame; each
           patch is told the number of its frame by a sinusoidal code, and its place by positions
           of its own.
Spatial:   8 frames, 0, T/8, ...
           n = ln_1 x;  x += attend(n) + A(n);            n = ln_2 x;  x += mlp(n) + A'(n)
Temporal:  x += B(attend(C(ln_1 x)));                     x += D(mlp(ln_2 x))

The five adapters have no skip and start at zero, so the temporal blocks start as the identity. The
paper puts a closed-set head on [mean of the framesets | mean of the frames]. `open` is ours, not
the authors': the framesets' mean, times a gate that starts at zero, is added to the frames', and
CLIP's text is the classifier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from froster.encoders.block import Block
from froster.encoders.model import CLIP, unit
from froster.encoders.reading import State
from froster.errors import UsageError, one_of
from froster.methods.base import Features, Method, Official, VideoCLIP, replace_blocks
from froster.methods.heads import Adapter, ones_at_classes
from froster.methods.recipe import Preset, tuned, with_adapters
from froster.methods.weight_names import has, rename, width_of
from froster.methods.xclip import XCLIP_PREPROCESSING
from froster.text.bank import PromptBank
from froster.text.labels import names_of
from froster.text.prompts import FROSTER_PROMPTS
from froster.video.augment import Augment
from froster.video.sampling import Sampling

SIDE, FRAMES, CELL = 4, 8, 4
"""Frames along a side of a mosaic, frames of the spatial path, cells of the map of frame numbers a
frame."""


class DroppingAdapter(Adapter):
    """W2 dropout(GELU(W1 x)), no skip."""

    def __init__(self, width: int, bottleneck: int, dropout: float):
        super().__init__(width, bottleneck, nn.GELU)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        return self.up(F.dropout(self.act(self.down(x)), self.dropout, self.training))


class DualBlock(Block):
    """A CLIP block; as such the spatial path's, `temporal` is the other."""

    def __init__(self, block: Block, bottleneck: int, dropout: float):
        self.init_from(block)
        width = bottleneck or block.width // 4
        adapter = lambda: DroppingAdapter(block.width, width, dropout)  # noqa: E731
        self.t_adapter_attn_b, self.t_adapter_attn, self.t_adapter_mlp = (
            adapter() for _ in range(3)
        )
        self.s_adapter_attn, self.s_adapter_mlp = adapter(), adapter()

    def attention_sublayer(
        self, x: Float[Tensor, "frames tokens width"], num_frames: int
    ) -> Float[Tensor, "frames tokens width"]:
        n = self.ln_1(x)
        return x + self.attend(n, num_frames) + self.s_adapter_attn(n)

    def mlp_sublayer(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        n = self.ln_2(x)
        return x + self.mlp(n) + self.s_adapter_mlp(n)

    def temporal(
        self, x: Float[Tensor, "framesets tokens width"]
    ) -> Float[Tensor, "framesets tokens width"]:
        x = x + self.t_adapter_attn(self.attend(self.t_adapter_attn_b(self.ln_1(x)), 1))
        return x + self.t_adapter_mlp(self.mlp(self.ln_2(x)))


def mosaic(
    frames: Float[Tensor, "batch time 3 height width"], side: int, antialias: bool = False
) -> Float[Tensor, "batch sets 3 height width"]:
    """Every side * side frames as one. Without antialiasing, as the authors' libraries shrank
    tensors, no pixel mixes two frames."""
    size = frames.shape[-2:]
    grid = frames.unflatten(1, (-1, side, side)).permute(0, 1, 4, 2, 5, 3, 6)
    large = grid.flatten(5, 6).flatten(3, 4).flatten(0, 1)  # (B * sets, 3, side * H, side * W)
    return shrunk(large, size, antialias).unflatten(0, (len(frames), -1))


def shrunk(x: Tensor, size: Sequence[int], antialias: bool) -> Tensor:
    """Bilinear, of (N, C, H, W)."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False, antialias=antialias)


def time_code(
    sets: int, side: int, grid: int, width: int, antialias: bool = False
) -> Float[Tensor, "sets tokens width"]:
    """Sines (even places) and cosines of the number of the frame under each of grid * grid patches,
    counted from 1 through all framesets; the class token has number 0."""
    numbers = torch.arange(1.0, sets * side**2 + 1).view(sets, 1, side, side)
    numbers = numbers.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    under = shrunk(numbers, (grid, grid), antialias).flatten(1)
    under = torch.cat([torch.zeros(sets, 1), under], dim=1)[..., None]
    angles = under / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]


def side_of(frames: int) -> int:
    """4, or of clips that 16 does not divide the largest side whose mosaics fill them."""
    return next(side for side in range(SIDE, 0, -1) if frames % side**2 == 0)


class ClosedHead(nn.Module):
    def __init__(self, width: int, classes: int):
        super().__init__()
        self.linear1 = nn.Linear(2 * width, width)
        self.linear2 = nn.Linear(width, classes)

    def forward(self, feature: Float[Tensor, "batch both"]) -> Float[Tensor, "batch classes"]:
        return self.linear2(F.gelu(self.linear1(feature)))


class DualPathNet(VideoCLIP):
    def __init__(self, clip: CLIP, antialias: bool):
        super().__init__(clip, "mean_then_unit")
        self.antialias = antialias
        vision = clip.config.vision
        self.frameset_positions = nn.Parameter(
            torch.randn(vision.tokens, vision.width) * vision.width**-0.5
        )

    def frames_of(self, count: int) -> list[int]:
        """The spatial path's."""
        some = min(FRAMES, count)
        return [i * count // some for i in range(some)]

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Of the spatial path's frames alone, (B, 8, E)."""
        return self.clip.encode_image(frames[:, self.frames_of(frames.shape[1])])

    def embed_framesets(
        self, frames: Float[Tensor, "batch time 3 height width"]
    ) -> Float[Tensor, "framesets tokens dim"]:
        """The temporal path's tokens before ln_pre."""
        visual, config = self.clip.visual, self.clip.config.vision
        side = side_of(frames.shape[1])
        images = mosaic(frames, side, self.antialias)
        x = visual.patches(images.flatten(0, 1))
        if visual.class_embedding is not None:
            cls = visual.class_embedding.expand(len(x), 1, -1).to(x.dtype)
            x = torch.cat([cls, x], dim=1)
        code = time_code(images.shape[1], side, config.side, config.width, self.antialias)
        code = code[:, 1 - config.prefix :].to(x.device).repeat(len(frames), 1, 1)
        return x + code + self.frameset_positions

    def encode_framesets(
        self, frames: Float[Tensor, "batch time 3 height width"]
    ) -> Float[Tensor, "batch sets embed"]:
        visual = self.clip.visual
        x = self.embed_framesets(frames)
        if visual.ln_pre is not None:
            x = visual.ln_pre(x)
        for block in visual.transformer.resblocks:
            assert isinstance(block, DualBlock)
            x = visual.transformer.run_block(block.temporal, x)
        return visual.project(visual.pool(x)).unflatten(0, (len(frames), -1))


class OpenDualPath(DualPathNet):
    """z_spatial + gate * z_temporal"""

    def __init__(self, clip: CLIP, antialias: bool):
        super().__init__(clip, antialias)
        self.gate = nn.Parameter(torch.zeros(()))

    def encode(self, frames: Tensor) -> Features:
        z = self.encode_frames(frames).float()
        pooled = z.mean(dim=1) + self.gate * self.encode_framesets(frames).float().mean(dim=1)
        return Features(z, pooled, unit(pooled))


class ClosedDualPath(DualPathNet):
    """A text is the place of its class among the head's outputs."""

    shared_prompts = False
    compares = False

    def __init__(self, clip: CLIP, antialias: bool, classes: tuple[str, ...]):
        super().__init__(clip, antialias)
        self.class_names = classes
        self.closed = ClosedHead(clip.config.embed_dim, len(classes))

    def encode(self, frames: Tensor) -> Features:
        z = self.encode_frames(frames).float()
        both = torch.stack([self.encode_framesets(frames).float().mean(dim=1), z.mean(dim=1)], 1)
        return self.pool_frames(z, both)

    def prompts(self, bank: PromptBank, rows: list[int]) -> Float[Tensor, "prompts classes known"]:
        """Ones at the places of the classes. Raises UsageError on a class that the head lacks."""
        otherwise = "dualpath's variant open takes any"
        ones = ones_at_classes(bank, rows, self.class_names, otherwise)
        return ones.to(self.closed.linear1.weight.device)

    def classes(self, prompts: Tensor) -> Tensor:
        return prompts[0]

    def logits(self, video: Tensor, classes: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            raise ValueError("the head reads both paths: it needs the clip's context")
        return self.closed(context.flatten(1)) @ classes.T


@dataclass(frozen=True)
class DualPath(Method):
    """Adapters, the head, all positions and the class embedding of the image tower are trained."""

    name = "dualpath"
    summary = (
        "single frames and mosaics of 16 frames through one frozen tower, five adapters a block; a"
        " closed-set head, or (ours) CLIP's text"
    )
    reference = "Park et al., DUALPATH, CVPR 2023; the variant open is ours"
    trains_clip = False
    variants = {"closed": {}, "open": {"classifier": "text"}}
    output_layers = r"^gate$|\.s_adapter_(attn|mlp)\.up\."

    classifier: Literal["head", "text"] = "head"
    """`text` is ours: any classes, and at the start CLIP itself."""
    bottleneck: int = 0
    """Width of the adapters; 0: a quarter of the tower's."""
    dropout: float = 0.1
    antialias: bool = False
    """When mosaics are shrunk: neighbouring frames are mixed, as newer libraries do unasked."""
    classes: tuple[str, ...] = ()
    """Of the head."""

    def __post_init__(self) -> None:
        one_of("classifier", self.classifier, "head", "text")
        if self.bottleneck < 0 or not 0 <= self.dropout < 1:
            raise UsageError("bottleneck is a width, and dropout lies in [0, 1)")
        object.__setattr__(self, "classes", tuple(self.classes))

    @property
    def closed(self) -> bool:
        return self.classifier == "head"

    def for_classes(self, labels: Sequence[str]) -> Method:
        return dataclasses.replace(self, classes=names_of(labels)) if self.closed else self

    def build(self, clip: CLIP) -> VideoCLIP:
        if self.closed and not self.classes:
            raise UsageError("dualpath's closed head needs its classes; --variant open has none")
        replace_blocks(clip, lambda block: DualBlock(block, self.bottleneck, self.dropout))
        if self.closed:
            return ClosedDualPath(clip, self.antialias, self.classes)
        return OpenDualPath(clip, self.antialias)

    def trains(self, name: str) -> bool:
        clip = ("clip.visual.class_embedding", "clip.visual.positional_embedding")
        return not name.startswith("clip.") or "_adapter_" in name or name in clip

    def preset(self) -> Preset:
        """Something-Something v2; the rate for Kinetics is not stated."""
        recipe = tuned(
            5e-4 * 86 / 256,
            epochs=60,
            batch_size=86,
            warmup_epochs=3,
            lr_ends=0.0,
            weight_decay=0.05,
        )
        augment = Augment(
            crop="resized",
            flip=False,
            color_jitter=0.8,
            grayscale=0.2,
            rand_augment=(4, 7),
            erasing=0.1,
        )
        note = (
            "frames 4 apart (the paper draws 1, 2, 4 or 8 in training); jitter and RandAugment as"
            " strong as the other methods'; three clips in place of three crops"
        )
        sampling = Sampling("dense", 16, 4)
        return Preset(recipe, FROSTER_PROMPTS, augment, sampling, note=note)

    def froster_preset(self) -> Preset:
        return with_adapters(5e-4 * 86 / 256, sampling=Sampling("dense", 16))

    @classmethod
    def from_official(cls, state: State) -> Official | None:
        """The image tower, without a prefix, and its head."""
        if not has(state, r"\.t_adapter_attn_b\."):
            return None
        rules = [
            (r"^head\.", "closed."),
            (r"^spatial_positional_embedding$", "frameset_positions"),
            (r"\.(down|up)_proj\.", r".\1."),
            (r"^(?!closed\.|frameset_positions$)", "visual."),
        ]
        weights = rename(state, rules)
        width = width_of(weights, ".t_adapter_mlp.down.bias")
        tower = len(weights["visual.class_embedding"])
        count = len(weights["closed.linear2.bias"])
        method = cls(
            bottleneck=0 if 4 * width == tower else width,
            classes=tuple(f"class {number}" for number in range(count)),
        )
        notes = [f"the file does not name its classes: they are class 0 to class {count - 1}"]
        return Official("DUALPATH", method, weights, [], notes, XCLIP_PREPROCESSING)
