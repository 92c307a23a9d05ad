"""open_clip's `open_clip_config.json`: what it says of a network, and whether ours can be that
network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.encoders.config import Activation, CLIPConfig
from froster.encoders.families import SIGLIP2_VOCABULARY, Family, timm_family
from froster.encoders.layouts import as_object, read_object, refuse_settings, unknown_settings
from froster.encoders.preprocessing import from_open_clip
from froster.errors import CheckpointError

# What each key must say, as ours computes nothing else: the defaults of open_clip's CLIPVisionCfg
# and CLIPTextCfg.
_BLOCK: dict[str, Any] = {
    "ls_init_value": None,
    "block_type": "default",
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
_VISION = {
    **_BLOCK,
    "patch_dropout": 0.0,
    "attentional_pool": False,
    "pos_embed_type": "learnable",
    "timm_drop": 0.0,
}
_TEXT = {
    **_BLOCK,
    "final_ln_after_pool": False,
    "proj_type": "linear",
    "embed_cls": False,
    "pad_id": 0,
    "hf_model_name": None,
    "hf_proj_type": "mlp",
    "hf_pooler_type": "mean_pooler",
    "tokenizer_mode": None,
}
_WHOLE = {"multimodal_cfg": None}
# These do not change what is computed: how training starts, and what is handed out beside the
# embedding.
_NO_MATTER = "output_tokens init_logit_scale init_logit_bias output_dict cast_dtype custom_text"
_BLOCK_READ = "layers width mlp_ratio act_kwargs norm_kwargs"
_VISION_KNOWN = (
    f"{_BLOCK_READ} head_width patch_size image_size attn_pooler_queries attn_pooler_heads"
    " no_ln_pre pool_type final_ln_after_pool timm_model_name timm_pool timm_proj timm_proj_bias"
    f" timm_drop_path timm_model_pretrained {_NO_MATTER}"
)
_TEXT_KNOWN = (
    f"{_BLOCK_READ} heads context_length vocab_size no_causal_mask pool_type eos_id proj_bias"
    f" hf_tokenizer_name tokenizer_kwargs hf_model_pretrained {_NO_MATTER}"
)
_WHOLE_KNOWN = f"embed_dim vision_cfg text_cfg quick_gelu nonscalar_logit_scale {_NO_MATTER}"
_CLEAN = {"canonicalize": "canonical", "whitespace": "spaces", "lower": "clip"}


@dataclass(frozen=True)
class OpenClipConfig:
    """A config whose every entry is one that `CLIP` honours."""

    path: Path
    model: dict[str, Any]
    vision: dict[str, Any]
    text: dict[str, Any]
    preprocess: dict[str, Any]

    @classmethod
    def from_file(cls, path: Path) -> OpenClipConfig:
        """Raises CheckpointError naming the file, and what in it is not known."""
        values = read_object(path, "open_clip config")
        complaint = f"{path}: not a readable open_clip config"
        if "model_cfg" not in values:
            raise CheckpointError(f"{complaint} (it has no model_cfg)")
        model = as_object(values["model_cfg"], f"{complaint}: model_cfg")
        vision, text, preprocess = (
            {} if holder.get(name) is None else as_object(holder[name], f"{complaint}: {name}")
            for holder, name in (
                (model, "vision_cfg"),
                (model, "text_cfg"),
                (values, "preprocess_cfg"),
            )
        )
        config = cls(path, model, _without_null(vision), _without_null(text), preprocess)
        config.family()
        unknown = unknown_settings(values, "", {}, ("model_cfg", "preprocess_cfg"))
        unknown += unknown_settings(model, "model_cfg.", _WHOLE, _WHOLE_KNOWN.split())
        unknown += unknown_settings(vision, "vision_cfg.", _VISION, _VISION_KNOWN.split())
        unknown += unknown_settings(text, "text_cfg.", _TEXT, _TEXT_KNOWN.split())
        unknown += config._unknown_values()
        refuse_settings(unknown, f"{path}: froster's CLIP cannot be this network")
        return config

    def check_names(self, timm: bool) -> None:
        """Raises CheckpointError unless weights have timm's names just where the config speaks of
        timm's tower."""
        name = self.vision.get("timm_model_name")
        if bool(name) != timm:
            theirs = "have" if timm else "do not have"
            raise CheckpointError(
                f"{self.path}: vision_cfg.timm_model_name is {name!r:.60}, and the weights {theirs}"
                " timm's names"
            )

    def family(self) -> Family | None:
        """Of an image tower that timm makes. Raises CheckpointError, which names it, on one that
        froster does not have."""
        name = self.vision.get("timm_model_name")
        try:
            if isinstance(self.vision.get("layers"), list):  # the stages of a ResNet
                raise CheckpointError(
                    "this is a CLIP with a ResNet, which froster does not have: take one with a"
                    " vision transformer"
                )
            return timm_family(str(name)) if name else None
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None

    def _unknown_values(self) -> list[str]:
        """What keys that we read say beyond what we can be."""
        family, vision, text = self.family(), self.vision, self.text
        allowed: list[tuple[str, dict[str, Any], str, tuple[Any, ...]]] = [
            ("vision_cfg.", vision, "pool_type", ("tok", "avg")),
            ("vision_cfg.", vision, "no_ln_pre", (False, True)),
            ("vision_cfg.", vision, "final_ln_after_pool", (False, True)),
            ("vision_cfg.", vision, "timm_proj", ("linear", "none", "") if family else ("linear",)),
            ("vision_cfg.", vision, "timm_proj_bias", (False, True) if family else (False,)),
            ("vision_cfg.", vision, "timm_pool", family.pools if family else ("avg",)),
            ("text_cfg.", text, "pool_type", ("argmax", "last", "eos")),
            ("text_cfg.", text, "no_causal_mask", (False, True)),
            ("text_cfg.", text, "proj_bias", (False, True)),
            ("model_cfg.", self.model, "quick_gelu", (False, True)),
            ("model_cfg.", self.model, "nonscalar_logit_scale", (False, True)),
        ]
        unknown = [
            f"{where}{key} is {values[key]!r:.60}"
            for where, values, key, choices in allowed
            if values.get(key) is not None
            and not any(type(values[key]) is type(x) and values[key] == x for x in choices)
        ]
        if vision.get("pool_type") == "avg" and not vision.get("final_ln_after_pool"):
            unknown.append("vision_cfg.pool_type is 'avg' without final_ln_after_pool")
        if "eos_id" in text and text.get("pool_type") != "eos" and text["eos_id"] != 2:
            unknown.append(f"text_cfg.eos_id is {text['eos_id']!r:.60}")
        for where, part in (("vision_cfg.", vision), ("text_cfg.", text)):
            norm, act = part.get("norm_kwargs", {}), part.get("act_kwargs", {})
            if not isinstance(norm, dict) or norm.keys() - {"eps"}:
                unknown.append(f"{where}norm_kwargs is {norm!r:.60}")
            bare = self.model.get("quick_gelu") is not True
            if act != {} and not (
                bare and act in ({"approximate": "tanh"}, {"approximate": "none"})
            ):
                unknown.append(f"{where}act_kwargs is {act!r:.60}")
        kwargs = text.get("tokenizer_kwargs", {})
        if (
            not isinstance(kwargs, dict)
            or kwargs.keys() - {"clean", "strip_sep_token"}
            or kwargs.get("clean", "lower") not in _CLEAN
        ):
            unknown.append(f"text_cfg.tokenizer_kwargs is {kwargs!r:.60}")
        return unknown

    @property
    def structure(self) -> Mapping[str, Any]:
        """What the image tower has and lacks, where it is not CLIP's."""
        if family := self.family():
            return family.structure
        pool = "mean" if self.vision.get("pool_type") == "avg" else "class"
        return {"pre_norm": not self.vision.get("no_ln_pre", False), "pool": pool}

    def heads(self, vision_width: int, text_width: int) -> tuple[int, int]:
        """Of the image and of the text tower, as open_clip counts them. Raises CheckpointError
        where they do not fit."""
        family = self.family()
        if family:
            vision = family.heads(vision_width, 64)[0]
        else:
            wide = self.vision.get("head_width", 64)
            vision = vision_width // wide if isinstance(wide, int) and wide > 0 else 0
        text = self.text.get("heads", 8) if self.text else max(1, text_width // 64)
        for where, width, count in (
            ("vision_cfg.head_width", vision_width, vision),
            ("text_cfg.heads", text_width, text),
        ):
            if not isinstance(count, int) or count < 1 or width % count:
                raise CheckpointError(f"{self.path}: {where} does not fit a width of {width}")
        return vision, text

    def apply(self, config: CLIPConfig) -> CLIPConfig:
        """The sizes that the weights have, with what only the config knows. Raises CheckpointError
        where they differ."""
        family = self.family()
        config = family.apply(config) if family else config
        vision, text = config.vision, config.text
        image_size = self._image_size(config)
        self._check(config)
        activation: Activation = "quick_gelu" if self.model.get("quick_gelu") else "gelu"
        vision_options = {} if family else _block(self.vision)
        if family and not vision.activation:
            vision_options["activation"] = "gelu"  # quick_gelu is said of the text tower alone
        preprocessing = config.preprocessing
        if self.preprocess or not family:
            try:
                preprocessing = from_open_clip(self.preprocess, image_size)
            except CheckpointError as error:
                raise CheckpointError(f"{self.path}: {error}") from None
        return dataclasses.replace(
            config,
            vision=dataclasses.replace(vision, image_size=image_size, **vision_options),
            text=dataclasses.replace(text, **_block(self.text), **self._text_options(config)),
            activation=activation,
            preprocessing=preprocessing,
        )

    def _image_size(self, config: CLIPConfig) -> int:
        vision = config.vision
        size = self.vision.get("image_size") or vision.image_size
        if isinstance(size, list) and len(set(map(str, size))) == 1:
            size = size[0]
        if not isinstance(size, int) or size // vision.patch_size != vision.side:
            raise CheckpointError(
                f"{self.path}: vision_cfg.image_size is {size!r}, the weights have {vision.side}²"
                " patches"
            )
        return size

    def _check(self, config: CLIPConfig) -> None:
        """Raises CheckpointError where the config speaks of another network than the weights are
        of."""
        vision, text, timm = config.vision, config.text, self.vision.get("timm_model_name")
        pairs: list[tuple[str, Any, Any]] = [
            ("model_cfg.embed_dim", self.model.get("embed_dim"), config.embed_dim),
            ("vision_cfg.width", self.vision.get("width"), vision.width),
            ("vision_cfg.layers", self.vision.get("layers"), vision.layers),
            ("vision_cfg.patch_size", self.vision.get("patch_size"), vision.patch_size),
            ("text_cfg.width", self.text.get("width"), text.width),
            ("text_cfg.layers", self.text.get("layers"), text.layers),
            ("text_cfg.context_length", self.text.get("context_length"), text.context),
            ("text_cfg.vocab_size", self.text.get("vocab_size"), text.vocab),
            ("text_cfg.proj_bias", self.text.get("proj_bias", False), text.projection_bias),
        ]
        if not config.logit_bias:
            pairs.append(
                ("model_cfg.init_logit_bias", self.model.get("init_logit_bias"), "no bias")
            )
        for where, part, tower in (
            ("vision_cfg", self.vision, vision),
            ("text_cfg", self.text, text),
        ):
            ratio = part.get("mlp_ratio", 4.0)
            hidden = tower.mlp_width or 4 * tower.width
            if not (timm and tower is vision) and (
                not isinstance(ratio, (int, float))
                or not hidden <= tower.width * ratio < hidden + 1
            ):
                raise CheckpointError(
                    f"{self.path}: {where}.mlp_ratio is {ratio!r:.60}, the weights have {hidden}"
                    f" for a width of {tower.width}"
                )
        for where, stated, actual in pairs:
            if stated is not None and stated != actual:
                raise CheckpointError(
                    f"{self.path}: {where} is {stated!r}, the weights have {actual}"
                )

    def _text_options(self, config: CLIPConfig) -> dict[str, Any]:
        """How a text is read, and which of its places is pooled."""
        text: dict[str, Any] = self.text
        options: dict[str, Any] = {"causal": not self.text.get("no_causal_mask", False)}
        if text.get("pool_type") == "last":
            options["pool"] = "last"
        elif text.get("pool_type") == "eos":
            options["end"] = text.get("eos_id", 2)
        kwargs = text.get("tokenizer_kwargs", {})
        if kwargs.get("strip_sep_token"):
            options["end"] = 0
        if "hf_tokenizer_name" in text or "clean" in kwargs:
            options["clean"] = _CLEAN[kwargs.get("clean", "whitespace")]
        if config.text.vocab == SIGLIP2_VOCABULARY:
            options["pad"] = 0
        return options


def _without_null(part: dict[str, Any]) -> dict[str, Any]:
    """A key that says null says nothing, but for the heads, which no weight tells."""
    sizes = ("head_width", "heads")
    return {key: value for key, value in part.items() if value is not None or key in sizes}


def _block(part: dict[str, Any]) -> dict[str, Any]:
    """What a tower's config says of its LayerNorms and of its activation."""
    options: dict[str, Any] = {}
    if "eps" in part.get("norm_kwargs", {}):
        options["eps"] = part["norm_kwargs"]["eps"]
    if part.get("act_kwargs", {}).get("approximate") == "tanh":
        options["activation"] = "gelu_tanh"
    return options
