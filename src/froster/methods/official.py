"""Names of released checkpoints, turned into ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from froster.encoders.preprocessing import CLIP_PREPROCESSING, Preprocessing

if TYPE_CHECKING:
    from froster.methods.method import Method

State = dict[str, Tensor]

_FUSED = re.compile(r"(.+\.)(q|k|v)_proj\.(weight|bias)")

TEXT_KEYS = (
    "positional_embedding",
    "text_projection",
    "token_embedding.",
    "transformer.",
    "ln_final.",
)


@dataclass
class Official:
    """What a released file was taken for."""

    format: str
    method: Method
    state: State
    """Under the names of our saved models. A part that the release does not hold (text tower,
    projection) is absent."""
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    preprocessing: Preprocessing = CLIP_PREPROCESSING
    """What its authors' code does, where they trained the image tower."""


def rename(state: State, rules: Sequence[tuple[str, str]]) -> State:
    """Every rule (pattern, replacement) in order, on every name."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def fuse_attention(state: State) -> State:
    """Separate `q_proj`, `k_proj`, `v_proj` of an attention -> its one `in_proj_weight`,
    `in_proj_bias`."""
    fused: State = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if match := _FUSED.fullmatch(name):
            parts.setdefault((match[1], match[3]), {})[match[2]] = tensor
        else:
            fused[name] = tensor
    for (prefix, kind), found in parts.items():
        if found.keys() == {"q", "k", "v"}:
            fused[f"{prefix}in_proj_{kind}"] = torch.cat([found[part] for part in "qkv"])
        else:
            fused |= {f"{prefix}{part}_proj.{kind}": tensor for part, tensor in found.items()}
    return fused


def has(state: State, pattern: str) -> bool:
    return any(re.search(pattern, name) for name in state)


def of_text_tower(name: str) -> bool:
    """Is this OpenAI's name of a weight of the text tower?"""
    return name.startswith(TEXT_KEYS)


def ours(state: State) -> State:
    """OpenAI's names -> ours: the text tower's get their prefix."""
    return {
        f"text.{name}" if of_text_tower(name) else name: tensor for name, tensor in state.items()
    }


def hf_blocks(prefix: str, ours: str) -> list[tuple[str, str]]:
    """Rules for Hugging Face's names of a stack of blocks (`prefix`N.) -> ours (`ours`N.)."""
    return [
        (rf"^{prefix}(\d+)\.(self_attn|layer_norm1|layer_norm2|mlp)\.", rf"{ours}\1.\2."),
        *(
            (rf"^({re.escape(ours)}\d+)\.{theirs}\.", rf"\1.{own}.")
            for theirs, own in (
                ("self_attn", "attn"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                (r"mlp\.fc1", "mlp.c_fc"),
                (r"mlp\.fc2", "mlp.c_proj"),
            )
        ),
    ]


def text_of_huggingface(state: State) -> State:
    """Hugging Face's text tower, under whatever prefix -> ours."""
    rules = [
        (r"^.*?(?=text_model\.|text_projection)", ""),
        (r"^text_projection\.weight$", "text.text_projection"),
        (r"^text_model\.embeddings\.position_embedding\.weight$", "text.positional_embedding"),
        (r"^text_model\.embeddings\.token_embedding\.", "text.token_embedding."),
        (r"^text_model\.final_layer_norm\.", "text.ln_final."),
        *hf_blocks(r"text_model\.encoder\.layers\.", "text.transformer.resblocks."),
    ]
    found = rename(
        fuse_attention({n: t for n, t in state.items() if not n.endswith("position_ids")}), rules
    )
    if "text.text_projection" in found:
        found["text.text_projection"] = found["text.text_projection"].T.contiguous()
    return found
