"""Encoders that can be asked for by a short name, and what is known of each.

Facts alone: nothing here is chosen by froster, and every figure has its source. Millions of weights
follow from the architectures (`tests/test_known_encoders.py` builds them); licences are those that
the model cards or the authors' repositories state for the weights.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from froster.errors import CheckpointError

DEFAULT_MODEL = "openai/clip-vit-base-patch16"
"""Without a name; docs/encoders.md says why."""

OPEN_CLIP = "open_clip, docs/openclip_results.csv"
PE_PAPER = "PE paper, arXiv 2504.13181, tables 5 and 6"
PE_README = "README of facebookresearch/perception_models"

MIT, APACHE = "mit", "apache-2.0"
NON_COMMERCIAL, APPLE = "cc-by-nc-4.0", "apple-amlr"


@dataclass(frozen=True)
class Figure:
    """A zero-shot accuracy: top-1, in percent."""

    data: str
    percent: float
    source: str


@dataclass(frozen=True)
class KnownEncoder:
    """One set of weights on the hub."""

    name: str
    """As it is typed."""
    hub_id: str
    family: str
    size: str
    """Width and patch of the image tower, as its authors call it."""
    pixels: int
    image_millions: float
    """Weights of the image tower."""
    text_millions: float
    """Of the text tower, its token embeddings included."""
    licence: str
    """The hub's tag."""
    figures: tuple[Figure, ...] = ()

    @property
    def float32_bytes(self) -> int:
        """What the weights take in memory, and on disk where they are published so."""
        return round(4e6 * (self.image_millions + self.text_millions))

    def percent(self, data: str) -> float | None:
        """The accuracy on a data set; None where no source gives one."""
        return next((figure.percent for figure in self.figures if figure.data == data), None)


_IMAGENET = {
    OPEN_CLIP: {
        "clip-b16": 68.34,
        "clip-l14": 75.54,
        "clip-l14-336": 76.56,
        "laion-b32": 66.56,
        "laion-b16": 70.23,
        "laion-l14": 75.25,
        "laion-h14": 77.96,
        "laion-g14": 78.47,
        "laion-bigg14": 80.09,
        "datacomp-b32": 69.17,
        "datacomp-b16": 73.49,
        "datacomp-l14": 79.21,
        "dfn-b16": 76.24,
        "dfn-l14": 81.41,
        "dfn-h14": 83.44,
        "dfn-h14-378": 84.37,
        "metaclip-b16": 72.1,
        "metaclip-l14": 79.17,
        "metaclip-h14": 80.51,
        "siglip-b16": 76.04,
        "siglip-b16-256": 76.53,
        "siglip-b16-384": 78.49,
        "siglip-b16-512": 79.14,
        "siglip-l16": 80.45,
        "siglip-l16-384": 82.07,
        "siglip-so14": 82.03,
        "siglip-so14-384": 83.08,
        "siglip2-b32": 74.0,
        "siglip2-b16-256": 79.1,
        "siglip2-l16": 82.5,
        "siglip2-so14": 83.2,
        "eva02-b16": 74.72,
        "eva02-l14": 79.77,
        "eva02-l14-336": 80.39,
        "clipa-l14": 79.57,
        "clipa-l14-336": 80.26,
        "clipa-h14": 81.52,
        "mobileclip-b-lt": 77.2,
    },
    PE_PAPER: {
        "siglip2-b16": 78.2,
        "siglip2-l16-384": 83.1,
        "siglip2-g16-384": 85.0,
        "pe-core-b16": 78.4,
        "pe-core-l14": 83.5,
        "pe-core-g14": 85.4,
    },
    PE_README: {"pe-core-t16": 62.1, "pe-core-s16": 72.7},
}
_VIDEO_DATA = ("K400", "K600", "K700", "UCF101", "HMDB51")
_VIDEO: dict[str, dict[str, tuple[float, ...]]] = {
    PE_PAPER: {
        "clip-b16": (58.4, 55.1, 46.1, 68.9, 43.2),
        "siglip2-b16": (58.7, 55.0, 48.4, 82.0, 42.3),
        "siglip2-l16-384": (65.3, 62.5, 56.8, 86.7, 49.3),
        "siglip2-g16-384": (69.8, 67.0, 61.8, 90.7, 51.8),
        "pe-core-b16": (65.6, 65.1, 55.8, 84.6, 48.2),
        "pe-core-l14": (73.4, 72.7, 65.3, 87.1, 58.5),
        "pe-core-g14": (76.9, 76.1, 69.1, 90.7, 61.1),
    },
    PE_README: {"pe-core-t16": (41.5,), "pe-core-s16": (55.0,)},
}
"""Eight frames, the mean of their embeddings. The paper on PE measured all of its rows alike; that
of CLIP is printed there as "CLIP, 0.1 B, 224"."""


def _figures(name: str) -> Iterator[Figure]:
    for source, known in _IMAGENET.items():
        if name in known:
            yield Figure("ImageNet", known[name], source)
    for source, rows in _VIDEO.items():
        for data, percent in zip(_VIDEO_DATA, rows.get(name, ()), strict=False):
            yield Figure(data, percent, source)


def _family(
    family: str, licence: str, *rows: tuple[str, str, str, int, float, float]
) -> Iterator[KnownEncoder]:
    """Rows of: name, hub id, size, pixels, millions of weights of the image and the text tower."""
    for name, hub_id, size, pixels, image, text in rows:
        figures = tuple(_figures(name))
        yield KnownEncoder(name, hub_id, family, size, pixels, image, text, licence, figures)


KNOWN: tuple[KnownEncoder, ...] = (
    *_family(
        "CLIP",
        MIT,
        ("clip-b32", "openai/clip-vit-base-patch32", "B/32", 224, 87.85, 63.43),
        ("clip-b16", "openai/clip-vit-base-patch16", "B/16", 224, 86.19, 63.43),
        ("clip-l14", "openai/clip-vit-large-patch14", "L/14", 224, 303.97, 123.65),
        ("clip-l14-336", "openai/clip-vit-large-patch14-336", "L/14", 336, 304.29, 123.65),
    ),
    *_family(
        "LAION",
        MIT,
        ("laion-b32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "B/32", 224, 87.85, 63.43),
        ("laion-b16", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "B/16", 224, 86.19, 63.43),
        ("laion-l14", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "L/14", 224, 303.97, 123.65),
        ("laion-h14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "H/14", 224, 632.08, 354.03),
        ("laion-g14", "laion/CLIP-ViT-g-14-laion2B-s34B-b88K", "g/14", 224, 1012.65, 354.03),
        (
            "laion-bigg14",
            "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
            "bigG/14",
            224,
            1844.91,
            694.66,
        ),
    ),
    *_family(
        "DataComp",
        MIT,
        ("datacomp-b32", "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "B/32", 224, 87.85, 63.43),
        ("datacomp-b16", "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "B/16", 224, 86.19, 63.43),
        ("datacomp-l14", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "L/14", 224, 303.97, 123.65),
    ),
    *_family(
        "DFN",
        APPLE,
        ("dfn-b16", "apple/DFN2B-CLIP-ViT-B-16", "B/16", 224, 86.19, 63.43),
        ("dfn-l14", "apple/DFN2B-CLIP-ViT-L-14", "L/14", 224, 303.97, 123.65),
        ("dfn-h14", "apple/DFN5B-CLIP-ViT-H-14", "H/14", 224, 632.08, 354.03),
        ("dfn-h14-378", "apple/DFN5B-CLIP-ViT-H-14-378", "H/14", 378, 632.68, 354.03),
    ),
    *_family(
        "MetaCLIP",
        NON_COMMERCIAL,
        ("metaclip-b32", "facebook/metaclip-b32-fullcc2.5b", "B/32", 224, 87.85, 63.43),
        ("metaclip-b16", "facebook/metaclip-b16-fullcc2.5b", "B/16", 224, 86.19, 63.43),
        ("metaclip-l14", "facebook/metaclip-l14-fullcc2.5b", "L/14", 224, 303.97, 123.65),
        ("metaclip-h14", "facebook/metaclip-h14-fullcc2.5b", "H/14", 224, 632.08, 354.03),
    ),
    *_family(
        "MetaCLIP 2",
        NON_COMMERCIAL,
        ("metaclip2-b32", "facebook/metaclip-2-worldwide-b32", "B/32", 224, 87.85, 499.77),
        ("metaclip2-b16", "facebook/metaclip-2-worldwide-b16", "B/16", 224, 86.19, 499.77),
        ("metaclip2-l14", "facebook/metaclip-2-worldwide-l14", "L/14", 224, 303.97, 778.16),
        (
            "metaclip2-h14",
            "facebook/metaclip-2-worldwide-huge-quickgelu",
            "H/14",
            224,
            632.08,
            1226.71,
        ),
    ),
    *_family(
        "SigLIP",
        APACHE,
        ("siglip-b16", "google/siglip-base-patch16-224", "B/16", 224, 92.88, 110.27),
        ("siglip-b16-256", "google/siglip-base-patch16-256", "B/16", 256, 92.93, 110.27),
        ("siglip-b16-384", "google/siglip-base-patch16-384", "B/16", 384, 93.18, 110.27),
        ("siglip-b16-512", "google/siglip-base-patch16-512", "B/16", 512, 93.52, 110.27),
        ("siglip-l16", "google/siglip-large-patch16-256", "L/16", 256, 315.96, 336.19),
        ("siglip-l16-384", "google/siglip-large-patch16-384", "L/16", 384, 316.28, 336.19),
        ("siglip-so14", "google/siglip-so400m-patch14-224", "So400m/14", 224, 427.68, 449.68),
        ("siglip-so14-384", "google/siglip-so400m-patch14-384", "So400m/14", 384, 428.23, 449.73),
    ),
    *_family(
        "SigLIP 2",
        APACHE,
        ("siglip2-b32", "google/siglip2-base-patch32-256", "B/32", 256, 94.55, 282.3),
        ("siglip2-b16", "google/siglip2-base-patch16-224", "B/16", 224, 92.88, 282.3),
        ("siglip2-b16-256", "google/siglip2-base-patch16-256", "B/16", 256, 92.93, 282.3),
        ("siglip2-b16-384", "google/siglip2-base-patch16-384", "B/16", 384, 93.18, 282.3),
        ("siglip2-b16-512", "google/siglip2-base-patch16-512", "B/16", 512, 93.52, 282.3),
        ("siglip2-l16", "google/siglip2-large-patch16-256", "L/16", 256, 315.96, 565.57),
        ("siglip2-l16-384", "google/siglip2-large-patch16-384", "L/16", 384, 316.28, 565.57),
        ("siglip2-l16-512", "google/siglip2-large-patch16-512", "L/16", 512, 316.74, 565.57),
        ("siglip2-so14", "google/siglip2-so400m-patch14-224", "So400m/14", 224, 427.68, 707.78),
        ("siglip2-so14-384", "google/siglip2-so400m-patch14-384", "So400m/14", 384, 428.23, 707.78),
        ("siglip2-so16", "google/siglip2-so400m-patch16-256", "So400m/16", 256, 427.89, 707.78),
        ("siglip2-so16-384", "google/siglip2-so400m-patch16-384", "So400m/16", 384, 428.26, 707.78),
        ("siglip2-so16-512", "google/siglip2-so400m-patch16-512", "So400m/16", 512, 428.77, 707.78),
        ("siglip2-g16", "google/siglip2-giant-opt-patch16-256", "g-opt/16", 256, 1163.17, 708.23),
        (
            "siglip2-g16-384",
            "google/siglip2-giant-opt-patch16-384",
            "g-opt/16",
            384,
            1163.66,
            708.23,
        ),
    ),
    *_family(
        "PE-Core",
        APACHE,
        ("pe-core-t16", "timm/PE-Core-T-16-384", "T/16", 384, 6.14, 63.41),
        ("pe-core-s16", "timm/PE-Core-S-16-384", "S/16", 384, 23.78, 63.41),
        ("pe-core-b16", "timm/PE-Core-B-16", "B/16", 224, 93.67, 353.99),
        ("pe-core-l14", "timm/PE-Core-L-14-336", "L/14", 336, 317.15, 353.99),
        ("pe-core-g14", "timm/PE-Core-bigG-14-448", "G/14", 448, 1890.69, 537.23),
    ),
    *_family(
        "EVA02",
        MIT,
        (
            "eva02-b16",
            "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k",
            "B/16",
            224,
            86.26,
            63.43,
        ),
        (
            "eva02-l14",
            "timm/eva02_large_patch14_clip_224.merged2b_s4b_b131k",
            "L/14",
            224,
            304.11,
            123.65,
        ),
        (
            "eva02-l14-336",
            "timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k",
            "L/14",
            336,
            304.43,
            123.65,
        ),
    ),
    *_family(
        "CLIPA",
        APACHE,
        ("clipa-l14", "UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B", "L/14", 224, 303.96, 110.25),
        ("clipa-l14-336", "UCSC-VLAA/ViT-L-14-CLIPA-336-datacomp1B", "L/14", 336, 304.29, 110.25),
        ("clipa-h14", "UCSC-VLAA/ViT-H-14-CLIPA-datacomp1B", "H/14", 224, 632.07, 336.16),
    ),
    *_family(
        "MobileCLIP",
        APPLE,
        ("mobileclip-b", "apple/MobileCLIP-B-OpenCLIP", "B/16", 224, 86.35, 63.43),
        ("mobileclip-b-lt", "apple/MobileCLIP-B-LT-OpenCLIP", "B/16", 224, 86.35, 63.43),
    ),
    *_family(
        "MobileCLIP 2",
        APPLE,
        ("mobileclip2-b", "timm/MobileCLIP2-B-OpenCLIP", "B/16", 224, 86.35, 63.43),
        ("mobileclip2-l14", "timm/MobileCLIP2-L-14-OpenCLIP", "L/14", 224, 303.97, 123.65),
    ),
)
_BY_NAME = {known.name: known for known in KNOWN}
_BY_HUB_ID = {known.hub_id: known for known in KNOWN}


def known_encoder(model: str) -> KnownEncoder | None:
    """What is known of a short name or a hub id."""
    return _BY_NAME.get(model.lower()) or _BY_HUB_ID.get(model)


def hub_id_of(model: str) -> str:
    """The hub id that a short name stands for; any other name as it is.

    Raises CheckpointError on a name without an owner that is none of ours, with the nearest.
    """
    if (known := known_encoder(model)) is not None:
        return known.hub_id
    if "/" in model:
        return model
    near = difflib.get_close_matches(model.lower(), ["nano", *_BY_NAME], n=1)
    hint = f": did you mean {near[0]}?" if near else ""
    raise CheckpointError(
        f"{model}: there is no such file or folder, and no encoder of that name{hint}"
        " (froster models lists the names)"
    )
