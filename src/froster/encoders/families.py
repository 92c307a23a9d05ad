"""What neither weights nor configs of an image tower tell: its family does, by the name that timm
gave it, or by the names of its weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from froster.encoders.config import CLIPConfig
from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing
from froster.errors import CheckpointError

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Family:
    """Options of `VisionConfig` and `TextConfig` that a family has."""

    name: str
    structure: Mapping[str, Any] = field(default_factory=dict)
    """What its image towers have and lack; the weights must fit."""
    vision: Mapping[str, Any] = field(default_factory=dict)
    """What else they compute, which no weight shows."""
    text: Mapping[str, Any] = field(default_factory=dict)
    head_count: int = 0
    """Of the image tower; 0: heads of 64."""
    preprocessing: Preprocessing = CLIP_PREPROCESSING
    pools: tuple[str, ...] = ("", "token")
    """What open_clip's `timm_pool` may be."""

    def heads(self, vision_width: int, text_width: int) -> tuple[int, int]:
        """Of the image and of the text tower. Raises CheckpointError where they do not fit."""
        count = self.head_count or heads_of_64(vision_width)
        if vision_width % count:
            raise CheckpointError(f"{count} attention heads do not fit a width of {vision_width}")
        return count, heads_of_64(text_width)

    def apply(self, config: CLIPConfig) -> CLIPConfig:
        """The sizes that the weights have, with what the family adds."""
        return dataclasses.replace(
            config,
            vision=dataclasses.replace(config.vision, **self.vision),
            text=dataclasses.replace(config.text, **self.text),
            activation="gelu",
            preprocessing=self.preprocessing,
        )


def heads_of_64(width: int) -> int:
    if width < 64 or width % 64:
        raise CheckpointError(
            f"width {width} is no multiple of 64, the width of CLIP's attention heads"
        )
    return width // 64


_PE = Preprocessing(_HALF, _HALF, "squash", "bilinear")
PE_CORE = Family(
    "PE-Core",
    {"pool": "map"},
    {"rope": "columns-1", "pool_heads": 8},
    preprocessing=_PE,
    pools=("map",),
)
PE_CORE_G = Family(
    "PE-Core G",
    {"pool": "map", "class_token": False},
    {"rope": "columns-0", "pool_heads": 8},
    head_count=16,
    preprocessing=_PE,
    pools=("map",),
)
EVA02 = Family(
    "EVA02-CLIP",
    {"gated": True, "pre_norm": False, "patch_bias": True},
    {"rope": "rows-16", "eps": 1e-6},
)
SIGLIP_PREPROCESSING = Preprocessing(_HALF, _HALF, "squash", "bicubic")
SIGLIP_TOWER: dict[str, Any] = {
    "class_token": False,
    "patch_bias": True,
    "pre_norm": False,
    "pool": "map",
    "projection": "none",
}
SIGLIP_TEXT = {"end": 1, "pad": 1, "clean": "canonical"}
SIGLIP2_VOCABULARY = 256000
_MOBILECLIP = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "shortest", "bilinear")
MOBILECLIP_B = Family(
    "MobileCLIP-B",
    {"stem": "mobileclip", "pre_norm": False},
    {"eps": 1e-6},
    preprocessing=_MOBILECLIP,
)


def _siglip(activation: str, head_count: int = 0) -> Family:
    return Family(
        "SigLIP",
        SIGLIP_TOWER,
        {"eps": 1e-6, "activation": activation},
        SIGLIP_TEXT,
        head_count,
        SIGLIP_PREPROCESSING,
        ("", "map"),
    )


def _clip(head_count: int = 0, **vision: Any) -> Family:
    return Family("CLIP under timm's names", {}, vision, head_count=head_count)


# timm computes some SigLIPs with the exact GELU, and others, as they were trained, with its
# approximation by tanh: an open_clip file means the network that open_clip makes of it.
_KNOWN: tuple[tuple[str, Family], ...] = (
    (r"vit_pe_core_gigantic_.*", PE_CORE_G),
    (r"vit_pe_core_(tiny|small|base|large)_.*", PE_CORE),
    (r"vit_so400m_patch14_siglip_\d+", _siglip("gelu", 16)),
    (r"vit_so400m_patch16_siglip_\d+", _siglip("gelu_tanh", 16)),
    (r"vit_giantopt_patch16_siglip_\d+", _siglip("gelu_tanh", 16)),
    (r"vit_base_patch32_siglip_\d+", _siglip("gelu_tanh")),
    (r"vit_(base|large)_patch\d+_siglip_\d+", _siglip("gelu")),
    (r"eva02_(base|large)_patch\d+_clip_\d+", EVA02),
    (r"vit_base_mci_\d+", MOBILECLIP_B),
    (r"vit_(huge|giant|gigantic)_patch\d+_clip_quickgelu_\d+", _clip(16, activation="quick_gelu")),
    (r"vit_(huge|giant|gigantic)_patch\d+_clip_\d+", _clip(16)),
    (r"vit_(base|large)_patch\d+_clip_quickgelu_\d+", _clip(activation="quick_gelu")),
    (r"vit_(xsmall|small|medium|base|large)_patch\d+_clip_\d+", _clip()),
)
_INSTEAD = {
    r".*naflex.*": (
        "SigLIP 2 NaFlex, which reads pictures of any aspect",
        "take google/siglip2-base-patch16-224",
    ),
    r"fastvit.*": (
        "MobileCLIP with a FastViT, whose stages are convolutions",
        "take MobileCLIP2-B or MobileCLIP2-L/14",
    ),
    r"eva02_enormous.*": ("EVA02-CLIP E, whose blocks are post-norm", "take EVA02-CLIP L/14"),
    r"eva_giant.*": ("EVA01-CLIP", "take EVA02-CLIP L/14"),
    r"convnext.*": ("a CLIP with a ConvNeXt", "take one with a vision transformer"),
    r"(resnet|resnetv2|swin|vitamin|coat|nf_?resnet).*": (
        "a CLIP whose image tower is no plain vision transformer",
        "take one with a ViT",
    ),
    r".*siglip_gap.*": ("a SigLIP without its attention pool", "take one with it"),
}


def timm_family(name: str) -> Family:
    """The family of a timm model. Raises CheckpointError, which names the family, on one that
    froster does not have."""
    for pattern, family in _KNOWN:
        if re.fullmatch(pattern, name):
            return family
    for pattern, (what, instead) in _INSTEAD.items():
        if re.fullmatch(pattern, name):
            raise CheckpointError(
                f"this is {what} ({name}), which froster does not have: {instead}"
            )
    raise CheckpointError(
        f"its image tower is timm's {name!r:.60}, which froster does not know: it knows the towers"
        " of CLIP, SigLIP, PE-Core, EVA02-CLIP and MobileCLIP-B"
    )
