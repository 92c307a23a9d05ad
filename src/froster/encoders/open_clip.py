"""open_clip's `open_clip_config.json`: what it says of a network, and whether ours can be that
network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from froster.encoders.config import CLIPConfig
from froster.encoders.layouts import as_object, read_object, refuse_settings, unknown_settings
from froster.encoders.preprocessing import from_open_clip
from froster.errors import CheckpointError

# What each key must say, as ours computes nothing else: the defaults of open_clip's CLIPVisionCfg
# and CLIPTextCfg.
_BLOCK: dict[str, Any] = {
    "mlp_ratio": 4.0,
    "ls_init_value": None,
    "act_kwargs": {},
    "norm_kwargs": {},
    "final_ln_after_pool": False,
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
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "pool_type": "tok",
    "timm_model_name": None,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "timm_proj_bias": False,
    "timm_drop": 0.0,
    "timm_drop_path": None,
}
_TEXT = {
    **_BLOCK,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "proj_type": "linear",
    "embed_cls": False,
    "pad_id": 0,
    "eos_id": 2,
    "hf_model_name": None,
    "hf_tokenizer_name": None,
    "hf_proj_type": "mlp",
    "hf_pooler_type": "mean_pooler",
    "tokenizer_mode": None,
    "tokenizer_kwargs": {},
}
_WHOLE = {"init_logit_bias": None, "nonscalar_logit_scale": False, "multimodal_cfg": None}
# These do not change what is computed: how training starts, and what is handed out beside the
# embedding.
_NO_MATTER = "output_tokens init_logit_scale output_dict cast_dtype custom_text"
_VISION_KNOWN = (
    "layers width head_width patch_size image_size attn_pooler_queries attn_pooler_heads"
    f" timm_model_pretrained {_NO_MATTER}"
)
_TEXT_KNOWN = f"context_length vocab_size width heads layers hf_model_pretrained {_NO_MATTER}"
_WHOLE_KNOWN = f"embed_dim vision_cfg text_cfg quick_gelu {_NO_MATTER}"


@dataclass(frozen=True)
class OpenClipConfig:
    """A config whose every entry is one that `CLIP` honours."""

    path: Path
    whole: dict[str, Any]
    vision: dict[str, Any]
    text: dict[str, Any]
    preprocess: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> OpenClipConfig:
        """Raises CheckpointError naming the file, and what in it is not known."""
        values = read_object(path, "open_clip config")
        complaint = f"{path}: not a readable open_clip config"
        if "model_cfg" not in values:
            raise CheckpointError(f"{complaint} (it has no model_cfg)")
        whole = as_object(values["model_cfg"], f"{complaint}: model_cfg")
        parts = [
            {} if holder.get(name) is None else as_object(holder[name], f"{complaint}: {name}")
            for holder, name in (
                (whole, "vision_cfg"),
                (whole, "text_cfg"),
                (values, "preprocess_cfg"),
            )
        ]
        unknown = unknown_settings(values, "", {}, ("model_cfg", "preprocess_cfg"))
        unknown += unknown_settings(whole, "model_cfg.", _WHOLE, _WHOLE_KNOWN.split())
        unknown += unknown_settings(parts[0], "vision_cfg.", _VISION, _VISION_KNOWN.split())
        unknown += unknown_settings(parts[1], "text_cfg.", _TEXT, _TEXT_KNOWN.split())
        refuse_settings(unknown, f"{path}: froster's CLIP cannot be this network")
        return cls(path, whole, *parts)

    def heads(self, vision_width: int, text_width: int) -> tuple[int, int]:
        """Of the image and of the text tower, as open_clip counts them. Raises CheckpointError
        where they do not fit."""
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
        vision, text = config.vision, config.text
        image_size = self.vision.get("image_size") or vision.image_size
        if isinstance(image_size, list) and len(set(map(str, image_size))) == 1:
            image_size = image_size[0]
        if (
            not isinstance(image_size, int)
            or image_size // vision.patch_size != vision.image_size // vision.patch_size
        ):
            grid = vision.image_size // vision.patch_size
            raise CheckpointError(
                f"{self.path}: vision_cfg.image_size is {image_size!r}, the weights have {grid}²"
                " patches"
            )
        for where, stated, actual in (
            ("model_cfg.embed_dim", self.whole.get("embed_dim"), config.embed_dim),
            ("vision_cfg.width", self.vision.get("width"), vision.width),
            ("vision_cfg.layers", self.vision.get("layers"), vision.layers),
            ("vision_cfg.patch_size", self.vision.get("patch_size"), vision.patch_size),
            ("text_cfg.width", self.text.get("width"), text.width),
            ("text_cfg.layers", self.text.get("layers"), text.layers),
            ("text_cfg.context_length", self.text.get("context_length"), text.context),
            ("text_cfg.vocab_size", self.text.get("vocab_size"), text.vocab),
        ):
            if stated is not None and stated != actual:
                raise CheckpointError(
                    f"{self.path}: {where} is {stated!r}, the weights have {actual}"
                )
        try:
            preprocessing = from_open_clip(self.preprocess, image_size)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        return dataclasses.replace(
            config,
            vision=dataclasses.replace(vision, image_size=image_size),
            activation="quick_gelu" if self.whole.get("quick_gelu") else "gelu",
            preprocessing=preprocessing,
        )
