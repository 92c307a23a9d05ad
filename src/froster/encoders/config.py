"""What an encoder's towers are like: sizes and options, checked once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.encoders.rope import ROPES, Rope

LARGEST = 1 << 16
"""Of any size that an architecture has: eight times what the largest CLIPs have."""
MOST_LAYERS = 1 << 10

# Which every `config.json` has had from the beginning; of what came later only that which is not
# at its default is written.
_ALWAYS = ["image_size", "patch_size", "width", "layers", "heads", "stem", "context", "vocab"]


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


Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
ACTIVATION_NAMES = ("quick_gelu", "gelu", "gelu_tanh")
_SIZES = ("width", "layers", "heads")


def check_choice(what: str, value: Any, *choices: Any) -> None:
    """Raises ValueError on a value that is none of the choices."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{what} is {value!r:.100}: it takes {', '.join(map(repr, choices))}")


def check_block(part: str, mlp_width: Any, eps: Any) -> None:
    """Raises ValueError on a width of the MLP, or a LayerNorm's epsilon, that no block has."""
    if mlp_width != 0 or type(mlp_width) is not int:
        check_sizes(part, mlp_width=mlp_width)
    if type(eps) is not float or not 0 < eps < 1:
        raise ValueError(f"eps of the {part} is {eps!r:.100}: it takes a number between 0 and 1")


@dataclass(frozen=True)
class VisionConfig:
    """The image tower. The defaults are OpenAI's CLIP's."""

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12
    stem: bool | Literal["mobileclip"] = False
    """A small convolutional stem in place of the one patch convolution: that of the nano CLIP
    (true), or MobileCLIP-B's."""
    mlp_width: int = 0
    """Between the two layers of a block's MLP; 0: four times the width."""
    eps: float = 1e-5
    """Of every LayerNorm."""
    activation: Literal["", "quick_gelu", "gelu", "gelu_tanh"] = ""
    """Of the MLPs; empty: `CLIPConfig`'s."""
    class_token: bool = True
    patch_bias: bool = False
    pre_norm: bool = True
    """A LayerNorm before the first block."""
    pool: Literal["class", "map", "mean"] = "class"
    """What a frame's embedding is made of: the class token, an attention pool over all tokens
    (SigLIP, PE-Core), or the mean of the patches (CLIPA)."""
    pool_heads: int = 0
    """Of the attention pool; 0: as many as the blocks have."""
    projection: Literal["matrix", "affine", "none"] = "matrix"
    """From the width to the joint space; with a bias (`affine`), or none."""
    rope: Rope = ""
    """Rotary positions beside the learned ones: see `rope.angles`."""
    gated: bool = False
    """EVA02's blocks: a gated MLP, and a LayerNorm within it and within the attention, whose keys
    have no bias."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("image_size", "patch_size", *_SIZES)}
        check_sizes("image tower", **sizes)
        check_block("image tower", self.mlp_width, self.eps)
        if self.pool_heads != 0 or type(self.pool_heads) is not int:
            check_sizes("image tower", pool_heads=self.pool_heads)
        for name, choices in (
            ("stem", (False, True, "mobileclip")),
            ("activation", ("", *ACTIVATION_NAMES)),
            ("pool", ("class", "map", "mean")),
            ("projection", ("matrix", "affine", "none")),
            ("rope", ROPES),
            *((name, (True, False)) for name in ("class_token", "patch_bias", "pre_norm", "gated")),
        ):
            check_choice(f"{name} of the image tower", getattr(self, name), *choices)
        pool_heads = self.pool_heads or self.heads
        if (
            self.width % self.heads
            or self.image_size < self.patch_size
            or (self.pool == "map" and self.width % pool_heads)
        ):
            raise ValueError(f"these sizes do not fit together: {self}")
        stride = {True: 12, "mobileclip": 16}.get(self.stem, self.patch_size)
        if self.patch_size != stride or (self.stem == "mobileclip" and self.width % 4):
            raise ValueError(
                f"a stem {self.stem!r} has stride {stride}: patch_size {self.patch_size}, width"
                f" {self.width}"
            )
        if self.pool == "class" and not self.class_token:
            raise ValueError("pool is 'class', and there is no class token")
        if self.rope and self.width // self.heads % 4:
            raise ValueError(
                f"rotary positions need heads whose width is a multiple of 4, not"
                f" {self.width // self.heads}"
            )
        if self.stem and self.patch_bias:
            raise ValueError("patch_bias is for one patch convolution, not for a stem")

    @property
    def side(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def prefix(self) -> int:
        """Tokens before the patches: the class token, if there is one."""
        return int(self.class_token)

    @property
    def tokens(self) -> int:
        """Tokens of one frame, the class token included where there is one."""
        return self.side**2 + self.prefix


@dataclass(frozen=True)
class TextConfig:
    context: int = 77
    vocab: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    mlp_width: int = 0
    """Of the layer within a block's perceptron; 0: four times the width."""
    eps: float = 1e-5
    """Of every LayerNorm."""
    activation: Literal["", "quick_gelu", "gelu", "gelu_tanh"] = ""
    """Empty: that of `CLIPConfig`."""
    causal: bool = True
    """Does a token see only those before it? Else padding takes part in the attention, as no family
    masks it."""
    pool: Literal["end", "last"] = "end"
    """A text is what the tower makes of its end token, or of the last place of the context."""
    end: int = -1
    """Id of the end token, which is pooled where it first occurs; -1: the largest id. CLIPA has 0
    in the place of BERT's [SEP]."""
    projection_bias: bool = False
    pad: int = 0
    """Id behind the end token."""
    clean: Literal["clip", "canonical", "spaces"] = "clip"
    """What is done to a prompt before it is tokenised: `froster.encoders.cleaning`."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("context", "vocab", *_SIZES)}
        check_sizes("text tower", **sizes)
        check_block("text tower", self.mlp_width, self.eps)
        check_choice("activation of the text tower", self.activation, "", *ACTIVATION_NAMES)
        check_choice("pool of the text tower", self.pool, "end", "last")
        check_choice("clean of the text tower", self.clean, "clip", "canonical", "spaces")
        for name in ("causal", "projection_bias"):
            check_choice(f"{name} of the text tower", getattr(self, name), True, False)
        for name, least in (("end", -1), ("pad", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < self.vocab:
                raise ValueError(
                    f"{name} of the text tower is {value!r:.100}: it takes an id from {least} to"
                    f" {self.vocab - 1}"
                )
        if self.width % self.heads:
            raise ValueError(f"these sizes do not fit together: {self}")

    @property
    def full_length(self) -> bool:
        """Must every row be as long as the context? What stands behind the end token counts where
        tokens see it, and where the last place is pooled."""
        return not self.causal or self.pool == "last"

    def ends(self, tokens: Int[Tensor, "*texts length"]) -> Int[Tensor, "*texts"]:
        """The place of each row's end token."""
        if self.end < 0:
            return tokens.argmax(dim=-1)
        return (tokens == self.end).int().argmax(dim=-1)


@dataclass(frozen=True)
class CLIPConfig:
    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    embed_dim: int = 512
    activation: Activation = "quick_gelu"
    preprocessing: Preprocessing = CLIP_PREPROCESSING
    logit_bias: bool = False
    """Was the network trained with a bias on its logits (SigLIP)? It is kept, and makes no
    difference to a soft-max over labels."""

    def __post_init__(self) -> None:
        check_sizes("joint space", embed_dim=self.embed_dim)
        check_choice("activation", self.activation, *ACTIVATION_NAMES)
        check_choice("logit_bias", self.logit_bias, True, False)
        if self.vision.projection == "none" and self.embed_dim != self.vision.width:
            raise ValueError(
                f"the image tower has no projection: embed_dim is {self.embed_dim}, its width"
                f" {self.vision.width}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the preprocessing, which has a place of its own."""
        return {
            "vision": _stated(self.vision),
            "text": _stated(self.text),
            "embed_dim": self.embed_dim,
            "activation": self.activation,
            **({"logit_bias": True} if self.logit_bias else {}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CLIPConfig:
        """The inverse. Raises TypeError on a field that does not exist."""
        vision, text = VisionConfig(**values["vision"]), TextConfig(**values["text"])
        return cls(**{**values, "vision": vision, "text": text})


def _stated(tower: VisionConfig | TextConfig) -> dict[str, Any]:
    defaults = type(tower)()
    return {
        name: value
        for name, value in dataclasses.asdict(tower).items()
        if name in _ALWAYS or value != getattr(defaults, name)
    }


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
