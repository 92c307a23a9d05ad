"""What an encoder's towers are like: sizes and options, checked once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing

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
