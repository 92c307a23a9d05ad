"""How a model wants its frames: a fact about the weights, read from the files beside them and kept
with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from froster.encoders.layouts import refuse_settings, unknown_settings
from froster.errors import CheckpointError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

Interpolation = Literal["bicubic", "bilinear"]
# Far beyond what any model has; what lies outside is in levels of 255, or makes infinities of
# pixels.
_LARGEST, _SMALLEST_STD = 10.0, 1e-6
_RESAMPLE: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded frame to what the network reads. The defaults are OpenAI's CLIP's."""

    mean: tuple[float, float, float] = MEAN
    """Of red, green and blue between 0 and 1."""
    std: tuple[float, float, float] = STD
    resize: Literal["shortest", "squash", "longest"] = "shortest"
    """`shortest`: the short side to the network's size, then the middle. `squash`: both sides,
    whatever the aspect. `longest`: the long side, and `fill` around the picture."""
    interpolation: Interpolation = "bicubic"
    scale: float = 1.0
    """`shortest` and `squash` resize to this multiple of the network's size, of which the middle is
    taken (256/224)."""
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        for name in ("mean", "std", "fill"):
            object.__setattr__(self, name, _triple(name, getattr(self, name)))
        for name, words in (
            ("resize", ("shortest", "squash", "longest")),
            ("interpolation", ("bicubic", "bilinear")),
        ):
            if getattr(self, name) not in words:
                raise CheckpointError(
                    f"{name} is {getattr(self, name)!r}: froster knows {', '.join(words)}"
                )
        if not all(abs(value) <= _LARGEST for value in self.mean):
            raise CheckpointError(
                f"mean is {self.mean}: expected the means of colours between 0 and 1"
            )
        if not all(_SMALLEST_STD <= value <= _LARGEST for value in self.std):
            raise CheckpointError(
                f"std is {self.std}: expected the deviations of colours between 0 and 1, above zero"
            )
        if not all(type(value) is int and 0 <= value <= 255 for value in self.fill):
            raise CheckpointError(f"fill is {self.fill}: expected whole numbers from 0 to 255")
        if type(self.scale) not in (int, float) or not 1 <= self.scale <= 4:
            raise CheckpointError(f"scale is {self.scale!r}: froster knows 1 to 4")

    def resized(self, height: int, width: int, size: int) -> tuple[int, int]:
        """What a picture is resized to for a network of that size, before a part is cut out or the
        rest is filled."""
        short = round(size * self.scale)
        if self.resize == "squash":
            return short, short
        if self.resize == "longest":
            ratio = max(height, width) / size
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        if height <= width:
            return short, int(short * width / height)
        return int(short * height / width), short

    def describe(self, size: int) -> str:
        """The way to a square of `size` in words, for people who prepare frames themselves."""
        side, how = round(size * self.scale), f"by antialiased {self.interpolation}"
        if self.resize == "longest":
            return f"long side to {size} {how}, then filled up with RGB {self.fill} on both sides"
        start = (
            f"short side to {side} {how}"
            if self.resize == "shortest"
            else f"resized to {side} x {side} {how}"
        )
        return start if self.resize == "squash" and side == size else f"{start}, then the middle"

    def to_dict(self) -> dict[str, Any]:
        """Its values as JSON gives them back."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse; what is missing has its default. Raises CheckpointError naming what it does
        not know."""
        known = [field.name for field in fields(cls)]
        refuse_settings(
            unknown_settings(values, "preprocessing.", {}, known),
            "froster does not know this preprocessing",
        )
        return cls(**{name: value for name, value in values.items() if value is not None})


def _triple(name: str, value: Any) -> tuple[Any, Any, Any]:
    """One number for each channel, or one for all."""
    values = [value] * 3 if isinstance(value, (int, float)) else value
    numbers = isinstance(values, (list, tuple)) and all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < math.inf
        for x in values
    )
    if not numbers or len(values) != 3:
        raise CheckpointError(
            f"{name} is {value!r:.60}: expected a number for each of red, green and blue"
        )
    return tuple(values)  # type: ignore[return-value]


CLIP_PREPROCESSING = Preprocessing()

_OPEN_CLIP_KEYS = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")


def from_open_clip(values: Mapping[str, Any], size: int) -> Preprocessing:
    """open_clip's `preprocess_cfg` of a network that reads `size` pixels. Raises
    CheckpointError."""
    refuse_settings(
        unknown_settings(values, "preprocess_cfg.", {"mode": "RGB"}, _OPEN_CLIP_KEYS),
        "froster does not know this preprocessing",
    )
    stated = {name: value for name, value in values.items() if value is not None}
    if "size" in stated and _side(stated["size"]) != size:
        raise CheckpointError(
            f"preprocess_cfg.size is {stated['size']!r}, and the network reads {size}"
        )
    interpolation = stated.get("interpolation", "bicubic")
    return Preprocessing(
        stated.get("mean", MEAN),
        stated.get("std", STD),
        stated.get("resize_mode", "shortest"),
        (
            "bicubic" if interpolation == "random" else interpolation
        ),  # random is open_clip's for training alone
        fill=stated.get("fill_color", 0),
    )


_HALF = (0.5, 0.5, 0.5)
_SHORT, _SQUARE = {"shortest_edge": 224}, {"height": 224, "width": 224}


# What a file leaves out is up to the class that it names.
def _processor(
    size: dict[str, int], resample: int, crop: bool, mean: Any, std: Any
) -> dict[str, Any]:
    return {
        "size": size,
        "resample": resample,
        "do_center_crop": crop,
        "image_mean": mean,
        "image_std": std,
    }


_PROCESSORS = {
    "CLIPImageProcessor": _processor(_SHORT, 3, True, MEAN, STD),
    "SiglipImageProcessor": _processor(_SQUARE, 3, False, _HALF, _HALF),
    "ViTImageProcessor": _processor(_SQUARE, 2, False, _HALF, _HALF),
    "VideoMAEImageProcessor": _processor(_SHORT, 2, True, _HALF, _HALF),
}
_HF_REQUIRED = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_pad": False}
# What is read, then what says how pictures come in and arrays go out, not what is computed.
_HF_KNOWN = """
    size crop_size resample do_center_crop image_mean image_std do_normalize image_processor_type
    feature_extractor_type
    do_convert_rgb processor_class use_fast _valid_processor_keys data_format input_data_format
    return_tensors device disable_grouping default_to_square _processor_class
"""


def from_hf(values: Mapping[str, Any], size: int) -> Preprocessing:
    """Hugging Face's `preprocessor_config.json` of a network that reads `size` pixels. Raises
    CheckpointError."""
    stated = {name: value for name, value in values.items() if value is not None}
    named = (
        stated.get("image_processor_type")
        or stated.get("feature_extractor_type")
        or "CLIPImageProcessor"
    )
    kind = (
        str(named)
        .removesuffix("Fast")
        .removesuffix("Pil")
        .replace("FeatureExtractor", "ImageProcessor")
    )
    unknown = unknown_settings(values, "", _HF_REQUIRED, _HF_KNOWN.split())
    if kind not in _PROCESSORS:
        unknown.append(f"image_processor_type is {named!r:.60}")
    refuse_settings(unknown, "froster does not know this preprocessing")
    settings = {"crop_size": 224, "do_normalize": True, **_PROCESSORS[kind], **stated}
    edge = settings["size"]
    if isinstance(edge, int) and not stated.get(
        "default_to_square", _PROCESSORS[kind]["size"] == _SQUARE
    ):
        edge = {"shortest_edge": edge}
    squash = not isinstance(edge, dict) or edge.keys() == {"height", "width"}
    side = _side(edge) if squash else edge.get("shortest_edge") if len(edge) == 1 else None
    if not isinstance(side, int) or not (squash or settings["do_center_crop"]):
        crop = "" if settings["do_center_crop"] else " and do_center_crop false"
        raise CheckpointError(
            f"size {settings['size']!r}{crop} does not give the square that the network reads"
        )
    last = _side(settings["crop_size"]) if settings["do_center_crop"] else side
    if last != size or side < size:
        what = (
            f"crop_size {settings['crop_size']!r}"
            if settings["do_center_crop"] and last != size
            else f"size {settings['size']!r}"
        )
        raise CheckpointError(f"{what} does not fit the network, which reads {size} x {size}")
    if type(settings["resample"]) is not int or settings["resample"] not in _RESAMPLE:
        raise CheckpointError(
            f"resample is {settings['resample']!r}: froster knows 2 (bilinear) and 3 (bicubic)"
        )
    mean, std = (
        (settings["image_mean"], settings["image_std"])
        if settings["do_normalize"]
        else ((0, 0, 0), (1, 1, 1))
    )
    return Preprocessing(
        mean, std, "squash" if squash else "shortest", _RESAMPLE[settings["resample"]], side / size
    )


def _side(value: Any) -> int | None:
    """The side of a square that is stated as 224, [224, 224] or {"height": 224, "width": 224}."""
    sides = (
        list(value.values())
        if isinstance(value, dict)
        else value
        if isinstance(value, (list, tuple))
        else [value]
    )
    square = sides and all(isinstance(side, int) and side == sides[0] for side in sides)
    return sides[0] if square else None


def normalise(
    frames: UInt8[Tensor, "*clip 3 height width"], how: Preprocessing = CLIP_PREPROCESSING
) -> Float32[Tensor, "*clip 3 height width"]:
    """With the model's mean and standard deviation. Runs where the frames are."""
    mean = torch.tensor(how.mean, dtype=torch.float32, device=frames.device).view(3, 1, 1)
    std = torch.tensor(how.std, dtype=torch.float32, device=frames.device).view(3, 1, 1)
    return (frames.float() / 255 - mean) / std
