"""Image towers under timm's names, as open_clip stores them (`visual.trunk.*`), and under those of
EVA-CLIP's own files: the names become OpenAI's."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from froster.encoders.reading import State
from froster.errors import CheckpointError

_TRUNK = "visual.trunk."
# EVA-CLIP's own files (QuanSun/EVA-CLIP) -> timm's.
_EVA = (
    (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),
    (r"\.inner_attn_ln\.", ".norm."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.ffn_ln\.", ".mlp.norm."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
# timm's -> OpenAI's and ours.
_RULES = (
    (r"^blocks\.(\d+)\.norm([12])\.", r"transformer.resblocks.\1.ln_\2."),
    (r"^blocks\.(\d+)\.", r"transformer.resblocks.\1."),
    (r"\.attn\.qkv\.(weight|bias)$", r".attn.in_proj_\1"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.attn\.norm\.", ".attn.ln."),
    (r"^attn_pool\.proj\.", "attn_pool.attn.out_proj."),
    (r"^attn_pool\.norm\.", "attn_pool.layernorm."),
    (r"^attn_pool\.latent$", "attn_pool.probe"),
    (r"\.mlp\.fc1_g\.", ".mlp.c_gate."),
    (r"\.mlp\.fc1(_x)?\.", ".mlp.c_fc."),
    (r"\.mlp\.norm\.", ".mlp.ln."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^norm_pre\.", "ln_pre."),
    (r"^norm\.", "ln_post."),
    (r"^patch_embed\.proj\.", "conv1."),
    (r"^cls_token$", "class_embedding"),
    (r"^pos_embed$", "positional_embedding"),
    (r"^head\.weight$", "proj"),
    (r"^head\.bias$", "proj_bias"),
)
# Tables that are made anew.
_ROTARY = re.compile(r"(.*\.)?rope\.freqs_\w+")
_BATCH_NORM_EPS = 1e-5


def is_timm(state: State) -> bool:
    return any(name.startswith(_TRUNK) for name in state)


def is_eva(state: State) -> bool:
    """EVA-CLIP's own names."""
    return any(name.startswith("visual.blocks.") for name in state)


def from_eva(state: State) -> State:
    """EVA-CLIP's own names -> those of open_clip with a timm tower."""
    renamed: State = {}
    for name, tensor in state.items():
        if name.startswith("visual."):
            name = _TRUNK + name.removeprefix("visual.")
            for pattern, replacement in _EVA:
                name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def from_timm(state: State) -> tuple[State, list[str]]:
    """The weights of an open_clip file with the image tower's under OpenAI's names, and the names
    that hold no weights.

    An unknown name stays as it is, so that `strict_load` names it. Raises CheckpointError on
    shapes that do not go together.
    """
    rest = {name: t for name, t in state.items() if not name.startswith(_TRUNK)}
    tower = {name.removeprefix(_TRUNK): t for name, t in state.items() if name.startswith(_TRUNK)}
    ignored = [_TRUNK + name for name in tower if _ROTARY.fullmatch(name)]
    for name in ignored:
        del tower[name.removeprefix(_TRUNK)]
    if "patch_embed.backbone.0.conv.weight" in tower:
        tower, counters = _folded_stem(tower)
        ignored += [_TRUNK + name for name in counters]
    ours: State = {}
    for name, tensor in _fused(tower).items():
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        ours[f"visual.{name}"] = tensor
    _reshape(ours)
    # The projection of open_clip's own, behind a tower that has none (timm_proj "linear").
    for theirs, name in (
        ("visual.head.proj.weight", "proj"),
        ("visual.head.proj.bias", "proj_bias"),
    ):
        if theirs in rest:
            tensor = rest.pop(theirs)
            ours[f"visual.{name}"] = tensor.T.contiguous() if name == "proj" else tensor
    return rest | ours, ignored


def _fused(tower: State) -> State:
    """q, k and v that are stored apart -> one matrix and one bias; a key without a bias gets
    zeros."""
    fused = dict(tower)
    for name in tower:
        if name.endswith(".attn.q_proj.weight"):
            start = name.removesuffix("q_proj.weight")
            parts = [fused.pop(f"{start}{x}_proj.weight", None) for x in "qkv"]
            biases = [fused.pop(f"{start}{x}_proj.bias", None) for x in "qkv"]
            if any(part is None for part in parts) or biases[0] is None or biases[2] is None:
                raise CheckpointError(f"{_TRUNK}{start} lacks one of its projections")
            biases[1] = torch.zeros_like(biases[0]) if biases[1] is None else biases[1]
            fused[f"{start}in_proj_weight"] = torch.cat(parts)  # type: ignore[arg-type]
            fused[f"{start}in_proj_bias"] = torch.cat(biases)  # type: ignore[arg-type]
    for kind in ("weight", "bias"):
        q, kv = (fused.get(f"attn_pool.{x}.{kind}") for x in ("q", "kv"))
        if q is not None and kv is not None:
            del fused[f"attn_pool.q.{kind}"], fused[f"attn_pool.kv.{kind}"]
            fused[f"attn_pool.attn.in_proj_{kind}"] = torch.cat([q, kv])
    return fused


def _reshape(ours: State) -> None:
    """timm keeps a dimension for the batch, and its head is a linear layer."""
    if "visual.class_embedding" in ours:
        ours["visual.class_embedding"] = ours["visual.class_embedding"].flatten()
    if "visual.positional_embedding" in ours:
        positions = ours["visual.positional_embedding"].flatten(0, -2)
        if "visual.class_embedding" in ours and math.isqrt(len(positions)) ** 2 == len(positions):
            # Of the patches alone: the class token's is zero.
            positions = torch.cat([torch.zeros_like(positions[:1]), positions])
        ours["visual.positional_embedding"] = positions
    if "visual.proj" in ours:
        ours["visual.proj"] = ours["visual.proj"].T.contiguous()


def _folded_stem(tower: State) -> tuple[State, list[str]]:
    """MobileCLIP-B's convolutions with their batch norms, which are constants in use, folded into
    them; and the counters of the batch norms."""
    rest, stem, counters = {}, {}, []
    for name, tensor in tower.items():
        match = re.fullmatch(r"patch_embed\.backbone\.(\d)\.(.*)", name)
        if not match:
            rest[name] = tensor
        elif match[2] == "bn.num_batches_tracked":
            counters.append(name)
        else:
            stem[int(match[1]), match[2]] = tensor.float()
    for stage in range(3):
        weight, bias = stem.pop((stage, "conv.weight"), None), stem.pop((stage, "conv.bias"), None)
        norm = [
            stem.pop((stage, f"bn.{x}"), None)
            for x in ("weight", "bias", "running_mean", "running_var")
        ]
        if weight is None or any((x is None) != (norm[0] is None) for x in norm):
            raise CheckpointError(f"{_TRUNK}patch_embed.backbone.{stage} is not whole")
        if norm[0] is not None:
            weight, bias = _folded(weight, bias, *norm)  # type: ignore[arg-type]
        rest[f"conv1.{2 * stage}.weight"] = weight
        if bias is not None:
            rest[f"conv1.{2 * stage}.bias"] = bias
    for (stage, name), tensor in stem.items():
        rest[f"patch_embed.backbone.{stage}.{name}"] = tensor
    return rest, counters


def _folded(
    weight: Tensor, bias: Tensor | None, gain: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    scale = gain.double() / (variance.double() + _BATCH_NORM_EPS).sqrt()
    start = torch.zeros_like(mean) if bias is None else bias
    folded = weight.double() * scale.view(-1, 1, 1, 1)
    return folded.float(), (shift.double() + (start.double() - mean.double()) * scale).float()
