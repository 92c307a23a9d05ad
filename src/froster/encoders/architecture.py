"""The sizes of a network from its weights, under OpenAI's names; what they do not tell, a config or
the family states."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.families import heads_of_64
from froster.encoders.reading import State
from froster.errors import CheckpointError


class Stated(Protocol):
    """What is known of a network beside its weights."""

    @property
    def structure(self) -> Mapping[str, Any]:
        """What the image tower has and lacks: options of `VisionConfig`, where they are not
        CLIP's."""

    def heads(self, vision_width: int, text_width: int) -> tuple[int, int]:
        """Of the image and of the text tower. Raises CheckpointError where they do not fit."""

    def apply(self, config: CLIPConfig) -> CLIPConfig:
        """The sizes that the weights have, with what only this knows. Raises CheckpointError where
        they differ."""


def architecture_from_state_dict(official: State, stated: Stated | None = None) -> CLIPConfig:
    """The sizes of a CLIP from its weights under official names; with nothing stated heads of 64
    and QuickGELU.

    Raises CheckpointError.
    """
    check_both_towers(official)

    def shape(name: str, dims: int) -> tuple[int, ...]:
        if name not in official or official[name].ndim != dims:
            raise CheckpointError(
                f"this is no CLIP with a vision transformer: it has no {name} of {dims} dimensions"
            )
        return tuple(official[name].shape)

    def layers(prefix: str) -> int:
        pattern = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.")
        return len({match[1] for match in map(pattern.match, official) if match})

    def mlp_width(prefix: str, width: int) -> int:
        name = f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"
        hidden = shape(name, 2)[0] if name in official else 0
        return 0 if hidden == 4 * width else hidden

    # What a file lacks is an option where that is stated, else a damage that `strict_load` names.
    options: dict[str, Any] = {"projection": "matrix", **(stated.structure if stated else {})}
    if options.get("stem") == "mobileclip":
        width, patch = shape("visual.conv1.4.weight", 4)[0], 16
    else:
        width, _, patch, _ = shape("visual.conv1.weight", 4)
    if options["projection"] == "matrix" and "visual.proj_bias" in official:
        options["projection"] = "affine"
    tokens, _ = shape("visual.positional_embedding", 2)
    context, text_width = shape("positional_embedding", 2)
    vocab, _ = shape("token_embedding.weight", 2)
    _, embed_dim = shape("text_projection", 2)
    options["mlp_width"] = mlp_width("visual.", width)
    heads = (
        stated.heads(width, text_width) if stated else (heads_of_64(width), heads_of_64(text_width))
    )
    side = math.isqrt(tokens - options.get("class_token", True))
    try:
        vision = VisionConfig(
            image_size=patch * side,
            patch_size=patch,
            width=width,
            layers=layers("visual."),
            heads=heads[0],
            **options,
        )
        text = TextConfig(
            context,
            vocab,
            text_width,
            layers(""),
            heads[1],
            mlp_width=mlp_width("", text_width),
            projection_bias="projection_bias" in official,
        )
        config = CLIPConfig(vision, text, embed_dim, logit_bias="logit_bias" in official)
        return stated.apply(config) if stated else config
    except ValueError as error:
        raise CheckpointError(f"these weights make no CLIP: {error}") from None


def check_both_towers(names: Iterable[str]) -> None:
    """Raises CheckpointError where weights, under OpenAI's or Hugging Face's names, are of one
    tower of a CLIP alone."""
    first = {name.partition(".")[0] for name in names}
    image = first & {"visual", "vision_model"}
    text = first & {"token_embedding", "text_model", "text"}
    if bool(image) != bool(text):
        kind, other = ("an image", "text") if image else ("a text", "image")
        raise CheckpointError(
            f"it holds {kind} tower alone, which cannot classify: the weights of the {other} tower"
            " are missing"
        )
