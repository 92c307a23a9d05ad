"""CLIP as Hugging Face stores it: names, sizes and folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.layouts import (
    HF_WEIGHTS,
    as_object,
    read_object,
    refuse_settings,
    unknown_settings,
)
from froster.encoders.model import CLIP
from froster.encoders.pipelines import END, START
from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing, from_hf, to_hf
from froster.encoders.reading import State, flat_weights, read_file, read_safetensors
from froster.encoders.tokenizer import Tokenizer
from froster.errors import CheckpointError, UsageError
from froster.utils import strict_json as json
from froster.utils.files import atomic_folder
from froster.utils.tensors import save_tensors

# What a config leaves out has these values (CLIPConfig of the transformers library).
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
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
# Buffers of older versions: they hold 0, 1, 2, …
_BUFFERS = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")
_TRANSPOSED = ("visual.proj", "text.text_projection")
_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def config_from_hf(values: dict[str, Any]) -> CLIPConfig:
    """The sizes in a Hugging Face `config.json`. Raises CheckpointError on an architecture that
    `CLIP` cannot be."""
    if values.get("format") == "froster":
        raise CheckpointError("this is a froster model, not a plain CLIP")
    if values.get("model_type") != "clip":
        raise CheckpointError(f"its config is {_kind(values)}, not of a CLIP")
    refuse_settings(_unknown_settings(values), "froster's CLIP cannot be this network")
    # Configs written before 2023 may carry a second dict, which wins.
    vision = {**_VISION, **_part(values, "vision_config"), **_part(values, "vision_config_dict")}
    text = {**_TEXT, **_part(values, "text_config"), **_part(values, "text_config_dict")}
    activation = vision["hidden_act"]
    if activation != text["hidden_act"] or activation not in ("quick_gelu", "gelu"):
        raise CheckpointError(
            f"activations {activation!r} and {text['hidden_act']!r}: need quick_gelu or gelu in"
            " both"
        )
    for tower in (vision, text):
        if tower["intermediate_size"] != 4 * tower["hidden_size"]:
            raise CheckpointError(
                f"intermediate_size {tower['intermediate_size']} is not 4 x {tower['hidden_size']}"
            )
        if tower["layer_norm_eps"] != 1e-5:
            raise CheckpointError(f"layer_norm_eps is {tower['layer_norm_eps']}, a CLIP has 1e-5")
    if vision["num_channels"] != 3:
        raise CheckpointError(f"num_channels is {vision['num_channels']}, a CLIP reads 3")
    # 2 stands for "the largest id" in configs of before the field had a meaning.
    if text["eos_token_id"] != 2 and text["eos_token_id"] < text["vocab_size"] - 1:
        raise CheckpointError(
            f"eos_token_id is {text['eos_token_id']}, CLIP's end token has the largest id"
        )
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    return CLIPConfig(
        VisionConfig(*(vision[key] for key in ("image_size", "patch_size", *sizes))),
        TextConfig(*(text[key] for key in ("max_position_embeddings", "vocab_size", *sizes))),
        512 if values.get("projection_dim") is None else values["projection_dim"],
        activation,
    )


def _kind(values: dict[str, Any]) -> str:
    """What a config of something else is of, in words."""
    kind = values.get("model_type")
    tower = {
        "clip_text_model": ", a text tower alone",
        "clip_vision_model": ", an image tower alone",
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


def _unknown_settings(values: dict[str, Any]) -> list[str]:
    """What a config of a CLIP says beyond what `CLIP` can be."""
    no_matter = frozenset(_NO_MATTER.split())
    whole = {**_REQUIRED, "architectures": ["CLIPModel"]}
    unknown = unknown_settings(values, "", whole, no_matter.union(_TOP_KEYS) - {"architectures"})
    for name, known in (("vision", _VISION), ("text", _TEXT)):
        tower = {**_REQUIRED, "model_type": f"clip_{name}_model"}
        for part in (f"{name}_config", f"{name}_config_dict"):
            unknown += unknown_settings(
                _part(values, part), f"{part}.", tower, no_matter | known.keys()
            )
    return unknown


def config_to_hf(config: CLIPConfig) -> dict[str, Any]:
    """The `config.json` of a Hugging Face CLIP of these sizes."""
    vision, text, end = config.vision, config.text, config.text.vocab - 1
    shared = {
        "hidden_act": config.activation,
        "projection_dim": config.embed_dim,
        "layer_norm_eps": 1e-5,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "torch_dtype": "float32",
        "vision_config": {
            **shared,
            "model_type": "clip_vision_model",
            "hidden_size": vision.width,
            "intermediate_size": 4 * vision.width,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
        },
        "text_config": {
            **shared,
            "model_type": "clip_text_model",
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "vocab_size": text.vocab,
            "max_position_embeddings": text.context,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
    }


def hf_names(config: CLIPConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every parameter of our CLIP with its Hugging Face name; the fused q/k/v has three."""
    yield "logit_scale", ("logit_scale",)
    yield "visual.proj", ("visual_projection.weight",)
    yield "visual.class_embedding", ("vision_model.embeddings.class_embedding",)
    yield "visual.conv1.weight", ("vision_model.embeddings.patch_embedding.weight",)
    yield "visual.positional_embedding", ("vision_model.embeddings.position_embedding.weight",)
    yield "text.text_projection", ("text_projection.weight",)
    yield "text.token_embedding.weight", ("text_model.embeddings.token_embedding.weight",)
    yield "text.positional_embedding", ("text_model.embeddings.position_embedding.weight",)
    for kind in ("weight", "bias"):
        yield f"visual.ln_pre.{kind}", (f"vision_model.pre_layrnorm.{kind}",)  # their spelling
        yield f"visual.ln_post.{kind}", (f"vision_model.post_layernorm.{kind}",)
        yield f"text.ln_final.{kind}", (f"text_model.final_layer_norm.{kind}",)
        for tower, theirs, layers in (
            ("visual", "vision_model", config.vision.layers),
            ("text", "text_model", config.text.layers),
        ):
            for layer in range(layers):
                block, encoder = (
                    f"{tower}.transformer.resblocks.{layer}",
                    f"{theirs}.encoder.layers.{layer}",
                )
                yield (
                    f"{block}.attn.in_proj_{kind}",
                    tuple(f"{encoder}.self_attn.{x}_proj.{kind}" for x in "qkv"),
                )
                for ours, name in _BLOCK.items():
                    yield f"{block}.{ours}.{kind}", (f"{encoder}.{name}.{kind}",)


def state_from_hf(state: State, config: CLIPConfig) -> tuple[State, list[str]]:
    """Weights under Hugging Face's names -> under ours, and the names that hold no weights.

    What is missing stays missing and what is unknown keeps its name, so that `strict_load` names
    both.
    """
    rest = dict(state)
    ignored = [name for name in _BUFFERS if rest.pop(name, None) is not None]
    ours: State = {}
    for name, theirs in hf_names(config):
        if all(part in rest for part in theirs):
            parts = [rest.pop(part) for part in theirs]
            tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
            ours[name] = tensor.T.contiguous() if name in _TRANSPOSED else tensor
    return ours | rest, ignored


def state_to_hf(state: State, config: CLIPConfig) -> State:
    """The inverse. Raises UsageError on weights that a Hugging Face CLIP has no place for."""
    rest = {name: tensor.detach().float().cpu() for name, tensor in state.items()}
    theirs: dict[str, Tensor] = {}
    for name, parts in hf_names(config):
        tensor = rest.pop(name)
        tensor = tensor.T if name in _TRANSPOSED else tensor
        pieces = tensor.chunk(len(parts)) if len(parts) > 1 else (tensor,)  # a scalar has no chunks
        theirs |= {part: piece.contiguous() for part, piece in zip(parts, pieces, strict=True)}
    if rest:
        raise UsageError(
            f"a Hugging Face CLIP has no place for {len(rest)} weights of this model, such as"
            f" {min(rest)}"
        )
    return theirs


def read_hf_config(folder: Path) -> CLIPConfig:
    """The sizes in a folder's `config.json`. Raises CheckpointError naming the file."""
    path = folder / "config.json"
    values = read_object(path, "CLIP config")
    try:
        return config_from_hf(values)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable CLIP config ({error!r})") from None


def read_hf_preprocessing(
    folder: Path, size: int, usual: Preprocessing = CLIP_PREPROCESSING
) -> tuple[Preprocessing, list[str]]:
    """How the folder's processor prepares pictures of `size`, or else `usual`, and what had to be
    assumed.

    Raises CheckpointError naming the file.
    """
    # transformers reads them in this order.
    for name in ("processor_config.json", "preprocessor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        values = read_object(path, "preprocessor config")
        if name == "processor_config.json":
            if "image_processor" not in values:
                continue
            values = as_object(values["image_processor"], f"{path}: image_processor cannot be read")
        try:
            return from_hf(values, size), []
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    whose = "CLIP's" if usual == CLIP_PREPROCESSING else "its authors'"
    return usual, [f"no preprocessor_config.json: {whose} own preprocessing assumed"]


def read_hf_weights(folder: Path) -> State:
    """A folder's weights, under Hugging Face's names. Raises CheckpointError naming the file."""
    for name in HF_WEIGHTS:
        if (folder / name).is_file():
            return _read_weights(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_object(index, "index").get("weight_map")
            if not isinstance(shards, dict) or not all(
                isinstance(shard, str) for shard in shards.values()
            ):
                raise CheckpointError(f"{index}: not a readable index (it has no weight_map)")
            # Only the last part of a shard's name: an index must not lead out of its folder.
            files = sorted({Path(shard).name for shard in shards.values()})
            return {
                name: tensor
                for shard in files
                for name, tensor in _read_weights(folder / shard).items()
            }
    raise CheckpointError(f"{folder}: there is no model.safetensors and no pytorch_model.bin")


def _read_weights(path: Path) -> State:
    return (
        read_safetensors(path)
        if path.suffix == ".safetensors"
        else flat_weights(read_file(path)[1])
    )


def save_hf_folder(clip: CLIP, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write a plain CLIP folder that `transformers` loads with equal outputs. It appears whole or
    not at all.

    Raises UsageError where the architecture does not allow it: a convolutional stem, a method's own
    weights.
    """
    config = clip.config
    if config.vision.stem:
        raise UsageError(
            "this model cannot be saved as a Hugging Face CLIP: its image tower has a convolutional"
            " stem"
        )
    weights = state_to_hf(clip.state_dict(), config)
    files: dict[str, Any] = {
        "config.json": config_to_hf(config),
        "preprocessor_config.json": to_hf(config.preprocessing, config.vision.image_size),
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": config.text.context,
            "bos_token": START,
            "eos_token": END,
            "unk_token": END,
            "pad_token": END,
        },
    }
    with atomic_folder(Path(folder)) as part:
        save_tensors(weights, part / "model.safetensors", {"format": "pt"})
        tokenizer.save(part / "tokenizer.json")
        for name, content in files.items():
            (part / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
