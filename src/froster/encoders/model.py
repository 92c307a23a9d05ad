"""CLIP's two towers, with the seams that the video methods need.

A method of the literature changes one step of `block.Block`, in one tower or both. Parameter names
are OpenAI's, except that the text tower's begin with `text.` (`checkpoints.from_official` maps
between the two).

Sizes in comments: B videos, T frames, L tokens a frame (or a prompt), D width, E joint width.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from froster.encoders.block import Block, Transformer
from froster.encoders.kernels import use_cpu_kernels
from froster.encoders.packed import Packed
from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import CheckpointError, UsageError

MAX_INITIAL_SCALE = math.log(1 / 0.07)


LARGEST = 1 << 16
"""Of any size that an architecture has: eight times what the largest CLIPs have."""
MOST_LAYERS = 1 << 10


def check_sizes(part: str, **sizes: Any) -> None:
    """Raises ValueError on a size that is no whole number above zero, or larger than any network's.

    A tower without layers is none that was trained, but it can be built.
    """
    for name, size in sizes.items():
        least, most = (
            (0, MOST_LAYERS)
            if name == "layers"
            else (1, LARGEST << 8 if name == "vocab" else LARGEST)
        )
        if type(size) is not int or not least <= size <= most:
            raise ValueError(
                f"{name} of the {part} is {size!r:.100}: it takes a whole number from {least} to"
                f" {most}"
            )


@dataclass(frozen=True)
class VisionConfig:
    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12
    stem: bool = False
    """A small convolutional stem in place of the one patch convolution (the nano CLIP has it, no
    released CLIP does)."""

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        stem = sizes.pop("stem")
        check_sizes("image tower", **sizes)
        if self.width % self.heads or self.image_size < self.patch_size:
            raise ValueError(f"these sizes do not fit together: {self}")
        if not isinstance(stem, bool) or (stem and self.patch_size != 12):
            raise ValueError(
                f"stem is true or false, and has stride 12: {stem!r:.100}, patch_size"
                f" {self.patch_size}"
            )

    @property
    def tokens(self) -> int:
        """Tokens of one frame, the class token included."""
        return (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True)
class TextConfig:
    context: int = 77
    vocab: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8

    def __post_init__(self) -> None:
        check_sizes("text tower", **dataclasses.asdict(self))
        if self.width % self.heads:
            raise ValueError(f"these sizes do not fit together: {self}")


@dataclass(frozen=True)
class CLIPConfig:
    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    embed_dim: int = 512
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    preprocessing: Preprocessing = CLIP_PREPROCESSING

    def __post_init__(self) -> None:
        check_sizes("joint space", embed_dim=self.embed_dim)
        if self.activation not in ("quick_gelu", "gelu"):
            raise ValueError(f"activation is {self.activation!r:.100}: it takes quick_gelu or gelu")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CLIPConfig:
        """The inverse of `CLIP.architecture`. Raises TypeError on a field that does not exist."""
        vision, text = VisionConfig(**values["vision"]), TextConfig(**values["text"])
        return cls(**{**values, "vision": vision, "text": text})


ARCHITECTURES = {
    "ViT-B/32": CLIPConfig(VisionConfig(patch_size=32)),
    "ViT-B/16": CLIPConfig(),
    "ViT-L/14": CLIPConfig(
        VisionConfig(224, 14, 1024, 24, 16), TextConfig(width=768, heads=12), embed_dim=768
    ),
    "ViT-L/14@336": CLIPConfig(
        VisionConfig(336, 14, 1024, 24, 16), TextConfig(width=768, heads=12), embed_dim=768
    ),
}


def normalise(
    frames: UInt8[Tensor, "*clip 3 height width"], how: Preprocessing = CLIP_PREPROCESSING
) -> Float32[Tensor, "*clip 3 height width"]:
    """With the model's mean and standard deviation. Runs where the frames are."""
    mean = torch.tensor(how.mean, dtype=torch.float32, device=frames.device).view(3, 1, 1)
    std = torch.tensor(how.std, dtype=torch.float32, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std


def unit(x: Float[Tensor, "*rows embed"]) -> Float[Tensor, "*rows embed"]:
    """u(x): x divided by its L2 norm over the last dimension."""
    return x / x.norm(dim=-1, keepdim=True)


class _NoDraws(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (
            func in (Tensor.normal_, Tensor.uniform_)
            or getattr(func, "__module__", None) == "torch.nn.init"
        ):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def blank(weights: int | None = None) -> Iterator[None]:
    """Networks that are built in here have shapes but no memory: to count weights, or to load them
    from a file.

    The meta device alone would still carry out the initial draws, in Python, and import the
    compiler for it (seconds). Raises CheckpointError where a network asks for many more than so
    many `weights`, which are all that a file has: its config may speak of a billion layers.
    """
    room, here = max(1000, 2 * (weights or 0)), threading.get_ident()

    def count(*_: Any) -> None:
        nonlocal room
        room -= threading.get_ident() == here
        if room < 0:
            raise CheckpointError(
                f"it asks for a network of more than the {weights} weights that there are"
            )

    counting = None if weights is None else register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), _NoDraws():
            yield
    finally:
        if counting is not None:
            counting.remove()


def conv_stem(width: int) -> nn.Sequential:
    """Three convolutions of total stride 12. Learns nouns from far fewer images than one linear
    patch projection."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 6, stride=3, padding=2, bias=False),
        nn.GroupNorm(8, 32),
        nn.GELU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(8, 64),
        nn.GELU(),
        nn.Conv2d(64, width, 3, stride=2, padding=1, bias=False),
    )


class VisionTower(nn.Module):
    """The image encoder, applied to every frame; blocks may look at neighbouring frames."""

    def __init__(self, config: VisionConfig, embed_dim: int, activation: str):
        super().__init__()
        width, patch = config.width, config.patch_size
        self.config = config
        self.conv1 = (
            conv_stem(width)
            if config.stem
            else nn.Conv2d(3, width, patch, stride=patch, bias=False)
        )
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))
        self.temporal_embedding: nn.Parameter | None
        # (T, D), for methods that tell the frames apart: added to every token of frame t. CLIP has
        # none.
        self.register_parameter("temporal_embedding", None)

    def patches(
        self, images: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames patches dim"]:
        """The patches do not overlap: a convolution is one matrix product of them."""
        if isinstance(self.conv1, nn.Sequential):
            return self.conv1(images).flatten(2).transpose(1, 2)
        P = self.config.patch_size
        side = self.config.image_size // P
        grid = images[..., : side * P, : side * P].unflatten(3, (side, P)).unflatten(2, (side, P))
        return F.linear(
            grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), self.conv1.weight.flatten(1)
        )

    def embed(
        self, images: Float[Tensor, "frames 3 height width"], num_frames: int = 1
    ) -> Float[Tensor, "frames tokens dim"]:
        """The tokens before the first block; token 0 is the class token.

        Raises UsageError where the network has time embeddings for another number of frames.
        """
        patches = self.patches(images)
        cls = self.class_embedding.expand(len(patches), 1, -1).to(patches.dtype)
        x = torch.cat([cls, patches], dim=1) + self.positional_embedding
        if self.temporal_embedding is not None:
            known = len(self.temporal_embedding)
            if known != num_frames:
                raise UsageError(
                    f"this network was made for clips of {known} frames, not of {num_frames}"
                )
            x = (x.unflatten(0, (-1, num_frames)) + self.temporal_embedding[:, None]).flatten(0, 1)
        return self.ln_pre(x)

    def forward(
        self, frames: Float[Tensor, "batch time 3 height width"], layers: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        """Normalised frames -> frame embeddings, not unit length.

        `layers`: a list that receives every block's output, (B*T, L, D) each.
        """
        B, T = self.check(frames)
        x = self.embed(frames.flatten(0, 1), T)
        if layers is None:
            cls = self.transformer.forward_at(
                x, torch.zeros(len(x), dtype=torch.long, device=x.device), T
            )
        else:
            cls = self.transformer(x, T, layers)[:, 0]
        return (self.ln_post(cls) @ self.proj).unflatten(0, (B, T))

    def check(self, frames: Tensor) -> tuple[int, int]:
        """B and T of frames (B, T, 3, H, W). Raises ValueError on another shape."""
        size = self.config.image_size
        if frames.ndim != 5 or frames.shape[2:] != (3, size, size):
            raise ValueError(
                f"expected frames (B, T, 3, {size}, {size}), got {tuple(frames.shape)}"
            )
        return frames.shape[0], frames.shape[1]


class TextTower(nn.Module):
    def __init__(self, config: TextConfig, embed_dim: int, activation: str):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context, config.width))
        self.transformer = Transformer(
            config.width, config.layers, config.heads, activation, causal=True
        )
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.empty(config.width, embed_dim))

    def forward(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts embed"]:
        """Token ids, at most `context` a text -> embeddings, not unit length.

        Pooled at the end token, which has the largest id. The mask is causal, so columns behind the
        last end token can be cut off; on a CPU nothing behind a row's own is computed, and what all
        rows begin with is computed once.
        """
        end = tokens.argmax(dim=-1)
        differ = (tokens != tokens[:1]).any(0).nonzero()
        same = int(differ[0]) if len(differ) else tokens.shape[1]
        return self.encode(
            self.token_embedding(tokens.to(self.positional_embedding.device)), end, same
        )

    def encode(
        self, words: Float[Tensor, "texts length width"], end: Int[Tensor, " texts"], same: int = 0
    ) -> Float[Tensor, "texts embed"]:
        """Token embeddings, of whatever source, and the place of each end token -> embeddings.

        `same`: that many columns are the same in all rows.
        """
        x = words + self.positional_embedding[: words.shape[1]]
        blocks = self.transformer.blocks()
        plain = blocks and all(type(block) is Block for block in blocks)
        # An accelerator would rather pad rows than start many small kernels.
        if not plain or not len(x) or not use_cpu_kernels(x):
            pooled = self.transformer.forward_at(x, end.to(x.device))
            return self.ln_final(pooled) @ self.text_projection
        packed = Packed.of(end + 1, min(same, int(end.min())), self.config.width)
        x = packed.pack(x)
        *first, last = blocks
        for block in first:
            x = self.transformer.run_block(packed.block, block, x)
        x = packed.last_block(last, x)
        return packed.unsort(self.ln_final(x) @ self.text_projection)


class CLIP(nn.Module):
    """An image tower and a text tower that meet in a joint space of width E."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        self.config = config
        self.visual = VisionTower(config.vision, config.embed_dim, config.activation)
        self.text = TextTower(config.text, config.embed_dim, config.activation)
        self.logit_scale = nn.Parameter(torch.tensor(MAX_INITIAL_SCALE))
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """CLIP's own initialisation: widths and depth decide the spread."""
        for tower in (self.visual, self.text):
            width, layers = tower.config.width, tower.config.layers
            for block in tower.transformer.resblocks:
                assert isinstance(block, Block)
                nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
                nn.init.normal_(block.attn.out_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
                nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
                nn.init.normal_(block.mlp.c_proj.weight, std=width**-0.5 * (2 * layers) ** -0.5)
                for layer in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                    nn.init.zeros_(layer.bias)
        scale = self.visual.config.width**-0.5
        for parameter in (
            self.visual.class_embedding,
            self.visual.positional_embedding,
            self.visual.proj,
        ):
            nn.init.normal_(parameter, std=scale)
        nn.init.normal_(self.text.token_embedding.weight, std=0.02)
        nn.init.normal_(self.text.positional_embedding, std=0.01)
        nn.init.normal_(self.text.text_projection, std=self.text.config.width**-0.5)

    def encode_image(
        self, frames: Float[Tensor, "batch time 3 height width"], layers: list[Tensor] | None = None
    ) -> Float[Tensor, "batch time embed"]:
        """Normalised frames -> frame embeddings, not unit length."""
        return self.visual(frames, layers)

    def encode_text(self, tokens: Int[Tensor, "texts length"]) -> Float[Tensor, "texts embed"]:
        """Token ids -> text embeddings, not unit length."""
        return self.text(tokens)

    def architecture(self) -> dict[str, Any]:
        """The sizes as plain values, for `config.json`, where the preprocessing has a place of its
        own."""
        return {
            name: value
            for name, value in dataclasses.asdict(self.config).items()
            if name != "preprocessing"
        }
