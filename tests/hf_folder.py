"""Folders as `transformers` writes them, of our own networks: what is read is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.families import SIGLIP_TOWER
from froster.encoders.hf_config import _ACTIVATIONS, _FAMILIES
from froster.encoders.hf_names import _SCALARS, _TRANSPOSED, hf_names
from froster.encoders.model import CLIP
from froster.encoders.preprocessing import _RESAMPLE, Preprocessing
from froster.encoders.reading import State
from froster.encoders.tokenizer import END, START, Tokenizer
from froster.errors import UsageError
from froster.utils.files import atomic_folder
from froster.utils.tensors import save_tensors


def save_hf_folder(clip: CLIP, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write a plain folder of the encoder's own family that `transformers` loads with equal
    outputs. It appears whole or not at all.

    Raises UsageError where there is none: a convolutional stem, rotary positions, a method's own
    weights.
    """
    config = clip.config
    stated = config_to_hf(config)
    weights = state_to_hf(clip.state_dict(), config)
    files: dict[str, Any] = {
        "config.json": stated,
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
    if stated["model_type"] != "clip":  # whose tokenizers are what tokenizer.json says
        files["tokenizer_config.json"] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.text.context,
        }
    with atomic_folder(Path(folder)) as part:
        save_tensors(weights, part / "model.safetensors", {"format": "pt"})
        tokenizer.save(part / "tokenizer.json")
        for name, content in files.items():
            (part / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def hf_family(config: CLIPConfig) -> str:
    """The `model_type` of a network. Raises UsageError where Hugging Face has no class for it."""
    vision, text = config.vision, config.text
    options = {name: getattr(vision, name) for name in SIGLIP_TOWER}
    plain = VisionConfig()
    if vision.stem:
        reason = "its image tower has a convolutional stem"
    elif vision.rope or vision.gated:
        reason = "its image tower has rotary positions"
    elif options == SIGLIP_TOWER and vision.pool_heads in (0, vision.heads):
        if (text.causal, text.pool, text.projection_bias) == (False, "last", True):
            return "siglip"
        reason = "its text tower is none of SigLIP's"
    elif any(value != getattr(plain, name) for name, value in options.items()):
        reason = "its image tower is neither CLIP's nor SigLIP's"
    elif not text.causal or text.pool != "end" or text.projection_bias:
        reason = "its text tower is none of CLIP's"
    elif config.logit_bias:
        reason = "it has a bias on its logits"
    else:
        return "clip" if text.end < 0 else "metaclip_2"
    raise UsageError(f"this model cannot be saved as a Hugging Face model: {reason}")


def config_to_hf(config: CLIPConfig) -> dict[str, Any]:
    """The `config.json` of a Hugging Face model of these sizes. Raises UsageError where there is no
    class for it."""
    kind = hf_family(config)
    vision, text = config.vision, config.text
    words = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}

    def block(tower: VisionConfig | TextConfig) -> dict[str, Any]:
        return {
            "hidden_act": words[tower.activation or config.activation],
            "layer_norm_eps": tower.eps,
            "hidden_size": tower.width,
            "intermediate_size": tower.mlp_width or 4 * tower.width,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
        }

    if kind == "siglip":
        joint, ids = {}, {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": text.pad}
        ids["projection_size"] = config.embed_dim
    else:
        end = text.vocab - 1 if text.end < 0 else text.end
        joint = {"projection_dim": config.embed_dim}
        ids = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end, **joint}
        if kind == "metaclip_2":
            ids |= {"bos_token_id": 0, "pad_token_id": text.pad}
    return {
        "architectures": [_FAMILIES[kind][2]],
        "model_type": kind,
        "torch_dtype": "float32",
        **joint,
        "vision_config": {
            **block(vision),
            **joint,
            "model_type": f"{kind}_vision_model",
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
        },
        "text_config": {
            **block(text),
            **ids,
            "model_type": f"{kind}_text_model",
            "vocab_size": text.vocab,
            "max_position_embeddings": text.context,
        },
    }


def state_to_hf(state: State, config: CLIPConfig) -> State:
    """The inverse of `state_from_hf`. Raises UsageError on weights that a Hugging Face CLIP has no place for."""
    rest = {name: tensor.detach().float().cpu() for name, tensor in state.items()}
    theirs: dict[str, Tensor] = {}
    for name, parts in hf_names(config):
        tensor = rest.pop(name)
        if config.logit_bias and name in _SCALARS:
            tensor = tensor.reshape(1)
        tensor = tensor.T if name in _TRANSPOSED else tensor
        pieces = tensor.chunk(len(parts)) if len(parts) > 1 else (tensor,)  # a scalar has no chunks
        theirs |= {part: piece.contiguous() for part, piece in zip(parts, pieces, strict=True)}
    if rest:
        raise UsageError(
            f"a Hugging Face CLIP has no place for {len(rest)} weights of this model, such as"
            f" {min(rest)}"
        )
    return theirs


def to_hf(how: Preprocessing, size: int) -> dict[str, Any]:
    """The inverse of `from_hf`, for Hugging Face's CLIPImageProcessor. Raises UsageError where it cannot do
    that."""
    if how.resize == "longest":
        raise UsageError(
            "Hugging Face's CLIPImageProcessor cannot fill pictures up: this model cannot be saved"
            " for it"
        )
    side = round(size * how.scale)
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": (
            {"shortest_edge": side} if how.resize == "shortest" else {"height": side, "width": side}
        ),
        "resample": next(number for number, name in _RESAMPLE.items() if name == how.interpolation),
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(how.mean),
        "image_std": list(how.std),
    }
