"""What a Hugging Face `config.json` says of a network (CLIP, MetaCLIP 2, SigLIP and SigLIP 2), and
whether ours can be that network."""

from __future__ import annotations

from typing import Any

from froster.encoders.config import Activation, CLIPConfig, TextConfig, VisionConfig
from froster.encoders.families import (
    SIGLIP2_VOCABULARY,
    SIGLIP_PREPROCESSING,
    SIGLIP_TEXT,
    SIGLIP_TOWER,
)
from froster.encoders.layouts import as_object, refuse_settings, unknown_settings
from froster.encoders.preprocessing import CLIP_PREPROCESSING
from froster.errors import CheckpointError

# What a config leaves out has these values (in the transformers library).
_CLIP_BLOCK = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_CLIP_VISION = {
    **_CLIP_BLOCK,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
}
_CLIP_TEXT = {
    **_CLIP_BLOCK,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_SIGLIP_BLOCK = {
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_SIGLIP_VISION = {
    **_SIGLIP_BLOCK,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "vision_use_head": True,
}
_SIGLIP_TEXT = {
    **_SIGLIP_BLOCK,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
    "eos_token_id": 1,
    "projection_size": None,
}
_FAMILIES = {
    "clip": (_CLIP_VISION, _CLIP_TEXT, "CLIPModel"),
    "metaclip_2": (_CLIP_VISION, {**_CLIP_TEXT, "eos_token_id": 2}, "MetaClip2Model"),
    "siglip": (_SIGLIP_VISION, _SIGLIP_TEXT, "SiglipModel"),
}
_ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
_INSTEAD = {
    "siglip2": (
        "SigLIP 2 NaFlex, which reads pictures of any aspect",
        "take google/siglip2-base-patch16-224",
    ),
    "chinese_clip": (
        "Chinese-CLIP, whose text tower is a BERT",
        "for Chinese labels take google/siglip2-base-patch16-224",
    ),
    "altclip": (
        "AltCLIP, whose text tower is an XLM-R",
        "for many languages take google/siglip2-base-patch16-224",
    ),
    "aimv2": ("AIMv2", "take google/siglip2-base-patch16-224"),
    "blip": ("BLIP", "take a CLIP or a SigLIP"),
}
# Keys of transformers' configs that do not change what a CLIP computes: how training starts, what
# is handed out beside the embeddings, and the settings for text generation that older versions
# wrote into every config.
_NO_MATTER = """
    _name_or_path _commit_hash _attn_implementation_autoset architectures transformers_version
    torch_dtype dtype torchscript initializer_range initializer_factor logit_scale_init_value
    projection_dim bos_token_id pad_token_id sep_token_id chunk_size_feed_forward
    gradient_checkpointing output_attentions output_hidden_states output_scores return_dict
    return_dict_in_generate use_return_dict use_cache use_bfloat16 tf_legacy_loss id2label
    label2id num_labels problem_type finetuning_task task_specific_params tokenizer_class prefix
    tie_word_embeddings tie_encoder_decoder is_encoder_decoder cross_attention_hidden_size
    decoder_start_token_id bad_words_ids begin_suppress_tokens suppress_tokens diversity_penalty
    do_sample early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
    forced_bos_token_id forced_eos_token_id length_penalty max_length min_length
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences remove_invalid_values
    repetition_penalty temperature top_k top_p typical_p transformers.js_config output_past
    is_composition
"""
# What these must say, as ours computes nothing else.
_REQUIRED = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
_TOP_KEYS = ("model_type", "vision_config", "text_config", "vision_config_dict", "text_config_dict")


def config_from_hf(values: dict[str, Any]) -> CLIPConfig:
    """The sizes in a Hugging Face `config.json`. Raises CheckpointError on an architecture that
    `CLIP` cannot be."""
    if values.get("format") == "froster":
        raise CheckpointError("this is a froster model, not a plain CLIP")
    kind = str(values.get("model_type"))
    if kind in _INSTEAD:
        raise CheckpointError(
            f"this is {_INSTEAD[kind][0]} (model_type {kind!r}), which froster does not have:"
            f" {_INSTEAD[kind][1]}"
        )
    if kind not in _FAMILIES:
        raise CheckpointError(f"its config is {_kind(values)}, not of a CLIP")
    refuse_settings(_unknown_settings(values, kind), "froster's CLIP cannot be this network")
    # Configs written before 2023 may carry a second dict, which wins.
    vision_defaults, text_defaults, _ = _FAMILIES[kind]
    vision, text = (
        {**defaults, **_part(values, name), **_part(values, f"{name}_dict")}
        for name, defaults in (("vision_config", vision_defaults), ("text_config", text_defaults))
    )
    for tower in (vision, text):
        if tower["hidden_act"] not in _ACTIVATIONS:
            raise CheckpointError(
                f"hidden_act is {tower['hidden_act']!r:.60}: froster knows"
                f" {', '.join(_ACTIVATIONS)}"
            )
    if vision["num_channels"] != 3:
        raise CheckpointError(f"num_channels is {vision['num_channels']}, a CLIP reads 3")
    if vision.get("vision_use_head") is False:
        raise CheckpointError("vision_use_head is false: a SigLIP needs its attention pool")
    activation = _ACTIVATIONS[vision["hidden_act"]]
    text_activation = _ACTIVATIONS[text["hidden_act"]]
    embed_dim = values.get("projection_dim") or 512
    if kind == "siglip":
        embed_dim = text["projection_size"] or text["hidden_size"]
    return CLIPConfig(
        VisionConfig(
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            **_block(vision),
            **(SIGLIP_TOWER if kind == "siglip" else {}),
        ),
        TextConfig(
            context=text["max_position_embeddings"],
            vocab=text["vocab_size"],
            activation="" if text_activation == activation else text_activation,
            **_block(text),
            **_text_options(kind, text, "pad_token_id" in _part(values, "text_config")),
        ),
        embed_dim,
        activation,
        SIGLIP_PREPROCESSING if kind == "siglip" else CLIP_PREPROCESSING,
        logit_bias=kind == "siglip",
    )


def _block(tower: dict[str, Any]) -> dict[str, Any]:
    width, hidden = tower["hidden_size"], tower["intermediate_size"]
    if type(hidden) is not int or hidden < 1:
        raise CheckpointError(f"intermediate_size is {hidden!r:.60}: it takes a whole number")
    return {
        "width": width,
        "layers": tower["num_hidden_layers"],
        "heads": tower["num_attention_heads"],
        "mlp_width": 0 if hidden == 4 * width else hidden,
        "eps": tower["layer_norm_eps"],
    }


def _text_options(kind: str, text: dict[str, Any], pad_stated: bool) -> dict[str, Any]:
    """How a text ends, and is pooled. Raises CheckpointError on an end that we cannot pool."""
    end, vocab = text["eos_token_id"], text["vocab_size"]
    if kind == "siglip":
        # Configs of transformers name CLIP's ids where the file says none.
        pad = text["pad_token_id"] if pad_stated else 0 if vocab == SIGLIP2_VOCABULARY else 1
        return {**SIGLIP_TEXT, "pad": pad, "causal": False, "pool": "last", "projection_bias": True}
    if kind == "metaclip_2":
        return {"end": end, "clean": "spaces", "pad": 1}
    # 2 stands for "the largest id" in configs of before the field had a meaning.
    if end != 2 and end < vocab - 1:
        raise CheckpointError(f"eos_token_id is {end}, CLIP's end token has the largest id")
    return {}


def _kind(values: dict[str, Any]) -> str:
    """What a config of something else is of, in words."""
    kind = values.get("model_type")
    tower = {
        "clip_text_model": ", a text tower alone",
        "clip_vision_model": ", an image tower alone",
        "siglip_text_model": ", a text tower alone",
        "siglip_vision_model": ", an image tower alone",
    }.get(str(kind), "")
    if kind is None and "architecture" in values:
        return f"timm's, of {values['architecture']!r:.60}, an image tower alone"
    return f"of type {kind!r:.60}{tower}"


def _part(values: dict[str, Any], name: str) -> dict[str, Any]:
    part = {} if values.get(name) is None else as_object(values[name], f"{name} cannot be read")
    # What is null has its default, but for the one size that no weight tells.
    return {
        key: value
        for key, value in part.items()
        if value is not None or key == "num_attention_heads"
    }


def _unknown_settings(values: dict[str, Any], kind: str) -> list[str]:
    """What a config of a CLIP says beyond what `CLIP` can be."""
    no_matter = frozenset(_NO_MATTER.split())
    vision, text, architecture = _FAMILIES[kind]
    top = {**_REQUIRED, "architectures": [architecture]}
    unknown = unknown_settings(values, "", top, no_matter.union(_TOP_KEYS) - {"architectures"})
    for name, known in (("vision", vision), ("text", text)):
        tower = {**_REQUIRED, "model_type": f"{kind}_{name}_model"}
        for part in (f"{name}_config", f"{name}_config_dict"):
            unknown += unknown_settings(
                _part(values, part), f"{part}.", tower, no_matter | known.keys()
            )
    return unknown
