"""What Hugging Face calls the weights of each family: CLIP, MetaCLIP 2, SigLIP and SigLIP 2."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from froster.encoders.config import CLIPConfig
from froster.encoders.reading import State

# Buffers of older versions: they hold 0, 1, 2, …
_BUFFERS = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")
_TRANSPOSED = ("visual.proj", "text.text_projection")
_SCALARS = ("logit_scale", "logit_bias")
_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_POOL = {
    "attn.out_proj": "attention.out_proj",
    "layernorm": "layernorm",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def hf_names(config: CLIPConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every parameter of our CLIP with its Hugging Face name; the fused q/k/v has three."""
    vision, text = config.vision, config.text
    yield "logit_scale", ("logit_scale",)
    if config.logit_bias:
        yield "logit_bias", ("logit_bias",)
    if vision.projection != "none":
        yield "visual.proj", ("visual_projection.weight",)
    embeddings = "vision_model.embeddings"
    if vision.class_token:
        yield "visual.class_embedding", (f"{embeddings}.class_embedding",)
    yield "visual.conv1.weight", (f"{embeddings}.patch_embedding.weight",)
    if vision.patch_bias:
        yield "visual.conv1.bias", (f"{embeddings}.patch_embedding.bias",)
    yield "visual.positional_embedding", (f"{embeddings}.position_embedding.weight",)
    if text.projection_bias:
        yield "text.text_projection", ("text_model.head.weight",)
        yield "text.projection_bias", ("text_model.head.bias",)
    else:
        yield "text.text_projection", ("text_projection.weight",)
    embeddings = "text_model.embeddings"
    yield "text.token_embedding.weight", (f"{embeddings}.token_embedding.weight",)
    yield "text.positional_embedding", (f"{embeddings}.position_embedding.weight",)
    if vision.pool == "map":
        yield "visual.attn_pool.probe", ("vision_model.head.probe",)
    for kind in ("weight", "bias"):
        if vision.pre_norm:
            yield f"visual.ln_pre.{kind}", (f"vision_model.pre_layrnorm.{kind}",)  # their spelling
        yield f"visual.ln_post.{kind}", (f"vision_model.post_layernorm.{kind}",)
        yield f"text.ln_final.{kind}", (f"text_model.final_layer_norm.{kind}",)
        if vision.pool == "map":
            name = f"attn.in_proj_{kind}"
            yield f"visual.attn_pool.{name}", (f"vision_model.head.attention.in_proj_{kind}",)
            for ours, theirs in _POOL.items():
                yield f"visual.attn_pool.{ours}.{kind}", (f"vision_model.head.{theirs}.{kind}",)
        for tower, theirs, layers in (
            ("visual", "vision_model", vision.layers),
            ("text", "text_model", text.layers),
        ):
            for layer in range(layers):
                block = f"{tower}.transformer.resblocks.{layer}"
                encoder = f"{theirs}.encoder.layers.{layer}"
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
            tensor = scalar(tensor) if name in _SCALARS else tensor
            ours[name] = tensor.T.contiguous() if name in _TRANSPOSED else tensor
    return ours | rest, ignored


def scalar(tensor: Tensor) -> Tensor:
    """SigLIP's scale and bias of the logits are vectors of one number at Hugging Face."""
    return tensor.reshape(()) if tensor.shape == (1,) else tensor
