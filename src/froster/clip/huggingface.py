"""CLIP as Hugging Face stores it: names, sizes, folders, and the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import froster.strict_json as json
from froster.clip.model import CLIP, MEAN, STD, CLIPConfig, TextConfig, VisionConfig
from froster.clip.reading import State, flat_weights, read_file, read_safetensors
from froster.clip.tokenizer import END, START, Tokenizer
from froster.errors import CheckpointError, FrosterError, UsageError
from froster.files import atomic_folder

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
    """The sizes in a Hugging Face `config.json`. Raises CheckpointError on an architecture that `CLIP` cannot be."""
    if values.get("format") == "froster":
        raise CheckpointError("this is a froster model, not a plain CLIP")
    if values.get("model_type") != "clip":
        raise CheckpointError(f"its config is of type {values.get('model_type')!r}, not of a CLIP")
    # Configs written before 2023 may carry a second dict, which wins.
    vision = {**_VISION, **(values.get("vision_config") or {}), **(values.get("vision_config_dict") or {})}
    text = {**_TEXT, **(values.get("text_config") or {}), **(values.get("text_config_dict") or {})}
    activation = vision["hidden_act"]
    if activation != text["hidden_act"] or activation not in ("quick_gelu", "gelu"):
        raise CheckpointError(f"activations {activation!r} and {text['hidden_act']!r}: need quick_gelu or gelu in both")
    for tower in (vision, text):
        if tower["intermediate_size"] != 4 * tower["hidden_size"]:
            raise CheckpointError(f"intermediate_size {tower['intermediate_size']} is not 4 x {tower['hidden_size']}")
        if tower["layer_norm_eps"] != 1e-5:
            raise CheckpointError(f"layer_norm_eps is {tower['layer_norm_eps']}, a CLIP has 1e-5")
    if vision["num_channels"] != 3:
        raise CheckpointError(f"num_channels is {vision['num_channels']}, a CLIP reads 3")
    # 2 stands for "the largest id" in configs of before the field had a meaning.
    if text["eos_token_id"] != 2 and text["eos_token_id"] < text["vocab_size"] - 1:
        raise CheckpointError(f"eos_token_id is {text['eos_token_id']}, CLIP's end token has the largest id")
    return CLIPConfig(
        VisionConfig(
            vision["image_size"],
            vision["patch_size"],
            vision["hidden_size"],
            vision["num_hidden_layers"],
            vision["num_attention_heads"],
        ),
        TextConfig(
            text["max_position_embeddings"],
            text["vocab_size"],
            text["hidden_size"],
            text["num_hidden_layers"],
            text["num_attention_heads"],
        ),
        values.get("projection_dim", 512),
        activation,
    )


def config_to_hf(config: CLIPConfig) -> dict[str, Any]:
    """The `config.json` of a Hugging Face CLIP of these sizes."""
    vision, text, end = config.vision, config.text, config.text.vocab - 1
    shared = {"hidden_act": config.activation, "projection_dim": config.embed_dim, "layer_norm_eps": 1e-5}
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
                block, encoder = f"{tower}.transformer.resblocks.{layer}", f"{theirs}.encoder.layers.{layer}"
                yield f"{block}.attn.in_proj_{kind}", tuple(f"{encoder}.self_attn.{x}_proj.{kind}" for x in "qkv")
                for ours, name in _BLOCK.items():
                    yield f"{block}.{ours}.{kind}", (f"{encoder}.{name}.{kind}",)


def state_from_hf(state: State, config: CLIPConfig) -> tuple[State, list[str]]:
    """Weights under Hugging Face's names -> under ours, and the names that hold no weights.

    What is missing stays missing and what is unknown keeps its name, so that `strict_load` names both.
    """
    rest = dict(state)
    ignored = [name for name in _BUFFERS if rest.pop(name, None) is not None]
    ours: State = {}
    for name, theirs in hf_names(config):
        if all(part in rest for part in theirs):
            tensor = torch.cat([rest.pop(part) for part in theirs]) if len(theirs) > 1 else rest.pop(theirs[0])
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
        raise UsageError(f"a Hugging Face CLIP has no place for {len(rest)} weights of this model, such as {min(rest)}")
    return theirs


def read_hf_config(folder: Path) -> CLIPConfig:
    """The sizes in a folder's `config.json`. Raises CheckpointError naming the file."""
    path = folder / "config.json"
    try:
        return config_from_hf(json.loads(path.read_text(encoding="utf-8")))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable CLIP config ({error!r})") from None


def read_hf_weights(folder: Path) -> State:
    """A folder's weights, under Hugging Face's names. Raises CheckpointError naming the file."""
    if (folder / "model.safetensors").is_file():
        return read_safetensors(folder / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            # Only the last part of a shard's name: an index must not lead out of its folder.
            shards = sorted({Path(name).name for name in names})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index}: not a readable index ({error!r})") from None
        return {name: tensor for shard in shards for name, tensor in read_safetensors(folder / shard).items()}
    if (folder / "pytorch_model.bin").is_file():
        return flat_weights(read_file(folder / "pytorch_model.bin")[1])
    raise CheckpointError(f"{folder}: there is no model.safetensors and no pytorch_model.bin")


def download(repo: str) -> Path:
    """A folder with the config and the weights of a hub repository; what is cached needs no network.

    Raises FrosterError in one sentence that says how else to get the model.
    """
    import huggingface_hub  # slow to import, and only needed here

    def fetch(*patterns: str) -> Path:
        return Path(huggingface_hub.snapshot_download(repo, allow_patterns=list(patterns)))

    try:
        folder = fetch("*.json", "merges.txt")
        if not (folder / "config.json").is_file():
            return fetch("open_clip_model.safetensors")
        folder = fetch("model*.safetensors")
        return folder if any(folder.glob("model*.safetensors")) else fetch("pytorch_model.bin")
    except Exception as error:  # every transport has its own family of errors
        raise FrosterError(
            f"{repo} is no file or folder here and could not be had from the Hugging Face hub "
            f"({type(error).__name__}): download it on a machine with internet and pass the folder, or use --model nano"
        ) from None


def save_hf_folder(clip: CLIP, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write a plain CLIP folder that `transformers` loads with equal outputs. It appears whole or not at all.

    Raises UsageError where the architecture does not allow it: a convolutional stem, a method's own weights.
    """
    config = clip.config
    if config.vision.stem:
        raise UsageError("this model cannot be saved as a Hugging Face CLIP: its image tower has a convolutional stem")
    weights = state_to_hf(clip.state_dict(), config)
    size = config.vision.image_size
    files: dict[str, Any] = {
        "config.json": config_to_hf(config),
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": size},
            "resample": 3,  # bicubic
            "do_center_crop": True,
            "crop_size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(MEAN),
            "image_std": list(STD),
        },
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
        save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(part / "tokenizer.json")
        for name, content in files.items():
            (part / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
